// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// Merkle trees as docs/PROTOCOL.md words them, written apart from contracts/libraries, so that each checks the other.
library Trees {
    function leaf(bytes memory data) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(0), data));
    }

    function node(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(1), left, right));
    }

    /// Every level of the tree, from the padded leaves to the root.
    function levels(bytes32[] memory leaves) internal pure returns (bytes32[][] memory all) {
        uint256 width = 1;
        uint256 count = 1;
        while (width < leaves.length) (width, count) = (2 * width, count + 1);
        all = new bytes32[][](count);
        all[0] = new bytes32[](width);
        for (uint256 i = 0; i < leaves.length; ++i) {
            all[0][i] = leaves[i];
        }
        for (uint256 level = 1; level < count; ++level) {
            width /= 2;
            all[level] = new bytes32[](width);
            for (uint256 i = 0; i < width; ++i) {
                all[level][i] = node(all[level - 1][2 * i], all[level - 1][2 * i + 1]);
            }
        }
    }

    function root(bytes32[] memory leaves) internal pure returns (bytes32) {
        bytes32[][] memory all = levels(leaves);
        return all[all.length - 1][0];
    }

    /// Siblings from the leaf up.
    function proof(bytes32[] memory leaves, uint256 index) internal pure returns (bytes32[] memory siblings) {
        bytes32[][] memory all = levels(leaves);
        siblings = new bytes32[](all.length - 1);
        for (uint256 level = 0; level < siblings.length; ++level) {
            siblings[level] = all[level][(index >> level) ^ 1];
        }
    }

    function concat(bytes32[] memory a, bytes32[] memory b) internal pure returns (bytes32[] memory both) {
        both = new bytes32[](a.length + b.length);
        for (uint256 i = 0; i < both.length; ++i) {
            both[i] = i < a.length ? a[i] : b[i - a.length];
        }
    }
}
