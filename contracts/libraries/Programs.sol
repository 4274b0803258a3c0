// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Game, IDispute, ProgramLeaf, ValueProof} from "../interfaces/IDispute.sol";
import {HeaderShape, IReferee, NestShape} from "../interfaces/IReferee.sol";
import {DataRoot, ProgramRoot, StateRoot} from "../types/Ids.sol";
import {Roots} from "./Roots.sol";

/// Where the parts of a program and its values stand in their trees.
library Programs {
    /// Leaves before the nests: header and labels.
    uint256 private constant FIRST_NEST = 2;

    /// Reverts with BadProof unless `header` is the header of the program, in a tree for `nests` nests.
    function requireHeader(Game storage g, uint256 nests, ProgramLeaf calldata header) internal view {
        _requireLeaf(g, nests, 0, header);
    }

    /// Reverts with BadProof unless `nest` is nest `index` of the program, which has `nests` of them.
    function requireNest(Game storage g, uint256 nests, uint256 index, ProgramLeaf calldata nest) internal view {
        if (index >= nests) revert IDispute.OutOfRange(index, nests);
        _requireLeaf(g, nests, FIRST_NEST + index, nest);
    }

    /// Reverts with BadProof unless `header` is a leaf on the left edge of the program's tree. There is but one such
    /// leaf, so that a header that cannot be decoded, and says no count, has its place too.
    function requireUndecoded(Game storage g, ProgramLeaf calldata header) internal view {
        bytes32 leaf = Roots.leaf(header.data);
        if (Roots.climb(leaf, 0, header.proof) != ProgramRoot.unwrap(g.programRoot)) revert IDispute.BadProof();
    }

    /// Number of the value that nest 0 gives.
    function firstNest(HeaderShape memory shape) internal pure returns (uint32) {
        return shape.state + shape.data;
    }

    function isNest(HeaderShape memory shape, uint32 value) internal pure returns (bool) {
        return value >= firstNest(shape) && value - firstNest(shape) < shape.nests;
    }

    /// Number of the first tensor of `group`.
    function firstTensor(HeaderShape memory shape, uint256 group) internal pure returns (uint32 first) {
        for (uint256 i = 0; i < group; ++i) {
            first += shape.groups[i];
        }
    }

    /// Reverts with BadProof unless `v` is a value of the step in dispute with its agreed root: of the state before it,
    /// of the data, or the output of a nest.
    function requireValue(Game storage g, HeaderShape memory shape, ValueProof calldata v) internal view {
        bool proved = false;
        if (v.value < shape.state) {
            proved = _isStateTensor(g, shape, v);
        } else if (v.value < firstNest(shape)) {
            proved = Roots.verify(DataRoot.unwrap(g.dataRoot), shape.data, v.root, v.value - shape.state, v.proof);
        } else if (isNest(shape, v.value)) {
            proved = Roots.verify(g.nestsRoot, shape.nests, v.root, v.value - firstNest(shape), v.proof);
        }
        if (!proved) revert IDispute.BadProof();
    }

    /// What the Referee says of a nest; not valid if it says that it is malformed.
    function nestShape(IReferee referee, bytes calldata nest)
        internal
        view
        returns (bool valid, NestShape memory shape)
    {
        try referee.shapeOf(nest) returns (NestShape memory decoded) {
            return (true, decoded);
        } catch (bytes memory reason) {
            // INVARIANT: a call that failed for another reason, as for want of gas, proves nothing about the nest.
            if (bytes4(reason) != IReferee.InvalidNest.selector) {
                assembly ("memory-safe") {
                    revert(add(reason, 32), mload(reason))
                }
            }
        }
    }

    function _isStateTensor(Game storage g, HeaderShape memory shape, ValueProof calldata v)
        private
        view
        returns (bool)
    {
        uint256 group = 0;
        uint256 tensor = v.value;
        uint256 size = shape.groups[0];
        unchecked {
            for (; tensor >= size; size = shape.groups[++group]) {
                tensor -= size;
            }
        }
        uint256 inGroup = Roots.height(size);
        if (v.proof.length < inGroup) return false;
        bytes32 groupRoot = Roots.climb(v.root, tensor, v.proof[:inGroup]);
        return Roots.verify(StateRoot.unwrap(g.before), shape.groups.length, groupRoot, group, v.proof[inGroup:]);
    }

    function _requireLeaf(Game storage g, uint256 nests, uint256 index, ProgramLeaf calldata leaf) private view {
        bytes32 root = ProgramRoot.unwrap(g.programRoot);
        // INVARIANT: each leaf of the program stands at one place, at the depth that its header says.
        if (!Roots.verify(root, FIRST_NEST + nests, Roots.leaf(leaf.data), index, leaf.proof)) {
            revert IDispute.BadProof();
        }
    }
}
