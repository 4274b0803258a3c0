"""The Market's rules, for the fake chain. Each function is one call of ``contracts/Market.sol``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace

from crowdtrain_engine import merkle
from crowdtrain_engine.trace import checkpoint_count

from crowdtrain import _fake_audit as audit
from crowdtrain import _fake_emission as emission
from crowdtrain import cid as cids
from crowdtrain._errors import Corrupt
from crowdtrain._fake_world import MARKET, NOBODY, RULES, World, require, revert
from crowdtrain.chain import (
    INITIAL,
    NONE,
    WHOLE,
    Address,
    GroupProof,
    Job,
    JobId,
    JobTerms,
    Outcome,
    Segment,
    SegmentKey,
    SegmentSpec,
    SegmentState,
    Source,
)
from crowdtrain.plan import MAX_CHECKPOINTS, MAX_GROUPS, MAX_INTERVAL, leaf

__all__ = [
    "claim", "commit", "expire", "forfeit", "overturn", "post", "refund", "require_state", "segment_of",
    "settle", "validate", "view_of", "void", "withdraw",
]  # fmt: skip

_DAY = 24 * 60 * 60
_MAX_LIFE = 3650 * _DAY
_LIMITS = {
    "segments": (1, 2**31),
    "initial_groups": (1, MAX_GROUPS),
    "lease": (1, 30 * _DAY),
    "window": (2, 30 * _DAY),
    "clock": (2, 30 * _DAY),
    "audit_rate": (0, 4 * WHOLE),
    "audit_share": (0, 4 * WHOLE),
}


def validate(world: World, terms: JobTerms) -> None:
    """Refuses terms that nobody may post."""
    for name, (least, most) in _LIMITS.items():
        require(least <= getattr(terms, name) <= most, "InvalidTerms", what=_solidity_name(name))
    require(terms.window + 3 * terms.clock <= RULES.unbonding, "InvalidTerms", what="unbonding")
    require(0 < terms.deadline - world.time <= _MAX_LIFE, "InvalidTerms", what="deadline")


def post(world: World, sender: Address, terms: JobTerms, manifest: str) -> JobId:
    validate(world, terms)
    job = JobId(len(world.jobs) + 1)
    world.jobs[job] = Job(job, sender, terms, reserved=0, spent=0, settled=0, manifest=manifest)
    world.pay(sender, MARKET, terms.escrow)
    fields = {_solidity_name(field.name): getattr(terms, field.name) for field in dataclasses.fields(terms)}
    world.emit("Market", "Posted", job=job, buyer=sender, terms=fields, manifest=_raw(manifest))
    return job


def _raw(text: str) -> bytes:
    """A CID's bytes; or the letters of what is none, which a contract takes as well."""
    try:
        return cids.to_bytes(text)
    except Corrupt:
        return text.encode()


def _solidity_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def refund(world: World, sender: Address, job: JobId) -> None:
    record = _job(world, job)
    terms = record.terms
    require(
        world.time > terms.deadline or record.settled == terms.segments,
        "BeforeDeadline",
        deadline=terms.deadline,
    )
    amount = _unreserved(world, record)
    require(amount > 0, "NothingOwed", account=record.buyer)
    world.refunded[job] = world.refunded.get(job, 0) + amount
    world.owe(record.buyer, amount)
    world.emit("Market", "Refunded", job=job, buyer=record.buyer, amount=amount)


def withdraw(world: World, sender: Address) -> None:
    amount = world.owed.pop(sender, 0)
    require(amount > 0, "NothingOwed", account=sender)
    world.pay(MARKET, sender, amount)
    world.emit("Market", "Withdrawn", account=sender, amount=amount)


