// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Float32} from "./Float32.sol";
import {Ops} from "./Ops.sol";

/// Runs bodies: instructions of 4 bytes (opcode and three references) over a list of words in memory.
library Body {
    /// Runs `count` instructions that stand at `code` in memory. The i-th one's result becomes word `first + i` of
    /// `words`, of which there must be as many; its references must point at words before it.
    function run(uint256[] memory words, uint256 code, uint256 count, uint256 first) internal pure {
        unchecked {
            uint256 end = code + 4 * count;
            uint256 base;
            uint256 next;
            assembly ("memory-safe") {
                base := add(words, 32)
                next := add(base, shl(5, first))
            }
            for (; code != end; code += 4) {
                uint256 instruction;
                uint256 a;
                uint256 b;
                uint256 c;
                assembly ("memory-safe") {
                    instruction := mload(code)
                    a := mload(add(base, shl(5, byte(1, instruction))))
                    b := mload(add(base, shl(5, byte(2, instruction))))
                    c := mload(add(base, shl(5, byte(3, instruction))))
                }
                uint256 result = compute(instruction >> 248, a, b, c);
                assembly ("memory-safe") {
                    mstore(next, result)
                    next := add(next, 32)
                }
            }
        }
    }

    /// The operation `code` of words.
    function compute(uint256 code, uint256 a, uint256 b, uint256 c) internal pure returns (uint256) {
        if (code == Ops.FFMA) return Float32.fma(a, b, c);
        if (code < Ops.IADD) {
            if (code < Ops.FLT) return _arithmetic(code, a, b);
            return _compare(code, a, b) ? 1 : 0;
        }
        if (code < Ops.SELECT) return _integer(code, a, b);
        if (code == Ops.SELECT) return a == 0 ? c : b;
        if (code < Ops.FIRST_ELEMENTARY) return _convert(code, a);
        return _elementary(code, a);
    }

    function _arithmetic(uint256 code, uint256 a, uint256 b) private pure returns (uint256) {
        if (code == Ops.FADD) return Float32.add(a, b);
        if (code == Ops.FMUL) return Float32.mul(a, b);
        if (code == Ops.FSUB) return Float32.sub(a, b);
        if (code == Ops.FDIV) return Float32.div(a, b);
        if (code == Ops.FSQRT) return Float32.sqrt(a);
        if (code == Ops.FNEG) return Float32.neg(a);
        return Float32.abs(a);
    }

    function _compare(uint256 code, uint256 a, uint256 b) private pure returns (bool) {
        if (code == Ops.FLT) return Float32.lt(a, b);
        if (code == Ops.FLE) return Float32.le(a, b);
        if (code == Ops.FEQ) return Float32.eq(a, b);
        if (code == Ops.ILT) return int32(uint32(a)) < int32(uint32(b));
        if (code == Ops.ULT) return a < b;
        return a == b;
    }

    function _integer(uint256 code, uint256 a, uint256 b) private pure returns (uint256) {
        unchecked {
            if (code < Ops.IAND) {
                if (code < Ops.IMUL) return (code == Ops.IADD ? a + b : a - b) & 0xffffffff;
                return code == Ops.IMUL ? a * b & 0xffffffff : a * b >> 32;
            }
            if (code < Ops.SHL) {
                if (code == Ops.IAND) return a & b;
                return code == Ops.IOR ? a | b : a ^ b;
            }
            b &= 31;
            if (code == Ops.SHL) return a << b & 0xffffffff;
            return code == Ops.SHR ? a >> b : uint32(int32(uint32(a)) >> b);
        }
    }

    function _convert(uint256 code, uint256 a) private pure returns (uint256) {
        if (code == Ops.F2I) return Float32.toInt32(a);
        if (code == Ops.F2U) return Float32.toUint32(a);
        if (code == Ops.I2F) return Float32.fromInt32(a);
        return Float32.fromUint32(a);
    }

    /// Runs an elementary function in memory that it gives back.
    function _elementary(uint256 code, uint256 a) private pure returns (uint256 result) {
        unchecked {
            uint256 free;
            assembly ("memory-safe") {
                free := mload(0x40)
            }
            bytes memory data = Ops.elementary(code);
            uint256 immediates = uint8(data[0]);
            uint256 first = 2 + immediates;
            uint256 count = (data.length - 1) / 4 - immediates;
            uint256[] memory words = new uint256[](first + count);
            words[1] = a;
            uint256 body;
            assembly ("memory-safe") {
                body := add(data, 33)
                let next := add(words, 96)
                for { let end := add(body, shl(2, immediates)) } lt(body, end) { body := add(body, 4) } {
                    mstore(next, shr(224, mload(body)))
                    next := add(next, 32)
                }
            }
            run(words, body, count, first);
            result = words[first + count - 1];
            assembly ("memory-safe") {
                mstore(0x40, free)
            }
        }
    }
}
