// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// Many calls in one.
contract Calls {
    function run(address target, bytes[] calldata calls)
        external
        view
        returns (bool[] memory succeeded, bytes[] memory results, uint256[] memory gas)
    {
        succeeded = new bool[](calls.length);
        results = new bytes[](calls.length);
        gas = new uint256[](calls.length);
        for (uint256 i = 0; i < calls.length; ++i) {
            gas[i] = gasleft();
            (succeeded[i], results[i]) = target.staticcall(calls[i]);
            gas[i] -= gasleft();
        }
    }
}
