// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IBurner} from "./IBurner.sol";

/// @title Stakes of solvers, challengers and auditors
/// @notice A balance has a free and a locked part. Only the free part can be withdrawn, only the locked part can be
/// slashed. The Market locks for work, the Dispute for a bond, the Audit for weight in draws; nobody else can touch a
/// balance.
interface IStake is IBurner {
    event Deposited(address indexed account, uint256 amount);
    event Withdrawn(address indexed account, uint256 amount);
    event Locked(address indexed account, uint256 amount);
    event Unlocked(address indexed account, uint256 amount);
    /// @notice `amount` of locked stake was taken: `bounty` went to `winner`'s free balance, the rest was burned.
    event Slashed(address indexed account, uint256 amount, address indexed winner, uint256 bounty);

    error InsufficientFree(address account, uint256 free, uint256 needed);
    error NotAuthorised(address caller);

    /// @notice Takes `amount` of the token from the caller into their free balance.
    function deposit(uint256 amount) external;

    /// @notice Pays `amount` of the caller's free balance back to them.
    function withdraw(uint256 amount) external;

    /// @notice Free and locked balance of an account, in token units.
    function balances(address account) external view returns (uint256 free, uint256 locked);

    /// @notice Moves `amount` from free to locked. Market, Dispute and Audit only.
    function lock(address account, uint256 amount) external;

    /// @notice Moves `amount` from locked to free. Market, Dispute and Audit only.
    function unlock(address account, uint256 amount) external;

    /// @notice Takes `amount` of `account`'s locked stake: half, rounded down, to `winner`, the rest is burned.
    /// Market, Dispute and Audit only.
    function slash(address account, uint256 amount, address winner) external;
}
