"""What a verifier does next: a pure function of what it sees."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from crowdtrain.actions import (
    HELD,
    OWED,
    Action,
    Answer,
    Load,
    OfGame,
    OfSegment,
    Timeout,
    Withdraw,
    inputs_changed,
    way_out,
)
from crowdtrain.agent import game_name, job_name, segment_name
from crowdtrain.chain import (
    NONE,
    Address,
    Game,
    JobId,
    Outcome,
    Phase,
    Round,
    Segment,
    SegmentKey,
    SegmentState,
)
from crowdtrain.game import CHALLENGER_PHASES
from crowdtrain.watch import Book, ChainView

__all__ = [
    "ENROLMENT",
    "NO_LIMIT",
    "PUNISH_GAS",
    "Attempt",
    "Attest",
    "Challenge",
    "Check",
    "Close",
    "Commitment",
    "Draw",
    "Enroll",
    "Inspect",
    "Policy",
    "Punish",
    "Verdict",
    "View",
    "commitment",
    "decide",
    "is_worth",
]

NO_LIMIT = 2**128 - 1
ENROLMENT = "enrolment"
KNOWN_BLOCKS = 256
"""blocks whose hash the contracts know"""
DRAW_AFTER = 4
"""blocks for which a quick replay, whose attestation draws as well, is waited for"""
OTHERS_DRAW_AFTER = 32
"""blocks after which who is not drawn draws, so that silence can be reported"""
DRAW_GAS, PUNISH_GAS = 90_000, 160_000
"""gas of these calls, at most about"""
Attempt = tuple[SegmentKey, int]
"""A segment, and the number of an attempt at it."""
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
    min_clock: int = 0
    """least time that a job gives each side of a dispute: who is silent for longer loses, however right"""
    join: bool = False
    """whether to challenge at once what somebody else is disputing already"""
    last_part: float = 0.25
    """the last part of a window, in which what others dispute is challenged too, in case they give in"""
    tidy: bool = True
    """whether to settle, expire, void, forfeit, time out and report what nobody else does"""
    patience: int = 30
    """how long others are left to do that themselves"""
    jobs: frozenset[JobId] = frozenset()
    """the only jobs to check, unless empty"""
    enroll: int = 0
    """stake to take part in draws with; what is missing to it is enrolled"""
    drawn_only: bool = False
    """whether to replay nothing but commitments for which one is drawn"""
    ether: int = 0
    """token units that an ether is worth, by which bounties are compared with gas; 0 takes gas for free"""


@dataclass(frozen=True, slots=True)
class View:
    """What a verifier sees at one moment."""

    chain: ChainView
    books: Mapping[JobId, Book] = field(default_factory=dict)
    """the jobs whose files are loaded"""
    verdicts: Mapping[Commitment, Verdict] = field(default_factory=dict)
    changed: frozenset[SegmentKey] = frozenset()
    """segments of which the Market said that their inputs have changed"""
    ended: frozenset[Attempt] = frozenset()
    """settled attempts whose auditors have not been looked at"""
    faults: Mapping[Attempt, tuple[Address, ...]] = field(default_factory=dict)
    """auditors who were silent about a settled attempt, or attested another trace"""
    gas_price: int = 0
    """wei for each gas"""
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


@dataclass(frozen=True, slots=True)
class Draw(OfSegment):
    """Fix who is drawn while the block that decides is known."""


@dataclass(frozen=True, slots=True)
class Attest(OfSegment):
    """Attest to a commitment that is right."""


@dataclass(frozen=True, slots=True)
class Enroll(Action):
    """Take part in draws with ``amount`` more, after a deposit of ``deposit`` token units if that is not 0."""

    amount: int
    deposit: int

    @property
    def about(self) -> str:
        """See :class:`Action`."""
        return ENROLMENT


@dataclass(frozen=True, slots=True)
class Inspect(OfSegment):
    """Find out, in the worker, who failed in the audit of a settled attempt."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Punish(OfSegment):
    """Report an auditor who failed in the audit of a settled attempt."""

    attempt: int
    auditor: Address

    @property
    def about(self) -> str:
        """See :class:`Action`."""
        return f"{self.auditor} in the audit of {segment_name(self.key)}"


def decide(view: View, policy: Policy) -> tuple[Action, ...]:
    """What to do now, most urgent first; at most one of the actions is for the worker."""
    actions = (
        *_play(view, policy),
        *_challenges(view, policy),
        *_audits(view, policy),
        *_work(view, policy),
        *_tidy(view, policy),
        *_enrolment(view, policy),
    )
    return actions or tuple(_money(view))


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
            if left >= 0 and chain.now >= game.since and _verdict(view, game.key) is not None:
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
        if (
            affordable
            and _may_challenge(view, policy, segment)
            and _is_ours_to_challenge(view, policy, segment)
        ):
            yield Challenge(segment.key, missing)
            return


