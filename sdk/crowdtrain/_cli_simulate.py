"""``crowdtrain simulate``."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crowdtrain._errors import ConfigError

if TYPE_CHECKING:
    from crowdtrain.simulation import Fleet, Market, Model, Network, Recipe

__all__ = ["EXAMPLES", "find_recipe", "simulate", "with_steps"]

EXAMPLES = """Examples:

crowdtrain simulate --parameters 1e9 --word 2 --machines 64 --speed 1e13    compares strategies, recommends one

crowdtrain simulate digits --machines 8 --steps 20000                       for a job's folder

crowdtrain simulate digits --strategy DiLoCo --every 500 --timeline         one strategy, who does what when

crowdtrain simulate digits --fleet fleet.toml --uploads shared --json

A fleet's file is a list, machines; each has a speed (operations a second), and if you like count, name, memory, price
(an hour), up, down (bytes a second), latency, mean_up, mean_down (seconds), present, jitter, abandons."""

MEGABIT = 1e6 / 8
GUESSED_TOKENS = 2048
"""tokens of a step's batch, where nothing is said about operations: 3 operations for each, and parameter"""


class Uploads(StrEnum):
    """See ``Market.uploads``."""

    ALL = "all"
    SHARED = "shared"


def simulate(
    folder: Annotated[
        Path | None, typer.Argument(help="A job's folder (crowdtrain.save_bundle); or say --parameters.")
    ] = None,
    parameters: Annotated[float | None, typer.Option(help="Numbers that are trained, like 1e9.")] = None,
    word: Annotated[float, typer.Option(help="Bytes of a number that travels.")] = 4.0,
    operations: Annotated[
        float | None, typer.Option(help="Operations of one worker's step; of 2048 tokens by default.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps in all, shared by the workers.")] = 10_000,
    strategy: Annotated[str | None, typer.Option(help="Only this one; all are compared by default.")] = None,
    every: Annotated[int | None, typer.Option(min=1, help="Steps between two merges.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers; one for each machine by default.")
    ] = None,
    fleet: Annotated[Path | None, typer.Option(help="TOML or JSON file of machines.")] = None,
    machines: Annotated[int, typer.Option(min=1, help="Machines, without a file.")] = 8,
    speed: Annotated[float, typer.Option(help="Their operations a second (crowdtrain bench).")] = 1e11,
    spread: Annotated[float, typer.Option(help="How unequal they are; 0: all the same.")] = 0.0,
    price: Annotated[float, typer.Option(help="What an hour of one costs.")] = 0.0,
    up: Annotated[float, typer.Option(help="Mbit/s that a machine sends.")] = 10.0,
    down: Annotated[float, typer.Option(help="Mbit/s that a machine receives.")] = 100.0,
    latency: Annotated[float, typer.Option(help="Milliseconds before the store answers.")] = 50.0,
    chain: Annotated[float, typer.Option(help="Seconds until a transaction is seen.")] = 2.0,
    lease: Annotated[float | None, typer.Option(help="Seconds from claim to commit.")] = None,
    uploads: Annotated[Uploads, typer.Option(help="What of an output is stored.")] = Uploads.ALL,
    budget: Annotated[float, typer.Option(help="Most that it may cost.")] = float("inf"),
    deadline: Annotated[float, typer.Option(help="Hours within which it must be done.")] = float("inf"),
    seed: Annotated[int, typer.Option(help="Of failures and jitter.")] = 0,
    timeline: Annotated[bool, typer.Option("--timeline", help="Who does what when.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predicts time, bytes and cost of training on a fleet, and says which strategy suits it."""
    from rich.console import Console

    from crowdtrain import simulation as sim

    model = _model(folder, parameters, word, operations)
    one = sim.Machine(speed, price=price)
    crowd = sim.Fleet.read(fleet) if fleet else sim.Fleet.mixed(machines, one, seed=seed, spread=spread)
    network = sim.Network(up * MEGABIT, down * MEGABIT, latency / 1000, chain=chain)
    market = sim.Market(lease=lease, uploads=uploads.value)
    if strategy is None:
        limits = {"budget": budget, "deadline": deadline * 3600}
        recipes = [with_steps(recipe, every) for recipe in sim.RECIPES]
        shown: Any = sim.recommend(
            model, crowd, network, market, steps=steps, recipes=recipes, seed=seed, **limits
        )
    else:
        recipe = find_recipe(strategy, every)
        shown = _one(model, recipe, crowd, network, market, steps, workers or len(crowd), seed)
    if as_json:
        typer.echo(json.dumps(shown.to_dict()))
        return
    Console().print(shown)
    if timeline and strategy is not None:
        Console().print(shown.timeline(max(20, Console().width - 20)), no_wrap=True, crop=True)


def _model(folder: Path | None, parameters: float | None, word: float, operations: float | None) -> Model:
    from crowdtrain.bundle import load_bundle
    from crowdtrain.simulation import Model

    if (folder is None) == (parameters is None):
        raise ConfigError("name a job's folder, or say how many --parameters the model has")
    if folder is not None:
        bundle = load_bundle(folder)
        data = sum(tensor.nbytes for tensor in bundle.data.tensors.values())
        return Model.of(bundle.program, data=float(data))
    assert parameters is not None
    return Model(parameters, operations or 3 * GUESSED_TOKENS * parameters, word)


def with_steps(recipe: Recipe, every: int | None) -> Recipe:
    """The recipe with so many steps between two merges, if they are given."""
    return replace(recipe, steps=every or recipe.steps)


def find_recipe(name: str, every: int | None) -> Recipe:
    """The strategy of a name, in upper or lower case. Raises ConfigError."""
    from crowdtrain.simulation import RECIPES

    found = {recipe.name.casefold(): recipe for recipe in RECIPES}
    if name.casefold() not in found:
        raise ConfigError(f"no strategy is called {name!r}; there are {', '.join(r.name for r in RECIPES)}")
    return with_steps(found[name.casefold()], every)


def _one(
    model: Model, recipe: Recipe, fleet: Fleet, network: Network, market: Market, steps: int, workers: int, seed: int
) -> object:  # fmt: skip
    from crowdtrain.simulation import outline, simulate

    rounds = max(1, -(-steps // (workers * recipe.steps)))
    plan = outline(model, recipe, workers=workers, rounds=rounds)
    return simulate(plan, fleet, network, market, seed=seed, progress=True)
