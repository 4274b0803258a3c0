"""What happens to a job, as typed events in the order of the chain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from crowdtrain.chain import WHOLE, Address, ChainEvent, GameId, JobId, Reason

__all__ = [
    "Attested",
    "Audit",
    "AuditorPaid",
    "Challenged",
    "Claimed",
    "Committed",
    "DisputeOver",
    "Expired",
    "Forfeited",
    "Moved",
    "Overturned",
    "Progress",
    "Refunded",
    "Settled",
    "Voided",
    "progress_of",
]


@dataclass(frozen=True, slots=True)
class Progress:
    """Something that happened to a job, in ``block``."""

    block: int


@dataclass(frozen=True, slots=True)
class _OfSegment(Progress):
    segment: int
    solver: Address


@dataclass(frozen=True, slots=True)
class Claimed(_OfSegment):
    """A solver took a segment, until ``until``."""

    attempt: int
    until: int


@dataclass(frozen=True, slots=True)
class Committed(_OfSegment):
    """A solver posted a segment's result; it can be disputed until ``until``."""

    attempt: int
    until: int


@dataclass(frozen=True, slots=True)
class Settled(_OfSegment):
    """A segment is done and paid for: ``price`` token units, of which ``fee`` is burned."""

    price: int
    fee: int


@dataclass(frozen=True, slots=True)
class Expired(_OfSegment):
    """A lease ran out; the segment is open again."""


@dataclass(frozen=True, slots=True)
class Voided(_OfSegment):
    """A segment is open again because what it built on was overturned."""


@dataclass(frozen=True, slots=True)
class Forfeited(_OfSegment):
    """A solver did not reveal its trace root, and lost the stake; the segment is open again."""


@dataclass(frozen=True, slots=True)
class Overturned(_OfSegment):
    """A result was proved wrong by ``challenger``; its solver lost the stake, the segment is open again."""

    challenger: Address


@dataclass(frozen=True, slots=True)
class Audit(Progress):
    """The audit of a segment's result began: ``expected`` auditors are drawn, who share up to ``pot`` token units."""

    segment: int
    expected: float
    pot: int


@dataclass(frozen=True, slots=True)
class Attested(Progress):
    """An auditor replayed a segment, and attested to its result under seal."""

    segment: int
    auditor: Address


@dataclass(frozen=True, slots=True)
class AuditorPaid(Progress):
    """An auditor attested right, and is paid ``amount`` token units."""

    segment: int
    auditor: Address
    amount: int


@dataclass(frozen=True, slots=True)
class Challenged(Progress):
    """A dispute of a segment's result began."""

    segment: int
    game: GameId
    challenger: Address
    defender: Address


@dataclass(frozen=True, slots=True)
class Moved(Progress):
    """A move of a dispute; ``move`` is the event's name."""

    segment: int
    game: GameId
    move: str


@dataclass(frozen=True, slots=True)
class DisputeOver(Progress):
    """A dispute ended; nobody won if it became moot."""

    segment: int
    game: GameId
    winner: Address
    loser: Address
    reason: Reason


@dataclass(frozen=True, slots=True)
class Refunded(Progress):
    """The buyer is owed ``amount`` token units that were not spent."""

    amount: int


_BY_SOLVER: Mapping[str, tuple[type[_OfSegment], tuple[str, ...]]] = {
    "Claimed": (Claimed, ("attempt", "until")),
    "Committed": (Committed, ("attempt", "until")),
    "Settled": (Settled, ("price", "fee")),
    "Expired": (Expired, ()),
    "Voided": (Voided, ()),
    "Forfeited": (Forfeited, ()),
    "Overturned": (Overturned, ("challenger",)),
}


def progress_of(events: Iterable[ChainEvent], job: JobId, games: dict[GameId, int]) -> Iterator[Progress]:
    """What these events mean for a job. ``games`` remembers the segments of its disputes from call to
    call.
    """
    for event in events:
        fields: Mapping[str, Any] = event.fields
        if fields.get("job") == job:
            if event.name in _BY_SOLVER:
                kind, names = _BY_SOLVER[event.name]
                values = {name: fields[name] for name in names}
                yield kind(event.block, segment=fields["segment"], solver=fields["solver"], **values)
            elif event.name == "Challenged":
                game = GameId(fields["game"])
                games[game] = fields["segment"]
                players = (fields["challenger"], fields["defender"])
                yield Challenged(event.block, fields["segment"], game, *players)
            elif event.name == "Opened":
                rate = fields["rate"] / WHOLE
                yield Audit(event.block, fields["segment"], rate, fields["pot"])
            elif event.name == "Attested":
                yield Attested(event.block, fields["segment"], fields["auditor"])
            elif event.name == "Audited":
                yield AuditorPaid(event.block, fields["segment"], fields["auditor"], fields["amount"])
            elif event.name == "Refunded":
                yield Refunded(event.block, fields["amount"])
        elif fields.get("game") in games:
            game = GameId(fields["game"])
            if event.name == "Closed":
                ends = (fields["winner"], fields["loser"], Reason(fields["reason"]))
                yield DisputeOver(event.block, games[game], game, *ends)
            else:
                yield Moved(event.block, games[game], game, event.name)
