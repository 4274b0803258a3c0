// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStake} from "./interfaces/IStake.sol";
import {Burner} from "./libraries/Burner.sol";
import {Funds} from "./libraries/Funds.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

contract Stake is IStake, Burner {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;

    struct Balance {
        uint128 free;
        uint128 locked;
    }

    address public immutable market;
    address public immutable dispute;
    address public immutable audit;

    mapping(address account => Balance) private _balances;

    modifier onlyProtocol() {
        if (msg.sender != market && msg.sender != dispute && msg.sender != audit) revert NotAuthorised(msg.sender);
        _;
    }

    constructor(IERC20 token_, address market_, address dispute_, address audit_) Burner(token_) {
        if (market_ == address(0) || dispute_ == address(0) || audit_ == address(0)) revert ZeroAddress();
        (market, dispute, audit) = (market_, dispute_, audit_);
    }

    /// @inheritdoc IStake
    function deposit(uint256 amount) external {
        _balances[msg.sender].free += amount.toUint128();
        emit Deposited(msg.sender, amount);
        Funds.pull(token, msg.sender, amount);
    }

    /// @inheritdoc IStake
    function withdraw(uint256 amount) external {
        _takeFree(msg.sender, amount);
        emit Withdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IStake
    function balances(address account) external view returns (uint256 free, uint256 locked) {
        Balance storage balance = _balances[account];
        return (balance.free, balance.locked);
    }

    /// @inheritdoc IStake
    function lock(address account, uint256 amount) external onlyProtocol {
        _takeFree(account, amount);
        _balances[account].locked += uint128(amount);
        emit Locked(account, amount);
    }

    /// @inheritdoc IStake
    function unlock(address account, uint256 amount) external onlyProtocol {
        Balance storage balance = _balances[account];
        balance.locked -= amount.toUint128();
        balance.free += uint128(amount);
        emit Unlocked(account, amount);
    }

    /// @inheritdoc IStake
    function slash(address account, uint256 amount, address winner) external onlyProtocol {
        uint256 bounty = amount / 2;
        _balances[account].locked -= amount.toUint128();
        _balances[winner].free += uint128(bounty);
        // INVARIANT: part of every slashed stake is burned, so that a dispute against oneself loses money.
        _burn(amount - bounty);
        emit Slashed(account, amount, winner, bounty);
    }

    function _takeFree(address account, uint256 amount) private {
        uint256 free = _balances[account].free;
        // INVARIANT: locked stake cannot be withdrawn or locked twice.
        if (amount > free) revert InsufficientFree(account, free, amount);
        _balances[account].free = uint128(free - amount);
    }
}
