"""A forecast beside what really happened."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crowdtrain._errors import PlanError
from crowdtrain.progress import Claimed, Committed, Progress
from crowdtrain.simulation.fleet import Market
from crowdtrain.simulation.forecast import Forecast
from crowdtrain.simulation.run import Attempt

__all__ = ["Comparison", "Observed", "compare", "observe"]


@dataclass(frozen=True, slots=True)
class Observed:
    """When a segment was really claimed and committed, in seconds of one clock."""

    segment: int
    claimed: float
    committed: float


@dataclass(frozen=True)
class Comparison:
    """A forecast beside what happened. Ratios are what was forecast divided by what happened."""

    wall_clock: float
    """of the time from the first claim to the last commitment"""
    segment: float
    """the median of the ratios of segments' times from claim to commitment"""
    moved: float | None
    """of the bytes that machines sent and received"""
    missing: tuple[int, ...]
    """segments that were forecast to be done, but were not, or the other way round"""

    def within(self, part: float = 0.2) -> bool:
        """Whether the same segments were done, and time and bytes are at most so far off."""
        ratios = [self.wall_clock, *([] if self.moved is None else [self.moved])]
        return not self.missing and all(abs(ratio - 1) <= part for ratio in ratios)


def observe(events: Iterable[Progress], market: Market) -> list[Observed]:
    """Times of claims and commitments, read off what happened to a job; ``market`` has its lease and window."""
    if market.lease is None:
        raise PlanError("the job's lease is needed to tell when a segment was claimed")
    claimed: dict[int, float] = {}
    done: dict[int, Observed] = {}
    for event in events:
        if isinstance(event, Claimed):
            claimed[event.segment] = event.until - market.lease
        elif isinstance(event, Committed) and event.segment in claimed:
            at = event.until - market.window
            done[event.segment] = Observed(event.segment, claimed[event.segment], at)
    return list(done.values())


def compare(forecast: Forecast, observed: Sequence[Observed], moved: float | None = None) -> Comparison:
    """A forecast beside the times of a real run, and the bytes that its machines sent and received.

    Raises PlanError if nothing was observed, or it took no time.
    """
    mine: Mapping[int, Attempt] = {a.segment: a for a in forecast.attempts if a.committed}
    theirs = {one.segment: one for one in observed}
    both = mine.keys() & theirs.keys()
    spans = {s: (mine[s].ended - mine[s].claimed, theirs[s].committed - theirs[s].claimed) for s in both}
    if not both or any(took < 0 for _, took in spans.values()):
        raise PlanError("nothing was observed that can be compared, or a segment ended before it began")
    expected = max(mine[s].ended for s in both) - min(mine[s].claimed for s in both)
    took = max(theirs[s].committed for s in both) - min(theirs[s].claimed for s in both)
    if not took:
        raise PlanError("what was observed took no time")
    ratios = [expected / took for expected, took in spans.values() if took > 0]
    return Comparison(
        wall_clock=expected / took,
        segment=statistics.median(ratios) if ratios else math.nan,
        moved=(forecast.up + forecast.down) / moved if moved else None,
        missing=tuple(sorted(mine.keys() ^ theirs.keys())),
    )
