// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Deployment} from "./Deployment.sol";

/// Measures calls with cold storage, without the transaction's own 21,000 and its calldata, into a committed table.
abstract contract GasTable is Deployment {
    /// Of an EIP-7825 chain.
    uint256 private constant MOST = 2 ** 24;

    /// Forgets what is warm, so that the next call is measured as the first of its transaction.
    function cold() internal virtual {
        vm.cool(address(stake));
        vm.cool(address(market));
        vm.cool(address(dispute));
        vm.cool(address(audit));
        vm.cool(address(rewards));
        vm.cool(address(emission));
        vm.cool(address(money));
    }

    /// Enters what the last call cost into contracts/test/snapshots/`group`.json.
    function enter(string memory group, string memory name) internal returns (uint256 gas) {
        gas = vm.snapshotGasLastCall(group, name);
        assertLe(gas, MOST - 21_000 - 16 * 32_768, name);
    }
}
