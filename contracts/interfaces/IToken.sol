// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title The protocol's token
/// @notice An ERC-20 with permit. Only the Emission mints, and never more than the cap in all.
interface IToken is IERC20 {
    error NotMinter(address caller);

    /// @notice Mints to `to`. Emission only.
    function mint(address to, uint256 amount) external;

    function minter() external view returns (address);
}
