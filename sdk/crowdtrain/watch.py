"""What one account sees of the chain, kept up to date from its events.

Events only say what to read again: the contracts' state is what counts. The events of the last blocks are
asked for each time, so that what a reorganisation added or took away is read again too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from crowdtrain_engine import merkle

from crowdtrain._errors import BadAnswer, ChainUnavailable, CrowdtrainError, Refused
from crowdtrain.chain import (
    INITIAL,
    NONE,
    WHOLE,
    Address,
    Chain,
    ChainEvent,
    Game,
    GameId,
    GroupProof,
    Job,
    JobId,
    Outcome,
    Phase,
    Record,
    Round,
    Rules,
    Segment,
    SegmentKey,
    SegmentState,
    Source,
)
from crowdtrain.plan import Plan, group_proofs

__all__ = ["Book", "ChainView", "Watch", "shown_audit"]

OVERLAP = 12
"""blocks that may still be replaced by others"""


@dataclass(frozen=True, slots=True)
class Book:
    """What a job's files say of its inputs: the plan, and the root of every group of the initial state."""

    plan: Plan
    initial: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ChainView:
    """The chain at one moment. Times are Unix seconds by the chain's clock, money is in token units.

    ``games`` holds the disputes that are not over, and those that are over of attempts that still stand; ``rounds`` the
    audits of the segments that are committed; ``record`` what the account's own work came to.
    """

    now: int
    block: int
    address: Address
    free: int
    locked: int
    tokens: int
    owed: int
    jobs: Mapping[JobId, Job] = field(default_factory=dict)
    segments: Mapping[SegmentKey, Segment] = field(default_factory=dict)
    games: Mapping[GameId, Game] = field(default_factory=dict)
    barred: frozenset[JobId] = frozenset()
    rules: Rules = field(default_factory=lambda: Rules(0, 0))
    rounds: Mapping[SegmentKey, Round] = field(default_factory=dict)
    record: Record = field(default_factory=Record)
    weight: int = 0
    """stake with which the account takes part in draws, if it is an auditor's view"""
    drawn: frozenset[SegmentKey] = frozenset()
    """committed segments for whose audit the account is drawn"""
    attested: frozenset[SegmentKey] = frozenset()
    """those to which it has attested"""
    events: tuple[ChainEvent, ...] = ()
    """what is new since the view before"""

    def segments_of(self, job: JobId) -> list[Segment]:
        """The segments of a job, in order."""
        count = self.jobs[job].terms.segments if job in self.jobs else 0
        return [self.segments[SegmentKey(job, i)] for i in range(count)]

    def of_job(self, job: JobId) -> Callable[[int], Segment]:
        """Gives the segments of a job by number."""
        return lambda index: self.segments[SegmentKey(job, index)]

    def sources(self, book: Book, key: SegmentKey) -> list[Segment]:
        """The earlier segments on which a segment builds."""
        numbers = {source.segment for source in self._chosen(book, key) or ()} - {INITIAL}
        return [self.segments[SegmentKey(key.job, number)] for number in sorted(numbers)]

    def inputs(self, book: Book, key: SegmentKey) -> tuple[GroupProof, ...] | None:
        """The input groups of a segment as its sources stand, with proofs; None if one is not committed, or too few
        of those that are optional."""
        chosen, sources = self._chosen(book, key), self.sources(book, key)
        if chosen is None or any(source.state < SegmentState.COMMITTED for source in sources):
            return None
        roots = {INITIAL: book.initial} | {source.key.index: source.group_roots for source in sources}
        if any(source.group >= len(roots[source.segment]) for source in chosen):
            return None
        return group_proofs(chosen, roots.__getitem__)

    def _chosen(self, book: Book, key: SegmentKey) -> tuple[Source, ...] | None:
        return book.plan.segments[key.index].chosen(key.index, self.of_job(key.job))

    def input_root(self, book: Book, key: SegmentKey) -> bytes | None:
        """Root of a segment's input state as its sources stand now; None if one of them is not committed."""
        groups = self.inputs(book, key)
        return None if groups is None else merkle.root([group.root for group in groups])

    def is_hidden(self, key: SegmentKey) -> bool:
        """Whether a segment is committed and its trace root not revealed."""
        audit = self.rounds.get(key)
        return audit is not None and audit.trace_root == NONE

    def games_of(self, segment: Segment) -> list[Game]:
        """The disputes, over or not, of the segment's present attempt."""
        return [g for g in self.games.values() if g.key == segment.key and g.attempt == segment.attempt]


