"""Trains a small GPT on text with every strategy, at the same number of tokens: ``make bench-strategies``.

Beside one worker (a quarter of the tokens, no traffic) and synchronous data parallelism (all traffic): what share of
the gain of the second over the first does each strategy keep, and what does it send?
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

import crowdtrain as ct
import numpy as np
import torch
import typer
from crowdtrain import strategies
from crowdtrain.demo.text import CONTEXT, CharGPT, Text, cross_entropy, order, text
from crowdtrain.optim import SGD, AdamW, warmup_cosine
from crowdtrain.strategies import Blueprint, Done, Quantized, TopK, Traffic
from crowdtrain_engine import Dataset, State
from rich.console import Console
from rich.progress import Progress

from bench.publish import RESULTS, published
from bench.report import Sheet, as_table, sheet_markdown

__all__ = ["CASES", "Course", "Ran", "Setting", "sheet"]

DOCUMENT = Path(__file__).parents[1] / "docs" / "STRATEGIES.md"
FIGURE = Path(__file__).parents[1] / "docs" / "strategies.svg"
ONE, ALL = "one worker", "data parallel"
CURVE = 40
"""points of a curve"""


@dataclass(frozen=True)
class Setting:
    """What all strategies train, and for how long."""

    workers: int = 4
    batch: int = 8
    """windows of each worker in each step"""
    steps: int = 1000
    """of each worker"""
    lr: float = 3e-3
    warmup: int = 50
    evaluated: int = 2048
    """windows that are held out"""

    @property
    def optimizer(self) -> AdamW:
        """The inner optimizer."""
        return AdamW(lr=warmup_cosine(self.lr, warmup=self.warmup, total=self.steps), weight_decay=0.01)


@dataclass
class Ran:
    """One strategy with one seed."""

    name: str
    seed: int
    loss: float
    """nats for each character that was held out"""
    sent: int
    """bytes that a worker has stored and fetched, the busiest one"""
    tokens: int
    segments: int
    curve: list[tuple[int, int, float]] = field(default_factory=list)
    """tokens so far, bytes of a worker so far, loss in training (mean of all workers)"""


class Course:
    """The model, its programs and the data of the workers, for one seed."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting, self.seed = setting, seed
        torch.manual_seed(seed)
        corpus = text()
        self.model = CharGPT(corpus.size)
        self._inputs, self._targets = Text.windows(corpus.train)
        self._held_out = tuple(part[: setting.evaluated] for part in Text.windows(corpus.held_out))

    @cached_property
    def training(self) -> ct.LoweredProgram:
        """A step with the inner optimizer."""
        return ct.lower(
            self.model,
            cross_entropy,
            optimizer=self.setting.optimizer,
            example=self._batch(self.setting.batch),
        )

    @cached_property
    def gradients(self) -> ct.LoweredProgram:
        """The gradients of a step."""
        return ct.lower_gradients(self.model, cross_entropy, example=self._batch(self.setting.batch))

    @staticmethod
    def _batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        zeros = torch.zeros(size, CONTEXT, dtype=torch.long)
        return zeros, zeros

    @cached_property
    def data(self) -> list[Dataset]:
        """The data of each worker."""
        count = len(self._inputs)
        setting = self.setting
        seeds = [1000 * self.seed + k for k in range(setting.workers)]
        return [
            Dataset(self._inputs, self._targets, order=order(count, setting.steps, setting.batch, seed))
            for seed in seeds
        ]

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

    def run(self, name: str, blueprint: Blueprint, late: Sequence[int] = ()) -> Ran:
        """Carries a plan out."""
        traffic = Traffic()
        each = self.setting.batch * CONTEXT
        pairs = zip(blueprint.plan.segments, blueprint.roles, strict=True)
        tokens = each * sum(spec.steps for spec, role in pairs if role.what in TRAINING)
        points: list[tuple[int, int, float]] = []
        losses: list[float] = []
        done = 0

        def sent() -> int:
            return max(traffic.of(worker) for worker in range(blueprint.workers))

        def note(segment: Done) -> None:
            nonlocal done
            if segment.role.what not in TRAINING:
                return
            for loss in segment.logs["loss"]:
                losses.append(float(loss))
                done += each
                if len(losses) * each * CURVE >= tokens:
                    points.append((done, sent(), fmean(losses)))
                    losses.clear()

        outcome = strategies.carry_out(blueprint, traffic=traffic, late=late, on_segment=note)
        loss = self.evaluate(outcome.state)
        return Ran(name, self.seed, loss, sent(), tokens, len(blueprint.plan.segments), points)


