// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IReferee} from "../interfaces/IReferee.sol";
import {Encoding} from "./Encoding.sol";
import {Nests} from "./Nests.sol";

/// Counts of a header, and where its lists stand in the encoding.
struct Header {
    uint256 groups;
    uint256 state;
    uint256 data;
    uint256 logs;
    uint256 nests;
    uint256 stateAt;
    uint256 dataAt;
    uint256 logsAt;
}

/// What the readers of a value rely on. Its shape is its own affair: each operand brings a shape of as many words.
struct Extent {
    uint256 dtype;
    uint256 words;
}

/// Decodes headers and checks their rules: docs/PROTOCOL.md, "Programs".
library Headers {
    using Encoding for bytes;

    uint256 private constant MAGIC = 0x43545031; // CTP1
    uint256 private constant MAX_BYTES = 2 ** 16;
    uint256 private constant MAX_GROUPS = 2 ** 8;
    uint256 private constant MAX_TENSORS = 2 ** 13;
    uint256 private constant MAX_VALUES = 2 ** 16;
    uint256 private constant GROUPS_AT = 16;

    /// The header in `data`, which may break rules. Reverts with InvalidHeader if it is malformed.
    function decode(bytes calldata data) internal pure returns (Header memory header) {
        string memory flaw;
        (header, flaw) = parse(data);
        if (bytes(flaw).length > 0) revert IReferee.InvalidHeader(flaw);
    }

    /// The header in `data`, and why it is malformed; no text if it is not.
    function parse(bytes calldata data) internal pure returns (Header memory header, string memory flaw) {
        unchecked {
            // INVARIANT: every move that carries a header which is not malformed fits a transaction.
            if (data.length > MAX_BYTES) return (header, "too long");
            if (data.u32(0) != MAGIC) return (header, "magic");
            (header.groups, header.state) = (data.u16(4), data.u16(6));
            (header.data, header.logs) = (data.u16(8), data.u16(10));
            header.nests = data.u32(12);
            if (header.groups > MAX_GROUPS) return (header, "too many groups");
            if (header.state + header.data > MAX_TENSORS) return (header, "too many tensors");
            header.stateAt = GROUPS_AT + 2 * header.groups;
            // Each entry takes bytes, so that false counts do not make the loops long.
            uint256 least = 6 * header.state + 2 * header.data + 4 * header.logs;
            if (header.stateAt + least > data.length) return (header, "length");
            (header.dataAt, flaw) = _skipTypes(data, header.stateAt, header.state, 4);
            if (bytes(flaw).length > 0) return (header, flaw);
            (header.logsAt, flaw) = _skipTypes(data, header.dataAt, header.data, 0);
            if (bytes(flaw).length > 0) return (header, flaw);
            if (header.logsAt + 4 * header.logs != data.length) return (header, "length");
        }
    }

    /// Where `count` types end that begin at `at`, each with `extra` bytes after it.
    function _skipTypes(bytes calldata data, uint256 at, uint256 count, uint256 extra)
        private
        pure
        returns (uint256, string memory flaw)
    {
        unchecked {
            extra += 2;
            for (; count > 0; --count) {
                uint256 dtypeAndRank = data.u16(at);
                uint256 rank = dtypeAndRank & 0xff;
                if (dtypeAndRank > 0x2ff) return (at, "dtype");
                if (rank > Nests.MAX_RANK) return (at, "rank");
                at += 4 * rank + extra;
            }
            return (at, flaw);
        }
    }

    /// The rule that a well-formed header breaks; no text if none.
    function check(bytes calldata data, Header memory header) internal pure returns (string memory flaw) {
        unchecked {
            if (header.groups == 0 || header.state == 0 || header.nests == 0) return "nothing there";
            uint256 values = header.state + header.data + header.nests;
            if (values > MAX_VALUES) return "values";
            uint256 tensors = 0;
            for (uint256 i = 0; i < header.groups; ++i) {
                uint256 size = groupSize(data, i);
                if (size == 0) return "empty group";
                tensors += size;
            }
            if (tensors != header.state) return "groups";
            uint256[] memory types = new uint256[](header.state + header.data);
            if (!_readTypes(data, header, types)) return "extent";
            if (!_checkNext(types, header.state, values)) return "next value";
            for (uint256 at = header.logsAt; at < data.length; at += 4) {
                if (data.u32(at) >= values) return "logged value";
            }
        }
    }

    /// Fills `types` with what readers of state and data tensors rely on: each one's words, above them its data type,
    /// and above 64 bits the value that becomes it. False if an extent, or their product, breaks a rule.
    function _readTypes(bytes calldata data, Header memory header, uint256[] memory types) private pure returns (bool) {
        unchecked {
            (uint256 at, uint256 dataAt, uint256 count) = (header.stateAt, header.dataAt, types.length);
            for (uint256 i = 0; i < count; ++i) {
                uint256 kind = data.u8(at) << 32;
                uint256 end = at + 2 + 4 * data.u8(at + 1);
                uint256 words = 1;
                for (at += 2; at < end; at += 4) {
                    uint256 extent = data.u32(at);
                    if (extent > Nests.MAX_EXTENT) return false;
                    words *= extent;
                }
                if (words == 0 || words > Nests.MAX_EXTENT) return false;
                if (at < dataAt) {
                    kind |= data.u32(at) << 64;
                    at += 4;
                }
                types[i] = kind | words;
            }
            return true;
        }
    }

    /// Whether what becomes of each state tensor exists, and is of its type if it is a state or data tensor.
    function _checkNext(uint256[] memory types, uint256 state, uint256 values) private pure returns (bool) {
        unchecked {
            uint256 count = types.length;
            for (uint256 i = 0; i < state; ++i) {
                uint256 kind = types[i];
                uint256 next = kind >> 64;
                if (next >= values) return false;
                if (next < count && uint64(kind ^ types[next]) != 0) return false;
            }
            return true;
        }
    }

    /// Whether a value of the one may become a state tensor of the other.
    function same(Extent memory a, Extent memory b) internal pure returns (bool) {
        return a.dtype == b.dtype && a.words == b.words;
    }

    /// Number of tensors of group `group`.
    function groupSize(bytes calldata data, uint256 group) internal pure returns (uint256) {
        return data.u16(GROUPS_AT + 2 * group);
    }

    /// Number of the value that becomes state tensor `tensor`.
    function nextOf(bytes calldata data, Header memory header, uint256 tensor) internal pure returns (uint256) {
        uint256 at = _typeAt(data, header, tensor);
        return data.u32(at + 2 + 4 * data.u8(at + 1));
    }

    /// Type and words of a state or data tensor.
    function extentOf(bytes calldata data, Header memory header, uint256 value) internal pure returns (Extent memory) {
        return _extentAt(data, _typeAt(data, header, value));
    }

    /// Type and words of the tensor whose type stands at `at`. At most eight extents of 32 bits: no overflow.
    function _extentAt(bytes calldata data, uint256 at) private pure returns (Extent memory extent) {
        unchecked {
            extent.dtype = data.u8(at);
            extent.words = 1;
            uint256 rank = data.u8(at + 1);
            for (uint256 d = 0; d < rank; ++d) {
                extent.words *= data.u32(at + 2 + 4 * d);
            }
        }
    }

    /// Where the type of a state or data tensor stands.
    function _typeAt(bytes calldata data, Header memory header, uint256 value) private pure returns (uint256 at) {
        unchecked {
            at = header.stateAt;
            for (uint256 i = 0; i < value; ++i) {
                at += 2 + 4 * data.u8(at + 1) + (i < header.state ? 4 : 0);
            }
        }
    }
}
