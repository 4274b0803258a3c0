// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {JobId, Seal} from "../types/Ids.sol";

/// @notice How an audit ended.
enum Outcome {
    None,
    Open,
    Settled,
    Overturned,
    Forfeited,
    Voided
}

/// @notice The audit of one commitment.
/// @param seats how many attestations are taken
/// @param attestations how many there are
/// @param rate expected number of auditors, in 1/10,000
/// @param committedIn block of the commit: only who was enrolled before it can be drawn
/// @param drawBlock block whose hash is the seed of the draw; moved on if nobody called `draw` in time
/// @param attestUntil time up to which attestations are taken, and after which the trace root may be revealed
/// @param penalty token units that silence or a wrong attestation costs, if the commitment settles
/// @param seed 0 until drawn
/// @param traceRoot 0 until revealed
struct Round {
    Outcome outcome;
    uint8 seats;
    uint8 attestations;
    uint32 rate;
    address solver;
    // next slot
    uint48 committedIn;
    uint48 drawBlock;
    uint48 attestUntil;
    uint112 penalty;
    // a slot each
    Seal seal;
    bytes32 seed;
    bytes32 traceRoot;
}

/// @notice What the Market says of a new commitment.
/// @param pot token units for those who attest right, in equal parts
/// @param fee token units burned if it settles
/// @param asked least expected number of auditors, in 1/10,000
struct Opening {
    address solver;
    Seal seal;
    uint48 attestUntil;
    uint128 price;
    uint128 pot;
    uint128 fee;
    uint32 asked;
}

/// @notice What an account's work came to.
/// @param unbroken value of segments settled since the last that was overturned or forfeited, token units
/// @param attested right attestations of settled commitments
/// @param misattested wrong ones
/// @param silent settled commitments for which it was drawn and attested nothing
struct Record {
    uint32 settled;
    uint32 overturned;
    uint32 forfeited;
    uint32 expired;
    uint128 unbroken;
    uint32 attested;
    uint32 silent;
    uint32 misattested;
}

/// @title Audits of commitments, and the record of who did what
/// @notice After each commit auditors are drawn by enrolled stake, with a block hash that the solver could not know.
/// Each that is drawn replays the segment and attests with `sha256(traceRoot ‖ auditor)`; when the solver has revealed
/// the trace root and the segment settles, right attestations share the pot.
/// Warning: who produces blocks can bias the draw by withholding a block. A colluding solver can hand its trace root to
/// auditors of its own; those earn what they are drawn for, no more than their part of the weight.
interface IAudit {
    event Enrolled(address indexed auditor, uint256 amount, uint256 weight);
    event Leaving(address indexed auditor, uint256 amount, uint256 weight, uint64 free);
    event Left(address indexed auditor, uint256 amount);
    event Opened(
        JobId indexed job,
        uint32 indexed segment,
        uint32 attempt,
        uint32 rate,
        uint8 seats,
        uint128 pot,
        uint48 drawBlock,
        uint48 attestUntil
    );
    event Drawn(JobId indexed job, uint32 indexed segment, uint32 attempt, bytes32 seed);
    /// @notice Nobody fixed the seed while it was known; `drawBlock` is the new block.
    event DrawMissed(JobId indexed job, uint32 indexed segment, uint32 attempt, uint48 drawBlock);
    event Attested(
        JobId indexed job, uint32 indexed segment, address indexed auditor, uint32 attempt, Seal attestation
    );
    event Revealed(JobId indexed job, uint32 indexed segment, uint32 attempt, bytes32 traceRoot);
    /// @notice The audit ended. What each right attestation earns, the Market tells (`Audited`).
    event Ended(JobId indexed job, uint32 indexed segment, uint32 attempt, Outcome outcome);
    event Silent(
        JobId indexed job,
        uint32 indexed segment,
        address indexed auditor,
        uint32 attempt,
        uint256 penalty,
        address reporter
    );
    event Misattested(
        JobId indexed job,
        uint32 indexed segment,
        address indexed auditor,
        uint32 attempt,
        uint256 penalty,
        address reporter
    );

