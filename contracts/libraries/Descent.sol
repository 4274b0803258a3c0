// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Game, IDispute, Phase, Tree} from "../interfaces/IDispute.sol";
import {Roots} from "./Roots.sol";

/// Going down a Merkle tree, eight levels at a time.
library Descent {
    uint8 private constant LEVELS = 8;

    /// Places the players at the root of a tree of `count` leaves.
    function enter(Game storage g, Tree tree, bytes32 root, uint256 count) internal {
        g.tree = tree;
        g.node = root;
        g.index = 0;
        g.count = uint32(count);
        g.height = Roots.height(count);
    }

    /// How many children of a node `height` levels above the leaves are shown at once.
    function fanOut(uint8 height) internal pure returns (uint256) {
        return uint256(1) << (height < LEVELS ? height : LEVELS);
    }

    /// Moves down to `node`, the `child`-th of those shown. Reverts with OutOfRange or BadProof.
    function down(Game storage g, uint32 child, bytes32 node, bytes32[] calldata proof) internal {
        uint256 children = fanOut(g.height);
        if (child >= children) revert IDispute.OutOfRange(child, children);
        // INVARIANT: the challenger disputes what the defender showed.
        if (!Roots.verify(g.node, children, node, child, proof)) revert IDispute.BadProof();
        g.node = node;
        g.index = uint32(g.index * children + child);
        g.height -= uint8(proof.length);
    }

    /// Whether the players stand at a leaf after the last one, which must be zero.
    function inPadding(Game storage g) internal view returns (bool) {
        return g.height == 0 && g.index >= g.count;
    }
}
