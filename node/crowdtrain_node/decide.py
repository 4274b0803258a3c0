"""What a solver does next: a pure function of what it sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256

from crowdtrain.actions import (
    HELD,
    OWED,
    Action,
    Answer,
    Load,
    OfSegment,
    Settle,
    Timeout,
    Withdraw,
    inputs_changed,
    way_out,
)
from crowdtrain.agent import game_name, job_name, segment_name
from crowdtrain.chain import Job, JobId, Segment, SegmentKey, SegmentSpec, SegmentState
from crowdtrain.game import CHALLENGER_PHASES, DEFENDER_PHASES
from crowdtrain.runs import Appraisal
from crowdtrain.watch import Book, ChainView

__all__ = [
    "NO_LIMIT",
    "Appraise",
    "Claim",
    "Commit",
    "Execute",
    "Policy",
    "Prepare",
    "Reveal",
    "View",
    "decide",
]

NO_LIMIT = 2**128 - 1
REPLAYS = 4
"""how often a dispute's clock must have room for the steps between two checkpoints"""
PAY_DIGITS = 3
"""of pay per second that are compared: prices are rounded, and speeds measured"""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the owner of a solver wants. Money in token units, times in seconds."""

    min_price: int = 0
    """least pay for a segment, without the fee"""
    max_stake: int = NO_LIMIT
    """most stake to have deposited at any time"""
    lease_part: float = 0.5
    """the part of a lease that the estimated work may take"""
    min_clock: int = 0
    """least time that a job gives each side of a dispute: who is silent for longer loses, however right"""
    patience: int = 30
    """how long others are left to settle, expire or void what is theirs before this solver does it"""
    courtesy: int = 2
    """seconds for which a segment is left to those who made what it builds on, and need not fetch it"""
    jobs: frozenset[JobId] = frozenset()
    """the only jobs to work on, unless empty"""


@dataclass(frozen=True, slots=True)
class View:
    """What a solver sees at one moment."""

    chain: ChainView
    books: Mapping[JobId, Book] = field(default_factory=dict)
    """the jobs whose files are loaded"""
    appraisals: Mapping[bytes, Appraisal] = field(default_factory=dict)
    """what a step costs here, by program root"""
    prepared: Mapping[SegmentKey, bytes] = field(default_factory=dict)
    """segments whose input state is here, with its root"""
    complete: frozenset[SegmentKey] = frozenset()
    """own segments whose trace is known"""
    stored: frozenset[SegmentKey] = frozenset()
    """own segments whose output is stored"""
    changed: frozenset[SegmentKey] = frozenset()
    """segments of which the Market said that their inputs have changed"""
    resting: frozenset[str] = frozenset()
    """names of jobs, segments and disputes that are left alone for a while"""
    working: bool = False
    """whether the worker is busy"""
    answering: bool = False
    """whether a move is being computed"""


@dataclass(frozen=True, slots=True)
class Commit(OfSegment):
    """Post the result."""


@dataclass(frozen=True, slots=True)
class Execute(OfSegment):
    """Go on with the work, in the worker."""


@dataclass(frozen=True, slots=True)
class Appraise(OfSegment):
    """Estimate what a step of the segment's program costs, in the worker."""


@dataclass(frozen=True, slots=True)
class Prepare(OfSegment):
    """Fetch data and input state and check them, in the worker."""


@dataclass(frozen=True, slots=True)
class Claim(OfSegment):
    """Take a segment, after a deposit of ``deposit`` token units if that is not 0."""

    deposit: int


@dataclass(frozen=True, slots=True)
class Reveal(OfSegment):
    """Show the trace root of a commitment whose window is over but that cannot be settled yet."""


def decide(view: View, policy: Policy) -> tuple[Action, ...]:
    """What to do now, most urgent first; at most one of the actions is for the worker."""
    actions = (*_play(view), *_commits(view), *_exits(view, policy), *_work(view, policy))
    return actions or tuple(_money(view))


# ------------------------------------------------------------------ disputes


def _play(view: View) -> Iterator[Action]:
    chain = view.chain
    mine = [
        game
        for game in chain.games.values()
        if game.defender == chain.address and game_name(game.id) not in view.resting
    ]
    waiting = []
    for game in mine:
        spent = chain.now - game.since
        if spent < 0:
            continue  # nothing of a trace is shown while attestations are taken
        if game.phase in DEFENDER_PHASES:
            left = game.defender_left - spent
            if left >= 0 and game.key in view.complete:
                waiting.append((left, game.id))
        elif game.phase in CHALLENGER_PHASES and spent > game.challenger_left:
            yield Timeout(game.id)
    if waiting and not view.answering:
        yield Answer(min(waiting)[1])


