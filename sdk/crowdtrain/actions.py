"""What solver and verifier both decide to do, and the ways out of a segment that are open to anybody."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from crowdtrain._errors import Refused
from crowdtrain.agent import Agent, game_name, job_name, segment_name
from crowdtrain.chain import NONE, Chain, GameId, JobId, Segment, SegmentKey, SegmentSpec, SegmentState
from crowdtrain.watch import Book, ChainView

__all__ = [
    "HELD", "OWED", "Action", "Answer", "Exit", "Exits", "Expire", "Forfeit", "Load", "OfGame", "OfSegment", "Settle",
    "Timeout", "Void", "Withdraw", "inputs_changed", "way_out",
]  # fmt: skip

HELD = (SegmentState.CLAIMED, SegmentState.COMMITTED)
OWED = "what is owed"


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do."""

    @property
    def about(self) -> str:
        """What logs, and the list of what is left alone, call the subject."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """What logs call the action."""
        return type(self).__name__.lower()

    @property
    def pause(self) -> float | None:
        """Seconds for which the subject is left alone if it fails; None for longer every time."""
        return None


@dataclass(frozen=True, slots=True)
class Load(Action):
    """Fetch and check a job's manifest and plan, in the worker."""

    job: JobId

    @property
    def about(self) -> str:
        """See :class:`Action`."""
        return job_name(self.job)


@dataclass(frozen=True, slots=True)
class OfGame(Action):
    """Something to do in a dispute."""

    game: GameId

    @property
    def about(self) -> str:
        """See :class:`Action`."""
        return game_name(self.game)


@dataclass(frozen=True, slots=True)
class Answer(OfGame):
    """Compute and make the next move."""

    @property
    def pause(self) -> float | None:
        """See :class:`Action`: a clock is running."""
        return 2.0


@dataclass(frozen=True, slots=True)
class Timeout(OfGame):
    """End a game in which the clock of the player who has to move ran out."""


@dataclass(frozen=True, slots=True)
class OfSegment(Action):
    """Something to do with a segment."""

    key: SegmentKey

    @property
    def about(self) -> str:
        """See :class:`Action`."""
        return segment_name(self.key)


@dataclass(frozen=True, slots=True)
class Settle(OfSegment):
    """Pay for a segment whose window is over."""


@dataclass(frozen=True, slots=True)
class Expire(OfSegment):
    """Open a segment again whose lease is over."""


@dataclass(frozen=True, slots=True)
class Void(OfSegment):
    """Open a segment again whose inputs have changed."""


@dataclass(frozen=True, slots=True)
class Forfeit(OfSegment):
    """Open a segment again whose trace root was not revealed in time."""


@dataclass(frozen=True, slots=True)
class Withdraw(Action):
    """Take what the Market owes."""

    @property
    def about(self) -> str:
        """See :class:`Action`."""
        return OWED


Exit = Settle | Expire | Void | Forfeit


def inputs_changed(chain: ChainView, book: Book, segment: Segment) -> bool:
    """Whether an input of a claimed or committed segment is not what it was when it was claimed.

    An input that was done again with the same result cannot be told from here; the Market says so when it is
    asked to settle (:class:`Exits`).
    """
    return chain.input_root(book, segment.key) != segment.input_root


def way_out(
    chain: ChainView,
    book: Book,
    segment: Segment,
    *,
    changed: Collection[SegmentKey],
    grace: int,
    known: Collection[SegmentKey],
) -> Exit | None:
    """The way out of a segment's state that is open, for the first time ``grace`` seconds ago, if one is.

    ``known`` are segments whose trace root is known here, so that it need not be revealed to settle.
    """
    key, terms = segment.key, chain.jobs[segment.key.job].terms
    if segment.state not in HELD:
        return None
    if key in changed or inputs_changed(chain, book, segment):
        return Void(key)
    if chain.now <= segment.until + grace:
        return None
    if segment.state is SegmentState.CLAIMED:
        return Expire(key)
    if segment.games:
        return None
    if key in known or not chain.is_hidden(key):
        settled = all(source.state is SegmentState.SETTLED for source in chain.sources(book, key))
        return Settle(key) if settled else None
    late = chain.now > segment.until + terms.clock + grace
    return Forfeit(key) if late and segment.solver != chain.address else None


class Exits:
    """Makes the calls for the ways out. ``changed`` collects what the Market says has other inputs now."""

    def __init__(self, agent: Agent[Action], chain: Chain) -> None:
        self._agent = agent
        self._chain = chain
        self.changed: set[SegmentKey] = set()

    def take(self, action: Exit, spec: SegmentSpec, trace_root: bytes = NONE) -> None:
        """Settles, expires, voids or forfeits; to settle, with the trace root where it is known. Raises
        ChainUnavailable or BadAnswer.
        """
        key, about, attempt = action.key, action.about, self._agent.attempt
        match action:
            case Settle():
                call = partial(self._chain.settle, key, spec, trace_root)
                self._unless_changed(key, about, "settled", call, price=spec.price)
            case Forfeit():
                call = partial(self._chain.forfeit, key, spec)
                self._unless_changed(key, about, "opened again: its trace root was not revealed", call)
            case Expire():
                attempt(about, "opened again: its lease is over", partial(self._chain.expire, key))
            case Void():
                attempt(about, "opened again: an input changed", partial(self._chain.void, key, spec))
                self.changed.discard(key)

    def _unless_changed(
        self, key: SegmentKey, about: str, what: str, call: Callable[[], object], **fields: object
    ) -> None:
        """Makes a call that the Market refuses if an input was done again with the same result."""
        try:
            call()
        except Refused as error:
            if error.error == "InputChanged":
                self.changed.add(key)
            else:
                self._agent.set_aside(about, what, error)
        else:
            self._agent.log.info(what, about=about, **fields)