TRAINING = ("train", "gradients")
"""What the segments do that read data."""
Q2, Q4, Q8 = Quantized(2), Quantized(4), Quantized(8)


def _diloco(course: Course, steps: int, outer: SGD | None = None, **options: Any) -> Blueprint:
    rounds = course.setting.steps // steps
    return strategies.diloco(course.training, course.data, rounds=rounds, steps=steps, outer=outer, **options)


def _elastic(course: Course, steps: int) -> Blueprint:
    rounds = course.setting.steps // steps
    quorum = max(1, course.setting.workers // 2)
    return strategies.elastic_diloco(
        course.training, course.data, rounds=rounds, steps=steps, quorum=quorum, codec=Q4
    )


def _streaming(course: Course, steps: int) -> Blueprint:
    return strategies.streaming_diloco(
        course.training, course.data, rounds=course.setting.steps // steps, steps=steps, fragments=4, codec=Q4
    )


CASES: dict[str, Callable[[Course], Blueprint]] = {
    ONE: lambda c: strategies.lo_fi(c.training, c.data[:1], steps=c.setting.steps),
    ALL: lambda c: strategies.data_parallel(
        c.gradients, c.data, steps=c.setting.steps, optimizer=c.setting.optimizer
    ),
    "DeMo": lambda c: strategies.demo(c.gradients, c.data, steps=c.setting.steps, lr=c.setting.lr / 10),
    "local SGD, 50 steps": lambda c: strategies.local_sgd(
        c.training, c.data, rounds=c.setting.steps // 50, steps=50
    ),
    "DiLoCo as in the paper, 50 steps": lambda c: _diloco(c, 50, SGD(lr=0.7, momentum=0.9, nesterov=True)),
    "DiLoCo, 50 steps": lambda c: _diloco(c, 50),
    "DiLoCo, 10 steps, 4 bits": lambda c: _diloco(c, 10, codec=Q4, broadcast=Q4),
    "DiLoCo, 50 steps, 4 bits": lambda c: _diloco(c, 50, codec=Q4, broadcast=Q4),
    "streaming DiLoCo, 20 steps, 4 bits up": lambda c: _streaming(c, 20),
    "SparseLoCo, 10 steps": lambda c: strategies.sparse_loco(
        c.training, c.data, rounds=c.setting.steps // 10, steps=10, codec=TopK(64, 2, Q2)
    ),
    "elastic DiLoCo, 10 steps, 4 bits up": lambda c: _elastic(c, 10),
    "the same, a quarter of the workers late": lambda c: _elastic(c, 10),
    "lo-fi": lambda c: strategies.lo_fi(c.training, c.data, steps=c.setting.steps),
}


def _late(name: str, blueprint: Blueprint, seed: int) -> list[int]:
    """A quarter of what is encoded comes too late, at random, never more than a round can do without."""
    if not name.startswith("the same"):
        return []
    rng = random.Random(seed)
    late = []
    for round_ in range(1 + max(role.round for role in blueprint.roles)):
        sent = [i for i, r in enumerate(blueprint.roles) if (r.what, r.round) == ("encode", round_)]
        late += rng.sample(sent, len(sent) // 4)
    return late


def sheet(rows: Sequence[Ran]) -> Sheet:
    """What each strategy came to: means over the seeds, and how far they vary."""
    by_name: dict[str, list[Ran]] = {}
    for ran in rows:
        by_name.setdefault(ran.name, []).append(ran)
    one = {ran.seed: ran.loss for ran in by_name.get(ONE, [])}
    best = {ran.seed: ran.loss for ran in by_name.get(ALL, [])}
    most = fmean(ran.sent for ran in by_name[ALL]) if ALL in by_name else 0
    lines = []
    for name, runs in by_name.items():
        kept = [
            (one[r.seed] - r.loss) / (one[r.seed] - best[r.seed])
            for r in runs
            if r.seed in one and r.seed in best
        ]
        sent = fmean(r.sent for r in runs)
        lines.append(
            (
                name,
                f"{fmean(r.tokens for r in runs) / 1e6:.2f} M",
                _spread([r.loss for r in runs], "{:.3f}"),
                _spread([100 * k for k in kept], "{:.0f} %") if kept else "",
                f"{sent / 1e6:.2f} MB",
                f"{most / sent:.0f}×" if most and name not in (ONE, ALL) and sent else "",
                f"{fmean(r.segments for r in runs):.0f}",
            )
        )
    seeds = len({ran.seed for ran in rows})
    return Sheet(
        f"A character GPT on Python's sources, {seeds} seeds",
        (
            "strategy",
            "tokens",
            "loss",
            "gain kept",
            "sent by a worker",
            "less than data parallel",
            "segments",
        ),
        tuple(lines),
    )


def _spread(values: Sequence[float], form: str) -> str:
    mean = form.format(fmean(values))
    return f"{mean} ± {form.format(stdev(values))}" if len(values) > 1 else mean


def draw(rows: Sequence[Ran], path: Path) -> None:
    """Plots the loss in training against tokens and against bytes, of the first seed."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(13, 5), sharey=True)
    first = min(ran.seed for ran in rows)
    for ran in (ran for ran in rows if ran.seed == first):
        tokens, sent, losses = zip(*ran.curve, strict=True)
        axes[0].plot(tokens, losses, label=ran.name, linewidth=1)
        if ran.name != ONE:
            axes[1].plot([max(1, n) for n in sent], losses, linewidth=1)
    for axis, what in zip(
        axes, ("tokens of all workers", "bytes that a worker has sent and fetched"), strict=True
    ):
        axis.set_xlabel(what)
        axis.grid(alpha=0.3)
    axes[1].set_xscale("log")
    axes[0].set_ylabel("loss in training (nats for a character)")
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


app = typer.Typer(add_completion=False)


@app.command(epilog="Example: python -m bench.strategies --seeds 1 --steps 200 --case DiLoCo")
def main(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each strategy.")] = 3,
    steps: Annotated[int, typer.Option(min=100, help="Steps of each worker.")] = Setting.steps,
    workers: Annotated[int, typer.Option(min=2, max=8)] = Setting.workers,
    case: Annotated[
        list[str] | None, typer.Option(help="Only those whose name contains this. Repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where strategies.json is written.")] = RESULTS,
    publish: Annotated[
        bool, typer.Option("--publish", help="Put the results into docs/STRATEGIES.md.")
    ] = False,
) -> None:
    """Trains a small GPT with every strategy and prints what each keeps of data parallelism's gain."""
    setting = Setting(workers=workers, steps=steps)
    chosen = [name for name in CASES if not case or name in (ONE, ALL) or any(part in name for part in case)]
    rows: list[Ran] = []
    console = Console()
    with Progress(console=console) as progress:
        task = progress.add_task("", total=seeds * len(chosen))
        for seed in range(seeds):
            course = Course(setting, seed)
            for name in chosen:
                progress.update(task, description=f"seed {seed}: {name}")
                blueprint = CASES[name](course)
                rows.append(course.run(name, blueprint, _late(name, blueprint, seed)))
                progress.advance(task)
    console.print(as_table(sheet(rows)))
    out.mkdir(parents=True, exist_ok=True)
    content = {"setting": asdict(setting), "runs": [asdict(ran) for ran in rows]}
    (out / "strategies.json").write_text(json.dumps(content, indent=1) + "\n")
    if publish:
        DOCUMENT.write_text(published(DOCUMENT.read_text(), sheet_markdown(sheet(rows))))
        draw(rows, FIGURE)
        console.print(f"Written: {DOCUMENT} and {FIGURE.name}")


if __name__ == "__main__":
    app()
