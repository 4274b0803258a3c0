// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Game, IDispute} from "../interfaces/IDispute.sol";

/// The stretch of a fold in dispute, and its pieces.
library Fold {
    uint256 internal constant REFEREE = 4;
    uint256 private constant PIECES = 4096;

    /// Whether the stretch is short enough for the Referee.
    function isShort(Game storage g) internal view returns (bool) {
        return g.to - g.from <= REFEREE;
    }

    /// Length of the pieces into which a stretch of `length` > 4 is cut, and how many there are.
    function cut(uint256 length) internal pure returns (uint256 size, uint256 pieces) {
        size = REFEREE;
        while (length > size * PIECES) size *= PIECES;
        pieces = (length + size - 1) / size;
    }

    /// Narrows the stretch to one of its pieces, given the words at the inner ends, which the defender showed.
    function narrow(Game storage g, uint256 piece, bytes calldata partials) internal {
        (uint256 size, uint256 pieces) = cut(g.to - g.from);
        if (piece >= pieces) revert IDispute.OutOfRange(piece, pieces);
        if (piece > 0) g.accumulator = word(partials, piece - 1);
        if (piece + 1 < pieces) {
            g.claimed = word(partials, piece);
            g.to = uint32(g.from + (piece + 1) * size);
        }
        g.from += uint32(piece * size);
    }

    /// Partials are big-endian, as numbers in encodings are.
    function word(bytes calldata partials, uint256 i) internal pure returns (uint32) {
        return uint32(bytes4(partials[4 * i:4 * i + 4]));
    }

    /// Words of a page are little-endian, as they lie in most memories.
    function wordOfPage(bytes calldata page, uint256 i) internal pure returns (uint32 word_) {
        for (uint256 b = 4; b > 0; --b) {
            word_ = word_ << 8 | uint8(page[4 * i + b - 1]);
        }
    }
}