def _may_challenge(view: View, policy: Policy, segment: Segment) -> bool:
    """Whether a dispute would leave time to answer: in one that does not, who is right can lose."""
    return view.chain.jobs[segment.key.job].terms.clock >= policy.min_clock


def _is_ours_to_challenge(view: View, policy: Policy, segment: Segment) -> bool:
    chain, window = view.chain, view.chain.jobs[segment.key.job].terms.window
    games = chain.games_of(segment)
    if chain.now > segment.until or any(game.challenger == chain.address for game in games):
        return False
    # a dispute between a cheat and an accomplice must not outlast the window
    last_call = chain.now >= segment.until - policy.last_part * window
    return policy.join or last_call or segment.games == 0


# ------------------------------------------------------------------ audits


def _audits(view: View, policy: Policy) -> Iterator[Action]:
    chain = view.chain
    for segment in _committed(view):
        key, audit = segment.key, chain.rounds.get(segment.key)
        if audit is None or audit.outcome is not Outcome.OPEN or segment_name(key) in view.resting:
            continue
        if _verdict(view, key) is Verdict.RIGHT and _is_ours_to_attest(view, segment, audit):
            yield Attest(key)
        elif audit.seed == NONE and _is_ours_to_draw(view, policy, segment, audit):
            yield Draw(key)


def _is_ours_to_attest(view: View, segment: Segment, audit: Round) -> bool:
    chain, key = view.chain, segment.key
    in_time = chain.now <= audit.attest_until and audit.attestations < audit.seats
    return in_time and audit.seal == segment.seal and key in chain.drawn and key not in chain.attested


def _is_ours_to_draw(view: View, policy: Policy, segment: Segment, audit: Round) -> bool:
    chain = view.chain
    age = chain.block - audit.draw_block
    if chain.now > audit.attest_until:
        return False
    if age > KNOWN_BLOCKS:
        return bool(chain.weight)  # nobody drew in time: another draw, for which one may be drawn
    if segment.key in chain.drawn:
        return age > DRAW_AFTER
    worth = is_worth(audit.penalty // 2, DRAW_GAS + PUNISH_GAS, view.gas_price, policy)
    return policy.tidy and worth and age > OTHERS_DRAW_AFTER


def is_worth(bounty: int, gas: int, gas_price: int, policy: Policy) -> bool:
    """Whether a bounty is worth more than the gas that it costs."""
    return bounty * 10**18 > gas * gas_price * policy.ether


def _is_drawn(view: View, segment: Segment) -> bool:
    """Whether this account is to replay a commitment, and can still attest."""
    audit = view.chain.rounds.get(segment.key)
    return audit is not None and segment.key in view.chain.drawn and view.chain.now <= audit.attest_until


def _enrolment(view: View, policy: Policy) -> Iterator[Action]:
    chain, amount = view.chain, policy.enroll - view.chain.weight
    deposit = max(0, amount - chain.free)
    affordable = deposit <= chain.tokens and chain.free + chain.locked + deposit <= policy.max_stake
    if amount > 0 and affordable and ENROLMENT not in view.resting:
        yield Enroll(amount, deposit)


def _money(view: View) -> Iterator[Action]:
    """Earnings are taken when nothing else is to be done and no audit of this account's is open."""
    if view.chain.owed and not view.chain.attested and not view.working and OWED not in view.resting:
        yield Withdraw()


# ------------------------------------------------------------------ work


def _work(view: View, policy: Policy) -> Iterator[Action]:
    if view.working:
        return
    chain = view.chain
    open_ones = [s for s in _committed(view) if _is_open(view, s)]
    disputed = [s for s in open_ones if _disputed_by_us(view, s)]
    drawn = [s for s in open_ones if _is_drawn(view, s)]
    pending = [
        s
        for s in open_ones
        if chain.now <= s.until and not policy.drawn_only and _may_challenge(view, policy, s)
    ]
    busy = {s.key.job for s in chain.segments.values() if s.state in HELD}
    unloaded = [job for job in busy - view.books.keys() if job_name(job) not in view.resting]
    if disputed or drawn or pending:
        key = (disputed or drawn or pending)[0].key
        yield Check(key) if key.job in view.books else Load(key.job)
    elif unloaded:
        yield Load(max(unloaded))
    else:
        yield from _inspections(view)


def _inspections(view: View) -> Iterator[Inspect]:
    ended = [which for which in view.ended if segment_name(which[0]) not in view.resting]
    if ended:
        yield Inspect(*min(ended, key=lambda which: (which[0].job, which[0].index, which[1])))


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
        known = {segment.key} if _verdict(view, segment.key) is Verdict.RIGHT else ()
        action = way_out(view.chain, book, segment, changed=view.changed, grace=policy.patience, known=known)
        if action is not None:
            yield action
    for (key, attempt), auditors in view.faults.items():
        for auditor in auditors:
            report = Punish(key, attempt, auditor)
            if report.about not in view.resting:
                yield report
