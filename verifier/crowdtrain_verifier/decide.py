"""What a verifier does next: a pure function of what it sees."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from crowdtrain.actions import (
    HELD,
    Action,
    Answer,
    Load,
    OfGame,
    OfSegment,
    Timeout,
    inputs_changed,
    way_out,
)
from crowdtrain.agent import game_name, job_name, segment_name
from crowdtrain.chain import Game, JobId, Phase, Segment, SegmentKey, SegmentState
from crowdtrain.game import CHALLENGER_PHASES
from crowdtrain.watch import Book, ChainView

__all__ = [
    "NO_LIMIT",
    "Challenge",
    "Check",
    "Close",
    "Commitment",
    "Policy",
    "Verdict",
    "View",
    "commitment",
    "decide",
]

NO_LIMIT = 2**128 - 1
Commitment = tuple[SegmentKey, int, bytes]
"""A commitment to be judged: its segment, attempt and seal."""


def commitment(segment: Segment) -> Commitment:
    """The commitment that a segment holds."""
    return segment.key, segment.attempt, segment.seal


class Verdict(enum.StrEnum):
    """What a verifier thinks of a commitment."""

    RIGHT = "right"
    WRONG = "wrong"
    """one's own run differs, and the Referee would give the words of one's own run"""
    INVALID = "invalid"
    """the program breaks a rule, so that no result of it is right"""
    DOUBTFUL = "doubtful"
    """one's own run differs, but it is not what the Referee would compute: this machine is at fault"""

    @property
    def is_punishable(self) -> bool:
        """Whether a dispute would be won."""
        return self in (Verdict.WRONG, Verdict.INVALID)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the owner of a verifier wants. Money in token units, times in seconds."""

    max_stake: int = NO_LIMIT
    """most stake to have deposited at any time"""
    join: bool = False
    """whether to challenge at once what somebody else is disputing already"""
    last_part: float = 0.25
    """the last part of a window, in which what others dispute is challenged too, in case they give in"""
    tidy: bool = True
    """whether to settle, expire, void and time out what nobody else does"""
    patience: int = 30
    """how long others are left to do that themselves"""
    jobs: frozenset[JobId] = frozenset()
    """the only jobs to check, unless empty"""


@dataclass(frozen=True, slots=True)
class View:
    """What a verifier sees at one moment."""

    chain: ChainView
    books: Mapping[JobId, Book] = field(default_factory=dict)
    """the jobs whose files are loaded"""
    verdicts: Mapping[Commitment, Verdict] = field(default_factory=dict)
    changed: frozenset[SegmentKey] = frozenset()
    """segments of which the Market said that their inputs have changed"""
    resting: frozenset[str] = frozenset()
    """names of jobs, segments and disputes that are left alone for a while"""
    working: bool = False
    """whether the worker is busy"""
    answering: bool = False
    """whether a move is being computed"""


@dataclass(frozen=True, slots=True)
class Check(OfSegment):
    """Run the segment and compare, in the worker."""


@dataclass(frozen=True, slots=True)
class Challenge(OfSegment):
    """Begin a dispute, after a deposit of ``deposit`` token units if that is not 0."""

    deposit: int


@dataclass(frozen=True, slots=True)
class Close(OfGame):
    """Take the bond back from a game whose attempt is gone."""


def decide(view: View, policy: Policy) -> tuple[Action, ...]:
    """What to do now, most urgent first; at most one of the actions is for the worker."""
    return (*_play(view, policy), *_challenges(view, policy), *_work(view), *_tidy(view, policy))


# ------------------------------------------------------------------ disputes


def _play(view: View, policy: Policy) -> Iterator[Action]:
    chain = view.chain
    waiting = []
    for game in chain.games.values():
        if game.phase is Phase.OVER or game_name(game.id) in view.resting:
            continue
        own = game.challenger == chain.address
        ours_to_move = game.phase in CHALLENGER_PHASES
        left = (game.challenger_left if ours_to_move else game.defender_left) - (chain.now - game.since)
        if own and _attempt_is_gone(view, game):
            yield Close(game.id)
        elif own and ours_to_move:
            if left >= 0 and _verdict(view, game.key) is not None:
                waiting.append((left, game.id))
        elif left < (0 if own else -policy.patience) and (own or policy.tidy):
            yield Timeout(game.id)
    if waiting and not view.answering:
        yield Answer(min(waiting)[1])


def _attempt_is_gone(view: View, game: Game) -> bool:
    segment = view.chain.segments[game.key]
    return segment.state is not SegmentState.COMMITTED or segment.attempt != game.attempt


def _verdict(view: View, key: SegmentKey) -> Verdict | None:
    return view.verdicts.get(commitment(view.chain.segments[key]))


def _challenges(view: View, policy: Policy) -> Iterator[Action]:
    """One challenge at a time: the next is decided when the stake that it needs is seen."""
    chain = view.chain
    for segment in _committed(view):
        verdict = _verdict(view, segment.key)
        if verdict is None or not verdict.is_punishable or segment_name(segment.key) in view.resting:
            continue
        terms = chain.jobs[segment.key.job].terms
        missing = max(0, terms.stake - chain.free)
        affordable = missing <= chain.tokens and chain.free + chain.locked + missing <= policy.max_stake
        if affordable and _is_ours_to_challenge(view, policy, segment):
            yield Challenge(segment.key, missing)
            return


def _is_ours_to_challenge(view: View, policy: Policy, segment: Segment) -> bool:
    chain, window = view.chain, view.chain.jobs[segment.key.job].terms.window
    games = chain.games_of(segment)
    if chain.now > segment.until or any(game.challenger == chain.address for game in games):
        return False
    # a dispute between a cheat and an accomplice must not outlast the window
    last_call = chain.now >= segment.until - policy.last_part * window
    return policy.join or last_call or segment.games == 0


# ------------------------------------------------------------------ work


def _work(view: View) -> Iterator[Action]:
    if view.working:
        return
    urgent = [s for s in _committed(view) if _disputed_by_us(view, s) and _is_open(view, s)]
    pending = [s for s in _committed(view) if view.chain.now <= s.until and _is_open(view, s)]
    busy = {s.key.job for s in view.chain.segments.values() if s.state in HELD}
    unloaded = [job for job in busy - view.books.keys() if job_name(job) not in view.resting]
    if urgent or pending:
        key = (urgent or pending)[0].key
        yield Check(key) if key.job in view.books else Load(key.job)
    elif unloaded:
        yield Load(max(unloaded))


def _is_open(view: View, segment: Segment) -> bool:
    """Whether the commitment is to be judged, and can be now."""
    names = {segment_name(segment.key), job_name(segment.key.job)}
    if _verdict(view, segment.key) is not None or names & view.resting:
        return False
    book = view.books.get(segment.key.job)
    return book is None or not inputs_changed(view.chain, book, segment)


def _disputed_by_us(view: View, segment: Segment) -> bool:
    games = view.chain.games_of(segment)
    return any(g.challenger == view.chain.address and g.phase is not Phase.OVER for g in games)


def _committed(view: View) -> list[Segment]:
    """Committed segments of others, those whose window ends first at the front."""
    chain = view.chain
    others = [
        s for s in chain.segments.values() if s.state is SegmentState.COMMITTED and s.solver != chain.address
    ]
    return sorted(others, key=lambda s: (s.until, s.key.job, s.key.index))


# ------------------------------------------------------------------ what anybody may do


def _tidy(view: View, policy: Policy) -> Iterator[Action]:
    if not policy.tidy:
        return
    for segment in view.chain.segments.values():
        book = view.books.get(segment.key.job)
        if book is None or segment_name(segment.key) in view.resting:
            continue
        action = way_out(view.chain, book, segment, view.changed, policy.patience)
        if action is not None:
            yield action