def claim(
    world: World,
    sender: Address,
    key: SegmentKey,
    spec: SegmentSpec,
    plan_proof: Sequence[bytes],
    inputs: Sequence[GroupProof],
) -> None:
    segment, job = segment_of(world, key), _job(world, key.job)
    terms = job.terms
    require(world.time <= terms.deadline, "PastDeadline", deadline=terms.deadline)
    require_state(segment, SegmentState.OPEN)
    if world.time < segment.heir_until and sender != segment.heir:
        revert("Reserved", heir=segment.heir, until=segment.heir_until)
    if world.time <= segment.lapsed_until and sender == segment.lapsed:
        revert("Lapsed", solver=sender, until=segment.lapsed_until)
    require((key.job, sender) not in world.barred, "Barred", job=key.job, solver=sender)
    _check_spec(key, spec)
    spec_leaf = leaf(spec)
    fits = len(plan_proof) == merkle.height(terms.segments)
    require(fits and merkle.verify(terms.plan_root, spec_leaf, key.index, plan_proof), "BadProof")
    left = _unreserved(world, job)
    cost = spec.price + terms.pot(spec.price)
    require(cost <= left, "EscrowShort", left=left, price=cost)
    absent = _absent(world, key, spec)
    input_root = _input_root(world, key, spec.sources(absent), inputs)
    until = world.time + terms.lease
    world.jobs[key.job] = replace(job, reserved=job.reserved + cost)
    world.groups[key] = len(spec.inputs)
    world.inputs[key] = _attempts(world, key.job, spec.sources(absent))
    world.segments[key] = replace(
        segment,
        state=SegmentState.CLAIMED,
        solver=sender,
        until=until,
        price=spec.price,
        leaf=spec_leaf,
        input_root=input_root,
        absent=absent,
    )
    world.emit(
        "Market",
        "Claimed",
        job=key.job,
        segment=key.index,
        solver=sender,
        attempt=segment.attempt,
        until=until,
    )
    world.lock(sender, terms.stake)


def commit(
    world: World,
    sender: Address,
    key: SegmentKey,
    input_root: bytes,
    group_roots: Sequence[bytes],
    seal: bytes,
    cid: str,
) -> None:
    segment, terms = segment_of(world, key), _job(world, key.job).terms
    require_state(segment, SegmentState.CLAIMED)
    require(sender == segment.solver, "NotSolver", solver=segment.solver, caller=sender)
    require(world.time <= segment.until, "LeaseOver", until=segment.until)
    require(segment.input_root == input_root, "InputChanged")
    require(len(group_roots) == world.groups[key], "InvalidSpec", what="groupRoots")
    until = world.time + terms.window
    roots = tuple(group_roots)
    world.segments[key] = replace(
        segment,
        state=SegmentState.COMMITTED,
        until=until,
        output_root=merkle.root(roots),
        seal=seal,
        group_roots=roots,
        cid=cid,
    )
    world.emit(
        "Market",
        "Committed",
        job=key.job,
        segment=key.index,
        solver=sender,
        attempt=segment.attempt,
        groupRoots=roots,
        seal=seal,
        cid=_raw(cid),
        until=until,
    )
    price = segment.price
    audit.open_round(
        world, key, segment.attempt, solver=sender, seal=seal, attest_until=terms.attest_until(until),
        price=price, pot=terms.pot(price), fee=RULES.fee(price), asked=terms.audit_rate,
    )  # fmt: skip


def settle(world: World, sender: Address, key: SegmentKey, spec: SegmentSpec, trace_root: bytes) -> None:
    segment, job = segment_of(world, key), _job(world, key.job)
    require_state(segment, SegmentState.COMMITTED)
    require(world.time > segment.until, "NotYet", until=segment.until)
    require(segment.games == 0, "DisputesOpen", games=segment.games)
    _require_leaf(segment, spec)
    for source in spec.sources(segment.absent):
        if source.segment != INITIAL:
            state = segment_of(world, SegmentKey(key.job, source.segment)).state
            require(state is SegmentState.SETTLED, "InputNotReady", segment=source.segment)
    require(_attempts(world, key.job, spec.sources(segment.absent)) == world.inputs[key], "InputChanged")
    world.segments[key] = replace(segment, state=SegmentState.SETTLED)
    _pay(world, job, segment, trace_root)
    world.unlock(segment.solver, job.terms.stake)