# ------------------------------------------------------------------ the way out of every state


def _commits(view: View) -> Iterator[Action]:
    for segment in _held(view, SegmentState.CLAIMED):
        key = segment.key
        if key.job not in view.books or segment_name(key) in view.resting:
            continue
        if key in view.stored and view.chain.now <= segment.until and not _changed(view, segment):
            yield Commit(key)


def _exits(view: View, policy: Policy) -> Iterator[Action]:
    for segment in _in_books(view):
        own = segment.solver == view.chain.address
        if segment_name(segment.key) in view.resting or not (own or _concerns(view, segment)):
            continue
        book, grace = view.books[segment.key.job], 0 if own else policy.patience
        known = view.complete if own else ()
        action = way_out(view.chain, book, segment, changed=view.changed, grace=grace, known=known)
        if own and not isinstance(action, Settle) and _must_reveal(view, segment):
            yield Reveal(segment.key)
        elif action is not None:
            yield action


def _must_reveal(view: View, segment: Segment) -> bool:
    """Whether own work would be forfeited if it stays unsettled."""
    chain, key = view.chain, segment.key
    is_over = segment.state is SegmentState.COMMITTED and chain.now > segment.until
    return is_over and chain.is_hidden(key) and key in view.complete and not _changed(view, segment)


def _concerns(view: View, segment: Segment) -> bool:
    """Whether somebody else's segment stands in this solver's way."""
    job = segment.key.job
    open_to_us = job not in view.chain.barred and view.chain.now <= view.chain.jobs[job].terms.deadline
    return open_to_us or any(own.key.job == job for own in _held(view, *HELD))


def _changed(view: View, segment: Segment) -> bool:
    changed = inputs_changed(view.chain, view.books[segment.key.job], segment)
    return changed or segment.key in view.changed


# ------------------------------------------------------------------ work


def _work(view: View, policy: Policy) -> Iterator[Action]:
    if view.working:
        return
    execution = _execution(view)
    loads = sorted(_loads(view), reverse=True)
    if loads and (loads[0][0] or execution is None):
        yield Load(loads[0][1])
    elif execution is not None:
        yield execution
    elif not _held(view, SegmentState.CLAIMED):
        yield from _next_segment(view, policy)


def _loads(view: View) -> Iterator[tuple[bool, JobId]]:
    """Jobs whose files are not here yet, and whether this solver holds something in them."""
    for job in view.chain.jobs:
        if job not in view.books and job_name(job) not in view.resting:
            yield any(segment.key.job == job for segment in _held(view, *HELD)), job


def _execution(view: View) -> Execute | None:
    """Own work that is not done: claimed, or committed while its trace is lost, which a dispute or its pay needs."""
    undone = []
    for segment in _held(view, *HELD):
        key = segment.key
        if key.job not in view.books or segment_name(key) in view.resting or _changed(view, segment):
            continue
        if (
            segment.state is SegmentState.CLAIMED
            and key not in view.stored
            and view.chain.now <= segment.until
        ):
            undone.append((segment.until, key.job, key.index))
        lost = segment.state is SegmentState.COMMITTED and key not in view.complete
        if lost and (segment.games or view.chain.is_hidden(key)):
            undone.append((0 if segment.games else segment.until, key.job, key.index))
    return Execute(SegmentKey(*min(undone)[1:])) if undone else None


def _next_segment(view: View, policy: Policy) -> Iterator[Action]:
    """The way to the next claim: appraise what is unknown, prepare the best, claim it."""
    candidates = [segment.key for segment in _in_books(view) if _is_claimable(view, policy, segment)]
    unknown = [key for key in candidates if _spec(view, key).program_root not in view.appraisals]
    if unknown:
        yield Appraise(unknown[0])
        return
    affordable = [key for key in candidates if _fits_lease(view, policy, key) and _fits_clock(view, key)]
    if not affordable:
        return
    best = max(affordable, key=partial(_worth, view))
    if view.prepared.get(best) != view.chain.input_root(view.books[best.job], best):
        yield Prepare(best)
        return
    yield Claim(best, max(0, view.chain.jobs[best.job].terms.stake - view.chain.free))


