// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// Taking tokens in.
library Funds {
    using SafeERC20 for IERC20;

    error WrongAmount(uint256 received, uint256 needed);

    /// Takes `amount` from `from`. Reverts with WrongAmount if another amount arrives, as of a token that keeps a fee.
    function pull(IERC20 token, address from, uint256 amount) internal {
        uint256 before = token.balanceOf(address(this));
        // slither-disable-next-line arbitrary-send-erc20: every caller gives msg.sender.
        token.safeTransferFrom(from, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - before;
        // INVARIANT: what is credited is what is held.
        if (received != amount) revert WrongAmount(received, amount);
    }
}
