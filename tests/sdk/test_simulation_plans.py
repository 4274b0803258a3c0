"""Plans of real strategies in the simulation: their bytes are those that travel; outlines and advice agree."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import crowdtrain as ct
import numpy as np
import pytest
from crowdtrain import cli, strategies
from crowdtrain._errors import ConfigError, PlanError
from crowdtrain.bundle import save_bundle
from crowdtrain.chain import Address, Source
from crowdtrain.progress import Claimed, Committed, Settled
from crowdtrain.simulation import (
    RECIPES,
    Advice,
    Fleet,
    Forecast,
    Machine,
    Market,
    Model,
    Network,
    Observed,
    Recipe,
    Workload,
    compare,
    observe,
    outline,
    recommend,
    simulate,
)
from crowdtrain.strategies import Blueprint, Quantized, Role, TopK
from crowdtrain.strategies.traffic import Traffic
from crowdtrain_engine import Dataset
from crowdtrain_engine.state import Array
from crowdtrain_engine.validation import cost
from rich.console import Console
from strategies_support import BATCH, RATE, arrays, datasets, gradients, training
from typer.testing import CliRunner

ADAMW = ct.optim.AdamW(lr=RATE)
MAKERS: dict[str, Callable[[], Blueprint]] = {
    "data parallel": lambda: strategies.data_parallel(gradients(), datasets(2, 4), steps=4, optimizer=ADAMW),
    "zero": lambda: strategies.zero(gradients(), datasets(2, 4), steps=4, optimizer=ADAMW, shards=2),
    "demo": lambda: strategies.demo(gradients(), datasets(2, 4), steps=4),
    "DiLoCo": lambda: strategies.diloco(training(), datasets(2, 36), rounds=12, steps=3),
    "DiLoCo, codes": lambda: strategies.diloco(
        training(), datasets(3, 9), rounds=3, steps=3, codec=Quantized(4), broadcast=Quantized(8)
    ),
    "sparse": lambda: strategies.sparse_loco(training(), datasets(2, 6), rounds=2, steps=3, codec=TopK(16, 1)),
    "streaming": lambda: strategies.streaming_diloco(
        training(), datasets(2, 8), rounds=2, steps=4, fragments=2, codec=Quantized(4)
    ),
    "elastic": lambda: strategies.elastic_diloco(training(), datasets(3, 12), rounds=4, steps=3, quorum=2),
}  # fmt: skip
FLEET = Fleet.of(4, Machine(1e6))


@pytest.mark.parametrize("uploads", ["all", "shared"])
@pytest.mark.parametrize("name", MAKERS)
def test_every_strategy_is_simulated_to_its_end(name: str, uploads: str) -> None:
    blueprint = MAKERS[name]()
    forecast = ct.simulate(blueprint, FLEET, market=Market(uploads="all" if uploads == "all" else "shared"))
    assert forecast.is_complete, forecast.reason
    assert forecast.segments == len(blueprint.plan.segments)
    work = (
        spec.steps * cost(blueprint.program(i)).operations for i, spec in enumerate(blueprint.plan.segments)
    )
    assert forecast.operations == sum(work)
    assert math.isfinite(forecast.ready)


def fetched_from_others(forecast: Forecast) -> float:
    """Bytes of groups that some segment made, which the machines received."""
    plan, total = forecast.workload, 0.0
    for machine in range(len(forecast.fleet)):
        has: set[int] = set()
        for attempt in sorted(forecast.attempts, key=lambda a: a.claimed):
            if attempt.machine == machine:
                task = plan.tasks[attempt.segment]
                total += plan.bytes(g for g in task.inputs if g not in has and plan.makers[g] >= 0)
                has |= {*task.inputs, *task.outputs}
    return total


class Payload(Traffic):
    """Counts what is fetched without the headers of files."""

    received = 0

    def needed(self, role: Role, source: Source, group: Sequence[Array]) -> None:
        before = sum(self.down.values())
        super().needed(role, source, group)
        if sum(self.down.values()) > before:
            self.received += sum(tensor.nbytes for tensor in group)


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "elastic"])
def test_bytes_received_are_those_that_travel_through_a_store(name: str) -> None:
    """A worker's machine for each, and one that merges: too slow to train, and nothing takes it any time to move."""
    blueprint = MAKERS[name]()
    traffic = Payload()
    strategies.carry_out(blueprint, traffic=traffic)
    plan = Workload.of(blueprint)
    tasks = tuple(
        replace(task, operations=0.0 if task.worker is None else 100.0, memory=float(task.worker is None))
        for task in plan.tasks
    )
    workers = Fleet.of(blueprint.workers, Machine(100.0, memory=0.5)).machines
    merger = Machine(1.0, up=math.inf, down=math.inf)
    market = Market(lease=20.0, uploads="shared")
    forecast = simulate(
        replace(plan, tasks=tasks), Fleet((*workers, merger)), Network(1e12, 1e12, 0, chain=0), market
    )
    assert forecast.is_complete
    assert fetched_from_others(forecast) == traffic.received > 0