def _pay(world: World, job: Job, segment: Segment, trace_root: bytes) -> None:
    """Pays solver and auditors what was reserved; what the auditors leave is the buyer's again."""
    key, solver, price = segment.key, segment.solver, segment.price
    fee, pot = RULES.fee(price), job.terms.pot(price)
    world.owe(solver, price - fee)
    world.burned += fee
    world.emit("Market", "Settled", job=key.job, segment=key.index, solver=solver, price=price, fee=fee)
    right = audit.settle(world, key, segment.attempt, trace_root, price)
    share = pot // len(right) if right else 0
    for auditor in right:
        world.owe(auditor, share)
        world.emit("Market", "Audited", job=key.job, segment=key.index, auditor=auditor, amount=share)
    world.jobs[key.job] = replace(
        job,
        settled=job.settled + 1,
        reserved=job.reserved - price - pot,
        spent=job.spent + price + share * len(right),
    )
    if fee:
        emission.accrue(world, fee, solver, job.buyer, right)


def forfeit(world: World, sender: Address, key: SegmentKey, spec: SegmentSpec) -> None:
    segment, job = segment_of(world, key), _job(world, key.job)
    require_state(segment, SegmentState.COMMITTED)
    until = segment.until + job.terms.clock
    require(world.time > until, "NotYet", until=until)
    require(segment.games == 0, "DisputesOpen", games=segment.games)
    _require_leaf(segment, spec)
    require(_attempts(world, key.job, spec.sources(segment.absent)) == world.inputs[key], "InputChanged")
    require(audit.round_of(world, key, segment.attempt).trace_root == NONE, "Revealed")
    _drop(world, key, Outcome.FORFEITED)
    world.barred = {*world.barred, (key.job, segment.solver)}
    world.emit("Market", "Forfeited", job=key.job, segment=key.index, solver=segment.solver)
    world.slash(segment.solver, job.terms.stake, job.buyer)


def expire(world: World, sender: Address, key: SegmentKey) -> None:
    segment = segment_of(world, key)
    require_state(segment, SegmentState.CLAIMED)
    require(world.time > segment.until, "NotYet", until=segment.until)
    terms = world.jobs[key.job].terms
    _reopen(world, key)
    world.segments[key] = replace(
        world.segments[key], lapsed=segment.solver, lapsed_until=world.time + terms.lease
    )
    world.emit("Market", "Expired", job=key.job, segment=key.index, solver=segment.solver)
    audit.expired(world, segment.solver)
    world.unlock(segment.solver, terms.stake)


def void(world: World, sender: Address, key: SegmentKey, spec: SegmentSpec) -> None:
    segment = segment_of(world, key)
    if segment.state is not SegmentState.CLAIMED:
        require_state(segment, SegmentState.COMMITTED)
    _require_leaf(segment, spec)
    require(_attempts(world, key.job, spec.sources(segment.absent)) != world.inputs[key], "InputsStand")
    _drop(world, key, Outcome.VOIDED)
    world.emit("Market", "Voided", job=key.job, segment=key.index, solver=segment.solver)
    world.unlock(segment.solver, world.jobs[key.job].terms.stake)


def overturn(world: World, key: SegmentKey, challenger: Address) -> None:
    """Opens an attempt again that a dispute proved wrong; ``challenger`` may claim it first."""
    segment = world.segments[key]
    _drop(world, key, Outcome.OVERTURNED)
    world.barred = {*world.barred, (key.job, segment.solver)}
    until = world.time + world.jobs[key.job].terms.lease // 10
    world.segments[key] = replace(world.segments[key], heir=challenger, heir_until=until)
    world.emit(
        "Market", "Overturned", job=key.job, segment=key.index, solver=segment.solver, challenger=challenger
    )


def require_state(segment: Segment, needed: SegmentState) -> None:
    """Refuses with WrongState unless ``segment`` is in the state ``needed``."""
    key = segment.key
    if segment.state is not needed:
        revert("WrongState", job=key.job, segment=key.index, actual=segment.state, needed=needed)


def _job(world: World, job: JobId) -> Job:
    return world.jobs.get(job) or revert("UnknownSegment", job=job, segment=0)


def segment_of(world: World, key: SegmentKey) -> Segment:
    """A segment as it stands; refused if the job has none of this number."""
    job = world.jobs.get(key.job)
    if job is None or not 0 <= key.index < job.terms.segments:
        revert("UnknownSegment", job=key.job, segment=key.index)
    return view_of(world, key)


