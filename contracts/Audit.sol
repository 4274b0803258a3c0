// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAudit, Opening, Outcome, Record, Round} from "./interfaces/IAudit.sol";
import {IStake} from "./interfaces/IStake.sol";
import {JobId, Seal} from "./types/Ids.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";

contract Audit is IAudit {
    using Checkpoints for Checkpoints.Trace208;
    using SafeCast for uint256;

    struct Exit {
        uint128 amount;
        uint64 free;
    }

    /// Who attested what to one commitment, and was punished for it.
    struct Roll {
        address[] attestors;
        mapping(address auditor => Seal) attestations;
        mapping(address auditor => bool) punished;
    }

    uint256 private constant WHOLE = 10_000; // one auditor
    /// Expected auditors of an account without a record, and of any.
    uint256 private constant START_RATE = 10_000;
    uint256 private constant FLOOR_RATE = 500;
    /// The record that halves the rate is worth this many prices.
    uint256 private constant HALVING_PRICES = 8;
    uint256 private constant MAX_SEATS = 16;
    uint256 private constant PENALTY_PART = 10;
    uint64 private constant MAX_UNBONDING = 365 days;

    IStake public immutable stake;
    address public immutable market;
    /// @inheritdoc IAudit
    uint64 public immutable unbonding;

    Checkpoints.Trace208 private _total;
    mapping(address auditor => Checkpoints.Trace208) private _weights;
    mapping(address auditor => Exit) private _leaving;
    mapping(address account => Record) private _records;
    mapping(JobId job => mapping(uint32 segment => mapping(uint32 attempt => Round))) private _rounds;
    mapping(JobId job => mapping(uint32 segment => mapping(uint32 attempt => Roll))) private _rolls;

    error ZeroAddress();
    error InvalidUnbonding(uint64 unbonding);

    modifier onlyMarket() {
        if (msg.sender != market) revert NotMarket(msg.sender);
        _;
    }

    constructor(IStake stake_, address market_, uint64 unbonding_) {
        if (address(stake_) == address(0) || market_ == address(0)) revert ZeroAddress();
        if (unbonding_ == 0 || unbonding_ > MAX_UNBONDING) revert InvalidUnbonding(unbonding_);
        (stake, market, unbonding) = (stake_, market_, unbonding_);
    }

    // ---------------------------------------------------------------- weight

    /// @inheritdoc IAudit
    function enroll(uint256 amount) external {
        uint256 weight = _weights[msg.sender].latest() + amount;
        _setWeight(msg.sender, weight);
        emit Enrolled(msg.sender, amount, weight);
        stake.lock(msg.sender, amount);
    }

    /// @inheritdoc IAudit
    function leave(uint256 amount) external {
        uint256 weight = _weights[msg.sender].latest();
        if (amount == 0 || amount > weight) revert NotEnrolled(msg.sender, weight, amount);
        _setWeight(msg.sender, weight - amount);
        Exit storage leaving = _leaving[msg.sender];
        leaving.amount += uint128(amount);
        // INVARIANT: what could have been drawn is locked until every audit that could draw it is over.
        leaving.free = uint64(block.timestamp) + unbonding;
        emit Leaving(msg.sender, amount, weight - amount, leaving.free);
    }

    /// @inheritdoc IAudit
    function finishLeaving(address auditor) external {
        Exit storage leaving = _leaving[auditor];
        uint256 amount = leaving.amount;
        if (amount == 0) revert NothingToLeave(auditor);
        if (block.timestamp < leaving.free) revert TooEarly(leaving.free);
        delete _leaving[auditor];
        emit Left(auditor, amount);
        stake.unlock(auditor, amount);
    }

    // ---------------------------------------------------------------- draw and attestations

    /// @inheritdoc IAudit
    function draw(JobId job, uint32 segment, uint32 attempt) external {
        Round storage r = _round(job, segment, attempt, Outcome.Open);
        if (r.seed != 0) revert AlreadyDrawn(r.seed);
        // INVARIANT: nobody is drawn, and punished for silence, who could not attest any more.
        if (block.timestamp > r.attestUntil) revert TooLate(r.attestUntil);
        if (block.number <= r.drawBlock) revert NoSeed(r.drawBlock);
        if (blockhash(r.drawBlock) != 0) {
            _draw(r, job, segment, attempt);
            return;
        }
        r.drawBlock = uint48(block.number + 1);
        emit DrawMissed(job, segment, attempt, r.drawBlock);
    }

    /// @inheritdoc IAudit
    function attest(JobId job, uint32 segment, uint32 attempt, Seal seal, Seal attestation) external {
        Round storage r = _round(job, segment, attempt, Outcome.Open);
        Roll storage roll = _rolls[job][segment][attempt];
        // INVARIANT: an attestation is to the commitment that the auditor saw, whatever became of the chain.
        if (r.seal != seal) revert WrongSeal(r.seal, seal);
        // INVARIANT: nobody attests when the trace root can be known without a replay.
        if (block.timestamp > r.attestUntil) revert TooLate(r.attestUntil);
        if (Seal.unwrap(attestation) == 0) revert NoAttestation();
        if (r.seed == 0) _draw(r, job, segment, attempt);
        if (!_isDrawn(r, r.seed, msg.sender)) revert NotDrawn(msg.sender);
        if (Seal.unwrap(roll.attestations[msg.sender]) != 0) revert AlreadyAttested(msg.sender);
        if (r.attestations == r.seats) revert SeatsTaken(r.seats);
        r.attestations += 1;
        roll.attestors.push(msg.sender);
        roll.attestations[msg.sender] = attestation;
        emit Attested(job, segment, msg.sender, attempt, attestation);
    }

    /// @inheritdoc IAudit
    function reveal(JobId job, uint32 segment, uint32 attempt, bytes32 traceRoot) external {
        Round storage r = _round(job, segment, attempt, Outcome.Open);
        if (block.timestamp <= r.attestUntil) revert TooEarly(r.attestUntil);
        if (r.traceRoot != 0) revert AlreadyRevealed(r.traceRoot);
        _reveal(r, job, segment, attempt, traceRoot);
    }

    /// @inheritdoc IAudit
    function punish(JobId job, uint32 segment, uint32 attempt, address auditor) external {
        Round storage r = _round(job, segment, attempt, Outcome.Settled);
        Roll storage roll = _rolls[job][segment][attempt];
        if (roll.punished[auditor]) revert AlreadyPunished(auditor);
        Seal attestation = roll.attestations[auditor];
        bool silent = Seal.unwrap(attestation) == 0;
        if (silent) {
            if (r.seed == 0) revert NoSeed(r.drawBlock);
            if (!_isDrawn(r, r.seed, auditor)) revert NotDrawn(auditor);
            // INVARIANT: no silence is punished of who found no seat, or was drawn after time to replay was lost.
            if (r.attestations == r.seats || r.drawBlock != r.committedIn + 1) revert NotAtFault(auditor);
        } else if (attestation == _sealOf(r.traceRoot, auditor)) {
            revert NotAtFault(auditor);
        }
        roll.punished[auditor] = true;
        Record storage record = _records[auditor];
        if (silent) record.silent += 1;
        else record.misattested += 1;
        uint256 penalty = _take(auditor, r.penalty);
        if (silent) emit Silent(job, segment, auditor, attempt, penalty, msg.sender);
        else emit Misattested(job, segment, auditor, attempt, penalty, msg.sender);
        stake.slash(auditor, penalty, msg.sender);
    }

    // ---------------------------------------------------------------- the Market

    /// @inheritdoc IAudit
    function open(JobId job, uint32 segment, uint32 attempt, Opening calldata opening) external onlyMarket {
        uint32 rate = rateOf(opening.solver, opening.price, opening.asked);
        Round storage r = _rounds[job][segment][attempt];
        r.outcome = Outcome.Open;
        r.seats = uint8(Math.min(MAX_SEATS, 2 * Math.ceilDiv(rate, WHOLE) + 2));
        r.rate = rate;
        r.solver = opening.solver;
        (r.committedIn, r.drawBlock) = (uint48(block.number), uint48(block.number + 1));
        r.attestUntil = opening.attestUntil;
        // INVARIANT: nobody buys work from themselves that others cannot audit, to live on the penalties. At most four auditors
        // are expected, and half of a penalty goes to the reporter: a fifth of the fee. Three quarters of it come back as
        // solver's and buyer's rewards.
        uint256 penalty = Math.min(opening.pot, opening.fee) / PENALTY_PART;
        r.penalty = uint112(Math.min(penalty, type(uint112).max));
        r.seal = opening.seal;
        emit Opened(job, segment, attempt, rate, r.seats, opening.pot, r.drawBlock, opening.attestUntil);
    }

    /// @inheritdoc IAudit
    function settle(JobId job, uint32 segment, uint32 attempt, bytes32 traceRoot, uint128 price)
        external
        onlyMarket
        returns (address[] memory right)
    {
        Round storage r = _round(job, segment, attempt, Outcome.Open);
        Roll storage roll = _rolls[job][segment][attempt];
        if (r.traceRoot == 0) _reveal(r, job, segment, attempt, traceRoot);
        else traceRoot = r.traceRoot;
        Record storage record = _records[r.solver];
        record.settled += 1;
        record.unbroken += price;
        _end(r, job, segment, attempt, Outcome.Settled);
        right = _right(roll, traceRoot);
        for (uint256 i = 0; i < right.length; ++i) {
            _records[right[i]].attested += 1;
        }
    }

    /// @inheritdoc IAudit
    function drop(JobId job, uint32 segment, uint32 attempt, Outcome outcome) external onlyMarket {
        Round storage r = _round(job, segment, attempt, Outcome.Open);
        Record storage record = _records[r.solver];
        if (outcome == Outcome.Overturned) (record.overturned, record.unbroken) = (record.overturned + 1, 0);
        if (outcome == Outcome.Forfeited) (record.forfeited, record.unbroken) = (record.forfeited + 1, 0);
        _end(r, job, segment, attempt, outcome);
    }

    /// @inheritdoc IAudit
    function expired(address solver) external onlyMarket {
        _records[solver].expired += 1;
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IAudit
    function rounds(JobId job, uint32 segment, uint32 attempt) external view returns (Round memory) {
        return _rounds[job][segment][attempt];
    }

    /// @inheritdoc IAudit
    function attestationOf(JobId job, uint32 segment, uint32 attempt, address auditor) external view returns (Seal) {
        return _rolls[job][segment][attempt].attestations[auditor];
    }

    /// @inheritdoc IAudit
    function attestors(JobId job, uint32 segment, uint32 attempt) external view returns (address[] memory) {
        return _rolls[job][segment][attempt].attestors;
    }

    /// @inheritdoc IAudit
    function rightAttestors(JobId job, uint32 segment, uint32 attempt) external view returns (address[] memory) {
        return _right(_rolls[job][segment][attempt], _rounds[job][segment][attempt].traceRoot);
    }

    /// @inheritdoc IAudit
    function isDrawn(JobId job, uint32 segment, uint32 attempt, address auditor) external view returns (bool) {
        Round storage r = _rounds[job][segment][attempt];
        if (r.outcome == Outcome.None) revert UnknownRound(job, segment, attempt);
        return _isDrawn(r, r.seed != 0 ? r.seed : _seed(r, job, segment, attempt), auditor);
    }

    /// @inheritdoc IAudit
    function weightOf(address auditor) external view returns (uint256) {
        return _weights[auditor].latest();
    }

    /// @inheritdoc IAudit
    function leavingOf(address auditor) external view returns (uint256 amount, uint64 free) {
        Exit storage leaving = _leaving[auditor];
        return (leaving.amount, leaving.free);
    }

    /// @inheritdoc IAudit
    function totalWeight() external view returns (uint256) {
        return _total.latest();
    }

    /// @inheritdoc IAudit
    function records(address account) external view returns (Record memory) {
        return _records[account];
    }

    /// @inheritdoc IAudit
    function rateOf(address solver, uint128 price, uint32 asked) public view returns (uint32) {
        uint256 stakes = HALVING_PRICES * price;
        uint256 all = stakes + _records[solver].unbroken;
        uint256 rate = all == 0 ? START_RATE : START_RATE * stakes / all;
        return uint32(Math.max(Math.max(rate, FLOOR_RATE), asked));
    }

    // ---------------------------------------------------------------- steps

    function _round(JobId job, uint32 segment, uint32 attempt, Outcome needed) private view returns (Round storage r) {
        r = _rounds[job][segment][attempt];
        if (r.outcome == Outcome.None) revert UnknownRound(job, segment, attempt);
        if (r.outcome != needed) revert WrongOutcome(r.outcome, needed);
    }

    function _sealOf(bytes32 traceRoot, address account) private pure returns (Seal) {
        return Seal.wrap(sha256(abi.encodePacked(traceRoot, account)));
    }

    function _right(Roll storage roll, bytes32 traceRoot) private view returns (address[] memory right) {
        right = roll.attestors;
        uint256 count = 0;
        for (uint256 i = 0; i < right.length; ++i) {
            address auditor = right[i];
            // INVARIANT: what is paid is a replay: a copy of another's attestation names another auditor.
            if (roll.attestations[auditor] == _sealOf(traceRoot, auditor)) right[count++] = auditor;
        }
        assembly ("memory-safe") {
            mstore(right, count)
        }
    }

    function _setWeight(address auditor, uint256 weight) private {
        uint256 total = _total.latest() + weight - _weights[auditor].latest();
        // slither-disable-next-line unused-return: the old value was read above.
        _weights[auditor].push(uint48(block.number), weight.toUint208());
        // slither-disable-next-line unused-return: the old value was read above.
        _total.push(uint48(block.number), total.toUint208());
    }

    function _seed(Round storage r, JobId job, uint32 segment, uint32 attempt) private view returns (bytes32) {
        bytes32 hash = blockhash(r.drawBlock);
        if (hash == 0) revert NoSeed(r.drawBlock);
        return keccak256(abi.encode(hash, job, segment, attempt));
    }

    function _draw(Round storage r, JobId job, uint32 segment, uint32 attempt) private {
        r.seed = _seed(r, job, segment, attempt);
        emit Drawn(job, segment, attempt, r.seed);
    }

    function _isDrawn(Round storage r, bytes32 seed, address auditor) private view returns (bool) {
        // INVARIANT: nobody audits their own work.
        if (auditor == r.solver) return false;
        // INVARIANT: weight in the draw is what it was before anybody could know of the commitment.
        uint256 weight = _weights[auditor].upperLookupRecent(r.committedIn - 1);
        uint256 enrolled = _total.upperLookupRecent(r.committedIn - 1);
        uint256 random = uint128(uint256(keccak256(abi.encode(seed, auditor))));
        return Math.mulDiv(random, enrolled * WHOLE, 1 << 128) < weight * r.rate;
    }

    function _reveal(Round storage r, JobId job, uint32 segment, uint32 attempt, bytes32 traceRoot) private {
        // INVARIANT: what was revealed is not 0, which says that nothing was.
        if (traceRoot == 0 || _sealOf(traceRoot, r.solver) != r.seal) revert WrongTrace(traceRoot);
        r.traceRoot = traceRoot;
        emit Revealed(job, segment, attempt, traceRoot);
    }

    function _end(Round storage r, JobId job, uint32 segment, uint32 attempt, Outcome outcome) private {
        r.outcome = outcome;
        emit Ended(job, segment, attempt, outcome);
    }

    /// Takes up to `amount` from an auditor's weight, then from what is leaving. Returns how much it was.
    function _take(address auditor, uint256 amount) private returns (uint256) {
        uint256 weight = _weights[auditor].latest();
        uint256 fromWeight = Math.min(weight, amount);
        if (fromWeight > 0) _setWeight(auditor, weight - fromWeight);
        Exit storage leaving = _leaving[auditor];
        uint256 fromLeaving = Math.min(leaving.amount, amount - fromWeight);
        leaving.amount -= uint128(fromLeaving);
        return fromWeight + fromLeaving;
    }
}