def outlined(recipe: Recipe, blueprint: Blueprint, program: ct.LoweredProgram) -> tuple[Workload, Workload]:
    data = float(sum(tensor.nbytes for tensor in blueprint.dataset(0).tensors.values()))
    rounds = 1 + max(role.round for role in blueprint.roles)
    model = Model.of(program, data=data)
    return Workload.of(blueprint), outline(model, recipe, workers=blueprint.workers, rounds=rounds)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("DiLoCo", Recipe("", 3)),
        ("DiLoCo, codes", Recipe("", 3, codec=Quantized(4), broadcast=Quantized(8))),
    ],
)
def test_an_outline_is_like_the_plan(name: str, recipe: Recipe) -> None:
    real, rough = outlined(recipe, MAKERS[name](), training())
    assert sorted(task.what for task in real.tasks) == sorted(task.what for task in rough.tasks)
    assert rough.operations == pytest.approx(real.operations, rel=0.3)
    fleet = Fleet.of(3, Machine(1e6))
    forecasts = [simulate(plan, fleet, market=Market(uploads="shared")) for plan in (real, rough)]
    assert forecasts[1].up == pytest.approx(forecasts[0].up, rel=0.35)
    assert forecasts[1].seconds == pytest.approx(forecasts[0].seconds, rel=0.2)


# ------------------------------------------------------------------ advice


SMALL = Model(1e8, operations=1e12)


def advise(budget: float = math.inf, deadline: float = math.inf) -> Advice:
    fleet = Fleet.of(8, Machine(1e11, price=1.0))
    return recommend(SMALL, fleet, steps=20_000, budget=budget, deadline=deadline)


def test_rare_merges_are_recommended_over_slow_links_and_why_is_said() -> None:
    advice = advise()
    assert advice.best is not None
    assert advice.best.workers > 1
    assert advice.best.recipe.steps >= 20
    assert advice.best is advice.options[0]
    assert "one worker: " in advice.why
    assert "times as long" in advice.why
    assert {option.name for option in advice.options} == {"one worker", *(recipe.name for recipe in RECIPES)}


def test_what_is_recommended_is_what_the_whole_simulation_takes() -> None:
    """Only a few rounds are simulated; equal rounds follow."""
    best = advise().best
    assert best is not None
    plan = outline(SMALL, best.recipe, workers=best.workers, rounds=best.rounds)
    forecast = simulate(plan, Fleet.of(8, Machine(1e11, price=1.0)).fastest(best.workers))
    assert best.seconds == pytest.approx(forecast.seconds, rel=0.02)
    assert best.moved == pytest.approx(forecast.up + forecast.down, rel=0.02)
    assert best.cost == pytest.approx(forecast.cost, rel=0.02)
    assert best.segments == forecast.segments


def test_budget_and_deadline_bound_what_is_recommended() -> None:
    free = advise().best
    assert free is not None
    cheap = advise(budget=free.cost * 0.9).best
    assert cheap is None or cheap.cost <= free.cost * 0.9
    hopeless = advise(deadline=1.0)
    assert hopeless.best is None
    assert "Nothing" in hopeless.why
    assert all(option.reason for option in hopeless.options)


def test_what_a_step_is_worth_decides() -> None:
    worthless = [replace(recipe, kept=0.001) for recipe in RECIPES]
    fleet = Fleet.of(8, Machine(1e11))
    best = recommend(SMALL, fleet, steps=20_000, recipes=worthless).best
    assert best is not None
    assert best.name == "one worker"


MEASURED = {
    "DeMo": "DeMo",
    "local SGD": "local SGD, 50 steps",
    "DiLoCo": "DiLoCo, 50 steps",
    "DiLoCo, 4-bit": "DiLoCo, 8 steps, 4 bits",
    "DiLoCo, 2-bit": "DiLoCo, 25 steps, 2 bits",
    "DiLoCo, rare": "DiLoCo, 40 steps, 2 bits",
    "SparseLoCo": "SparseLoCo, 10 steps, 4 of 16 in 2 bits",
    "streaming DiLoCo": "streaming DiLoCo, 20 steps, 4 fragments, 2 bits",
    "elastic DiLoCo": "elastic DiLoCo, 8 steps, 4 bits up",
}
"""for each recipe the row of the page"""


