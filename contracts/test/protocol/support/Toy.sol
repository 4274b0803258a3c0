// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Trees} from "./Trees.sol";

/// Sizes of the toy program.
/// @param wide words of its large tensors, at least 300
/// @param long iterations of its long fold
struct Shape {
    uint32 wide;
    uint32 long;
}

/// One wrong word. A mask of 0 is no fault.
/// @param step in which it happens, from 1
/// @param value a nest's output, in which `iteration` of the fold goes wrong; or, if `next`, a tensor of the next
/// state, which is not what the program says
/// @param word its position; after the tensor's end, it is one of the page's padding
struct Fault {
    uint32 step;
    bool next;
    uint32 value;
    uint32 word;
    uint32 iteration;
    uint32 mask;
}

/// A program of five nests, and a slow machine that runs it:
///
///     state  0 w[wide]           group 0         data  4 x[wide]
///            1 m[4]              group 1               5 y[1]
///            2 counter[1]
///            3 t[1]
///     nests  6 a = w + x                                      becomes w
///            7 s[j] = fold k < 75, from 7: acc + a[4 k + j]
///            8 b = fold k < long, from 1: 3 acc + k + counter  becomes t
///            9 c = counter + 1                                becomes counter
///           10 n = m ^ s                                      becomes m
///
/// All words are u32. A tensor's `uint32[]` may be longer than its shape: what is too much stands in the padding.
library Toy {
    uint32 internal constant STATE = 4;
    uint32 internal constant FIRST_NEST = 6;
    uint32 internal constant NESTS = 5;
    uint32 internal constant GROUPS = 2;
    /// As a tensor of the next state: the leaf that pads group 1.
    uint32 internal constant STRAY = 4;

    // ---------------------------------------------------------------- the program

    function header(Shape memory shape) internal pure returns (bytes memory) {
        bytes memory wide = vector(shape.wide);
        bytes memory counts = abi.encodePacked("CTP1", uint16(2), uint16(4), uint16(2), uint16(1), uint32(NESTS));
        bytes memory state =
            abi.encodePacked(wide, uint32(6), vector(4), uint32(10), vector(1), uint32(9), vector(1), uint32(8));
        return abi.encodePacked(counts, uint16(1), uint16(3), state, wide, vector(1), uint32(8));
    }

    function nest(Shape memory shape, uint32 value) internal pure returns (bytes memory) {
        if (value == 6) {
            bytes memory operands = bytes.concat(read(0, shape.wide, 1, 0, 0), read(4, shape.wide, 1, 0, 0));
            return bytes.concat(map(shape.wide), hex"02000103", operands, hex"20010200");
        }
        if (value == 7) {
            bytes memory loops = abi.encodePacked(hex"020101", uint32(4), uint32(75), uint32(7));
            return bytes.concat(loops, hex"01000102", read(6, shape.wide, 2, 1, 4), hex"20000100");
        }
        if (value == 8) {
            bytes memory loops = abi.encodePacked(hex"020101", uint32(1), shape.long, uint32(1));
            bytes memory operands = bytes.concat(hex"0101", read(2, 1, 0, 0, 0));
            return bytes.concat(loops, hex"02010306", operands, hex"00000003", hex"220003002004010020050200");
        }
        if (value == 9) {
            return bytes.concat(map(1), hex"01010103", read(2, 1, 0, 0, 0), hex"00000001", hex"20010200");
        }
        return bytes.concat(map(4), hex"02000103", read(1, 4, 1, 0, 0), read(7, 4, 1, 0, 0), hex"26010200");
    }

    /// Values that a nest reads.
    function reads(uint32 value) internal pure returns (uint32[] memory list) {
        list = new uint32[](value == 6 || value == 10 ? 2 : 1);
        if (value == 6) (list[0], list[1]) = (0, 4);
        if (value == 7) list[0] = 6;
        if (value == 8 || value == 9) list[0] = 2;
        if (value == 10) (list[0], list[1]) = (1, 7);
    }

    /// First and last page that a nest reads of each operand, for a word and a stretch of the fold.
    function pagesRead(uint32 value, uint32 word, uint32 from, uint32 to) internal pure returns (uint32, uint32) {
        if (value == 7) return ((4 * from + word) / 256, (4 * (to - 1) + word) / 256);
        return (word / 256, word / 256);
    }

    function foldLength(Shape memory shape, uint32 value) internal pure returns (uint32) {
        return value == 7 ? 75 : value == 8 ? shape.long : 1;
    }

    function next(uint32 tensor) internal pure returns (uint32) {
        return tensor == 0 ? 6 : tensor == 1 ? 10 : tensor == 2 ? 9 : 8;
    }

    function programLeaves(Shape memory shape) internal pure returns (bytes[] memory leaves) {
        leaves = new bytes[](2 + NESTS);
        leaves[0] = header(shape);
        leaves[1] = "{}";
        for (uint32 i = 0; i < NESTS; ++i) {
            leaves[2 + i] = nest(shape, FIRST_NEST + i);
        }
    }

    /// Type of a vector of u32.
    function vector(uint32 extent) internal pure returns (bytes memory) {
        return abi.encodePacked(hex"0201", extent);
    }

    /// Loops of a nest without fold.
    function map(uint32 extent) private pure returns (bytes memory) {
        return abi.encodePacked(hex"020100", extent, uint32(0));
    }

    /// An operand that reads a vector at loop 0 + `stride` times loop 1.
    function read(uint32 value, uint32 size, uint8 terms, uint8 loop, int32 stride)
        private
        pure
        returns (bytes memory operand)
    {
        operand = abi.encodePacked(hex"00", value, hex"01", uint32(0), size, hex"00", int32(0), terms);
        if (terms > 0) operand = abi.encodePacked(operand, uint8(0), int32(1));
        if (terms > 1) operand = abi.encodePacked(operand, loop, stride);
    }

    // ---------------------------------------------------------------- the machine

    function data(Shape memory shape) internal pure returns (uint32[][] memory tensors) {
        tensors = new uint32[][](2);
        (tensors[0], tensors[1]) = (ramp(shape.wide, 1_000_003), ramp(1, 5));
    }

    function initial(Shape memory shape) internal pure returns (uint32[][] memory state) {
        state = new uint32[][](STATE);
        (state[0], state[1], state[2], state[3]) = (ramp(shape.wide, 77_777_777), ramp(4, 9), ramp(1, 3), ramp(1, 4));
    }

    /// The states before and after each of `steps` steps, from `start` on.
    function execute(
        Shape memory shape,
        uint32[][] memory data_,
        uint32[][] memory start,
        uint32 steps,
        Fault memory fault
    ) internal pure returns (uint32[][][] memory states) {
        states = new uint32[][][](steps + 1);
        states[0] = start;
        for (uint32 step = 1; step <= steps; ++step) {
            uint32[][] memory values = run(shape, data_, states[step - 1], step, fault);
            states[step] = advance(values, step, fault);
        }
    }

    /// All values of a step: state before it, data, outputs of the nests.
    function run(Shape memory shape, uint32[][] memory data_, uint32[][] memory state, uint32 step, Fault memory fault)
        internal
        pure
        returns (uint32[][] memory values)
    {
        values = new uint32[][](FIRST_NEST + NESTS);
        for (uint32 i = 0; i < STATE; ++i) {
            values[i] = state[i];
        }
        (values[4], values[5]) = (data_[0], data_[1]);
        for (uint32 value = FIRST_NEST; value < values.length; ++value) {
            bool wrong = fault.mask != 0 && !fault.next && fault.step == step && fault.value == value;
            values[value] = output(shape, values, value, wrong ? fault : none());
        }
    }

    /// The next state that follows from the values of a step.
    function advance(uint32[][] memory values, uint32 step, Fault memory fault)
        internal
        pure
        returns (uint32[][] memory state)
    {
        bool wrong = fault.mask != 0 && fault.next && fault.step == step;
        state = new uint32[][](wrong && fault.value == STRAY ? STATE + 1 : STATE);
        for (uint32 i = 0; i < STATE; ++i) {
            state[i] = values[next(i)];
        }
        if (!wrong) return state;
        if (fault.value == STRAY) state[STRAY] = new uint32[](1);
        state[fault.value] = flipped(clone(state[fault.value]), fault.word, fault.mask);
    }

    function output(Shape memory shape, uint32[][] memory values, uint32 value, Fault memory fault)
        internal
        pure
        returns (uint32[] memory words)
    {
        if (value == 6) return _sum(values[0], values[4], shape.wide, fault);
        words = new uint32[](value == 7 || value == 10 ? 4 : 1);
        uint32 length = foldLength(shape, value);
        Fault memory right = none();
        for (uint32 word = 0; word < words.length; ++word) {
            bool wrong = fault.mask != 0 && fault.word == word;
            words[word] = fold(values, value, word, 0, length, init(value), wrong ? fault : right);
        }
        if (fault.word >= words.length) words = flipped(words, fault.word, fault.mask);
    }

    /// Nest 6, as fold() has it, but quick enough for a wide tensor.
    function _sum(uint32[] memory a, uint32[] memory b, uint32 wide, Fault memory fault)
        private
        pure
        returns (uint32[] memory words)
    {
        words = new uint32[](wide);
        unchecked {
            for (uint32 i = 0; i < wide; ++i) {
                words[i] = a[i] + b[i];
            }
        }
        if (fault.mask != 0) words = flipped(words, fault.word, fault.mask);
    }

    function init(uint32 value) internal pure returns (uint32) {
        return value == 7 ? 7 : value == 8 ? 1 : 0;
    }

    /// The accumulator after the iterations from … to - 1 of one word.
    function fold(
        uint32[][] memory values,
        uint32 value,
        uint32 word,
        uint32 from,
        uint32 to,
        uint32 accumulator,
        Fault memory fault
    ) internal pure returns (uint32) {
        unchecked {
            for (uint32 k = from; k < to; ++k) {
                if (value == 6) accumulator = values[0][word] + values[4][word];
                if (value == 7) accumulator += values[6][4 * k + word];
                if (value == 8) accumulator = 3 * accumulator + k + values[2][0];
                if (value == 9) accumulator = values[2][0] + 1;
                if (value == 10) accumulator = values[1][word] ^ values[7][word];
                if (k == fault.iteration) accumulator ^= fault.mask;
            }
            return accumulator;
        }
    }

    function none() internal pure returns (Fault memory) {}

    /// The words with one of them changed; a longer copy where it stands after the end.
    function flipped(uint32[] memory words, uint32 word, uint32 mask) internal pure returns (uint32[] memory copy) {
        copy = words;
        if (word >= words.length) {
            copy = new uint32[](word + 1);
            for (uint256 i = 0; i < words.length; ++i) {
                copy[i] = words[i];
            }
        }
        copy[word] ^= mask;
    }

    function clone(uint32[] memory words) internal pure returns (uint32[] memory copy) {
        copy = new uint32[](words.length);
        for (uint256 i = 0; i < words.length; ++i) {
            copy[i] = words[i];
        }
    }

    function ramp(uint32 length, uint32 stride) internal pure returns (uint32[] memory words) {
        words = new uint32[](length);
        unchecked {
            for (uint32 i = 0; i < length; ++i) {
                words[i] = (i + 1) * stride;
            }
        }
    }

    // ---------------------------------------------------------------- roots

    function page(uint32[] memory words, uint256 index) internal pure returns (bytes memory result) {
        result = new bytes(1024);
        _write(result, 0, words, index);
    }

    function pages(uint32[] memory words) internal pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[]((words.length + 255) / 256);
        bytes memory leaf = new bytes(1025);
        for (uint256 i = 0; i < leaves.length; ++i) {
            _write(leaf, 1, words, i);
            leaves[i] = sha256(leaf);
        }
    }

    /// Writes page `index` of `words`, little-endian, to `buffer` from byte `at` on.
    function _write(bytes memory buffer, uint256 at, uint32[] memory words, uint256 index) private pure {
        unchecked {
            uint256 length = words.length;
            for (uint256 eight = 0; eight < 32; ++eight) {
                uint256 line = 0;
                for (uint256 i = 256 * index + 8 * eight; i < 256 * index + 8 * eight + 8; ++i) {
                    uint256 word = i < length ? words[i] : 0;
                    word = (word & 0xff00ff) << 8 | word >> 8 & 0xff00ff;
                    line = line << 32 | word << 16 & 0xffff0000 | word >> 16;
                }
                assembly ("memory-safe") {
                    mstore(add(add(buffer, 32), add(at, shl(5, eight))), line)
                }
            }
        }
    }

    function tensorRoots(uint32[][] memory tensors, uint256 from, uint256 to)
        internal
        pure
        returns (bytes32[] memory roots)
    {
        roots = new bytes32[](to - from);
        for (uint256 i = from; i < to; ++i) {
            roots[i - from] = Trees.root(pages(tensors[i]));
        }
    }

    /// Leaves of a group of a state; group 1 may have a stray fourth.
    function group(uint32[][] memory state, uint32 index) internal pure returns (bytes32[] memory leaves) {
        if (index == 0) return tensorRoots(state, 0, 1);
        leaves = tensorRoots(state, 1, state.length);
        if (state.length > STATE) leaves[3] = bytes32(uint256(state[STRAY][0]));
    }

    function groups(uint32[][] memory state) internal pure returns (bytes32[] memory roots) {
        roots = new bytes32[](GROUPS);
        (roots[0], roots[1]) = (Trees.root(group(state, 0)), Trees.root(group(state, 1)));
    }

    function stateRoot(uint32[][] memory state) internal pure returns (bytes32) {
        return Trees.root(groups(state));
    }

    function stateRoots(uint32[][][] memory states, uint256 from, uint256 to, uint256 every)
        internal
        pure
        returns (bytes32[] memory roots)
    {
        roots = new bytes32[]((to - from + every - 1) / every + 1);
        for (uint256 i = 0; i < roots.length; ++i) {
            uint256 at = from + i * every;
            roots[i] = stateRoot(states[at < to ? at : to]);
        }
    }
}
