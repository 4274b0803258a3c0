"""Trains a small GPT on text with every strategy, at the same number of tokens: ``make bench-strategies``.

Beside one worker (a quarter of the tokens, no traffic) and synchronous data parallelism (all traffic): what share of
the gain of the second over the first does each strategy keep, and what does it send?
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, TypedDict

import crowdtrain as ct
import matplotlib as mpl
import numpy as np
import torch
import typer
from crowdtrain import strategies
from crowdtrain.demo.text import CONTEXT, CharGPT, Text, cross_entropy, documentation, order, text
from crowdtrain.optim import SGD, AdamW, LinearLR, Optimizer, Schedule, warmup_cosine
from crowdtrain.simulation import Workload
from crowdtrain.strategies import Blueprint, Codec, Done, Quantized, TopK, Traffic
from crowdtrain_engine import Dataset, State
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from bench.economy.tables import filled
from bench.publish import RESULTS
from bench.report import Sheet, as_table, sheet_markdown

__all__ = ["PRETRAINING", "TUNING", "Course", "Ran", "Setting", "draw", "sheet"]

DOCUMENT = Path(__file__).parents[1] / "docs" / "STRATEGIES.md"
FIGURE = Path(__file__).parents[1] / "docs" / "strategies.svg"
ONE, ALL = "one worker", "data parallel"
LONGER = "one worker, four times the steps"
LATE, LOST = "a quarter of the codes late", "a quarter of the rounds lost"
WRITTEN, TUNED = "pre-training", "fine-tuning"
CURVE = 40
"""points of a curve"""
INK, GRID = "#666666", "#dddddd"


@dataclass(frozen=True)
class Setting:
    """What all strategies train, and for how long."""

    workers: int = 4
    batch: int = 4
    """windows of each worker in each step"""
    before: int = 1000
    """steps of one worker that all strategies begin after"""
    steps: int = 1000
    """of each worker"""
    tuned: int = 200
    """steps of each worker when a trained model is tuned"""
    lr: float = 3e-3
    evaluated: int = 2048
    """windows that are held out"""

    def optimizer(self, times: Fraction | int = 1) -> AdamW:
        """The inner optimizer, for so many times the steps of a worker."""
        return AdamW(lr=self.rate(times), weight_decay=0.01)

    def rate(self, times: Fraction | int = 1) -> Schedule:
        """The learning rate over so many times the steps of a worker."""
        total = round(times * self.steps)
        return warmup_cosine(self.lr, warmup=max(1, total // 20), total=total)


@dataclass
class Ran:
    """One strategy with one seed."""

    task: str
    name: str
    seed: int
    loss: float
    """nats for each character that was held out"""
    sent: int
    """bytes that a worker has stored for others and fetched, the busiest one"""
    tokens: int
    segments: int
    uploaded: int = 0
    """the same if it stores all that it makes, as solvers do with a store that is not their own"""
    curve: list[tuple[int, int, float]] = field(default_factory=list)
    """tokens so far, bytes of a worker so far, loss in training (mean of all workers)"""


class Rounds(TypedDict):
    """How the steps of a worker are cut."""

    rounds: int
    steps: int


class Course:
    """The model, its programs and the data of the workers, for one seed."""

    task = WRITTEN

    def __init__(self, setting: Setting, seed: int, corpus: Text) -> None:
        self.setting, self.seed = setting, seed
        torch.manual_seed(seed)
        self.model = CharGPT(corpus.size)
        self._inputs, self._targets = Text.windows(corpus.train)
        self._held_out = tuple(part[: setting.evaluated] for part in Text.windows(corpus.held_out))

    @cached_property
    def start(self) -> State:
        """What all strategies begin with: the model after some steps of one worker."""
        setting = self.setting
        warm = LinearLR(setting.lr, 0.0, total_iters=max(1, setting.before // 20))
        program = self.lowered(AdamW(lr=warm, weight_decay=0.01))
        data = self.read(setting.before, worker=999)
        state, _ = ct.execute(program, program.initial_state(), data, steps=setting.before)
        return State({"parameters": state["parameters"]})

    def lowered(self, optimizer: Optimizer) -> ct.LoweredProgram:
        """A step with an inner optimizer."""
        return ct.lower(
            self.model, cross_entropy, optimizer=optimizer, example=self._batch(self.setting.batch)
        )

    @cached_property
    def training(self) -> ct.LoweredProgram:
        """A step with the inner optimizer of a worker."""
        return self.lowered(self.setting.optimizer())

    @cached_property
    def gradients(self) -> ct.LoweredProgram:
        """The gradients of a step."""
        return ct.lower_gradients(self.model, cross_entropy, example=self._batch(self.setting.batch))

    @staticmethod
    def _batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        zeros = torch.zeros(size, CONTEXT, dtype=torch.long)
        return zeros, zeros

    def read(self, steps: int, worker: int) -> Dataset:
        """What a worker reads."""
        batches = order(len(self._inputs), steps, self.setting.batch, 1000 * self.seed + worker)
        return Dataset(self._inputs, self._targets, order=batches)

    @cached_property
    def data(self) -> list[Dataset]:
        """The data of each worker."""
        return [self.read(self.setting.steps, worker) for worker in range(self.setting.workers)]

    def rounds(self, steps: int) -> Rounds:
        """Steps in each round, and how many rounds they make. Raises ValueError if it does not come out even."""
        steps = min(steps, self.setting.steps)
        if self.setting.steps % steps:
            raise ValueError(f"{self.setting.steps} steps cannot be cut into rounds of {steps}")
        return {"rounds": self.setting.steps // steps, "steps": steps}

    def evaluate(self, state: State) -> float:
        """Loss on text that was held out."""
        inputs, targets = self._held_out
        size = min(64, len(inputs))
        steps = len(inputs) // size
        program = ct.lower_evaluation(self.model, {"loss": cross_entropy}, example=self._batch(size))
        windows = np.arange(steps * size).reshape(steps, size)
        data = Dataset(inputs, targets, order=windows)
        _, logs = ct.execute(program, program.initial_state(state), data, steps=steps)
        return float(logs["loss"].mean())

    def run(self, name: str, blueprint: Blueprint) -> tuple[Ran, State]:
        """Carries a plan out, late or without some segments if the name says so."""
        late = drawn(blueprint, self.seed, "encode") if LATE in name else ()
        lost = drawn(blueprint, self.seed, "train", "encode") if LOST in name else ()
        traffic = Traffic()
        each = self.setting.batch * CONTEXT
        reading = {i for i, role in enumerate(blueprint.roles) if role.what in READING}.difference(lost)
        tokens = each * sum(blueprint.plan.segments[i].steps for i in reading)
        points: list[tuple[int, int, float]] = []
        losses: list[float] = []
        done = 0

        def sent() -> int:
            return max(traffic.of(worker) for worker in range(blueprint.workers))

        def note(segment: Done) -> None:
            nonlocal done
            if segment.index not in reading:
                return
            for loss in segment.logs["loss"]:
                losses.append(float(loss))
                done += each
                if len(losses) * each * CURVE >= tokens:
                    points.append((done, sent(), fmean(losses)))
                    losses.clear()

        outcome = strategies.carry_out(blueprint, traffic=traffic, late=late, lost=lost, on_segment=note)
        loss = self.evaluate(outcome.state)
        segments, all_ = len(blueprint.plan.segments), uploaded(blueprint)
        ran = Ran(self.task, name, self.seed, loss, sent(), tokens, segments, all_, points)
        return ran, outcome.state


class Tuning(Course):
    """The same for a model that was trained on the sources, and now reads the documentation."""

    task = TUNED

    def __init__(self, setting: Setting, seed: int, trained: Callable[[], State]) -> None:
        super().__init__(replace(setting, steps=setting.tuned, lr=setting.lr / 3), seed, documentation())
        self._trained = trained

    @cached_property
    def start(self) -> State:
        """The trained model."""
        return self._trained()


READING = ("train", "gradients")
"""What the segments do that read data."""
Q2, Q4 = Quantized(2), Quantized(4)
Case = Callable[[Course], Blueprint]


def _nesterov(momentum: float) -> SGD:
    return SGD(lr=1.0, momentum=momentum, nesterov=True)


def _diloco(steps: int, outer: SGD, codec: Codec | None = None) -> Case:
    return lambda c: strategies.diloco(
        c.training, c.data, **c.rounds(steps), outer=outer, codec=codec, broadcast=codec, state=c.start
    )


def _local(steps: int) -> Case:
    return lambda c: strategies.local_sgd(c.training, c.data, **c.rounds(steps), state=c.start)


def _elastic(workers: int | None = None) -> Case:
    return lambda c: _elastic_plan(c.training, c.data[:workers], c.rounds(8), c.start)


def _elastic_longer(c: Course) -> Blueprint:
    """A third more rounds, so that as many tokens are read if a quarter of the workers is missing in each."""
    rounds, workers = c.rounds(8), c.setting.workers
    rounds["rounds"] = round(Fraction(workers, workers - workers // 4) * rounds["rounds"])
    steps = rounds["rounds"] * rounds["steps"]
    data = [c.read(steps, worker) for worker in range(workers)]
    optimizer = c.setting.optimizer(Fraction(steps, c.setting.steps))
    return _elastic_plan(c.lowered(optimizer), data, rounds, c.start)


def _elastic_plan(
    program: ct.LoweredProgram, data: Sequence[Dataset], rounds: Rounds, state: State
) -> Blueprint:
    quorum = max(1, len(data) // 2)
    return strategies.elastic_diloco(
        program, data, **rounds, quorum=quorum, outer=_nesterov(0.5), codec=Q4, state=state
    )


def _longer(c: Course) -> Blueprint:
    steps = 4 * c.setting.steps
    program, data = c.lowered(c.setting.optimizer(4)), c.read(steps, worker=0)
    return strategies.lo_fi(program, [data], steps=steps, state=c.start)


BASES: dict[str, Case] = {
    ONE: lambda c: strategies.lo_fi(c.training, c.data[:1], steps=c.setting.steps, state=c.start),
    ALL: lambda c: strategies.data_parallel(
        c.gradients, c.data, steps=c.setting.steps, optimizer=c.setting.optimizer(), state=c.start
    ),
}
LO_FI: Case = lambda c: strategies.lo_fi(c.training, c.data, steps=c.setting.steps, state=c.start)  # noqa: E731
PRETRAINING: dict[str, Case] = {
    **BASES,
    LONGER: _longer,
    "local SGD, 50 steps": _local(50),
    "DiLoCo, 50 steps": _diloco(50, _nesterov(0.5)),
    "DiLoCo, 50 steps, the paper's 0.7 and 0.9": _diloco(50, SGD(lr=0.7, momentum=0.9, nesterov=True)),
    "DiLoCo, 8 steps, 4 bits": _diloco(8, _nesterov(0.5), Q4),
    "DiLoCo, 25 steps, 2 bits": _diloco(25, _nesterov(0.6), Q2),
    "DiLoCo, 40 steps, 2 bits": _diloco(40, _nesterov(0.6), Q2),
    "SparseLoCo, 10 steps, 4 of 16 in 2 bits": lambda c: strategies.sparse_loco(
        c.training, c.data, **c.rounds(10), outer=_nesterov(0.5), codec=TopK(16, 4, Q2), state=c.start
    ),
    "streaming DiLoCo, 20 steps, 4 fragments, 2 bits": lambda c: strategies.streaming_diloco(
        c.training,
        c.data,
        **c.rounds(20),
        overlap=False,
        outer=_nesterov(0.5),
        codec=Q2,
        broadcast=Q2,
        state=c.start,
    ),
    "elastic DiLoCo, 8 steps, 4 bits up": _elastic(),
    f"the same, {LATE}": _elastic(),
    f"the same, {LOST}": _elastic(),
    f"the same, {LOST}, a third more rounds": _elastic_longer,
    "the same with three of the workers": _elastic(3),
    "DeMo": lambda c: strategies.demo(
        c.gradients, c.data, steps=c.setting.steps, lr=c.setting.rate(), state=c.start
    ),
}
TUNING: dict[str, Case] = {
    **BASES,
    "lo-fi": LO_FI,
    "DiLoCo, 25 steps, 4 bits": _diloco(25, _nesterov(0.5), Q4),
}
TASKS = {WRITTEN: PRETRAINING, TUNED: TUNING}


def drawn(blueprint: Blueprint, seed: int, *what: str) -> list[int]:
    """Segments of these kinds, in each round those of a quarter of the workers, drawn at random."""
    rng = random.Random(seed)
    segments = []
    for round_ in range(1 + max(role.round for role in blueprint.roles)):
        gone = rng.sample(range(blueprint.workers), blueprint.workers // 4)
        segments += [
            i
            for i, role in enumerate(blueprint.roles)
            if role.round == round_ and role.worker in gone and role.what in what
        ]
    return segments


def uploaded(blueprint: Blueprint) -> int:
    """Bytes that the busiest worker stores and fetches if it stores all that it makes, and nobody is late: the
    words alone, while ``Traffic`` counts files."""
    work = Workload.of(blueprint)
    moved: Counter[Hashable] = Counter()
    held: dict[Hashable, set[int]] = {}
    for task, role in zip(work.tasks, blueprint.roles, strict=True):
        machine = Traffic.machine(role)
        has = held.setdefault(machine, set())
        fetched = {group for group in task.inputs if work.makers[group] >= 0} - has
        moved[machine] += round(work.bytes([*fetched, *task.outputs]))
        has |= {*fetched, *task.outputs}
    return max(moved[worker] for worker in range(blueprint.workers))


def sheet(rows: Sequence[Ran], task: str) -> Sheet:
    """What each strategy came to: means over the seeds, and how far they vary."""
    by_name: dict[str, list[Ran]] = {}
    for ran in rows:
        if ran.task == task:
            by_name.setdefault(ran.name, []).append(ran)
    one = {ran.seed: ran.loss for ran in by_name.get(ONE, [])}
    best = {ran.seed: ran.loss for ran in by_name.get(ALL, [])}
    most = fmean(ran.sent for ran in by_name[ALL]) if ALL in by_name else 0
    count = max(map(len, by_name.values()), default=0)
    lines = []
    for name, runs in by_name.items():
        both = [run for run in runs if run.seed in one and run.seed in best]
        kept = [100 * (one[r.seed] - r.loss) / (one[r.seed] - best[r.seed]) for r in both]
        sent, alone = fmean(r.sent for r in runs), name in (ONE, LONGER)
        lines.append(
            (
                name if len(runs) == count else f"{name} ({len(runs)} of the seeds)",
                f"{fmean(r.tokens for r in runs) / 1e6:.2f} M",
                _spread([r.loss for r in runs], 3),
                "" if name in (ONE, ALL) or not kept else f"{_spread(kept, 0)} %",
                "0" if alone else f"{sent / 1e6:.2f} MB",
                f"{most / sent:.0f}×" if most and not alone else "",
                "" if alone else f"{fmean(r.uploaded for r in runs) / 1e6:.2f} MB",
                f"{fmean(r.segments for r in runs):.0f}",
            )
        )
    seeds = "one seed" if count == 1 else f"{count} seeds (mean ± standard deviation)"
    return Sheet(
        f"{task.capitalize()}, {seeds}",
        (
            "strategy",
            "tokens",
            "validation loss",
            "gain kept",
            "sent by a worker",
            "less traffic",
            "if it stores all",
            "segments",
        ),
        tuple(lines),
    )


def _spread(values: Sequence[float], digits: int) -> str:
    mean = f"{fmean(values):.{digits}f}"
    return f"{mean} ± {stdev(values):.{digits}f}" if len(values) > 1 else mean


def draw(rows: Sequence[Ran], path: Path) -> None:
    """Plots pre-training as SVG: the loss in training against tokens, of the first seed, and the validation loss in the
    end against bytes, of all; the same results give the same file."""
    rows = [ran for ran in rows if ran.task == WRITTEN]
    names = list(dict.fromkeys(ran.name for ran in rows))
    first = min(ran.seed for ran in rows)
    with mpl.rc_context(
        {"svg.hashsalt": "strategies", "svg.fonttype": "none", "text.color": INK, "font.size": 9}
    ):
        figure = Figure(figsize=(12, 5), layout="constrained")
        by_tokens, by_bytes = figure.subplots(1, 2)
        colours = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
        for name, colour in zip(names, colours, strict=False):
            runs = [ran for ran in rows if ran.name == name]
            losses = [ran.loss for ran in runs]
            (shown,) = (ran for ran in runs if ran.seed == first)
            by_tokens.plot(
                [t for t, _, _ in shown.curve], [v for _, _, v in shown.curve], color=colour, linewidth=1
            )
            if name in (ONE, LONGER):
                by_bytes.axhline(fmean(losses), color=colour, linestyle=":", label=f"{name} (sends nothing)")
                continue
            spread = stdev(losses) if len(losses) > 1 else 0.0
            sent = fmean(ran.sent for ran in runs)
            by_bytes.errorbar(sent, fmean(losses), spread, color=colour, marker="o", linestyle="", label=name)
        by_tokens.set_xlabel("tokens of all workers")
        by_tokens.set_ylabel("loss in training, mean of the workers (nats for a character)")
        by_bytes.set_xlabel("bytes that a worker stores and fetches")
        by_bytes.set_ylabel("validation loss in the end (nats for a character)")
        by_bytes.set_xscale("log")
        for axes in (by_tokens, by_bytes):
            axes.set_facecolor("none")
            axes.tick_params(colors=INK, labelcolor=INK, labelsize=8)
            axes.xaxis.label.set_color(INK)
            axes.yaxis.label.set_color(INK)
            axes.grid(color=GRID, linewidth=0.5)
            axes.spines[:].set_visible(False)
        figure.legend(loc="outside lower center", ncols=3, fontsize=7, frameon=False)
        figure.savefig(path, transparent=True, metadata={"Date": None})


class Results:
    """Runs in a file that is written after each of them."""

    def __init__(self, path: Path, setting: Setting, *, anew: bool) -> None:
        """Begins with the runs of this setting that the file has, unless it is to begin ``anew``."""
        self._path, self._setting = path, asdict(setting)
        self.rows: list[Ran] = []
        if path.exists() and not anew:
            content = json.loads(path.read_text())
            if content["setting"] == self._setting:
                self.rows = [Ran(**run) for run in content["runs"]]

    def has(self, task: str, name: str, seed: int) -> bool:
        """Whether this was run."""
        return (task, name, seed) in {(ran.task, ran.name, ran.seed) for ran in self.rows}

    def add(self, ran: Ran) -> None:
        """Writes a run down."""
        self.rows.append(ran)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = {"setting": self._setting, "runs": [asdict(row) for row in self.rows]}
        self._path.write_text(json.dumps(content, indent=1) + "\n")

    def ordered(self, seeds: range) -> list[Ran]:
        """The runs of these seeds, as the tasks list them."""
        places = {(task, name): i for task, cases in TASKS.items() for i, name in enumerate(cases)}
        known = [ran for ran in self.rows if (ran.task, ran.name) in places and ran.seed in seeds]
        return sorted(known, key=lambda ran: (ran.seed, places[ran.task, ran.name]))


def sweep(
    setting: Setting,
    seed: int,
    chosen: Mapping[str, Sequence[str]],
    results: Results,
    say: Callable[[str], None],
) -> None:
    """Runs what was not run yet."""
    course = Course(setting, seed, text())
    trained: dict[str, State] = {}

    def pretrained() -> State:
        if ALL not in trained:
            trained[ALL] = course.run(ALL, PRETRAINING[ALL](course))[1]
        return trained[ALL]

    tuning = Tuning(setting, seed, pretrained)
    for current in (course, tuning):
        for name in chosen[current.task]:
            say(f"seed {seed}: {current.task}, {name}")
            if not results.has(current.task, name, seed):
                ran, state = current.run(name, TASKS[current.task][name](current))
                results.add(ran)
                if current is course:
                    trained[name] = state


app = typer.Typer(add_completion=False)


@app.command(epilog="Example: python -m bench.strategies --seeds 1 --steps 200 --case DiLoCo")
def main(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each strategy.")] = 3,
    first: Annotated[int, typer.Option(min=0, help="The first seed; settings were chosen on seed 0.")] = 1,
    steps: Annotated[
        int, typer.Option(min=8, help="Steps of each worker: fewer than ten, or a multiple of 200.")
    ] = Setting.steps,
    workers: Annotated[int, typer.Option(min=2, max=8)] = Setting.workers,
    case: Annotated[
        list[str] | None, typer.Option(help="Only those whose name contains this. Repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where strategies.json is written, after each run.")] = RESULTS,
    anew: Annotated[
        bool, typer.Option("--anew", help="Not beside the runs that strategies.json has.")
    ] = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Put the results into docs/STRATEGIES.md.")
    ] = False,
) -> None:
    """Trains a small GPT with every strategy and prints what each keeps of data parallelism's gain."""
    evaluated = min(Setting.evaluated, 8 * steps)
    setting = Setting(
        workers=workers, steps=steps, before=steps, tuned=max(8, steps // 5), evaluated=evaluated
    )
    chosen = {
        task: [name for name in cases if not case or name in BASES or any(part in name for part in case)]
        for task, cases in TASKS.items()
    }
    results = Results(out / "strategies.json", setting, anew=anew)
    console = Console()
    with Progress(console=console) as progress:
        used = range(first, first + seeds)
        task = progress.add_task("", total=seeds * sum(map(len, chosen.values())))

        def say(what: str) -> None:
            progress.update(task, description=what, advance=1)

        for seed in used:
            sweep(setting, seed, chosen, results, say)
    rows = results.ordered(used)
    tables = {name: sheet(rows, name) for name in TASKS}
    for table in tables.values():
        console.print(as_table(table))
    if publish:
        made = {name: sheet_markdown(table) for name, table in tables.items()}
        DOCUMENT.write_text(filled(DOCUMENT.read_text(), made))
        draw(rows, FIGURE)
        console.print(f"Written: {DOCUMENT} and {FIGURE.name}")


if __name__ == "__main__":
    app()
