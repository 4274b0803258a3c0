// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {DataRoot, GameId, JobId, ProgramRoot, Seal, StateRoot} from "../types/Ids.sol";
import {SegmentSpec} from "./IMarket.sol";
import {Page} from "./IReferee.sol";

/// @notice Whose move is awaited, and which. Names are those of docs/PROTOCOL.md, "The dispute game".
enum Phase {
    None,
    RevealTrace, // defender
    PickCheckpoint, // challenger
    RevealStates, // defender
    PickStep, // challenger
    RevealStep, // defender
    RevealChildren, // defender
    PickChild, // challenger
    RevealPage, // defender
    PickWord, // challenger
    RevealPartials, // defender
    PickPartial, // challenger
    Prove, // challenger: the Referee's step
    ProveNext, // challenger: a next-state tensor is not the named value
    Over
}

/// @notice The tree in which the players descend.
enum Tree {
    Nests, // over the outputs of the step's nests
    Groups, // of the claimed next state
    Tensors, // of one of its groups
    Pages // of one nest's output
}

enum Reason {
    None,
    WrongWord, // the Referee computed another word
    RightWord, // the Referee computed the claimed word
    BadBinding, // the ends of a tree are not what is agreed or committed
    BindingHolds, // a next-state tensor is the named value after all
    BadChildren, // what was shown does not hash to the node
    BadPadding, // something other than zero stands after the end of a tree or tensor
    PaddingHolds, // it is zero after all
    InvalidProgram, // the program breaks a rule of validity
    ValidProgram, // it does not break the rule it was said to break
    Timeout, // the clock of the one who had to move ran out
    Moot // the attempt was overturned or voided by somebody else
}

/// @notice A dispute as it stands.
/// @param since when the awaited move began to be awaited, or will: no game begins before attestations are in
/// @param defenderLeft, challengerLeft seconds left on the clocks, at `since`
/// @param first step before the interval or step in dispute, counted in the segment
/// @param length number of steps from `before` to `afterRoot`
/// @param tree, node, height, index, count where the players stand: a node `height` levels above the leaves, the
/// `index`-th at its level, in a tree of `count` leaves
/// @param value number of the value in dispute; while descending in Nests or Tensors, that of the tree's first leaf
/// @param words, foldLength of its nest
/// @param word flat position of the word in dispute
/// @param from, to, accumulator, claimed the stretch of the fold in dispute, with the agreed word before it and the
/// claimed one after it
/// @param position changes with every move; every move names the position that it answers
/// @param before state root that is agreed
/// @param afterRoot state root that is claimed
/// @param listRoot root of the list shown last (trace or step states); the seal, before one is shown
/// @param listCount its length
/// @param nestsRoot root of the tree over the step's nests' outputs
/// @param listHash keccak256 of the partials shown last
struct Game {
    Phase phase;
    Reason reason;
    Tree tree;
    uint8 height;
    uint64 since;
    uint32 defenderLeft;
    uint32 challengerLeft;
    JobId job;
    uint32 segment;
    // next slot
    address defender;
    uint32 attempt;
    uint32 steps;
    uint32 interval;
    // next slot
    address challenger;
    uint32 first;
    uint32 length;
    uint32 listCount;
    // next slot
    uint128 bond;
    uint32 index;
    uint32 count;
    uint32 value;
    uint32 words;
    // next slot
    uint32 foldLength;
    uint32 word;
    uint32 from;
    uint32 to;
    uint32 accumulator;
    uint32 claimed;
    // a slot each
    bytes32 position;
    ProgramRoot programRoot;
    DataRoot dataRoot;
    StateRoot before;
    StateRoot afterRoot;
    bytes32 listRoot;
    bytes32 nestsRoot;
    bytes32 node;
    bytes32 listHash;
}

/// @notice A leaf of the program: header or nest, with its proof.
struct ProgramLeaf {
    bytes data;
    bytes32[] proof;
}

/// @notice A value's tensor root with the proof that it is one: for a state tensor, siblings in its group, then of
/// the group in the state; for a data tensor, in the dataset; for a nest's output, in the tree of the step.
struct ValueProof {
    uint32 value;
    bytes32 root;
    bytes32[] proof;
}

/// @title The dispute game
/// @notice Every move is open to one player only, names the position it answers, and costs that player's clock.
interface IDispute {
    event Challenged(
        GameId indexed game,
        JobId indexed job,
        uint32 indexed segment,
        uint32 attempt,
        address challenger,
        address defender
    );
    event TraceRevealed(GameId indexed game, bytes32 position, bytes32[] checkpoints);
    event CheckpointPicked(GameId indexed game, bytes32 position, uint32 checkpoint);
    event StatesRevealed(GameId indexed game, bytes32 position, bytes32[] states);
    event StepPicked(GameId indexed game, bytes32 position, uint32 step);
    event ChildrenRevealed(GameId indexed game, bytes32 position, Tree tree, bytes32[] children);
    event ChildPicked(GameId indexed game, bytes32 position, Tree tree, uint32 index);
    event NextDisputed(GameId indexed game, bytes32 position);
    event PageRevealed(GameId indexed game, bytes32 position, uint32 page, bytes words);
    event WordPicked(GameId indexed game, bytes32 position, uint32 word, uint32 claimed);
    event PartialsRevealed(GameId indexed game, bytes32 position, bytes partials);
    event PartialPicked(
        GameId indexed game, bytes32 position, uint32 from, uint32 to, uint32 accumulator, uint32 claimed
    );
    event Judged(GameId indexed game, uint32 computed, uint32 claimed);
    /// @notice Nobody wins or loses a game that is Moot: both are the zero address.
    event Closed(GameId indexed game, address indexed winner, address indexed loser, Reason reason);

