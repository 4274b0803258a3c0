// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IBurner} from "../interfaces/IBurner.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// Counts what is burned, and sends it away.
abstract contract Burner is IBurner {
    using SafeERC20 for IERC20;

    address private constant BURNED = 0x000000000000000000000000000000000000dEaD;

    IERC20 public immutable token;

    /// @inheritdoc IBurner
    uint256 public burned;

    error ZeroAddress();

    constructor(IERC20 token_) {
        if (address(token_) == address(0)) revert ZeroAddress();
        token = token_;
    }

    /// @inheritdoc IBurner
    function sweep() external {
        uint256 amount = burned;
        burned = 0;
        emit Swept(amount);
        token.safeTransfer(BURNED, amount);
    }

    function _burn(uint256 amount) internal {
        burned += amount;
    }
}
