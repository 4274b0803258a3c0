"""What a simulation says: times, bytes, money, who did what."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crowdtrain._explain import format_bytes, format_time
from crowdtrain.simulation.fleet import HOUR, Fleet, Market, Network
from crowdtrain.simulation.run import Attempt, Simulation
from crowdtrain.simulation.workload import Workload
from crowdtrain.strategies.blueprint import Blueprint

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

__all__ = ["Forecast", "simulate"]

MOST_ROWS = 40
LONG = 1.0
"""seconds after which a progress bar is shown"""
STYLES = ("green", "cyan", "magenta", "yellow", "blue")


@dataclass(frozen=True)
class Forecast:
    """What a plan will take. Times in seconds, sizes in bytes, money in the plan's unit."""

    segments: int
    done: int
    """segments that were committed"""
    reason: str
    """why not all were; empty otherwise"""
    seconds: float
    """until the last commitment"""
    ready: float
    """until what the buyer wants was committed; infinite if it never was"""
    settled: float
    """until the last settlement"""
    lease: float
    up: float
    """sent by all machines"""
    down: float
    """received by all machines"""
    busiest: float
    """sent and received by the machine that moved most"""
    peak: float
    """most bytes a second that were on their way at one time"""
    cost: float
    """what the buyer pays: the plan's prices, or the machines' for the time of work that was committed"""
    expenses: float
    """the machines' prices for all their time with claims"""
    operations: float
    """of the work that was committed"""
    wasted: float
    """operations of work that was lost"""
    wasted_up: float
    """bytes sent for nothing"""
    utilisation: float
    """part of the time that machines were there in which they computed"""
    used: int
    """machines that committed something"""
    expired: int
    """leases that ran out"""
    claims: int
    workload: Workload = field(repr=False)
    fleet: Fleet = field(repr=False)
    machines_up: tuple[float, ...] = field(repr=False)
    """bytes that each machine sent"""
    machines_down: tuple[float, ...] = field(repr=False)
    """bytes that each machine received"""
    machines_busy: tuple[float, ...] = field(repr=False)
    """seconds that each machine computed"""
    attempts: tuple[Attempt, ...] = field(repr=False)
    """every claim, in the order in which they ended"""

    @classmethod
    def of(cls, simulation: Simulation) -> Forecast:
        """What a simulation has found."""
        tally, workload, machines = simulation.tally, simulation.workload, simulation.fleet.machines
        good = [attempt for attempt in tally.attempts if attempt.committed]
        fixed = workload.price > 0
        paid = (
            workload.tasks[a.segment].price if fixed else (a.ended - a.claimed) * machines[a.machine].price / HOUR
            for a in good
        )  # fmt: skip
        present = math.fsum(tally.present)
        moved = [up + down for up, down in zip(tally.up, tally.down, strict=True)]
        return cls(
            segments=len(workload.tasks),
            done=len(good),
            reason=simulation.reason,
            seconds=max((a.ended for a in good), default=0.0),
            ready=_ready(simulation),
            settled=_settled(simulation),
            lease=simulation.estimator.lease,
            up=math.fsum(tally.up),
            down=math.fsum(tally.down),
            busiest=max(moved),
            peak=tally.peak,
            cost=math.fsum(paid),
            expenses=math.fsum(h * m.price / HOUR for h, m in zip(tally.held, machines, strict=True)),
            operations=math.fsum(workload.tasks[a.segment].operations for a in good),
            wasted=tally.wasted,
            wasted_up=tally.wasted_up,
            utilisation=math.fsum(tally.busy) / present if present else 0.0,
            used=len({a.machine for a in good}),
            expired=tally.expired,
            claims=len(tally.attempts),
            workload=workload,
            fleet=simulation.fleet,
            machines_up=tuple(tally.up),
            machines_down=tuple(tally.down),
            machines_busy=tuple(tally.busy),
            attempts=tuple(tally.attempts),
        )

    @property
    def is_complete(self) -> bool:
        """Whether all segments were committed."""
        return self.done == self.segments

    @property
    def goodput(self) -> float:
        """Part of the work that counted."""
        whole = self.operations + self.wasted
        return self.operations / whole if whole else 1.0

    def to_dict(self, *, machines: bool = False, attempts: bool = False) -> dict[str, Any]:
        """The numbers, ready for JSON; with ``machines`` those of each machine, with ``attempts`` every claim."""
        names = (
            "segments", "done", "reason", "seconds", "settled", "lease", "up", "down", "busiest", "peak", "cost",
            "expenses", "operations", "wasted", "wasted_up", "goodput", "utilisation", "used", "expired", "claims",
        )  # fmt: skip
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        found["ready"] = None if math.isinf(self.ready) else self.ready
        if machines:
            columns = zip(self.machines_up, self.machines_down, self.machines_busy, strict=True)
            found["machines"] = [
                {"name": machine.name, "up": up, "down": down, "busy": busy}
                for machine, (up, down, busy) in zip(self.fleet.machines, columns, strict=True)
            ]
        if attempts:
            found["attempts"] = [
                {k: None if v != v else v for k, v in attempt._asdict().items()} for attempt in self.attempts
            ]
        return found

    def to_json(self, *, machines: bool = False, attempts: bool = False) -> str:
        """As :meth:`to_dict`, as text."""
        return json.dumps(self.to_dict(machines=machines, attempts=attempts), allow_nan=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table

        table = Table("", "forecast", show_header=False)
        for row in self._facts():
            table.add_row(*row)
        yield table

    def _facts(self) -> Iterable[tuple[str, str]]:
        count = (
            f"{self.segments:,}" if self.is_complete else f"{self.done:,} of {self.segments:,}: {self.reason}"
        )
        yield "segments", count
        ready = "never" if math.isinf(self.ready) else f"after {format_time(self.ready)}"
        yield "result", f"{ready}; all done {format_time(self.seconds)}, settled {format_time(self.settled)}"
        yield "sent, received", f"{format_bytes(self.up)}, {format_bytes(self.down)}"
        yield "most by a machine", format_bytes(self.busiest)
        yield "most at one time", f"{format_bytes(self.peak)}/s"
        yield "cost", f"{self.cost:,.6g}; the machines' own {self.expenses:,.6g}"
        yield "goodput", f"{self.goodput:.1%}"
        yield (
            "machines",
            f"{self.used:,} of {len(self.fleet):,} used, computing {self.utilisation:.1%} of their time",
        )
        yield (
            "claims",
            f"{self.claims:,}, of which {self.expired:,} ran out (lease {format_time(self.lease)})",
        )

    def timeline(self, width: int = 100) -> Text:
        """Who did what when, a line for each machine that claimed something, the first ones if there are many.

        Letters are the initials of what segments are for; ``<`` fetching, ``>`` storing, ``x`` lost.
        """
        from rich.text import Text

        end = max((attempt.ended for attempt in self.attempts), default=0.0)
        scale = width / end if end else 0.0
        rows: dict[int, list[tuple[str, str]]] = {}
        for attempt in sorted(self.attempts, key=lambda a: (a.claimed, a.segment)):
            cells = rows.setdefault(attempt.machine, [(" ", "")] * width)
            for start, stop, mark in self._spans(attempt):
                first = min(int(start * scale), width - 1)
                cells[first : max(first + 1, math.ceil(stop * scale))] = [mark] * max(
                    1, math.ceil(stop * scale) - first
                )
            del cells[width:]
        text = Text(no_wrap=True)
        shown = sorted(rows)[:MOST_ROWS]
        longest = max((len(self.fleet.machines[m].name[:16]) for m in shown), default=0)
        for machine in shown:
            text.append(f"{self.fleet.machines[machine].name[:16]:>{longest}} ")
            for letter, style in rows[machine]:
                text.append(letter, style or None)
            text.append("\n")
        if len(rows) > len(shown):
            text.append(f"{len(rows) - len(shown)} more machines\n")
        return text.append(f"{'':>{longest}} 0 to {format_time(end)}; < fetches, > stores, x lost")

    def _spans(self, attempt: Attempt) -> Iterable[tuple[float, float, tuple[str, str]]]:
        task = self.workload.tasks[attempt.segment]
        initials = sorted({task.what for task in self.workload.tasks})
        mark = (task.what[:1].upper() or "?", STYLES[initials.index(task.what) % len(STYLES)])
        fetched, computed, ended = attempt.fetched, attempt.computed, attempt.ended
        if not attempt.committed:
            yield attempt.claimed, ended, ("x", "red")
            return
        yield attempt.claimed, fetched, ("<", "dim")
        yield computed, ended, (">", "dim")
        yield fetched, computed, mark


def _ready(simulation: Simulation) -> float:
    plan, committed = simulation.workload, simulation.committed
    makers = {plan.makers[group] for group in plan.result} or set(range(len(plan.tasks)))
    times = [committed[maker] for maker in makers if maker >= 0]
    return math.inf if any(map(math.isnan, times)) else max(times, default=0.0)


def _settled(simulation: Simulation) -> float:
    """When the last segment that was committed is settled: each after its window and after what it builds on."""
    window, chain = simulation.market.window, simulation.network.chain
    plan, sources = simulation.workload, simulation.built_on
    settled = [0.0] * len(simulation.committed)
    for index, committed in enumerate(simulation.committed):
        if not math.isnan(committed):
            before = max((settled[s] for s in sources.get(index, plan.sources[index])), default=0.0)
            settled[index] = max(committed + window + chain, before)
    return max(settled)


def simulate(
    plan: Blueprint | Workload,
    fleet: Fleet,
    network: Network | None = None,
    market: Market | None = None,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Forecast:
    """What ``plan`` takes on ``fleet``: time, bytes, money. The same for the same arguments.

    With ``progress``, a bar on stderr shows how far a long simulation is. Raises PlanError if some segment is one that
    no machine could ever do; a run that ends early says why in the forecast's ``reason``.
    """
    workload = Workload.of(plan) if isinstance(plan, Blueprint) else plan
    simulation = Simulation(workload, fleet, network or Network(), market or Market(), seed)
    with _bar(len(workload.tasks), progress) as on_progress:
        simulation.run(on_progress)
    return Forecast.of(simulation)


@contextmanager
def _bar(total: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    if not wanted or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    start = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("simulating", total=total, visible=False)
        yield lambda done: bar.update(task, completed=done, visible=time.monotonic() - start > LONG)
