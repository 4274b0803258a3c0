// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IToken} from "./interfaces/IToken.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Capped} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Capped.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

contract Token is IToken, ERC20Permit, ERC20Capped {
    /// @inheritdoc IToken
    address public immutable minter;

    error ZeroAddress();

    constructor(address minter_, uint256 cap_)
        ERC20("crowdtrain", "CROWD")
        ERC20Permit("crowdtrain")
        ERC20Capped(cap_)
    {
        if (minter_ == address(0)) revert ZeroAddress();
        minter = minter_;
    }

    /// @inheritdoc IToken
    function mint(address to, uint256 amount) external {
        if (msg.sender != minter) revert NotMinter(msg.sender);
        _mint(to, amount);
    }

    function _update(address from, address to, uint256 amount) internal override(ERC20, ERC20Capped) {
        super._update(from, to, amount);
    }
}
