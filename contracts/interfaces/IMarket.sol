// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {DataRoot, JobId, PlanRoot, ProgramRoot, Seal, StateRoot} from "../types/Ids.sol";
import {IBurner} from "./IBurner.sol";

/// @notice What a buyer fixes when posting.
/// @param initialGroups number of groups of the initial state
/// @param segments number of segments of the plan
/// @param escrow token units for all segments together
/// @param stake token units a solver locks for each claim, and a challenger as bond
/// @param lease seconds from claim to commit
/// @param window seconds from commit in which a challenge may begin
/// @param clock seconds that each player of a dispute has for all their moves together, and that a solver has after the
/// window to reveal the trace root
/// @param auditRate least expected number of auditors of each commitment, in 1/10,000
/// @param auditShare what auditors of a segment share, in 1/10,000 of its price
/// @param deadline time after which nothing can be claimed any more, and what is unspent goes back
struct JobTerms {
    PlanRoot planRoot;
    StateRoot initialRoot;
    uint32 initialGroups;
    uint32 segments;
    uint128 escrow;
    uint128 stake;
    uint32 lease;
    uint32 window;
    uint32 clock;
    uint32 auditRate;
    uint32 auditShare;
    uint64 deadline;
}

/// @notice Where one input group comes from.
/// @param segment an earlier segment of the plan, or `type(uint32).max` for the job's initial state
/// @param group number of the group there
struct Source {
    uint32 segment;
    uint32 group;
}

/// @notice A leaf of the plan.
/// @param steps how often the program runs
/// @param interval steps between two checkpoints
/// @param price token units paid when it settles
/// @param inputs one for every group of the program's state, in its order
/// @param fallbacks none, or one for every input: where it is another source, the input is optional, and the fallback
/// takes its place if its segment is not committed when this one is claimed
/// @param quorum how many of the optional inputs must be there
struct SegmentSpec {
    ProgramRoot programRoot;
    DataRoot dataRoot;
    uint32 steps;
    uint32 interval;
    uint128 price;
    Source[] inputs;
    Source[] fallbacks;
    uint32 quorum;
}

/// @notice The root of an input group, with the proof that it is what its Source says.
struct GroupProof {
    bytes32 root;
    bytes32[] proof;
}

enum SegmentState {
    Open,
    Claimed,
    Committed,
    Settled
}

/// @notice A segment as it stands.
/// @param until end of the lease (Claimed) or of the window (Committed)
/// @param attempt grows each time a commitment is overturned, forfeited or voided
/// @param games open disputes of this attempt
/// @param heir who alone may claim before `heirUntil`
/// @param lapsed whose lease ran out last, and who may not claim before `lapsedUntil`
/// @param leaf the plan's leaf, from the claim on
/// @param inputAttempts sum of the inputs' attempts when it was claimed: no longer theirs if one was opened again
/// @param groups how many the output has, and the input
/// @param absent a bit for each input that was not there when it was claimed, and has its fallback instead
struct Segment {
    SegmentState state;
    address solver;
    uint64 until;
    uint16 groups;
    // next slot
    uint32 attempt;
    uint32 games;
    uint64 inputAttempts;
    uint128 price;
    // next slot
    address heir;
    uint48 heirUntil;
    uint48 lapsedUntil;
    // next slot
    address lapsed;
    // a slot each
    bytes32 leaf;
    StateRoot inputRoot;
    StateRoot outputRoot;
    Seal seal;
    uint256 absent;
}

/// @title Jobs and segments
/// @notice Life of a segment: Open → Claimed → Committed → Settled; Claimed → Open when the lease runs out;
/// Committed → Open when it is overturned or its trace root stays hidden (forfeited), and Claimed or Committed → Open
/// when one of its inputs was opened again.
interface IMarket is IBurner {
    event Posted(JobId indexed job, address indexed buyer, JobTerms terms, bytes manifest);
    event Claimed(JobId indexed job, uint32 indexed segment, address indexed solver, uint32 attempt, uint64 until);
    event Committed(
        JobId indexed job,
        uint32 indexed segment,
        address indexed solver,
        uint32 attempt,
        bytes32[] groupRoots,
        Seal seal,
        bytes cid,
        uint64 until
    );
    /// @notice The solver is owed `price - fee`; the fee is burned.
    event Settled(JobId indexed job, uint32 indexed segment, address indexed solver, uint256 price, uint256 fee);
    /// @notice An auditor of a segment that settled is owed `amount`.
    event Audited(JobId indexed job, uint32 indexed segment, address indexed auditor, uint256 amount);
    event Forfeited(JobId indexed job, uint32 indexed segment, address indexed solver);
    event Expired(JobId indexed job, uint32 indexed segment, address indexed solver);
    event Overturned(JobId indexed job, uint32 indexed segment, address indexed solver, address challenger);
    event Voided(JobId indexed job, uint32 indexed segment, address indexed solver);
    event Refunded(JobId indexed job, address indexed buyer, uint256 amount);
    event Withdrawn(address indexed account, uint256 amount);