    error WrongPhase(Phase actual, Phase needed);
    error WrongPosition(bytes32 actual, bytes32 answered);
    error NotPlayer(address mover, address caller);
    error ClockOver(uint64 since, uint32 left);
    error ClockRunning(uint64 since, uint32 left);
    error NotBegun(uint64 since);
    error SealChanged(Seal actual, Seal named);
    error WrongLength(uint256 actual, uint256 needed);
    error OutOfRange(uint256 index, uint256 count);
    error NotAtRoot(Tree tree, uint8 height);
    error BadProof();
    error NotMoot();

    /// @notice Begins a dispute of the commitment with this seal, locking the job's stake as the caller's bond. Moves are
    /// made when attestations are no longer taken, so that the trace is not shown to those who copy.
    function challenge(JobId job, uint32 segment, SegmentSpec calldata spec, Seal seal) external returns (GameId game);

    // moves of the defender
    function revealTrace(GameId game, bytes32 position, bytes32[] calldata checkpoints) external;
    function revealStates(GameId game, bytes32 position, bytes32[] calldata states) external;
    function revealStep(GameId game, bytes32 position, ProgramLeaf calldata header, bytes32[] calldata children)
        external;
    function revealChildren(GameId game, bytes32 position, bytes32[] calldata children) external;
    function revealPage(GameId game, bytes32 position, bytes calldata words) external;
    function revealPartials(GameId game, bytes32 position, bytes calldata partials) external;

    // moves of the challenger
    function pickCheckpoint(
        GameId game,
        bytes32 position,
        uint32 checkpoint,
        bytes32 before,
        bytes32[] calldata beforeProof,
        bytes32 afterRoot,
        bytes32[] calldata afterProof
    ) external;
    function pickStep(
        GameId game,
        bytes32 position,
        uint32 step,
        bytes32 before,
        bytes32[] calldata beforeProof,
        bytes32 afterRoot,
        bytes32[] calldata afterProof
    ) external;

    /// @notice Descends to one of the children shown. At a leaf, `leaf` says what stands there: the nest for Nests,
    /// the header for Groups; empty otherwise.
    function pickChild(
        GameId game,
        bytes32 position,
        uint32 child,
        bytes32 node,
        bytes32[] calldata proof,
        ProgramLeaf calldata leaf
    ) external;

    /// @notice Instead of picking a nest: all nests are right, so the claimed next state is not made of them.
    function disputeNext(GameId game, bytes32 position, ProgramLeaf calldata header) external;

    function pickWord(GameId game, bytes32 position, uint32 word, bytes calldata page) external;
    function pickPartial(GameId game, bytes32 position, uint32 piece, bytes calldata partials) external;

    /// @notice The last move: the Referee computes the stretch in dispute, and the game is over.
    function prove(
        GameId game,
        bytes32 position,
        ProgramLeaf calldata header,
        ProgramLeaf calldata nest,
        ValueProof[] calldata values,
        Page[] calldata pages
    ) external;

    /// @notice The other last move: shows which value the next-state tensor in dispute should be.
    function proveNext(GameId game, bytes32 position, ProgramLeaf calldata header, ValueProof calldata value) external;

    /// @notice At any turn of the challenger: nest `index` breaks a rule of validity (see IReferee.isInvalid).
    function proveInvalidNest(
        GameId game,
        bytes32 position,
        ProgramLeaf calldata header,
        uint32 index,
        ProgramLeaf calldata nest,
        uint32 read,
        ProgramLeaf calldata producer
    ) external;

    /// @notice At any turn of the challenger: the header breaks a rule that can be checked on it alone, if `tensor` is
    /// 2^32 - 1, or state tensor `tensor` becomes a wrong value (see IReferee.isInvalidHeader).
    function proveInvalidHeader(
        GameId game,
        bytes32 position,
        ProgramLeaf calldata header,
        uint32 tensor,
        ProgramLeaf calldata producer
    ) external;

    /// @notice Ends a game in which the clock of the player who has to move ran out. Anybody.
    function timeout(GameId game) external;

    /// @notice Ends a game whose attempt is no longer committed; the bond is returned. Anybody.
    function close(GameId game) external;

    function games(GameId game) external view returns (Game memory);

    function gameCount() external view returns (uint64);
}
