"""What solver and verifier both decide to do, and the ways out of a segment that are open to anybody."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from crowdtrain._errors import Refused
from crowdtrain.agent import Agent, game_name, job_name, segment_name
from crowdtrain.chain import Chain, GameId, JobId, Segment, SegmentKey, SegmentSpec, SegmentState
from crowdtrain.watch import Book, ChainView

__all__ = [
    "HELD", "Action", "Answer", "Exits", "Expire", "Load", "OfGame", "OfSegment", "Settle", "Timeout", "Void",
    "inputs_changed", "way_out",
]  # fmt: skip

HELD = (SegmentState.CLAIMED, SegmentState.COMMITTED)


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


def inputs_changed(chain: ChainView, book: Book, segment: Segment) -> bool:
    """Whether an input of a claimed or committed segment is not what it was when it was claimed.

    An input that was done again with the same result cannot be told from here; the Market says so when it is
    asked to settle (:class:`Exits`).
    """
    return chain.input_root(book, segment.key) != segment.input_root


def way_out(
    chain: ChainView, book: Book, segment: Segment, changed: Collection[SegmentKey], grace: int
) -> Settle | Expire | Void | None:
    """The way out of a segment's state that is open, for the first time ``grace`` seconds ago, if one is."""
    if segment.state not in HELD:
        return None
    if segment.key in changed or inputs_changed(chain, book, segment):
        return Void(segment.key)
    if chain.now <= segment.until + grace:
        return None
    if segment.state is SegmentState.CLAIMED:
        return Expire(segment.key)
    sources = chain.sources(book, segment.key)
    settled = all(source.state is SegmentState.SETTLED for source in sources)
    return Settle(segment.key) if settled and segment.games == 0 else None


class Exits:
    """Makes the calls for the ways out. ``changed`` collects what the Market says has other inputs now."""

    def __init__(self, agent: Agent[Action], chain: Chain) -> None:
        self._agent = agent
        self._chain = chain
        self.changed: set[SegmentKey] = set()

    def take(self, action: Settle | Expire | Void, spec: SegmentSpec) -> None:
        """Settles, expires or voids. Raises ChainUnavailable or BadAnswer."""
        key, about, attempt = action.key, action.about, self._agent.attempt
        match action:
            case Settle():
                try:
                    self._chain.settle(key, spec)
                except Refused as error:
                    if error.error == "InputChanged":
                        self.changed.add(key)
                    else:
                        self._agent.set_aside(about, "settle", error)
                else:
                    self._agent.log.info("settled", about=about, price=spec.price)
            case Expire():
                attempt(about, "opened again: its lease is over", partial(self._chain.expire, key))
            case Void():
                attempt(about, "opened again: an input changed", partial(self._chain.void, key, spec))
                self.changed.discard(key)
