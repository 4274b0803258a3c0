// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Money} from "../../../devnet/Money.sol";
import {IAudit} from "../../../interfaces/IAudit.sol";
import {IDispute} from "../../../interfaces/IDispute.sol";
import {IEmission} from "../../../interfaces/IEmission.sol";
import {IMarket} from "../../../interfaces/IMarket.sol";
import {IReferee} from "../../../interfaces/IReferee.sol";
import {IStake} from "../../../interfaces/IStake.sol";
import {IToken} from "../../../interfaces/IToken.sol";
import {Test, Vm} from "../../Test.sol";

/// Cheat codes for deploying what Forge compiled, without importing it.
interface Artifacts {
    function computeCreateAddress(address deployer, uint256 nonce) external pure returns (address);
    function getCode(string calldata artifact) external view returns (bytes memory);
    function getNonce(address account) external view returns (uint64);
}

/// All contracts, deployed as on a real chain: each knows the others from its constructor. Tests import interfaces only,
/// so that they compile in seconds, without the optimizer that the contracts themselves need.
abstract contract Deployment is Test {
    address internal constant BURNED = 0x000000000000000000000000000000000000dEaD;
    uint32 internal constant FEE_RATE = 200;
    uint64 internal constant UNBONDING = 14 days;
    uint64 internal constant EPOCH = 30 days;
    uint128 internal constant FIRST_BUDGET = 1e24;
    /// A token for each fee unit.
    uint128 internal constant RATIO = 1e18;
    Artifacts private constant ARTIFACTS = Artifacts(address(uint160(uint256(keccak256("hevm cheat code")))));

    Money internal money;
    IStake internal stake;
    IMarket internal market;
    IDispute internal dispute;
    IAudit internal audit;
    IToken internal rewards;
    IEmission internal emission;

    /// Deploys everything for `money_`; `referee_` may be an address without code where no dispute is played.
    function deploy(Money money_, IReferee referee_) internal {
        money = money_;
        uint256 nonce = ARTIFACTS.getNonce(address(this));
        address futureMarket = ARTIFACTS.computeCreateAddress(address(this), nonce + 1);
        address futureDispute = ARTIFACTS.computeCreateAddress(address(this), nonce + 2);
        address futureAudit = ARTIFACTS.computeCreateAddress(address(this), nonce + 3);
        address futureEmission = ARTIFACTS.computeCreateAddress(address(this), nonce + 5);
        stake = IStake(create("Stake.sol", abi.encode(money_, futureMarket, futureDispute, futureAudit)));
        bytes memory arguments = abi.encode(money_, stake, futureDispute, futureAudit, futureEmission, FEE_RATE);
        market = IMarket(create("Market.sol", arguments));
        dispute = IDispute(create("Dispute.sol", abi.encode(market, stake, referee_)));
        audit = IAudit(create("Audit.sol", abi.encode(stake, market, unbonding())));
        rewards = IToken(create("Token.sol", abi.encode(futureEmission, 2 * FIRST_BUDGET)));
        emission = IEmission(create("Emission.sol", abi.encode(rewards, market, EPOCH, FIRST_BUDGET, RATIO)));
        assertEq(address(market), futureMarket, "predicted address of the Market");
        assertEq(address(dispute), futureDispute, "predicted address of the Dispute");
        assertEq(address(audit), futureAudit, "predicted address of the Audit");
        assertEq(address(emission), futureEmission, "predicted address of the Emission");
        vm.label(address(audit), "Audit");
        vm.label(address(emission), "Emission");
        vm.label(address(stake), "Stake");
        vm.label(address(market), "Market");
        vm.label(address(dispute), "Dispute");
    }

    function unbonding() internal pure virtual returns (uint64) {
        return UNBONDING;
    }

    /// Deploys an artifact; a revert of its constructor is handed on.
    function create(string memory artifact, bytes memory arguments) internal returns (address created) {
        bytes memory code = bytes.concat(ARTIFACTS.getCode(artifact), arguments);
        assembly ("memory-safe") {
            created := create(0, add(code, 32), mload(code))
            if iszero(created) {
                returndatacopy(0, 0, returndatasize())
                revert(0, returndatasize())
            }
        }
    }

    /// Gives `account` tokens and has it approve both contracts that take them.
    function fund(address account, uint256 amount) internal {
        money.mint(account, amount);
        approve(account, address(stake));
        approve(account, address(market));
    }

    /// Called like this since not every token's `approve` returns something.
    function approve(address account, address spender) internal {
        vm.prank(account);
        (bool ok,) = address(money).call(abi.encodeCall(money.approve, (spender, type(uint256).max)));
        assertTrue(ok, "approve");
    }

    function deposit(address account, uint256 amount) internal {
        vm.prank(account);
        stake.deposit(amount);
    }

    function free(address account) internal view returns (uint256 amount) {
        (amount,) = stake.balances(account);
    }

    function locked(address account) internal view returns (uint256 amount) {
        (, amount) = stake.balances(account);
    }
}
