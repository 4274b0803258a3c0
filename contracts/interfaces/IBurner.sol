// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title Burning of tokens that belong to nobody any more
/// @notice What is burned is only counted; sending it away is a call of its own, so that a token that refuses the
/// transfer holds up nothing else.
interface IBurner {
    event Swept(uint256 amount);

    /// @notice Token units that are burned and still here.
    function burned() external view returns (uint256);

    /// @notice Sends what is burned to 0x…dEaD. Anybody.
    function sweep() external;
}
