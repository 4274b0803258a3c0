// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Float32} from "../../libraries/Float32.sol";

/// Float32 over many operands in one call: each row of big-endian 32-bit words in gives one such word out.
contract Float32Batch {
    function add(bytes calldata rows) external pure returns (bytes memory) {
        return _binary(Float32.add, rows);
    }

    function sub(bytes calldata rows) external pure returns (bytes memory) {
        return _binary(Float32.sub, rows);
    }

    function mul(bytes calldata rows) external pure returns (bytes memory) {
        return _binary(Float32.mul, rows);
    }

    function div(bytes calldata rows) external pure returns (bytes memory) {
        return _binary(Float32.div, rows);
    }

    function fma(bytes calldata rows) external pure returns (bytes memory out) {
        out = new bytes(rows.length / 3);
        for (uint256 i = 0; i < rows.length; i += 12) {
            _put(out, i / 3, Float32.fma(_word(rows, i), _word(rows, i + 4), _word(rows, i + 8)));
        }
    }

    function sqrt(bytes calldata rows) external pure returns (bytes memory) {
        return _unary(Float32.sqrt, rows);
    }

    function neg(bytes calldata rows) external pure returns (bytes memory) {
        return _unary(Float32.neg, rows);
    }

    function abs(bytes calldata rows) external pure returns (bytes memory) {
        return _unary(Float32.abs, rows);
    }

    function toInt32(bytes calldata rows) external pure returns (bytes memory) {
        return _unary(Float32.toInt32, rows);
    }

    function toUint32(bytes calldata rows) external pure returns (bytes memory) {
        return _unary(Float32.toUint32, rows);
    }

    function fromInt32(bytes calldata rows) external pure returns (bytes memory) {
        return _unary(Float32.fromInt32, rows);
    }

    function fromUint32(bytes calldata rows) external pure returns (bytes memory) {
        return _unary(Float32.fromUint32, rows);
    }

    function lt(bytes calldata rows) external pure returns (bytes memory) {
        return _compare(Float32.lt, rows);
    }

    function le(bytes calldata rows) external pure returns (bytes memory) {
        return _compare(Float32.le, rows);
    }

    function eq(bytes calldata rows) external pure returns (bytes memory) {
        return _compare(Float32.eq, rows);
    }

    function _unary(function(uint256) pure returns (uint256) op, bytes calldata rows)
        private
        pure
        returns (bytes memory out)
    {
        out = new bytes(rows.length);
        for (uint256 i = 0; i < rows.length; i += 4) {
            _put(out, i, op(_word(rows, i)));
        }
    }

    function _binary(function(uint256, uint256) pure returns (uint256) op, bytes calldata rows)
        private
        pure
        returns (bytes memory out)
    {
        out = new bytes(rows.length / 2);
        for (uint256 i = 0; i < rows.length; i += 8) {
            _put(out, i / 2, op(_word(rows, i), _word(rows, i + 4)));
        }
    }

    function _compare(function(uint256, uint256) pure returns (bool) op, bytes calldata rows)
        private
        pure
        returns (bytes memory out)
    {
        out = new bytes(rows.length / 2);
        for (uint256 i = 0; i < rows.length; i += 8) {
            _put(out, i / 2, op(_word(rows, i), _word(rows, i + 4)) ? 1 : 0);
        }
    }

    function _word(bytes calldata rows, uint256 at) private pure returns (uint256 word) {
        assembly ("memory-safe") {
            word := shr(224, calldataload(add(rows.offset, at)))
        }
    }

    function _put(bytes memory out, uint256 at, uint256 word) private pure {
        for (uint256 i = 0; i < 4; ++i) {
            out[at + i] = bytes1(uint8(word >> 24 - 8 * i));
        }
    }
}
