// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {HeaderShape, IReferee, NestShape, Operand, Page} from "./interfaces/IReferee.sol";
import {Body} from "./libraries/Body.sol";
import {Encoding} from "./libraries/Encoding.sol";
import {Extent, Header, Headers} from "./libraries/Headers.sol";
import {Nest, Nests} from "./libraries/Nests.sol";
import {Opened, Pages} from "./libraries/Pages.sol";

/// @title The judge of the last step
contract Referee is IReferee {
    using Encoding for bytes;
    using Headers for bytes;

    // ---------------------------------------------------------------- execution

    /// @inheritdoc IReferee
    function evaluate(
        bytes calldata nest,
        Operand[] calldata operands,
        Page[] calldata pages,
        uint32 output,
        uint32 from,
        uint32 to,
        uint32 accumulator
    ) external view returns (uint32) {
        Nest memory n = Nests.decode(nest);
        if (output >= n.words) revert OutOfRange(output, n.words);
        if (to > n.foldLength) revert OutOfRange(to, n.foldLength);
        Opened memory opened = Pages.open(nest, n, operands, pages);
        uint256[] memory words = _words(nest, n);
        words[0] = accumulator;
        for (uint256 iteration = from; iteration < to; ++iteration) {
            words[0] = _iterate(nest, n, opened, words, _loops(n, output, iteration));
        }
        return uint32(words[0]);
    }

    /// What a body's references refer to: the accumulator, operands, immediates (set already), instructions.
    function _words(bytes calldata nest, Nest memory n) private pure returns (uint256[] memory words) {
        uint256 first = 1 + n.operands.length;
        words = new uint256[](first + (n.end - n.immediates) / 4);
        for (uint256 at = n.immediates; at < n.instructions; at += 4) {
            words[first++] = nest.u32(at);
        }
    }

    /// Indices of all loops for one output element in one iteration of the fold.
    function _loops(Nest memory n, uint256 output, uint256 iteration) private pure returns (uint256[] memory loops) {
        loops = new uint256[](n.extents.length);
        for (uint256 i = loops.length; i > 0; --i) {
            uint256 extent = n.extents[i - 1];
            if (i > n.outerRank) {
                loops[i - 1] = iteration % extent;
                iteration /= extent;
            } else {
                loops[i - 1] = output % extent;
                output /= extent;
            }
        }
    }

    /// The body's result, with the accumulator in `words[0]`.
    function _iterate(
        bytes calldata nest,
        Nest memory n,
        Opened memory opened,
        uint256[] memory words,
        uint256[] memory loops
    ) private pure returns (uint256) {
        for (uint256 i = 0; i < n.operands.length; ++i) {
            words[1 + i] = _operand(nest, n.operands[i], opened, words, loops);
        }
        bytes memory code = nest[n.instructions:n.end];
        uint256 at;
        assembly ("memory-safe") {
            at := add(code, 32)
        }
        uint256 count = code.length / 4;
        Body.run(words, at, count, words.length - count);
        return words[n.result];
    }

    /// The word of the operand that stands at `at`.
    function _operand(
        bytes calldata nest,
        uint256 at,
        Opened memory opened,
        uint256[] memory words,
        uint256[] memory loops
    ) private pure returns (uint256) {
        if (nest.u8(at) == Nests.INDEX) return loops[nest.u8(at + 1)];
        uint256 value = nest.u32(at + 1);
        uint256 rank = nest.u8(at + 5);
        uint256 fill = nest.u32(at + 6);
        uint256 flat = 0;
        at += 10;
        for (uint256 d = 0; d < rank; ++d) {
            uint256 size = nest.u32(at);
            (bool exact, int256 position) = _position(nest, at, words, loops);
            if (!exact || position < 0 || position >= int256(size)) return fill;
            flat = flat * size + uint256(position);
            at = Nests.afterAxis(nest, at);
        }
        return Pages.read(opened, value, flat);
    }

    /// The position along the axis that stands at `at`; not exact if the axis must divide and does not.
    function _position(bytes calldata nest, uint256 at, uint256[] memory words, uint256[] memory loops)
        private
        pure
        returns (bool exact, int256 position)
    {
        // Nests.parse has bounded |position| by 2^62.
        unchecked {
            uint256 mode = nest.u8(at + 4);
            if (mode == Nests.GATHER) return (true, int256(words[1 + nest.u8(at + 5)]));
            position = nest.i32(at + 5);
            at += 9;
            int256 divisor = 1;
            if (mode != Nests.AFFINE) {
                divisor = int256(nest.u32(at));
                at += 4;
            }
            uint256 end = at + 1 + 5 * nest.u8(at);
            for (++at; at < end; at += 5) {
                position += nest.i32(at + 1) * int256(loops[nest.u8(at)]);
            }
            int256 remainder = position % divisor;
            exact = mode != Nests.EXACT || remainder == 0;
            position /= divisor;
            if (remainder < 0) --position;
        }
    }

    // ---------------------------------------------------------------- decoding

    /// @inheritdoc IReferee
    function shapeOf(bytes calldata nest) external pure returns (NestShape memory) {
        Nest memory n = Nests.decode(nest);
        return NestShape(uint32(n.words), uint32(n.foldLength), uint32(n.init));
    }

    /// @inheritdoc IReferee
    function headerOf(bytes calldata header) external pure returns (HeaderShape memory shape) {
        Header memory h = header.decode();
        (shape.state, shape.data, shape.nests) = (uint32(h.state), uint32(h.data), uint32(h.nests));
        shape.groups = new uint32[](h.groups);
        for (uint256 i = 0; i < h.groups; ++i) {
            shape.groups[i] = uint32(header.groupSize(i));
        }
    }

    /// @inheritdoc IReferee
    function nextOf(bytes calldata header, uint32 tensor) external pure returns (uint32) {
        Header memory h = header.decode();
        if (tensor >= h.state) revert OutOfRange(tensor, h.state);
        return uint32(header.nextOf(h, tensor));
    }

    // ---------------------------------------------------------------- validity

    /// @inheritdoc IReferee
    function isInvalid(bytes calldata header, uint32 index, bytes calldata nest, uint32 read, bytes calldata producer)
        external
        pure
        returns (bool)
    {
        Header memory h = header.decode();
        (Nest memory n, string memory flaw) = Nests.parse(nest);
        if (bytes(flaw).length > 0) return true;
        uint256 first = h.state + h.data;
        bool reads = false;
        for (uint256 i = 0; i < n.operands.length; ++i) {
            if (nest.u8(n.operands[i]) != Nests.READ) continue;
            uint256 value = nest.u32(n.operands[i] + 1);
            if (value >= first + index) return true;
            if (value == read) reads = true;
        }
        if (!reads) return false;
        uint256 words = _extent(header, h, read, producer).words;
        for (uint256 i = 0; i < n.operands.length; ++i) {
            uint256 at = n.operands[i];
            if (nest.u8(at) != Nests.READ || nest.u32(at + 1) != read) continue;
            if (Nests.wordsRead(nest, at) != words) return true;
        }
        return false;
    }

    /// @inheritdoc IReferee
    function isInvalidHeader(bytes calldata header, uint32 tensor, bytes calldata producer)
        external
        pure
        returns (bool)
    {
        (Header memory h, string memory flaw) = header.parse();
        if (bytes(flaw).length > 0) return true;
        if (tensor >= h.state) return bytes(header.check(h)).length > 0;
        uint256 next = header.nextOf(h, tensor);
        if (next >= h.state + h.data + h.nests) return true;
        return !Headers.same(_extent(header, h, next, producer), header.extentOf(h, tensor));
    }

    /// Type and words of a value; `producer` is the nest that gives it, if one does.
    function _extent(bytes calldata header, Header memory h, uint256 value, bytes calldata producer)
        private
        pure
        returns (Extent memory)
    {
        if (value < h.state + h.data) return header.extentOf(h, value);
        Nest memory n = Nests.decode(producer);
        return Extent(n.dtype, n.words);
    }
}