def test_what_a_recipe_keeps_is_what_was_measured() -> None:
    page = (Path(__file__).parents[2] / "docs" / "STRATEGIES.md").read_text()
    table = page.split("<!-- table: pre-training -->")[1].split("<!-- end of table -->")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line]
    place = rows[0].index("gain kept")
    shares = {row[0].split(" (")[0]: row[place] for row in rows[1:]}
    measured = {name: int(re.split(" [±%]", share)[0]) for name, share in shares.items() if "%" in share}
    found = {recipe.name: round(100 * recipe.kept) for recipe in RECIPES}
    assert found == {"data parallel": 100} | {name: measured[row] for name, row in MEASURED.items()}
    alone = {option.recipe.kept for option in advise().options if option.name == "one worker"}
    assert alone == {measured["one worker, four times the steps"] / 100}


@pytest.mark.parametrize("name", [recipe.name for recipe in RECIPES if not recipe.gradients])
def test_what_is_planned_is_what_was_measured(name: str) -> None:
    """A recipe's plan has the segments of the benchmark's row, and the very programs, but for training's own data."""
    from crowdtrain.demo.text import Text

    from bench.strategies import PRETRAINING, Course, Setting

    recipe = next(recipe for recipe in RECIPES if recipe.name == name)
    rounds, workers = 2, 2
    letters = np.arange(4000, dtype=np.int32) % 3
    corpus = Text("abc", letters, letters)
    course = Course(Setting(workers=workers, before=1, steps=rounds * recipe.steps), 0, corpus)
    measured = PRETRAINING[MEASURED[name]](course)
    steps = workers * rounds * recipe.steps
    program, data = course.training, course.read(steps, worker=0)
    planned = strategies.planned(
        recipe, program, data, program.initial_state(), workers=workers, steps=steps, price=0
    )

    def shape(blueprint: strategies.Blueprint) -> list[object]:
        return [
            (
                role,
                spec.steps,
                spec.inputs,
                spec.fallbacks,
                spec.quorum,
                role.what == "train" or spec.program_root,
            )
            for role, spec in zip(blueprint.roles, blueprint.plan.segments, strict=True)
        ]

    assert shape(planned) == shape(measured)


@pytest.mark.parametrize(
    "recipe", [recipe for recipe in RECIPES if not recipe.gradients], ids=lambda r: r.name
)
def test_whatever_the_fleet_what_is_recommended_can_be_planned(recipe: Recipe) -> None:
    fleet = Fleet.of(1000, Machine(1e11))
    options = recommend(SMALL, fleet, steps=1000 * recipe.steps, recipes=[recipe]).options
    workers = max(option.workers for option in options if option.name == recipe.name and not option.reason)
    steps, program = workers * recipe.steps, training()
    data = Dataset(*arrays(), order=np.zeros((steps, BATCH), np.int32))
    strategies.planned(recipe, program, data, program.initial_state(), workers=workers, steps=steps, price=0)


def test_advice_is_shown_and_turned_into_json() -> None:
    advice = advise()
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(advice)
    shown = console.export_text()
    assert "streaming DiLoCo" in shown
    assert json.loads(json.dumps(advice.to_dict(), allow_nan=False))["best"]["name"] == advice.options[0].name


def test_advice_for_nothing_is_refused() -> None:
    with pytest.raises(PlanError):
        recommend(SMALL, FLEET, steps=0)


# ------------------------------------------------------------------ beside what happened


def test_a_forecast_is_compared_with_events_of_a_job() -> None:
    plan = outline(Model(1e6, 1e9), Recipe("DiLoCo", 10), workers=2, rounds=2)
    market = Market(lease=1000, window=300)
    forecast = simulate(plan, Fleet.of(2, Machine(1e9)), market=market)
    solver = Address("0x" + "1" * 40)
    events: list[Claimed | Committed | Settled] = []
    for attempt in forecast.attempts:
        start, stop = (round(5000 + 1.1 * time) for time in (attempt.claimed, attempt.ended))
        events.append(Claimed(1, attempt.segment, solver, attempt=0, until=start + 1000))
        events.append(Committed(2, attempt.segment, solver, attempt=0, until=stop + 300))
        events.append(Settled(3, attempt.segment, solver, price=1, fee=0))
    comparison = compare(forecast, observe(events, market), moved=1.25 * (forecast.up + forecast.down))
    assert comparison.wall_clock == pytest.approx(1 / 1.1, rel=0.02)
    assert comparison.segment == pytest.approx(1 / 1.1, rel=0.05)
    assert comparison.moved == pytest.approx(0.8)
    assert comparison.within(0.21)
    assert not comparison.within(0.15)
    assert not compare(forecast, observe(events, market)[1:]).within(1.0)