def _is_claimable(view: View, policy: Policy, segment: Segment) -> bool:
    chain, key, terms = view.chain, segment.key, view.chain.jobs[segment.key.job].terms
    price = _spec(view, key).price
    return (
        segment.state is SegmentState.OPEN
        and not {segment_name(key), job_name(key.job)} & view.resting
        and chain.now <= terms.deadline
        and key.job not in chain.barred
        and (chain.now >= segment.heir_until or segment.heir == chain.address)
        and (chain.now > segment.lapsed_until or segment.lapsed != chain.address)
        and _pay(view, key) >= policy.min_price
        and price + terms.pot(price) <= _unreserved(chain.jobs[key.job])
        and _can_stake(chain, policy, terms.stake)
        and chain.input_root(view.books[key.job], key) is not None
        and (_own_sources(view, key) > 0 or chain.now >= _open_since(view, key) + policy.courtesy)
        and terms.clock >= policy.min_clock
    )


def _unreserved(job: Job) -> int:
    return job.terms.escrow - job.reserved - job.spent


def _can_stake(chain: ChainView, policy: Policy, stake: int) -> bool:
    missing = max(0, stake - chain.free)
    return missing <= chain.tokens and chain.free + chain.locked + missing <= policy.max_stake


def _fits_lease(view: View, policy: Policy, key: SegmentKey) -> bool:
    return _seconds(view, key) <= policy.lease_part * view.chain.jobs[key.job].terms.lease


def _fits_clock(view: View, key: SegmentKey) -> bool:
    """Whether a dispute can be answered in time: its first moves compute the steps between two checkpoints again."""
    spec = _spec(view, key)
    seconds = view.appraisals[spec.program_root].seconds * min(spec.interval, spec.steps)
    return REPLAYS * seconds <= view.chain.jobs[key.job].terms.clock


def _seconds(view: View, key: SegmentKey) -> float:
    spec = _spec(view, key)
    return view.appraisals[spec.program_root].seconds * spec.steps


def _pay(view: View, key: SegmentKey) -> int:
    """What is paid for a segment: its price without the fee."""
    price = _spec(view, key).price
    return price - view.chain.rules.fee(price)


def _pay_per_second(view: View, key: SegmentKey) -> float:
    return _pay(view, key) / max(_seconds(view, key), 1e-9)


def _own_sources(view: View, key: SegmentKey) -> int:
    """On how much of this solver's own work a segment builds."""
    sources = view.chain.sources(view.books[key.job], key)
    return sum(source.solver == view.chain.address for source in sources)


def _worth(view: View, key: SegmentKey) -> tuple[object, ...]:
    """What is best is greatest: own work that goes on, then what pays most; of about equal pay the largest that can
    be done in time, which leaves small segments to slow machines."""
    rate = float(f"{_pay_per_second(view, key):.{PAY_DIGITS}g}")
    lot = sha256(f"{view.chain.address} {key.job} {key.index}".encode()).digest()  # not all want the same
    return _own_sources(view, key), rate, _seconds(view, key), lot


def _open_since(view: View, key: SegmentKey) -> int:
    """When the last of a segment's sources was committed, or 0 if they are settled."""
    sources, window = view.chain.sources(view.books[key.job], key), view.chain.jobs[key.job].terms.window
    return max((s.until - window for s in sources if s.state is SegmentState.COMMITTED), default=0)


def _spec(view: View, key: SegmentKey) -> SegmentSpec:
    return view.books[key.job].plan.segments[key.index]


# ------------------------------------------------------------------ money, and what all share


def _money(view: View) -> Iterator[Action]:
    """Earnings are taken when nothing else is to be done and no work of this solver is unsettled."""
    if view.chain.owed and not _held(view, *HELD) and not view.working and OWED not in view.resting:
        yield Withdraw()


def _in_books(view: View) -> Iterator[Segment]:
    """The segments of the jobs whose files are here."""
    for job in view.chain.jobs:
        if job in view.books:
            yield from view.chain.segments_of(job)


def _held(view: View, *states: SegmentState) -> list[Segment]:
    """This solver's segments in one of these states."""
    chain = view.chain
    return [s for s in chain.segments.values() if s.solver == chain.address and s.state in states]
