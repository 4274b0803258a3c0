// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @notice Number of a job, from 1.
type JobId is uint64;

/// @notice Number of a dispute, from 1.
type GameId is uint64;

/// @notice Root of a plan: Merkle tree over its segments' specifications.
type PlanRoot is bytes32;

/// @notice Root of a program: Merkle tree over header, labels and nests.
type ProgramRoot is bytes32;

/// @notice Root of a dataset: Merkle tree over the roots of its tensors.
type DataRoot is bytes32;

/// @notice Root of a state: Merkle tree over the roots of its groups.
type StateRoot is bytes32;

/// @notice `sha256(traceRoot ‖ account)`: binds a trace to the one who computed it, without showing it.
type Seal is bytes32;

using {eqState as ==, neState as !=} for StateRoot global;
using {eqSeal as ==, neSeal as !=} for Seal global;

function eqState(StateRoot a, StateRoot b) pure returns (bool) {
    return StateRoot.unwrap(a) == StateRoot.unwrap(b);
}

function neState(StateRoot a, StateRoot b) pure returns (bool) {
    return StateRoot.unwrap(a) != StateRoot.unwrap(b);
}

function eqSeal(Seal a, Seal b) pure returns (bool) {
    return Seal.unwrap(a) == Seal.unwrap(b);
}

function neSeal(Seal a, Seal b) pure returns (bool) {
    return Seal.unwrap(a) != Seal.unwrap(b);
}
