// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IReferee} from "../interfaces/IReferee.sol";
import {Encoding} from "./Encoding.sol";
import {Ops} from "./Ops.sol";

/// A nest, taken apart as far as it costs nothing to keep.
/// @param extents of the outer loops, then of the fold loops
/// @param words number of output words
/// @param foldLength number of iterations; 1 without fold
/// @param result reference of the result
/// @param operands where each operand stands in the encoding
/// @param immediates, instructions where they stand
struct Nest {
    uint256 dtype;
    uint256 outerRank;
    uint256[] extents;
    uint256 words;
    uint256 foldLength;
    uint256 init;
    uint256 result;
    uint256[] operands;
    uint256 immediates;
    uint256 instructions;
    uint256 end;
}

/// Decodes nests and checks the rules that can be checked on one nest alone: docs/PROTOCOL.md, "Nests".
library Nests {
    using Encoding for bytes;

    uint256 internal constant MAX_RANK = 8;
    uint256 internal constant MAX_EXTENT = 2 ** 31 - 1;
    uint256 private constant MAX_OPERANDS = 16;
    uint256 private constant MAX_IMMEDIATES = 64;
    uint256 private constant MAX_INSTRUCTIONS = 128;
    uint256 private constant MAX_ELEMENTARY = 32;
    uint256 private constant MAX_VALUES = 2 ** 16;
    uint256 private constant MAX_FOLD = 2 ** 26;
    uint256 private constant MAX_REACH = 2 ** 62;
    uint256 private constant WIDE_WORDS = 256 * 2 ** 16;
    uint256 private constant WIDE_FOLD = 2 ** 14;

    uint256 internal constant READ = 0;
    uint256 internal constant INDEX = 1;
    uint256 internal constant AFFINE = 0;
    uint256 internal constant EXACT = 1;
    uint256 internal constant FLOOR = 2;
    uint256 internal constant GATHER = 3;

    /// The nest in `data`. Reverts with InvalidNest if it breaks a rule.
    function decode(bytes calldata data) internal pure returns (Nest memory nest) {
        string memory flaw;
        (nest, flaw) = parse(data);
        if (bytes(flaw).length > 0) revert IReferee.InvalidNest(flaw);
    }

    /// The nest in `data`, and the rule that it breaks; no text for a valid one. Of an invalid one, trust nothing.
    function parse(bytes calldata data) internal pure returns (Nest memory nest, string memory flaw) {
        unchecked {
            uint256 at;
            (at, flaw) = _parseLoops(data, nest);
            if (bytes(flaw).length > 0) return (nest, flaw);
            nest.init = data.u32(at);
            if (nest.init != 0 && nest.extents.length == nest.outerRank) return (nest, "init without fold");
            (uint256 operands, uint256 immediates) = (data.u8(at + 4), data.u8(at + 5));
            uint256 instructions = data.u8(at + 6);
            nest.result = data.u8(at + 7);
            if (operands > MAX_OPERANDS) return (nest, "operands");
            if (immediates > MAX_IMMEDIATES) return (nest, "immediates");
            if (instructions > MAX_INSTRUCTIONS) return (nest, "instructions");
            at += 8;
            nest.operands = new uint256[](operands);
            for (uint256 i = 0; i < operands; ++i) {
                nest.operands[i] = at;
                (at, flaw) = _parseOperand(data, at, nest.extents, i);
                if (bytes(flaw).length > 0) return (nest, flaw);
            }
            nest.immediates = at;
            nest.instructions = at + 4 * immediates;
            nest.end = nest.instructions + 4 * instructions;
            if (nest.end != data.length) return (nest, "length");
            flaw = _checkBody(data, nest, 1 + operands + immediates);
        }
    }

    /// Data type, ranks and extents; returns where they end.
    function _parseLoops(bytes calldata data, Nest memory nest) private pure returns (uint256 at, string memory flaw) {
        unchecked {
            nest.dtype = data.u8(0);
            nest.outerRank = data.u8(1);
            uint256 foldRank = data.u8(2);
            if (nest.dtype > 2) return (at, "dtype");
            if (nest.outerRank > MAX_RANK || foldRank > MAX_RANK) return (at, "rank");
            nest.extents = new uint256[](nest.outerRank + foldRank);
            (nest.words, nest.foldLength) = (1, 1);
            at = 3;
            for (uint256 i = 0; i < nest.extents.length; ++i) {
                uint256 extent = data.u32(at);
                at += 4;
                if (extent == 0 || extent > MAX_EXTENT) return (at, "extent");
                nest.extents[i] = extent;
                if (i < nest.outerRank) nest.words *= extent;
                else nest.foldLength *= extent;
            }
            if (nest.words > MAX_EXTENT) return (at, "output too large");
            if (nest.foldLength > MAX_FOLD) return (at, "fold too long");
            if (nest.words > WIDE_WORDS && nest.foldLength > WIDE_FOLD) return (at, "output and fold too large");
        }
    }

    /// Operand number `number` at `at`; returns where it ends.
    function _parseOperand(bytes calldata data, uint256 at, uint256[] memory extents, uint256 number)
        private
        pure
        returns (uint256, string memory flaw)
    {
        unchecked {
            uint256 kind = data.u8(at);
            if (kind == INDEX) {
                if (data.u8(at + 1) >= extents.length) return (at, "no such loop");
                return (at + 2, flaw);
            }
            if (kind != READ) return (at, "operand kind");
            if (data.u32(at + 1) >= MAX_VALUES) return (at, "value");
            uint256 rank = data.u8(at + 5);
            if (rank > MAX_RANK) return (at, "operand rank");
            at += 10;
            uint256 words = 1;
            for (uint256 d = 0; d < rank; ++d) {
                uint256 size = data.u32(at);
                if (size == 0 || size > MAX_EXTENT) return (at, "size");
                words *= size;
                (at, flaw) = _parseAxis(data, at, extents, number);
                if (bytes(flaw).length > 0) return (at, flaw);
            }
            if (words > MAX_EXTENT) return (at, "operand too large");
            return (at, flaw);
        }
    }

    function _parseAxis(bytes calldata data, uint256 at, uint256[] memory extents, uint256 number)
        private
        pure
        returns (uint256, string memory flaw)
    {
        unchecked {
            uint256 mode = data.u8(at + 4);
            if (mode > GATHER) return (at, "mode");
            if (mode == GATHER) {
                if (data.u8(at + 5) >= number) return (at, "gather by a later operand");
                return (at + 6, flaw);
            }
            uint256 reach = _magnitude(data.i32(at + 5));
            at += 9;
            if (mode != AFFINE) {
                if (data.u32(at) < 2) return (at, "divisor");
                at += 4;
            }
            uint256 terms = data.u8(at++);
            // Loops ascend, so that there are no more terms than loops.
            uint256 least = 0;
            for (uint256 t = 0; t < terms; ++t) {
                uint256 loop = data.u8(at);
                int256 coefficient = data.i32(at + 1);
                at += 5;
                if (loop < least || loop >= extents.length) return (at, "loop");
                if (coefficient == 0) return (at, "coefficient");
                least = loop + 1;
                reach += _magnitude(coefficient) * (extents[loop] - 1);
            }
            if (reach >= MAX_REACH) return (at, "reach");
            return (at, flaw);
        }
    }

    /// Every reference points at something before it, and unused ones are 0.
    function _checkBody(bytes calldata data, Nest memory nest, uint256 first)
        private
        pure
        returns (string memory flaw)
    {
        unchecked {
            uint256 lowest = nest.extents.length == nest.outerRank ? 1 : 0;
            uint256 elementary = 0;
            for (uint256 at = nest.instructions; at < nest.end; at += 4) {
                uint256 code = data.u8(at);
                uint256 arity = code < 128 ? Ops.ARITIES >> 2 * code & 3 : 0;
                if (arity == 0) return "opcode";
                if (code >= Ops.FIRST_ELEMENTARY && ++elementary > MAX_ELEMENTARY) return "elementary functions";
                for (uint256 i = 0; i < 3; ++i) {
                    uint256 ref = data.u8(at + 1 + i);
                    if (i < arity ? ref < lowest || ref >= first : ref != 0) return "reference";
                }
                ++first;
            }
            if (nest.result < lowest || nest.result >= first) return "result";
        }
    }

    function _magnitude(int256 value) private pure returns (uint256) {
        unchecked {
            return value < 0 ? uint256(-value) : uint256(value);
        }
    }

    /// Number of words of the tensor that the operand at `at` reads.
    function wordsRead(bytes calldata data, uint256 at) internal pure returns (uint256 words) {
        unchecked {
            uint256 rank = data.u8(at + 5);
            at += 10;
            words = 1;
            for (uint256 d = 0; d < rank; ++d) {
                words *= data.u32(at);
                at = afterAxis(data, at);
            }
        }
    }

    /// Where the axis at `at` ends.
    function afterAxis(bytes calldata data, uint256 at) internal pure returns (uint256) {
        unchecked {
            uint256 mode = data.u8(at + 4);
            if (mode == GATHER) return at + 6;
            uint256 terms = mode == AFFINE ? at + 9 : at + 13;
            return terms + 1 + 5 * data.u8(terms);
        }
    }
}
