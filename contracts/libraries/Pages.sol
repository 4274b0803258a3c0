// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IReferee, Operand, Page} from "../interfaces/IReferee.sol";
import {Encoding} from "./Encoding.sol";
import {Nest, Nests} from "./Nests.sol";
import {Roots} from "./Roots.sol";

/// Pages that were opened rightly.
/// @param keys value and page number of each, value * 2^32 + page
/// @param words where each page's words stand in the calldata
/// @param last the page that was read last
struct Opened {
    uint256[] keys;
    uint256[] words;
    uint256 last;
}

/// Words of the tensors that a nest reads, from pages proved against the tensors' roots.
library Pages {
    using Encoding for bytes;

    uint256 private constant PAGE_WORDS = 256;

    /// Checks all pages. Reverts with BadPage if one does not stand where it is said to in an operand that `nest` reads.
    function open(bytes calldata encoded, Nest memory nest, Operand[] calldata operands, Page[] calldata pages)
        internal
        view
        returns (Opened memory opened)
    {
        opened.keys = new uint256[](pages.length);
        opened.words = new uint256[](pages.length);
        for (uint256 i = 0; i < pages.length; ++i) {
            Page calldata page = pages[i];
            if (page.operand >= operands.length) revert IReferee.BadPage(type(uint32).max, page.index);
            Operand calldata operand = operands[page.operand];
            if (!_stands(encoded, nest, operand, page)) revert IReferee.BadPage(operand.value, page.index);
            opened.keys[i] = uint256(operand.value) << 32 | page.index;
            bytes calldata words = page.words;
            uint256 at;
            assembly ("memory-safe") {
                at := words.offset
            }
            opened.words[i] = at;
        }
    }

    function _stands(bytes calldata encoded, Nest memory nest, Operand calldata operand, Page calldata page)
        private
        view
        returns (bool)
    {
        uint256 words = _wordsOf(encoded, nest, operand.value);
        uint256 count = (words + PAGE_WORDS - 1) / PAGE_WORDS;
        // No page beyond the count passes: leaves of padding are zero, which is the hash of no page.
        return page.words.length == 4 * PAGE_WORDS
            && Roots.verify(operand.root, count, Roots.leaf(page.words), page.index, page.proof);
    }

    /// Number of words of value `value` as the nest reads it; 0 if it does not.
    function _wordsOf(bytes calldata encoded, Nest memory nest, uint256 value) private pure returns (uint256) {
        for (uint256 i = 0; i < nest.operands.length; ++i) {
            uint256 at = nest.operands[i];
            if (encoded.u8(at) == Nests.READ && encoded.u32(at + 1) == value) return Nests.wordsRead(encoded, at);
        }
        return 0;
    }

    /// Word number `position` of value `value`. Reverts with MissingPage if its page is not opened.
    function read(Opened memory opened, uint256 value, uint256 position) internal pure returns (uint256 word) {
        unchecked {
            uint256 key = value << 32 | position / PAGE_WORDS;
            uint256 count = opened.keys.length;
            uint256 i = opened.last;
            for (uint256 tried = 0; tried < count; ++tried) {
                if (i >= count) i = 0;
                if (opened.keys[i] == key) {
                    opened.last = i;
                    return _littleEndian(opened.words[i] + 4 * (position % PAGE_WORDS));
                }
                ++i;
            }
            revert IReferee.MissingPage(uint32(value), uint32(position / PAGE_WORDS));
        }
    }

    function _littleEndian(uint256 at) private pure returns (uint256 word) {
        assembly ("memory-safe") {
            let raw := calldataload(at)
            word := or(or(byte(0, raw), shl(8, byte(1, raw))), or(shl(16, byte(2, raw)), shl(24, byte(3, raw))))
        }
    }
}