def test_nothing_observed_is_nothing_to_compare() -> None:
    forecast = simulate(outline(SMALL, RECIPES[3], workers=2, rounds=1), Fleet.of(2, Machine(1e11)))
    for observed in ([], [Observed(0, 5.0, 1.0)], [Observed(10**6, 0.0, 1.0)], [Observed(0, 1.0, 1.0)]):
        with pytest.raises(PlanError):
            compare(forecast, observed)
    with pytest.raises(PlanError, match="lease"):
        observe([], Market())


# ------------------------------------------------------------------ files and the command line


FILE = """
[[machines]]
name = "desk"
count = 3
speed = 1e10
price = 0.5
up = 1e6

[[machines]]
speed = 2e9
mean_up = 36000
mean_down = 3600
present = [[0, 1e9], [2e9, inf]]
"""


def test_a_fleet_is_read_from_toml_and_json(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FILE)
    fleet = Fleet.read(tmp_path / "fleet.toml")
    assert [machine.name for machine in fleet.machines] == ["desk 0", "desk 1", "desk 2", "machine"]
    assert fleet.machines[3].present == ((0, 1e9), (2e9, math.inf))
    (tmp_path / "fleet.json").write_text(json.dumps({"machines": [{"speed": 5.0, "count": 2}]}))
    assert len(Fleet.read(tmp_path / "fleet.json")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "machines = 3", "machines = [3]", "[[machines]]", "[[machines]]\nspeed = -1",
        "[[machines]]\nspeed = 1\ncount = 1000000000", "[[machines]]\nspeed = 1\ncount = 0",
        "[[machines]]\nspeed = 1\ncolour = 'red'", "[[machines]]\nspeed = '1'", "[[machines]]\nspeed = 1\nname = 2",
        "[[machines]]\nspeed = 1\npresent = 3", "[[machines]]\nspeed = 1\npresent = [3]",
        "[[machines]]\nspeed = 1\npresent = [[1, 2, 3]]", "[[machines]]\nspeed = nan", "\xff",
        "[[machines]]\nspeed = 1\npresent = [['a', 'b']]",
    ],
)  # fmt: skip
def test_a_file_that_is_no_fleet_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="holds no fleet"):
        Fleet.read(path)
    deep = tmp_path / "fleet.json"
    deep.write_text("[" * 100_000)
    with pytest.raises(ConfigError):
        Fleet.read(deep)
    with pytest.raises(ConfigError, match="cannot be read"):
        Fleet.read(tmp_path / "none.toml")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(
        cli.app, ["simulate", *arguments], catch_exceptions=False, env={"COLUMNS": "120"}
    )
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_compares_and_recommends() -> None:
    shown = run("--parameters", "1e7", "--machines", "4", "--steps", "2000")
    assert "streaming DiLoCo" in shown
    assert "times as long" in shown
    parsed = json.loads(
        run("--parameters", "1e7", "--machines", "4", "--steps", "2000", "--json", "--every", "40")
    )
    assert {option["steps"] for option in parsed["options"] if option["workers"] > 1} == {40}


def test_the_command_simulates_one_strategy_for_a_folder_and_a_fleet(tmp_path: Path) -> None:
    save_bundle(tmp_path / "job", training(), datasets(1, 100)[0])
    (tmp_path / "fleet.toml").write_text(FILE)
    options = (
        str(tmp_path / "job"),
        "--strategy",
        "diloco",
        "--every",
        "5",
        "--fleet",
        str(tmp_path / "fleet.toml"),
    )
    shown = run(*options, "--steps", "100", "--timeline")
    assert "goodput" in shown
    assert "desk 0 " in shown
    parsed = json.loads(run(*options, "--steps", "100", "--json", "--uploads", "shared"))
    assert parsed["done"] == parsed["segments"] == 25


@pytest.mark.parametrize(
    "arguments",
    [[], ["--parameters", "-1"], ["--parameters", "nan"], ["folder", "--parameters", "1"],
     ["--parameters", "1e6", "--strategy", "magic"], ["--parameters", "1e6", "--up", "0"]],
)  # fmt: skip
def test_the_command_says_what_is_wrong(arguments: list[str]) -> None:
    with pytest.raises((ConfigError, PlanError)):
        CliRunner().invoke(cli.app, ["simulate", *arguments], catch_exceptions=False)