@dataclass(frozen=True, slots=True)
class _Draw:
    """Whether the account is drawn by a seed, and has attested."""

    seed: bytes
    drawn: bool
    attested: bool


class Watch:
    """Follows the chain for one account.

    ``refuse(job)`` gives the reason to leave a whole job alone, or None; ``on_refused`` hears of such jobs,
    once each. Events are read from ``first_block`` on, or from the present block. With ``audits``, the view tells what
    an auditor needs to know.
    """

    def __init__(
        self,
        chain: Chain,
        refuse: Callable[[Job], str | None],
        on_refused: Callable[[JobId, str], None] = lambda job, reason: None,
        first_block: int | None = None,
        *,
        audits: bool = False,
    ) -> None:
        self._chain = chain
        self._audits = audits
        self._refuse = refuse
        self._on_refused = on_refused
        self._next_block = first_block
        self._head: tuple[int, str] | None = None
        self._view: ChainView | None = None
        self._known_jobs = 0
        self._known_games = 0
        self._jobs: dict[JobId, Job] = {}
        self._segments: dict[SegmentKey, Segment] = {}
        self._games: dict[GameId, Game] = {}
        self._rules: Rules | None = None
        self._rounds: dict[SegmentKey, Round] = {}
        self._draws: dict[SegmentKey, _Draw] = {}
        self._barred: set[JobId] = set()
        self._recent: dict[tuple[int, str, int], ChainEvent] = {}
        self._touched: dict[JobId, int] = {}
        self._stale_jobs: set[JobId] = set()
        self._stale_segments: set[SegmentKey] = set()
        self._stale_games: set[GameId] = set()

    def refresh(self) -> ChainView:
        """Reads what changed. Raises ChainUnavailable or BadAnswer; the next call reads what is missing."""
        chain = self._chain
        head = chain.head()
        if self._view and head == self._head:
            return replace(self._view, events=())
        self._rules = self._rules or chain.rules()
        events = self._follow(head[0])
        weight = self._look_at_draws(head[0]) if self._audits else 0
        free, locked = chain.stake(chain.address)
        self._view = ChainView(
            now=chain.now(),
            block=head[0],
            address=chain.address,
            free=free,
            locked=locked,
            tokens=chain.tokens(chain.address),
            owed=chain.owed(chain.address),
            jobs=dict(self._jobs),
            segments=dict(self._segments),
            games=dict(self._games),
            barred=frozenset(self._barred),
            rules=self._rules,
            rounds=dict(self._rounds),
            record=chain.record(chain.address),
            weight=weight,
            drawn=frozenset(key for key, draw in self._draws.items() if draw.drawn),
            attested=frozenset(key for key, draw in self._draws.items() if draw.attested),
            events=events,
        )
        self._head = head
        return self._view

    def _follow(self, head: int) -> tuple[ChainEvent, ...]:
        fresh = self._new_events(head)
        jobs, games = self._chain.job_count(), self._chain.game_count()
        self._stale_jobs |= {JobId(i) for i in range(self._known_jobs + 1, jobs + 1)}
        self._stale_games |= {GameId(i) for i in range(self._known_games + 1, games + 1)}
        self._known_jobs, self._known_games = jobs, games
        for job in sorted(self._stale_jobs):
            self._read_job(job, head)
            self._stale_jobs.discard(job)
        # games first: the end of one changes its segment without an event of the Market
        for game in sorted(self._stale_games):
            self._read_game(game)
            self._stale_games.discard(game)
        for key in sorted(self._stale_segments, key=lambda key: (key.job, key.index)):
            if key.job in self._jobs:
                self._read_segment(key)
            self._stale_segments.discard(key)
        self._forget(head)
        return fresh

    def _new_events(self, head: int) -> tuple[ChainEvent, ...]:
        """Events that were not there before; marks what they, and those that have vanished, are about."""
        start = head if self._next_block is None else min(self._next_block, head)
        first = max(0, start - OVERLAP)
        found: dict[tuple[int, str, int], ChainEvent] = {}
        for event in self._chain.events(first, head):
            found[event.block, event.transaction, event.index] = event
        known = {key for key in self._recent if key[0] >= first}
        for key in found.keys() ^ known:
            self._mark(found[key] if key in found else self._recent[key])
        fresh = tuple(event for key, event in found.items() if key not in known)
        self._recent = {key: event for key, event in found.items() if key[0] >= head - OVERLAP}
        self._next_block = head + 1
        return fresh

    def _mark(self, event: ChainEvent) -> None:
        fields = event.fields
        if "job" in fields:
            job = JobId(_number(event, "job"))
            self._stale_jobs.add(job)
            if event.name == "Posted":
                self._touched.pop(job, None)  # perhaps another job than before a reorganisation
            if "segment" in fields:
                self._stale_segments.add(SegmentKey(job, _number(event, "segment")))
        if "game" in fields:
            self._stale_games.add(GameId(_number(event, "game")))

    def _read_job(self, number: JobId, head: int) -> None:
        known = number in self._jobs
        if not known and number in self._touched:
            return  # left alone or forgotten
        try:
            job = self._chain.job(number)
        except ChainUnavailable:
            raise
        except CrowdtrainError as error:
            reason: str | None = str(error)
        else:
            reason = None if known else self._refuse(job)
        self._touched[number] = head
        if reason is not None:
            self._jobs.pop(number, None)
            self._on_refused(number, reason)
            return
        if self._chain.barred(number, self._chain.address):
            self._barred.add(number)
        if not known:
            self._stale_segments |= {SegmentKey(number, i) for i in range(job.terms.segments)}
        self._jobs[number] = job

    def _read_segment(self, key: SegmentKey) -> None:
        segment = self._segments[key] = self._chain.segment(key)
        self._draws.pop(key, None)
        if segment.state is SegmentState.COMMITTED:
            self._rounds[key] = self._chain.round(key, segment.attempt)
        else:
            self._rounds.pop(key, None)

    def _look_at_draws(self, head: int) -> int:
        """Finds out for what this account is drawn, and has attested; its weight."""
        chain, me = self._chain, self._chain.address
        weight = chain.weight(me)
        stake = weight + chain.leaving(me)[0]
        for key, audit in self._rounds.items():
            known = self._draws.get(key)
            # until the seed is fixed, a reorganisation may change it
            if not stake or audit.outcome is not Outcome.OPEN or (known and known.seed == audit.seed != NONE):
                continue
            attempt = self._segments[key].attempt
            try:
                drawn = head > audit.draw_block and chain.is_drawn(key, attempt, me)
            except Refused:
                drawn = False  # nobody knows the seed any more
            attested = drawn and chain.attestation(key, attempt, me) != NONE
            self._draws[key] = _Draw(audit.seed, drawn, attested)
        return weight

    def _read_game(self, number: GameId) -> None:
        try:
            game = self._chain.game(number)
        except Refused:  # there is no such game: a reorganisation has undone it
            self._games.pop(number, None)
            return
        if game.key.job in self._jobs:
            self._games[number] = game
            self._stale_segments.add(game.key)

    def _forget(self, head: int) -> None:
        """Drops jobs in which nothing can happen any more, and disputes that mean nothing any more."""
        now = self._chain.now()
        for number, job in list(self._jobs.items()):
            if self._touched[number] > head - OVERLAP:
                continue
            states = {self._segments[SegmentKey(number, i)].state for i in range(job.terms.segments)}
            ends = {SegmentState.SETTLED} | ({SegmentState.OPEN} if now > job.terms.deadline else set())
            if states <= ends:
                del self._jobs[number]
                self._barred.discard(number)
                for key in (SegmentKey(number, i) for i in range(job.terms.segments)):
                    del self._segments[key]
        for game_id, game in list(self._games.items()):
            segment = self._segments.get(game.key)
            if segment is None or (game.phase is Phase.OVER and segment.attempt != game.attempt):
                del self._games[game_id]


def shown_audit(audit: Round) -> dict[str, object]:
    """An audit, for a status: ``rate`` is the expected number of auditors."""
    return {
        "rate": audit.rate / WHOLE,
        "seats": audit.seats,
        "attestations": audit.attestations,
        "attest_until": audit.attest_until,
        "revealed": audit.trace_root != NONE,
    }


def _number(event: ChainEvent, name: str) -> int:
    value = event.fields[name]
    if not isinstance(value, int):
        raise BadAnswer(f"{name} of event {event.name} is {value!r}, not a number")
    return value
