"""Which strategy suits a model, a fleet and a budget: each is simulated, and the table says why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crowdtrain._errors import PlanError
from crowdtrain._explain import format_bytes, format_time
from crowdtrain.plan import MAX_SEGMENTS
from crowdtrain.simulation.fleet import Fleet, Market, Network
from crowdtrain.simulation.forecast import Forecast, simulate
from crowdtrain.simulation.outline import RECIPES, Model, Recipe, outline

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Advice", "Option", "recommend"]

ROUNDS = 3
"""rounds that are simulated; more go on as the last ones"""
MOST_WORKERS = 100
"""whose changes builders of ``strategies`` merge, in one segment, whatever the model: its groups are limited"""
SEGMENT_SECONDS = 600.0
"""length of one worker's segments that is aimed at"""
ONE_WORKER = "one worker"
ALONE = 1.32
"""what a step of one worker is worth, since no step waits for others: it has the whole gain, and more"""


@dataclass(frozen=True)
class Option:
    """A strategy with so many workers, and what it takes: seconds, bytes, money."""

    recipe: Recipe
    workers: int
    rounds: int
    segments: int
    reason: str
    """why it cannot be done; empty if it can"""
    seconds: float = math.inf
    cost: float = math.inf
    moved: float = math.inf
    """sent and received by all machines"""
    busiest: float = math.inf
    """sent and received by the machine that moves most"""
    goodput: float = 0.0
    utilisation: float = 0.0

    @property
    def name(self) -> str:
        """Of the strategy."""
        return self.recipe.name

    @property
    def equivalent(self) -> float:
        """Seconds that it takes to come as far as data parallelism does with the same steps."""
        return self.seconds / self.recipe.kept

    def to_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON; those that are not there are None."""
        found: dict[str, Any] = {"name": self.name, "kept": self.recipe.kept, "steps": self.recipe.steps}
        names = (
            "workers", "rounds", "segments", "reason", "seconds", "equivalent", "cost", "moved", "busiest", "goodput",
            "utilisation",
        )  # fmt: skip
        for name in names:
            value = getattr(self, name)
            found[name] = None if isinstance(value, float) and math.isinf(value) else value
        return found


@dataclass(frozen=True)
class Advice:
    """What was compared, the best first, and what follows from it.

    The table has the best option of each strategy; ``worth`` is what a step of it is worth beside one of data
    parallelism, ``busiest`` what the machine moves that moves most.
    """

    options: tuple[Option, ...] = field(repr=False)
    best: Option | None
    """None if nothing can be done within budget and deadline"""
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "best": self.best and self.best.to_dict(),
            "why": self.why,
            "options": [option.to_dict() for option in self.options],
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table
        from rich.text import Text

        table = Table(caption=Text(self.why), caption_justify="left")
        table.add_column("strategy", no_wrap=True)
        for name in ("workers", "steps alone", "time", "worth", "moved", "busiest", "cost", "segments"):
            table.add_column(name, justify="right")
        first = {option.name: option for option in reversed(self.options)}
        for option in sorted(first.values(), key=self.options.index):
            numbers = (
                [option.reason, "", "", "", ""]
                if option.reason
                else [
                    format_time(option.seconds), f"{option.recipe.kept:.0%}", format_bytes(option.moved),
                    format_bytes(option.busiest), _money(option.cost),
                ]
            )  # fmt: skip
            style = "bold green" if option is self.best else "dim" if option.reason else ""
            steps = "all" if option.workers == 1 else f"{option.recipe.steps:,}"
            table.add_row(
                Text(option.name), f"{option.workers:,}", steps, *map(Text, numbers), f"{option.segments:,}",
                style=style,
            )  # fmt: skip
        yield table


def recommend(
    model: Model,
    fleet: Fleet,
    network: Network | None = None,
    market: Market | None = None,
    *,
    steps: int,
    budget: float = math.inf,
    deadline: float = math.inf,
    recipes: Sequence[Recipe] = RECIPES,
    seed: int = 0,
) -> Advice:
    """Compares strategies for ``steps`` training steps in all, which the workers share.

    Each is simulated with all machines, the fastest half, and the fastest quarter; one worker alone is compared, too.
    Of those that end within ``budget`` and ``deadline`` (seconds) the one is recommended that would be first to come
    as far as data parallelism does with these steps (``Recipe.kept``). Raises PlanError if no steps are asked for.
    """
    if not isinstance(steps, int) or not 1 <= steps <= 10**12:
        raise PlanError(f"steps must be at least 1, they are {steps}")
    network, market = network or Network(), market or Market()
    able = sum(machine.memory >= model.memory for machine in fleet.machines)
    most = min(able, MOST_WORKERS, steps)
    options = [_alone(model, fleet, network, market, steps, seed)]
    for workers in sorted({max(2, most), most // 2, most // 4} - {0, 1}):
        for recipe in recipes:
            options.append(
                _option(model, recipe, fleet.fastest(workers), network, market, workers, steps, seed)
            )
    options = [_within(option, budget, deadline) for option in options]
    options.sort(key=lambda option: (bool(option.reason), option.equivalent, option.cost, option.moved))
    best = None if options[0].reason else options[0]
    return Advice(tuple(options), best, _why(best, options))


def _alone(model: Model, fleet: Fleet, network: Network, market: Market, steps: int, seed: int) -> Option:
    fastest = fleet.fastest(1)
    length = round(SEGMENT_SECONDS * fastest.machines[0].speed / model.operations)
    recipe = Recipe(ONE_WORKER, min(steps, max(1, -(-steps // MAX_SEGMENTS), min(length, 10**9))), kept=ALONE)
    return _option(model, recipe, fastest, network, market, 1, steps, seed)


def _option(
    model: Model, recipe: Recipe, fleet: Fleet, network: Network, market: Market, workers: int, steps: int, seed: int
) -> Option:  # fmt: skip
    rounds = -(-steps // (workers * recipe.steps))
    simulated = min(rounds, ROUNDS)
    segments = 0
    if steps < workers * recipe.steps and workers > 1:
        return Option(recipe, workers, rounds, segments, "the steps are less than a round")
    try:
        runs: list[Forecast] = []
        for count in sorted({max(1, simulated - 1), simulated}):
            workload = outline(model, recipe, workers=workers, rounds=count)
            runs.append(simulate(workload, fleet, network, market, seed=seed))
        segments = round(_extended(runs, "segments", rounds, simulated))
        if segments > MAX_SEGMENTS:
            raise PlanError(f"a plan has at most {MAX_SEGMENTS:,} segments")
        failed = next((run.reason for run in runs if not run.is_complete), "")
        if failed:
            raise PlanError(failed)
    except PlanError as error:
        return Option(recipe, workers, rounds, segments, str(error))
    seconds, cost = (_extended(runs, name, rounds, simulated) for name in ("ready", "cost"))
    moved = sum(_extended(runs, name, rounds, simulated) for name in ("up", "down"))
    last = runs[-1]
    return Option(
        recipe, workers, rounds, segments, "", seconds, cost, moved,
        _extended(runs, "busiest", rounds, simulated), last.goodput, last.utilisation,
    )  # fmt: skip


def _extended(runs: Sequence[Forecast], name: str, rounds: int, simulated: int) -> float:
    """A number after all rounds: those that were not simulated add what the last of the simulated ones did."""
    last = float(getattr(runs[-1], name))
    if rounds == simulated:
        return last
    return last + (rounds - simulated) * (last - float(getattr(runs[-2], name)))


def _within(option: Option, budget: float, deadline: float) -> Option:
    if option.reason:
        return option
    if option.cost > budget:
        return replace(option, reason=f"costs {option.cost:,.4g}")
    if option.seconds > deadline:
        return replace(option, reason=f"takes {format_time(option.seconds)}")
    return option


def _money(cost: float) -> str:
    """Machines whose price nobody told cost nothing that is known."""
    return f"{cost:,.4g}" if cost else "unknown"


def _why(best: Option | None, options: Sequence[Option]) -> str:
    if best is None:
        return "Nothing can be done within budget and deadline."
    crowd = "" if best.workers == 1 else f" with {best.workers} workers"
    sentences = [
        f"{best.name}{crowd}: {format_time(best.seconds)}, as far as data parallelism in "
        f"{format_time(best.equivalent)}, {format_bytes(best.moved)} moved, cost {_money(best.cost)}."
    ]
    for name in (ONE_WORKER, "data parallel"):
        other = min(
            (o for o in options if o.name == name and o is not best),
            key=lambda o: (o.workers != best.workers, o.seconds), default=None,
        )  # fmt: skip
        if other is None:
            continue
        if math.isinf(other.seconds):
            sentences.append(f"{other.name}: {other.reason}.")
        else:
            ratio = other.moved / best.moved if best.moved else math.inf
            sentences.append(
                f"{other.name}: {format_time(other.seconds)}, {other.seconds / best.equivalent:.3g} times as long, "
                f"{ratio:.3g} times the bytes."
            )
    return " ".join(sentences)
