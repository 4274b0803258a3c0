// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// Keeps what the Market accrues.
contract Points {
    address private immutable market;
    uint256 public fees;
    mapping(address account => uint256) public solved;
    mapping(address account => uint256) public bought;
    mapping(address account => uint256) public audited;

    constructor(address market_) {
        market = market_;
    }

    function accrue(uint256 fee, address solver, address buyer, address[] calldata auditors) external {
        require(msg.sender == market);
        fees += fee;
        solved[solver] += fee;
        bought[buyer] += fee;
        for (uint256 i = 0; i < auditors.length; ++i) {
            audited[auditors[i]] += fee;
        }
    }
}
