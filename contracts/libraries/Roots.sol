// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// SHA-256 Merkle trees over roots, as docs/PROTOCOL.md defines them under "Commitments".
library Roots {
    /// sha256(00 ‖ data): a leaf over bytes.
    function leaf(bytes calldata data) internal view returns (bytes32 result) {
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore8(buffer, 0)
            calldatacopy(add(buffer, 1), data.offset, data.length)
            if iszero(staticcall(gas(), 2, buffer, add(data.length, 1), 0, 32)) { revert(0, 0) }
            result := mload(0)
        }
    }

    /// Height of a tree of `count` leaves: log2 of count, rounded up.
    function height(uint256 count) internal pure returns (uint8 h) {
        while (count > uint256(1) << h) ++h;
    }

    /// Root of the tree over `list`, which is not empty. Overwrites `list`.
    function root(bytes32[] memory list) internal view returns (bytes32 result) {
        assembly ("memory-safe") {
            let data := add(list, 32)
            let count := mload(list)
            let buffer := mload(0x40) // 65 bytes for a node, then 65 for the padding
            mstore8(buffer, 1)
            let padding := 0
            for {} gt(count, 1) {} {
                let half := shr(1, count)
                for { let i := 0 } lt(i, half) { i := add(i, 1) } {
                    mcopy(add(buffer, 1), add(data, shl(6, i)), 64)
                    if iszero(staticcall(gas(), 2, buffer, 65, add(data, shl(5, i)), 32)) { revert(0, 0) }
                }
                if and(count, 1) {
                    mstore(add(buffer, 1), mload(add(data, shl(6, half))))
                    mstore(add(buffer, 33), padding)
                    if iszero(staticcall(gas(), 2, buffer, 65, add(data, shl(5, half)), 32)) { revert(0, 0) }
                    half := add(half, 1)
                }
                mstore(add(buffer, 1), padding)
                mstore(add(buffer, 33), padding)
                if iszero(staticcall(gas(), 2, buffer, 65, 0, 32)) { revert(0, 0) }
                padding := mload(0)
                count := half
            }
            result := mload(data)
        }
    }

    /// Whether `node` is leaf `index` of the tree of `count` leaves under `treeRoot`. Leaves of the padding count too.
    function verify(bytes32 treeRoot, uint256 count, bytes32 node, uint256 index, bytes32[] calldata proof)
        internal
        view
        returns (bool)
    {
        return proof.length == height(count) && index >> proof.length == 0 && climb(node, index, proof) == treeRoot;
    }

    /// The node that stands `proof.length` levels above the `index`-th `node`.
    function climb(bytes32 node, uint256 index, bytes32[] calldata proof) internal view returns (bytes32 result) {
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore8(buffer, 1)
            result := node
            for { let i := 0 } lt(i, proof.length) { i := add(i, 1) } {
                let right := and(shr(i, index), 1)
                mstore(add(buffer, add(1, shl(5, right))), result)
                mstore(add(buffer, sub(33, shl(5, right))), calldataload(add(proof.offset, shl(5, i))))
                if iszero(staticcall(gas(), 2, buffer, 65, 0, 32)) { revert(0, 0) }
                result := mload(0)
            }
        }
    }
}
