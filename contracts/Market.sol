// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAudit, Opening, Outcome} from "./interfaces/IAudit.sol";
import {IEmission} from "./interfaces/IEmission.sol";
import {GroupProof, IMarket, JobTerms, Segment, SegmentSpec, SegmentState, Source} from "./interfaces/IMarket.sol";
import {IStake} from "./interfaces/IStake.sol";
import {Burner} from "./libraries/Burner.sol";
import {Funds} from "./libraries/Funds.sol";
import {Plan} from "./libraries/Plan.sol";
import {Roots} from "./libraries/Roots.sol";
import {JobId, PlanRoot, Seal, StateRoot} from "./types/Ids.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

contract Market is IMarket, Burner {
    using SafeERC20 for IERC20;

    /// At all times reserved + spent + refunded ≤ terms.escrow.
    struct Job {
        JobTerms terms;
        address buyer;
        uint32 settled;
        uint128 reserved;
        uint128 spent;
        uint128 refunded;
    }

    uint256 private constant MAX_CID = 128;
    /// The heir's first claim lasts this part of a lease.
    uint256 private constant HEIR_PART = 10;

    uint32 private constant MAX_FEE_RATE = 1000;

    IStake public immutable stake;
    address public immutable dispute;
    IAudit public immutable audit;
    IEmission public immutable emission;
    /// @inheritdoc IMarket
    uint32 public immutable feeRate;

    /// @inheritdoc IMarket
    uint64 public jobCount;
    /// @inheritdoc IMarket
    mapping(address account => uint256) public owed;
    /// @inheritdoc IMarket
    mapping(JobId job => mapping(address solver => bool)) public barred;
    mapping(JobId job => Job) private _jobs;
    mapping(JobId job => mapping(uint32 segment => Segment)) private _segments;

    error FeeRateTooHigh(uint32 feeRate, uint32 limit);

    modifier onlyDispute() {
        if (msg.sender != dispute) revert NotDispute(msg.sender);
        _;
    }

    constructor(IERC20 token_, IStake stake_, address dispute_, IAudit audit_, IEmission emission_, uint32 feeRate_)
        Burner(token_)
    {
        if (
            address(stake_) == address(0) || dispute_ == address(0) || address(audit_) == address(0)
                || address(emission_) == address(0)
        ) revert ZeroAddress();
        if (feeRate_ > MAX_FEE_RATE) revert FeeRateTooHigh(feeRate_, MAX_FEE_RATE);
        (stake, dispute, audit, emission, feeRate) = (stake_, dispute_, audit_, emission_, feeRate_);
    }

    // ---------------------------------------------------------------- buyers

    /// @inheritdoc IMarket
    function post(JobTerms calldata terms, bytes calldata manifest) external returns (JobId job) {
        Plan.validate(terms, audit.unbonding());
        if (manifest.length > MAX_CID) revert InvalidTerms("manifest");
        job = JobId.wrap(++jobCount);
        Job storage j = _jobs[job];
        j.terms = terms;
        j.buyer = msg.sender;
        emit Posted(job, msg.sender, terms, manifest);
        Funds.pull(token, msg.sender, terms.escrow);
    }

    /// @inheritdoc IMarket
    function refund(JobId job) external {
        Job storage j = _job(job, 0);
        // INVARIANT: while something can still be claimed, the escrow stays.
        if (block.timestamp <= j.terms.deadline && j.settled < j.terms.segments) {
            revert BeforeDeadline(j.terms.deadline);
        }
        uint128 amount = _unreserved(j);
        if (amount == 0) revert NothingOwed(j.buyer);
        j.refunded += amount;
        owed[j.buyer] += amount;
        emit Refunded(job, j.buyer, amount);
    }

    /// @inheritdoc IMarket
    function withdraw() external {
        uint256 amount = owed[msg.sender];
        if (amount == 0) revert NothingOwed(msg.sender);
        owed[msg.sender] = 0;
        emit Withdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    // ---------------------------------------------------------------- solvers

    /// @inheritdoc IMarket
    function claim(
        JobId job,
        uint32 segment,
        SegmentSpec calldata spec,
        bytes32[] calldata planProof,
        GroupProof[] calldata inputs
    ) external {
        Job storage j = _job(job, segment);
        Segment storage s = _segments[job][segment];
        _checkClaimant(job, segment, j, s);
        Plan.validate(spec, segment);
        bytes32 leaf = Plan.leaf(spec);
        // INVARIANT: the work is the one the buyer planned.
        if (!Roots.verify(PlanRoot.unwrap(j.terms.planRoot), j.terms.segments, leaf, segment, planProof)) {
            revert BadProof();
        }
        uint128 left = _unreserved(j);
        uint256 cost = spec.price + _pot(j, spec.price);
        // INVARIANT: what is promised to solvers and auditors is held.
        if (cost > left) revert EscrowShort(left, cost);
        j.reserved += uint128(cost);

        s.state = SegmentState.Claimed;
        s.solver = msg.sender;
        s.until = uint64(block.timestamp + j.terms.lease);
        s.groups = uint16(spec.inputs.length);
        s.price = spec.price;
        s.leaf = leaf;
        if (spec.fallbacks.length != 0) s.absent = _absent(job, spec);
        Source[] memory sources = _sources(spec, s);
        s.inputAttempts = _inputAttempts(job, sources);
        s.inputRoot = _inputRoot(job, j, sources, inputs);
        emit Claimed(job, segment, msg.sender, s.attempt, s.until);
        stake.lock(msg.sender, j.terms.stake);
    }

    /// @inheritdoc IMarket
    function commit(
        JobId job,
        uint32 segment,
        StateRoot inputRoot,
        bytes32[] calldata groupRoots,
        Seal seal,
        bytes calldata cid
    ) external {
        Job storage j = _job(job, segment);
        Segment storage s = _segments[job][segment];
        _requireState(job, segment, s, SegmentState.Claimed);
        if (msg.sender != s.solver) revert NotSolver(s.solver, msg.sender);
        if (block.timestamp > s.until) revert LeaseOver(s.until);
        // INVARIANT: a reorganisation of the chain does not turn right work into wrong.
        if (s.inputRoot != inputRoot) revert InputChanged();
        if (groupRoots.length != s.groups) revert InvalidSpec("groupRoots");
        if (cid.length > MAX_CID) revert InvalidSpec("cid");
        s.state = SegmentState.Committed;
        s.until = uint64(block.timestamp + j.terms.window);
        s.outputRoot = StateRoot.wrap(Roots.root(groupRoots));
        s.seal = seal;
        emit Committed(job, segment, msg.sender, s.attempt, groupRoots, seal, cid, s.until);
        _openAudit(job, segment, j, s);
    }

    // ---------------------------------------------------------------- exits, for anybody

    /// @inheritdoc IMarket
    function settle(JobId job, uint32 segment, SegmentSpec calldata spec, bytes32 traceRoot) external {
        Job storage j = _job(job, segment);
        Segment storage s = _segments[job][segment];
        _requireState(job, segment, s, SegmentState.Committed);
        if (block.timestamp <= s.until) revert NotYet(s.until);
        _requireUndisputed(s);
        _requireLeaf(s, spec);
        Source[] memory sources = _sources(spec, s);
        _requireSettled(job, sources);
        // INVARIANT: what is paid was built on what was settled.
        if (_inputAttempts(job, sources) != s.inputAttempts) revert InputChanged();
        s.state = SegmentState.Settled;
        j.settled += 1;
        _pay(job, segment, j, s, traceRoot);
        stake.unlock(s.solver, j.terms.stake);
    }

    /// @inheritdoc IMarket
    function forfeit(JobId job, uint32 segment, SegmentSpec calldata spec) external {
        Job storage j = _job(job, segment);
        Segment storage s = _segments[job][segment];
        _requireState(job, segment, s, SegmentState.Committed);
        uint64 until = s.until + j.terms.clock;
        if (block.timestamp <= until) revert NotYet(until);
        _requireUndisputed(s);
        _requireLeaf(s, spec);
        // INVARIANT: nobody loses stake for work whose inputs fell, or whose trace root is known.
        if (_inputAttempts(job, _sources(spec, s)) != s.inputAttempts) revert InputChanged();
        if (audit.rounds(job, segment, s.attempt).traceRoot != 0) revert Revealed();
        address solver = _drop(job, segment, j, s, Outcome.Forfeited);
        barred[job][solver] = true;
        emit Forfeited(job, segment, solver);
        stake.slash(solver, j.terms.stake, j.buyer);
    }

    /// @inheritdoc IMarket
    function expire(JobId job, uint32 segment) external {
        Job storage j = _job(job, segment);
        Segment storage s = _segments[job][segment];
        _requireState(job, segment, s, SegmentState.Claimed);
        if (block.timestamp <= s.until) revert NotYet(s.until);
        address solver = _reopen(j, s);
        s.lapsed = solver;
        s.lapsedUntil = uint48(block.timestamp + j.terms.lease);
        emit Expired(job, segment, solver);
        audit.expired(solver);
        stake.unlock(solver, j.terms.stake);
    }

    /// @inheritdoc IMarket
    function void(JobId job, uint32 segment, SegmentSpec calldata spec) external {
        Job storage j = _job(job, segment);
        Segment storage s = _segments[job][segment];
        if (s.state != SegmentState.Claimed) _requireState(job, segment, s, SegmentState.Committed);
        _requireLeaf(s, spec);
        // INVARIANT: nobody loses a claim whose inputs are what they were.
        if (_inputAttempts(job, _sources(spec, s)) == s.inputAttempts) revert InputsStand();
        address solver = _drop(job, segment, j, s, Outcome.Voided);
        emit Voided(job, segment, solver);
        stake.unlock(solver, j.terms.stake);
    }

    // ---------------------------------------------------------------- the Dispute

    /// @inheritdoc IMarket
    function disputed(JobId job, uint32 segment) external onlyDispute returns (Segment memory, JobTerms memory) {
        Job storage j = _job(job, segment);
        Segment storage s = _segments[job][segment];
        _requireState(job, segment, s, SegmentState.Committed);
        // INVARIANT: after the window no new dispute can hold up the payment.
        if (block.timestamp > s.until) revert WindowOver(s.until);
        s.games += 1;
        return (s, j.terms);
    }

    /// @inheritdoc IMarket
    function upheld(JobId job, uint32 segment, uint32 attempt) external onlyDispute {
        _attempted(job, segment, attempt).games -= 1;
    }

    /// @inheritdoc IMarket
    function overturn(JobId job, uint32 segment, uint32 attempt, address challenger) external onlyDispute {
        Segment storage s = _attempted(job, segment, attempt);
        Job storage j = _jobs[job];
        address solver = _drop(job, segment, j, s, Outcome.Overturned);
        barred[job][solver] = true;
        s.heir = challenger;
        s.heirUntil = uint48(block.timestamp + j.terms.lease / HEIR_PART);
        emit Overturned(job, segment, solver, challenger);
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IMarket
    function jobs(JobId job)
        external
        view
        returns (address buyer, JobTerms memory terms, uint256 reserved, uint256 spent, uint32 settled)
    {
        Job storage j = _jobs[job];
        return (j.buyer, j.terms, j.reserved, j.spent, j.settled);
    }

    /// @inheritdoc IMarket
    function segments(JobId job, uint32 segment) external view returns (Segment memory) {
        return _segments[job][segment];
    }

    // ---------------------------------------------------------------- checks

    function _job(JobId job, uint32 segment) private view returns (Job storage j) {
        j = _jobs[job];
        if (segment >= j.terms.segments) revert UnknownSegment(job, segment);
    }

    function _requireState(JobId job, uint32 segment, Segment storage s, SegmentState needed) private view {
        if (s.state != needed) revert WrongState(job, segment, s.state, needed);
    }

    function _requireUndisputed(Segment storage s) private view {
        // INVARIANT: nothing in dispute is paid or taken away.
        if (s.games != 0) revert DisputesOpen(s.games);
    }

    function _requireLeaf(Segment storage s, SegmentSpec calldata spec) private view {
        bytes32 leaf = Plan.leaf(spec);
        if (leaf != s.leaf) revert WrongLeaf(s.leaf, leaf);
    }

    function _checkClaimant(JobId job, uint32 segment, Job storage j, Segment storage s) private view {
        if (block.timestamp > j.terms.deadline) revert PastDeadline(j.terms.deadline);
        _requireState(job, segment, s, SegmentState.Open);
        if (block.timestamp < s.heirUntil && msg.sender != s.heir) revert Reserved(s.heir, s.heirUntil);
        // INVARIANT: nobody holds a segment for one lease after the other without delivering.
        if (block.timestamp <= s.lapsedUntil && msg.sender == s.lapsed) revert Lapsed(s.lapsed, s.lapsedUntil);
        if (barred[job][msg.sender]) revert Barred(job, msg.sender);
    }

    function _requireSettled(JobId job, Source[] memory inputs) private view {
        for (uint256 i = 0; i < inputs.length; ++i) {
            uint32 source = inputs[i].segment;
            if (source != Plan.INITIAL && _segments[job][source].state != SegmentState.Settled) {
                revert InputNotReady(source);
            }
        }
    }

    /// The attempt in dispute, which must still stand.
    function _attempted(JobId job, uint32 segment, uint32 attempt) private view returns (Segment storage s) {
        s = _segments[job][segment];
        _requireState(job, segment, s, SegmentState.Committed);
        // INVARIANT: a dispute decides on the attempt that it began with, and on no other.
        if (s.attempt != attempt) revert InputChanged();
    }

    // ---------------------------------------------------------------- inputs

    /// A bit for each optional input that is not there.
    function _absent(JobId job, SegmentSpec calldata spec) private view returns (uint256 absent) {
        uint256 present = 0;
        for (uint256 i = 0; i < spec.fallbacks.length; ++i) {
            if (!Plan.isOptional(spec, i)) continue;
            // INVARIANT: the chain says who is there, not the claimant: nobody's finished work is left out.
            if (_isThere(job, spec.inputs[i].segment)) ++present;
            else absent |= 1 << i;
        }
        if (present < spec.quorum) revert QuorumMissed(present, spec.quorum);
    }

    /// Where the inputs of a claim come from.
    function _sources(SegmentSpec calldata spec, Segment storage s) private view returns (Source[] memory) {
        return spec.fallbacks.length == 0 ? spec.inputs : Plan.sources(spec, s.absent);
    }

    function _isThere(JobId job, uint32 source) private view returns (bool) {
        if (source == Plan.INITIAL) return true;
        SegmentState state = _segments[job][source].state;
        // slither-disable-next-line incorrect-equality: states of an enumeration.
        return state == SegmentState.Committed || state == SegmentState.Settled;
    }

    /// Root of the input state, each group of which is proved to be what its source says.
    function _inputRoot(JobId job, Job storage j, Source[] memory sources, GroupProof[] calldata inputs)
        private
        view
        returns (StateRoot)
    {
        if (inputs.length != sources.length) revert BadProof();
        bytes32[] memory groups = new bytes32[](inputs.length);
        for (uint256 i = 0; i < inputs.length; ++i) {
            (StateRoot root, uint256 count) = _output(job, j, sources[i].segment);
            // INVARIANT: the group exists: what pads the tree is none.
            if (sources[i].group >= count) revert InvalidSpec("group");
            if (!Roots.verify(StateRoot.unwrap(root), count, inputs[i].root, sources[i].group, inputs[i].proof)) {
                revert BadProof();
            }
            groups[i] = inputs[i].root;
        }
        return StateRoot.wrap(Roots.root(groups));
    }

    /// Root and number of groups of a segment's output, or of the initial state.
    function _output(JobId job, Job storage j, uint32 source) private view returns (StateRoot, uint256) {
        if (source == Plan.INITIAL) return (j.terms.initialRoot, j.terms.initialGroups);
        if (!_isThere(job, source)) revert InputNotReady(source);
        Segment storage s = _segments[job][source];
        return (s.outputRoot, s.groups);
    }

    /// Sum of the inputs' attempts. It grows when, and only when, the commitment of one of them is opened again, since
    /// attempts only grow.
    function _inputAttempts(JobId job, Source[] memory inputs) private view returns (uint64 sum) {
        for (uint256 i = 0; i < inputs.length; ++i) {
            uint32 source = inputs[i].segment;
            if (source != Plan.INITIAL) sum += _segments[job][source].attempt;
        }
    }

    // ---------------------------------------------------------------- changes

    function _unreserved(Job storage j) private view returns (uint128) {
        return j.terms.escrow - j.reserved - j.spent - j.refunded;
    }

    /// What auditors of a segment at `price` share.
    function _pot(Job storage j, uint128 price) private view returns (uint256) {
        return Plan.partOf(price, j.terms.auditShare);
    }

    function _fee(uint128 price) private view returns (uint128) {
        return uint128(Plan.partOf(price, feeRate));
    }

    function _openAudit(JobId job, uint32 segment, Job storage j, Segment storage s) private {
        uint128 price = s.price;
        Opening memory opening = Opening({
            solver: s.solver,
            seal: s.seal,
            attestUntil: uint48(Plan.attestUntil(s.until, j.terms.window)),
            price: price,
            pot: uint128(_pot(j, price)),
            fee: _fee(price),
            asked: j.terms.auditRate
        });
        audit.open(job, segment, s.attempt, opening);
    }

    /// Pays solver and auditors what was reserved; what the auditors leave is the buyer's again.
    function _pay(JobId job, uint32 segment, Job storage j, Segment storage s, bytes32 traceRoot) private {
        (address solver, uint128 price) = (s.solver, s.price);
        uint128 fee = _fee(price);
        uint256 pot = _pot(j, price);
        j.reserved -= price + uint128(pot);
        owed[solver] += price - fee;
        _burn(fee);
        emit Settled(job, segment, solver, price, fee);
        // slither-disable-next-line reentrancy-no-eth: Audit calls Stake only, which calls nobody.
        address[] memory auditors = audit.settle(job, segment, s.attempt, traceRoot, price);
        // slither-disable-next-line divide-before-multiply: what does not divide stays in the escrow.
        uint256 share = auditors.length == 0 ? 0 : pot / auditors.length;
        for (uint256 i = 0; i < auditors.length; ++i) {
            owed[auditors[i]] += share;
            emit Audited(job, segment, auditors[i], share);
        }
        j.spent += price + uint128(share * auditors.length);
        if (fee > 0) emission.accrue(fee, solver, j.buyer, auditors);
    }

    /// Opens the segment again and releases what was reserved for it. Returns who held it.
    function _reopen(Job storage j, Segment storage s) private returns (address solver) {
        solver = s.solver;
        j.reserved -= s.price + uint128(_pot(j, s.price));
        s.state = SegmentState.Open;
        s.solver = address(0);
        s.until = 0;
    }

    /// Opens the segment again for another attempt: everything that was built on the last can be voided from now on, and
    /// its disputes are moot.
    function _drop(JobId job, uint32 segment, Job storage j, Segment storage s, Outcome outcome)
        private
        returns (address solver)
    {
        bool audited = s.state == SegmentState.Committed;
        uint32 attempt = s.attempt;
        solver = _reopen(j, s);
        s.attempt = attempt + 1;
        s.games = 0;
        if (audited) audit.drop(job, segment, attempt, outcome);
    }
}
