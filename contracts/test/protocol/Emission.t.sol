// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IEmission} from "../../interfaces/IEmission.sol";
import {IToken} from "../../interfaces/IToken.sol";
import {Artifacts, Deployment} from "./support/Deployment.sol";

contract EmissionTest is Deployment {
    uint64 private constant LENGTH = 1000;
    uint128 private constant FIRST = 1_000_000;
    /// Three tokens for each fee unit.
    uint128 private constant THREE = 3e18;

    address private market_ = makeAddr("market");
    address private solver = makeAddr("solver");
    address private buyer = makeAddr("buyer");
    address[] private auditors;
    address[] private nobody;
    uint256 private start;
    IToken private token;

    function setUp() external {
        vm.warp(5000);
        start = 5000;
        for (uint256 i = 0; i < 3; ++i) {
            auditors.push(vm.addr(100 + i));
        }
        address future = Artifacts(address(vm)).computeCreateAddress(address(this), vm_nonce() + 1);
        token = IToken(create("Token.sol", abi.encode(future, 2 * FIRST)));
        emission = IEmission(create("Emission.sol", abi.encode(token, market_, LENGTH, FIRST, THREE)));
        assertEq(address(emission), future, "predicted address");
    }

    // ---------------------------------------------------------------- points

    function test_points_are_split_by_fixed_parts() external {
        accrue(1001, auditors);
        assertEq(emission.fees(0), 1001, "fees");
        assertEq(emission.points(0, solver), 600, "solver");
        assertEq(emission.points(0, buyer), 150, "buyer");
        for (uint256 i = 0; i < 3; ++i) {
            assertEq(emission.points(0, auditors[i]), 83, "auditor");
        }
    }

    function test_the_auditors_points_are_nobodys_if_there_are_none() external {
        accrue(1000, nobody);
        assertEq(emission.points(0, solver) + emission.points(0, buyer), 750, "points");
        assertEq(emission.fees(0), 1000, "fees");
    }

    function test_only_the_market_accrues(address caller) external {
        vm.assume(caller != market_);
        vm.prank(caller);
        vm.expectRevert(abi.encodeWithSelector(IEmission.NotMarket.selector, caller));
        emission.accrue(1000, solver, buyer, nobody);
    }

    function test_one_account_may_have_every_role() external {
        address[] memory one = new address[](1);
        one[0] = solver;
        vm.prank(market_);
        emission.accrue(1000, solver, solver, one);
        assertEq(emission.points(0, solver), 1000, "points");
    }

    // ---------------------------------------------------------------- claims

    function test_below_the_budget_a_point_is_worth_the_ratio() external {
        accrue(1000, nobody);
        vm.warp(start + LENGTH);
        assertEq(emission.claim(0, solver), 1800, "amount");
        assertEq(token.balanceOf(solver), 1800, "balance");
    }

    function test_above_the_budget_it_is_shared() external {
        accrue(10 * uint256(FIRST), auditors);
        vm.warp(start + LENGTH);
        assertEq(emission.claim(0, solver), FIRST * 6 / 10, "solver");
        assertEq(emission.claim(0, buyer), FIRST * 15 / 100, "buyer");
    }

    function test_nothing_is_claimed_twice() external {
        accrue(1000, nobody);
        vm.warp(start + LENGTH);
        emission.claim(0, solver);
        vm.expectRevert(abi.encodeWithSelector(IEmission.NothingToClaim.selector, 0, solver));
        emission.claim(0, solver);
    }

    /// What is claimed early, others could not share in.
    function test_nothing_is_claimed_before_the_end_of_the_epoch() external {
        accrue(1000, nobody);
        vm.warp(start + LENGTH - 1);
        assertEq(emission.claimable(0, solver), 1800, "so far");
        vm.expectRevert(abi.encodeWithSelector(IEmission.EpochRunning.selector, 0, start + LENGTH));
        emission.claim(0, solver);
    }

    function test_a_claim_goes_to_whom_it_belongs_whoever_calls() external {
        accrue(1000, nobody);
        vm.warp(start + LENGTH);
        vm.prank(makeAddr("stranger"));
        emission.claim(0, buyer);
        assertEq(token.balanceOf(buyer), 450, "balance");
    }

    function test_the_budget_halves() external view {
        assertEq(emission.budget(0), FIRST, "first");
        assertEq(emission.budget(1), FIRST / 2, "second");
        assertEq(emission.budget(20), 0, "twentieth");
        assertEq(emission.budget(type(uint64).max), 0, "last");
    }

    function test_epochs_are_apart() external {
        accrue(1000, nobody);
        vm.warp(start + LENGTH);
        assertEq(emission.epochAt(uint64(vm.getBlockTimestamp())), 1, "epoch");
        accrue(500, nobody);
        assertEq(emission.points(0, solver), 600, "first");
        assertEq(emission.points(1, solver), 300, "second");
    }

    /// Whatever is settled: minted are at most the budget and at most the ratio of the fees.
    function test_minted_is_bounded(uint256[6] calldata fees, uint8[6] calldata counts) external {
        uint256 paid = 0;
        for (uint256 i = 0; i < fees.length; ++i) {
            address[] memory some = new address[](counts[i] % 4);
            for (uint256 k = 0; k < some.length; ++k) {
                some[k] = auditors[k];
            }
            uint256 fee = fees[i] % (i % 2 == 0 ? 2 * FIRST : 1000);
            accrue(fee, some);
            paid += fee;
        }
        vm.warp(start + LENGTH);
        claimAll(0);
        assertLe(token.totalSupply(), FIRST, "budget");
        assertLe(token.totalSupply(), paid * THREE / 1e18, "ratio");
    }

    /// All epochs that there will ever be, each used up.
    function test_the_cap_is_never_met() external {
        for (uint64 epoch = 0; epoch < 25; ++epoch) {
            accrue(2 * uint256(FIRST), auditors);
            vm.warp(start + (epoch + 1) * LENGTH);
            claimAll(epoch);
        }
        assertLe(token.totalSupply(), 2 * FIRST, "cap");
        assertLe(FIRST * 19 / 10, token.totalSupply(), "most of it");
    }

    /// No fee that a price can have overflows.
    function test_the_greatest_fees() external {
        for (uint256 i = 0; i < 3; ++i) {
            accrue(type(uint128).max, auditors);
        }
        vm.warp(start + LENGTH);
        claimAll(0);
        assertLe(token.totalSupply(), FIRST, "budget");
    }

    function test_gas_at_most_auditors() external {
        address[] memory most = new address[](16);
        for (uint256 i = 0; i < 16; ++i) {
            most[i] = vm.addr(1000 + i);
        }
        accrue(1000, most);
        (, uint256 total,,,) = vm.lastCallGas();
        log("accrue with 16 auditors", total);
        assertLe(total, 600_000, "gas");
    }

    function test_a_schedule_is_needed() external {
        vm.expectRevert(abi.encodeWithSignature("InvalidSchedule(string)", "epochLength"));
        this.deployEmission(address(token), market_, 0);
        vm.expectRevert(bytes4(keccak256("ZeroAddress()")));
        this.deployEmission(address(0), market_, LENGTH);
        vm.expectRevert(bytes4(keccak256("ZeroAddress()")));
        this.deployEmission(address(token), address(0), LENGTH);
    }

    function deployEmission(address token_, address by, uint64 length) external {
        create("Emission.sol", abi.encode(token_, by, length, FIRST, THREE));
    }

    // ---------------------------------------------------------------- helpers

    function accrue(uint256 fee, address[] memory by) private {
        vm.prank(market_);
        emission.accrue(fee, solver, buyer, by);
    }

    function claimAll(uint64 epoch) private {
        address[5] memory accounts = [solver, buyer, auditors[0], auditors[1], auditors[2]];
        for (uint256 i = 0; i < accounts.length; ++i) {
            if (emission.claimable(epoch, accounts[i]) > 0) emission.claim(epoch, accounts[i]);
        }
    }

    function vm_nonce() private view returns (uint64) {
        return Artifacts(address(vm)).getNonce(address(this));
    }
}
