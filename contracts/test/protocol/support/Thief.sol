// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {HookMoney, TransferHook} from "./Tokens.sol";

/// Calls a contract again while it moves tokens.
contract Thief is TransferHook {
    address private target;
    bytes private call;
    uint256 private times;
    uint256 public succeeded;

    function arm(HookMoney money, address target_, bytes calldata call_, uint256 times_) external {
        money.hook();
        (target, call, times) = (target_, call_, times_);
    }

    function onTransfer(address, address, uint256) external {
        if (times == 0) return;
        --times;
        (bool ok,) = target.call(call);
        if (ok) ++succeeded;
    }

    function execute(address to, bytes calldata data) external {
        (bool ok, bytes memory reason) = to.call(data);
        if (ok) return;
        assembly {
            revert(add(reason, 32), mload(reason))
        }
    }
}
