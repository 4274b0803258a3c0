// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// Big-endian fields of an encoding.
/// Warning: a field beyond the end of the bytes reads as whatever follows them. A decoder that is done must compare
/// where it stands with the length, and must not run long before it does.
library Encoding {
    function u8(bytes calldata data, uint256 at) internal pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := byte(0, calldataload(add(data.offset, at)))
        }
    }

    function u16(bytes calldata data, uint256 at) internal pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := shr(240, calldataload(add(data.offset, at)))
        }
    }

    function u32(bytes calldata data, uint256 at) internal pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := shr(224, calldataload(add(data.offset, at)))
        }
    }

    function i32(bytes calldata data, uint256 at) internal pure returns (int256 value) {
        assembly ("memory-safe") {
            value := sar(224, calldataload(add(data.offset, at)))
        }
    }
}
