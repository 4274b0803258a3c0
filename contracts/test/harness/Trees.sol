// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Roots} from "../../libraries/Roots.sol";

/// The functions of Roots as calls.
contract Trees {
    function leaf(bytes calldata data) external view returns (bytes32) {
        return Roots.leaf(data);
    }

    function root(bytes32[] memory list) external view returns (bytes32) {
        return Roots.root(list);
    }

    function verify(bytes32 treeRoot, uint256 count, bytes32 node, uint256 index, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        return Roots.verify(treeRoot, count, node, index, proof);
    }
}