    error NotMarket(address caller);
    error UnknownRound(JobId job, uint32 segment, uint32 attempt);
    error WrongOutcome(Outcome actual, Outcome needed);
    error WrongSeal(Seal actual, Seal named);
    error TooEarly(uint256 until);
    error TooLate(uint256 until);
    error NotDrawn(address auditor);
    error NoSeed(uint48 drawBlock);
    error AlreadyDrawn(bytes32 seed);
    error SeatsTaken(uint8 seats);
    error AlreadyAttested(address auditor);
    error NoAttestation();
    error WrongTrace(bytes32 traceRoot);
    error AlreadyRevealed(bytes32 traceRoot);
    error AlreadyPunished(address auditor);
    error NotAtFault(address auditor);
    error NotEnrolled(address auditor, uint256 weight, uint256 needed);
    error NothingToLeave(address auditor);

    // ---- auditors

    /// @notice Locks `amount` of the caller's free stake as weight in the draws of commitments of later blocks.
    function enroll(uint256 amount) external;

    /// @notice Takes `amount` of the caller's weight out of draws at once; it stays slashable for `unbonding` seconds. A
    /// second call before `finishLeaving` adds to the amount and starts the time anew.
    function leave(uint256 amount) external;

    /// @notice Unlocks what `auditor` took out `unbonding` seconds ago. Anybody.
    function finishLeaving(address auditor) external;

    /// @notice Fixes the seed of a draw, up to the end of attesting, while its block's hash is known (256 blocks). If it no
    /// longer is, a later block is named; who is drawn then, is not punished for silence. Anybody.
    function draw(JobId job, uint32 segment, uint32 attempt) external;

    /// @notice Attests to the commitment with this seal: `attestation = sha256(traceRoot ‖ caller)`. Draws first if nobody
    /// has.
    function attest(JobId job, uint32 segment, uint32 attempt, Seal seal, Seal attestation) external;

    // ---- anybody

    /// @notice Shows the trace root behind the seal, after `attestUntil`.
    function reveal(JobId job, uint32 segment, uint32 attempt, bytes32 traceRoot) external;

    /// @notice Takes the penalty from an auditor who was drawn for a settled commitment and attested another trace, or
    /// nothing though a seat was free. Half goes to the caller, half is burned.
    function punish(JobId job, uint32 segment, uint32 attempt, address auditor) external;

    // ---- the Market

    /// @notice A commitment begins. Market only.
    function open(JobId job, uint32 segment, uint32 attempt, Opening calldata opening) external;

    /// @notice A commitment settles at `price`: takes the trace root unless it was revealed, and returns who attested
    /// right. Market only.
    function settle(JobId job, uint32 segment, uint32 attempt, bytes32 traceRoot, uint128 price)
        external
        returns (address[] memory right);

    /// @notice A commitment ended otherwise. Market only.
    function drop(JobId job, uint32 segment, uint32 attempt, Outcome outcome) external;

    /// @notice A lease of this solver ran out. Market only.
    function expired(address solver) external;

    // ---- views

    function rounds(JobId job, uint32 segment, uint32 attempt) external view returns (Round memory);

    /// @notice 0 if there is none.
    function attestationOf(JobId job, uint32 segment, uint32 attempt, address auditor) external view returns (Seal);

    function attestors(JobId job, uint32 segment, uint32 attempt) external view returns (address[] memory);

    /// @notice Who attested the trace root that was revealed.
    function rightAttestors(JobId job, uint32 segment, uint32 attempt) external view returns (address[] memory);

    /// @notice Whether `auditor` is drawn: `uint128(uint256(keccak256(abi.encode(seed, auditor)))) · enrolled · 10,000 <
    /// weight · rate · 2^128`, with the auditor's and all weight just before the block of the commit, and the seed
    /// `keccak256(abi.encode(blockhash(drawBlock), job, segment, attempt))`. The solver never is. Reverts with NoSeed
    /// while the seed is not known.
    function isDrawn(JobId job, uint32 segment, uint32 attempt, address auditor) external view returns (bool);

    /// @notice Weight of `auditor` in the draw of a commitment of the next block.
    function weightOf(address auditor) external view returns (uint256);

    /// @notice What `auditor` took out of draws, and from when on it can be unlocked.
    function leavingOf(address auditor) external view returns (uint256 amount, uint64 free);

    function totalWeight() external view returns (uint256);

    function records(address account) external view returns (Record memory);

    /// @notice Expected number of auditors, in 1/10,000, of a segment at `price` of this solver, of which the job asks for
    /// at least `asked`. It falls with the value that the solver has settled, seen from the price at stake.
    function rateOf(address solver, uint128 price, uint32 asked) external view returns (uint32);

    /// @notice Seconds for which what left a draw stays locked.
    function unbonding() external view returns (uint64);
}
