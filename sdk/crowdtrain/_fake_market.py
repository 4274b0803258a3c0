"""The Market's rules, for the fake chain. Each function is one call of ``contracts/Market.sol``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace

from crowdtrain_engine import merkle
from crowdtrain_engine.trace import checkpoint_count

from crowdtrain._fake_world import MARKET, World, require, revert
from crowdtrain.chain import (
    INITIAL,
    Address,
    GroupProof,
    Job,
    JobId,
    JobTerms,
    Segment,
    SegmentKey,
    SegmentSpec,
    SegmentState,
)
from crowdtrain.plan import MAX_CHECKPOINTS, MAX_GROUPS, MAX_INTERVAL, leaf

__all__ = [
    "NOBODY", "claim", "commit", "expire", "overturn", "post", "refund", "require_state", "segment_of",
    "settle", "void", "withdraw",
]  # fmt: skip

NOBODY = Address("0x" + "0" * 40)
_DAY = 24 * 60 * 60
_MOST = {
    "segments": 2**31,
    "initial_groups": MAX_GROUPS,
    **dict.fromkeys(("lease", "window", "clock"), 30 * _DAY),
}


def post(world: World, sender: Address, terms: JobTerms, manifest: str) -> JobId:
    for name, most in _MOST.items():
        require(0 < getattr(terms, name) <= most, "InvalidTerms", what=_solidity_name(name))
    require(terms.deadline > world.time, "InvalidTerms", what="deadline")
    job = JobId(len(world.jobs) + 1)
    world.jobs[job] = Job(job, sender, terms, reserved=0, spent=0, settled=0, manifest=manifest)
    world.pay(sender, MARKET, terms.escrow)
    fields = {_solidity_name(field.name): getattr(terms, field.name) for field in dataclasses.fields(terms)}
    world.emit("Posted", job=job, buyer=sender, terms=fields, manifest=manifest.encode())
    return job


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
    world.emit("Refunded", job=job, buyer=record.buyer, amount=amount)


def withdraw(world: World, sender: Address) -> None:
    amount = world.owed.pop(sender, 0)
    require(amount > 0, "NothingOwed", account=sender)
    world.pay(MARKET, sender, amount)
    world.emit("Withdrawn", account=sender, amount=amount)


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
    require((key.job, sender) not in world.barred, "Barred", job=key.job, solver=sender)
    _check_spec(key, spec)
    spec_leaf = leaf(spec)
    fits = len(plan_proof) == merkle.height(terms.segments)
    require(fits and merkle.verify(terms.plan_root, spec_leaf, key.index, plan_proof), "BadProof")
    left = _unreserved(world, job)
    require(spec.price <= left, "EscrowShort", left=left, price=spec.price)
    input_root = _input_root(world, key, spec, inputs)
    until = world.time + terms.lease
    world.jobs[key.job] = replace(job, reserved=job.reserved + spec.price)
    world.groups[key] = len(spec.inputs)
    world.inputs[key] = _attempts(world, key.job, spec)
    world.segments[key] = replace(
        segment,
        state=SegmentState.CLAIMED,
        solver=sender,
        until=until,
        price=spec.price,
        leaf=spec_leaf,
        input_root=input_root,
    )
    world.emit("Claimed", job=key.job, segment=key.index, solver=sender, attempt=segment.attempt, until=until)
    world.lock(sender, terms.stake)


def commit(
    world: World, sender: Address, key: SegmentKey, group_roots: Sequence[bytes], seal: bytes, cid: str
) -> None:
    segment, terms = segment_of(world, key), _job(world, key.job).terms
    require_state(segment, SegmentState.CLAIMED)
    require(sender == segment.solver, "NotSolver", solver=segment.solver, caller=sender)
    require(world.time <= segment.until, "LeaseOver", until=segment.until)
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
        "Committed",
        job=key.job,
        segment=key.index,
        solver=sender,
        attempt=segment.attempt,
        groupRoots=list(roots),
        seal=seal,
        cid=cid.encode(),
        until=until,
    )


def settle(world: World, sender: Address, key: SegmentKey, spec: SegmentSpec) -> None:
    segment, job = segment_of(world, key), _job(world, key.job)
    require_state(segment, SegmentState.COMMITTED)
    require(world.time > segment.until, "NotYet", until=segment.until)
    require(segment.games == 0, "DisputesOpen", games=segment.games)
    _require_leaf(segment, spec)
    for source in spec.inputs:
        if source.segment != INITIAL:
            state = segment_of(world, SegmentKey(key.job, source.segment)).state
            require(state is SegmentState.SETTLED, "InputNotReady", segment=source.segment)
    require(_attempts(world, key.job, spec) == world.inputs[key], "InputChanged")
    price = segment.price
    world.segments[key] = replace(segment, state=SegmentState.SETTLED)
    world.jobs[key.job] = replace(
        job, settled=job.settled + 1, reserved=job.reserved - price, spent=job.spent + price
    )
    world.owe(segment.solver, price)
    world.emit("Settled", job=key.job, segment=key.index, solver=segment.solver, price=price)
    world.unlock(segment.solver, job.terms.stake)


def expire(world: World, sender: Address, key: SegmentKey) -> None:
    segment = segment_of(world, key)
    require_state(segment, SegmentState.CLAIMED)
    require(world.time > segment.until, "NotYet", until=segment.until)
    _reopen(world, key, attempt=segment.attempt)
    world.emit("Expired", job=key.job, segment=key.index, solver=segment.solver)
    world.unlock(segment.solver, world.jobs[key.job].terms.stake)


def void(world: World, sender: Address, key: SegmentKey, spec: SegmentSpec) -> None:
    segment = segment_of(world, key)
    if segment.state is not SegmentState.CLAIMED:
        require_state(segment, SegmentState.COMMITTED)
    _require_leaf(segment, spec)
    require(_attempts(world, key.job, spec) != world.inputs[key], "InputsStand")
    _reopen(world, key, attempt=segment.attempt + 1)
    world.emit("Voided", job=key.job, segment=key.index, solver=segment.solver)
    world.unlock(segment.solver, world.jobs[key.job].terms.stake)


def overturn(world: World, key: SegmentKey, challenger: Address) -> None:
    """Opens an attempt again that a dispute proved wrong; ``challenger`` may claim it first."""
    segment = world.segments[key]
    _reopen(world, key, attempt=segment.attempt + 1)
    world.barred.add((key.job, segment.solver))
    until = world.time + world.jobs[key.job].terms.lease // 10
    world.segments[key] = replace(world.segments[key], heir=challenger, heir_until=until)
    world.emit("Overturned", job=key.job, segment=key.index, solver=segment.solver, challenger=challenger)


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
    zero = bytes(32)
    unclaimed = Segment(key, SegmentState.OPEN, NOBODY, 0, 0, 0, NOBODY, 0, 0, zero, zero, zero, zero)
    return world.segments.get(key, unclaimed)


def _require_leaf(segment: Segment, spec: SegmentSpec) -> None:
    require(leaf(spec) == segment.leaf, "WrongLeaf", expected=segment.leaf, actual=leaf(spec))


def _check_spec(key: SegmentKey, spec: SegmentSpec) -> None:
    require(spec.steps > 0, "InvalidSpec", what="steps")
    require(0 < spec.interval <= MAX_INTERVAL, "InvalidSpec", what="interval")
    require(checkpoint_count(spec.steps, spec.interval) <= MAX_CHECKPOINTS, "InvalidSpec", what="checkpoints")
    require(0 < len(spec.inputs) <= MAX_GROUPS, "InvalidSpec", what="inputs")
    for source in spec.inputs:
        require(source.segment == INITIAL or source.segment < key.index, "InvalidSpec", what="source")


def _input_root(world: World, key: SegmentKey, spec: SegmentSpec, inputs: Sequence[GroupProof]) -> bytes:
    require(len(inputs) == len(spec.inputs), "BadProof")
    terms = world.jobs[key.job].terms
    for source, given in zip(spec.inputs, inputs, strict=True):
        root, count = terms.initial_root, terms.initial_groups
        if source.segment != INITIAL:
            from_key = SegmentKey(key.job, source.segment)
            ready = segment_of(world, from_key).state in (SegmentState.COMMITTED, SegmentState.SETTLED)
            require(ready, "InputNotReady", segment=source.segment)
            root, count = segment_of(world, from_key).output_root, world.groups[from_key]
        require(source.group < count, "InvalidSpec", what="group")
        fits = len(given.proof) == merkle.height(count)
        require(fits and merkle.verify(root, given.root, source.group, given.proof), "BadProof")
    return merkle.root([given.root for given in inputs])


def _attempts(world: World, job: JobId, spec: SegmentSpec) -> tuple[int, ...]:
    """Changes when, and only when, an input is overturned or voided."""
    return tuple(
        0 if source.segment == INITIAL else segment_of(world, SegmentKey(job, source.segment)).attempt
        for source in spec.inputs
    )


def _unreserved(world: World, job: Job) -> int:
    return job.terms.escrow - job.reserved - job.spent - world.refunded.get(job.id, 0)


def _reopen(world: World, key: SegmentKey, attempt: int) -> None:
    segment, job = world.segments[key], world.jobs[key.job]
    world.jobs[key.job] = replace(job, reserved=job.reserved - segment.price)
    world.segments[key] = replace(
        segment, state=SegmentState.OPEN, solver=NOBODY, until=0, attempt=attempt, games=0
    )
