// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title Emission of the protocol's token
/// @notice Settled work earns points: the fee that it paid, split between solver, auditors and buyer by fixed parts. When an epoch is over, each point
/// is worth `min(ratio, budget / all fees of the epoch)` tokens. What the epoch's budget does not need is never minted.
interface IEmission {
    /// @notice `fee` was paid in `epoch`; points are fee units.
    event Accrued(
        uint64 indexed epoch,
        address indexed solver,
        address indexed buyer,
        uint256 fee,
        uint256 solverPoints,
        uint256 auditorPoints,
        uint256 buyerPoints,
        address[] auditors
    );
    event Claimed(uint64 indexed epoch, address indexed account, uint256 points, uint256 amount);

    error NotMarket(address caller);
    error EpochRunning(uint64 epoch, uint64 until);
    error NothingToClaim(uint64 epoch, address account);

    /// @notice A settled segment paid `fee`. Each auditor gets an equal part of the auditors' points; without any, nobody gets these. Market only.
    function accrue(uint256 fee, address solver, address buyer, address[] calldata auditors) external;

    /// @notice Mints to `account` what its points of an epoch that is over are worth. Anybody.
    function claim(uint64 epoch, address account) external returns (uint256 amount);

    function epochAt(uint64 time) external view returns (uint64);
    /// @notice Most tokens that an epoch can mint: halves every epoch.
    function budget(uint64 epoch) external view returns (uint256);
    function fees(uint64 epoch) external view returns (uint256);
    function points(uint64 epoch, address account) external view returns (uint256);
    /// @notice What `claim` would mint (so far, if the epoch is running).
    function claimable(uint64 epoch, address account) external view returns (uint256);
}