    error InvalidTerms(string what);
    error InvalidSpec(string what);
    error UnknownSegment(JobId job, uint32 segment);
    error WrongState(JobId job, uint32 segment, SegmentState actual, SegmentState needed);
    error PastDeadline(uint64 deadline);
    error BeforeDeadline(uint64 deadline);
    error NotYet(uint64 until);
    error LeaseOver(uint64 until);
    error WindowOver(uint64 until);
    error NotSolver(address solver, address caller);
    error Barred(JobId job, address solver);
    error Reserved(address heir, uint64 until);
    error Lapsed(address solver, uint64 until);
    error Revealed();
    error EscrowShort(uint256 left, uint256 price);
    error BadProof();
    error WrongLeaf(bytes32 expected, bytes32 actual);
    error InputNotReady(uint32 segment);
    error QuorumMissed(uint256 present, uint32 quorum);
    error InputChanged();
    error InputsStand();
    error DisputesOpen(uint32 games);
    error NotDispute(address caller);
    error NothingOwed(address account);

    /// @notice Takes `terms.escrow` from the caller and opens the job. `manifest` is the CID of the job's files.
    function post(JobTerms calldata terms, bytes calldata manifest) external returns (JobId job);

    /// @notice Takes the segment for a lease, locking the job's stake. `inputs` prove every input group.
    function claim(
        JobId job,
        uint32 segment,
        SegmentSpec calldata spec,
        bytes32[] calldata planProof,
        GroupProof[] calldata inputs
    ) external;

    /// @notice Posts the result: root of every output group, the sealed trace root, and the CID of the state. `inputRoot`
    /// is the claim's: what was computed from other inputs is not taken.
    function commit(
        JobId job,
        uint32 segment,
        StateRoot inputRoot,
        bytes32[] calldata groupRoots,
        Seal seal,
        bytes calldata cid
    ) external;

    /// @notice Pays for a commitment whose window is over, with no dispute open and all its inputs settled: the solver, and
    /// the auditors who attested right. `traceRoot` is what the seal hides; it may be 0 if it was revealed to the Audit.
    function settle(JobId job, uint32 segment, SegmentSpec calldata spec, bytes32 traceRoot) external;

    /// @notice Opens a committed segment again whose trace root was not revealed within a clock after the window, with no
    /// dispute open. The solver's stake is slashed in favour of the buyer.
    function forfeit(JobId job, uint32 segment, SegmentSpec calldata spec) external;

    /// @notice Opens a claimed segment again whose lease is over. No stake is lost, but for one more lease its solver
    /// cannot claim it.
    function expire(JobId job, uint32 segment) external;

    /// @notice Opens a segment again that was built on an input that was opened again. No stake is lost.
    function void(JobId job, uint32 segment, SegmentSpec calldata spec) external;

    /// @notice After the deadline, or when all is settled: owes the buyer what is neither paid nor reserved.
    function refund(JobId job) external;

    /// @notice Pays the caller what they are owed.
    function withdraw() external;

    /// @notice A dispute of this commitment begins. Dispute only. Returns who defends it and for how long a clock.
    function disputed(JobId job, uint32 segment) external returns (Segment memory, JobTerms memory);

    /// @notice A dispute of this attempt ended without overturning it. Dispute only.
    function upheld(JobId job, uint32 segment, uint32 attempt) external;

    /// @notice A dispute proved this attempt wrong. Dispute only.
    function overturn(JobId job, uint32 segment, uint32 attempt, address challenger) external;

    function jobs(JobId job)
        external
        view
        returns (address buyer, JobTerms memory terms, uint256 reserved, uint256 spent, uint32 settled);

    function segments(JobId job, uint32 segment) external view returns (Segment memory);

    /// @notice Token units that `account` may withdraw.
    function owed(address account) external view returns (uint256);

    function jobCount() external view returns (uint64);

    function barred(JobId job, address solver) external view returns (bool);

    /// @notice Part of every price that is burned, in 1/10,000.
    function feeRate() external view returns (uint32);
}
