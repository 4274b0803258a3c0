// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Money} from "../../../devnet/Money.sol";

/// Keeps a hundredth of every transfer between accounts.
contract FeeMoney is Money {
    function _update(address from, address to, uint256 amount) internal override {
        if (from == address(0) || to == address(0)) return super._update(from, to, amount);
        super._update(from, address(this), amount / 100);
        super._update(from, to, amount - amount / 100);
    }
}

interface TransferHook {
    function onTransfer(address from, address to, uint256 amount) external;
}

/// Calls an account before each of its transfers out and after each transfer to it, as ERC-777 tokens do.
contract HookMoney is Money {
    mapping(address account => bool) public hooked;

    function hook() external {
        hooked[msg.sender] = true;
    }

    function _update(address from, address to, uint256 amount) internal override {
        if (hooked[from]) TransferHook(from).onTransfer(from, to, amount);
        super._update(from, to, amount);
        if (hooked[to]) TransferHook(to).onTransfer(from, to, amount);
    }
}

/// Its transfers and approvals return nothing, as those of some old tokens do.
contract SilentMoney is Money {
    function transfer(address to, uint256 amount) public override returns (bool) {
        super.transfer(to, amount);
        assembly {
            return(0, 0)
        }
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        super.transferFrom(from, to, amount);
        assembly {
            return(0, 0)
        }
    }

    function approve(address spender, uint256 amount) public override returns (bool) {
        super.approve(spender, amount);
        assembly {
            return(0, 0)
        }
    }
}

/// Refuses transfers from and to some accounts.
contract BlacklistMoney is Money {
    mapping(address account => bool) public blacklisted;

    error Blacklisted(address account);

    function blacklist(address account) external {
        blacklisted[account] = true;
    }

    function _update(address from, address to, uint256 amount) internal override {
        if (blacklisted[from]) revert Blacklisted(from);
        if (blacklisted[to]) revert Blacklisted(to);
        super._update(from, to, amount);
    }
}

/// Calls somebody else during approvals.
contract MeddlingMoney is Money {
    address private target;
    bytes private call;

    function arm(address target_, bytes calldata call_) external {
        (target, call) = (target_, call_);
    }

    function approve(address spender, uint256 amount) public override returns (bool) {
        if (target != address(0)) {
            (bool ok,) = target.call(call);
            require(ok);
        }
        return super.approve(spender, amount);
    }
}