def view_of(world: World, key: SegmentKey) -> Segment:
    """A segment as it stands, whether the job has it or not."""
    zero = bytes(32)
    nobody = (NOBODY, 0, NOBODY, 0)
    unclaimed = Segment(key, SegmentState.OPEN, NOBODY, 0, 0, 0, *nobody, 0, zero, zero, zero, zero)
    return world.segments.get(key, unclaimed)


def _require_leaf(segment: Segment, spec: SegmentSpec) -> None:
    require(leaf(spec) == segment.leaf, "WrongLeaf", expected=segment.leaf, actual=leaf(spec))


def _check_spec(key: SegmentKey, spec: SegmentSpec) -> None:
    require(spec.steps > 0, "InvalidSpec", what="steps")
    require(0 < spec.interval <= MAX_INTERVAL, "InvalidSpec", what="interval")
    require(checkpoint_count(spec.steps, spec.interval) <= MAX_CHECKPOINTS, "InvalidSpec", what="checkpoints")
    require(0 < len(spec.inputs) <= MAX_GROUPS, "InvalidSpec", what="inputs")
    require(len(spec.fallbacks) in (0, len(spec.inputs)), "InvalidSpec", what="fallbacks")
    for source in spec.all_sources:
        require(source.segment == INITIAL or source.segment < key.index, "InvalidSpec", what="source")
    require(spec.quorum <= sum(spec.optional), "InvalidSpec", what="quorum")


def _is_there(world: World, job: JobId, number: int) -> bool:
    return segment_of(world, SegmentKey(job, number)).state >= SegmentState.COMMITTED


def _absent(world: World, key: SegmentKey, spec: SegmentSpec) -> int:
    absent = spec.absent(lambda number: _is_there(world, key.job, number))
    present = spec.present(absent)
    require(present >= spec.quorum, "QuorumMissed", present=present, quorum=spec.quorum)
    return absent


def _input_root(
    world: World, key: SegmentKey, sources: Sequence[Source], inputs: Sequence[GroupProof]
) -> bytes:
    require(len(inputs) == len(sources), "BadProof")
    terms = world.jobs[key.job].terms
    for source, given in zip(sources, inputs, strict=True):
        root, count = terms.initial_root, terms.initial_groups
        if source.segment != INITIAL:
            from_key = SegmentKey(key.job, source.segment)
            require(_is_there(world, key.job, source.segment), "InputNotReady", segment=source.segment)
            root, count = segment_of(world, from_key).output_root, world.groups[from_key]
        require(source.group < count, "InvalidSpec", what="group")
        fits = len(given.proof) == merkle.height(count)
        require(fits and merkle.verify(root, given.root, source.group, given.proof), "BadProof")
    return merkle.root([given.root for given in inputs])


def _attempts(world: World, job: JobId, sources: Sequence[Source]) -> tuple[int, ...]:
    """Changes when, and only when, an input is overturned or voided."""
    return tuple(
        0 if source.segment == INITIAL else segment_of(world, SegmentKey(job, source.segment)).attempt
        for source in sources
    )


def _unreserved(world: World, job: Job) -> int:
    return job.terms.escrow - job.reserved - job.spent - world.refunded.get(job.id, 0)


def _reopen(world: World, key: SegmentKey) -> None:
    """Opens a segment again, and releases what was reserved for it."""
    segment, job = world.segments[key], world.jobs[key.job]
    cost = segment.price + job.terms.pot(segment.price)
    world.jobs[key.job] = replace(job, reserved=job.reserved - cost)
    world.segments[key] = replace(
        segment, state=SegmentState.OPEN, solver=NOBODY, until=0, group_roots=(), cid=""
    )


def _drop(world: World, key: SegmentKey, outcome: Outcome) -> None:
    """Opens a segment again for another attempt; its disputes are moot."""
    segment = world.segments[key]
    _reopen(world, key)
    world.segments[key] = replace(world.segments[key], attempt=segment.attempt + 1, games=0)
    if segment.state is SegmentState.COMMITTED:
        audit.drop(world, key, segment.attempt, outcome)
