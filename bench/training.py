"""Training speed beside eager PyTorch: the same model, batch and optimizer, step after step, in turn in one run.

Prints for each model the time of a step of ours and of eager PyTorch's, and their ratio (below 1: ours is faster).
Run on an idle machine: ``python bench/training.py [model ...]``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import crowdtrain as ct
import numpy as np
import torch
import torch.nn.functional as F
from crowdtrain_engine import Executor
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from zoo.language import GPT, Llama, TaggingLSTM, next_token_loss
from zoo.vision import CNN, MLP, ResNet

THREADS = 2
ROUNDS = 7
LEAST = 0.3
"""Seconds of each round, at least."""
ORDER = 1 << 16
"""Steps for which there are rows of ``order``."""


@dataclass(frozen=True)
class Case:
    """A model with a batch and a loss."""

    model: Callable[[], nn.Module]
    batch: Callable[[], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]


def tokens(vocabulary: int, batch: int, length: int) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (torch.randint(vocabulary, (batch, length)), torch.randint(vocabulary, (batch, length)))


def images(batch: int, *shape: int) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (torch.randn(batch, *shape), torch.randint(10, (batch,)))


CASES: dict[str, Case] = {
    "MLP": Case(lambda: MLP(64, 256, 256, 10), images(64, 64), F.cross_entropy),
    "CNN": Case(CNN, images(64, 1, 28, 28), F.cross_entropy),
    "ResNet": Case(lambda: ResNet(64, (2,)), images(32, 3, 32, 32), F.cross_entropy),
    "GPT-0.8M": Case(lambda: GPT(65, 128, 4, 4, 64), tokens(65, 16, 64), next_token_loss),
    "GPT-5M": Case(lambda: GPT(256, 256, 6, 8, 128), tokens(256, 16, 128), next_token_loss),
    "GPT-11M": Case(lambda: GPT(256, 384, 6, 6, 128), tokens(256, 16, 128), next_token_loss),
    "Llama-5M": Case(lambda: Llama(256, 256, 6, 8, 2, 704, 128), tokens(256, 16, 128), next_token_loss),
    "LSTM": Case(lambda: TaggingLSTM(65, 128, 2), tokens(65, 32, 32), next_token_loss),
}


def ours(case: Case, model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    """A step of ours."""
    program = ct.lower(model, case.loss, optimizer=ct.optim.AdamW(lr=1e-3), example=(x, y))
    data = ct.Dataset(x.numpy(), y.numpy(), order=np.tile(np.arange(len(x)), (ORDER, 1)))
    executor = Executor(program, program.initial_state(), data, threads=THREADS)
    return lambda: executor.run(1)


def eager(case: Case, model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    """A step of PyTorch's."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        case.loss(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def in_turn(calls: list[Callable[[], object]]) -> list[float]:
    """Seconds for one call of each: the medians of some rounds in turn."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(ROUNDS):
        for call, taken in zip(calls, times, strict=True):
            repeats, elapsed, start = 0, 0.0, time.perf_counter()
            while elapsed < LEAST:
                call()
                repeats += 1
                elapsed = time.perf_counter() - start
            taken.append(elapsed / repeats)
    return [float(np.median(taken)) for taken in times]


def main() -> None:
    torch.set_num_threads(THREADS)
    console = Console(width=110)
    table = Table(title=f"{THREADS} threads, PyTorch {torch.__version__}")
    for heading in ("", "parameters", "lowering, s", "ours, ms", "eager, ms", "ratio"):
        table.add_column(heading, justify="right")
    for name in sys.argv[1:] or CASES:
        case = CASES[name]
        torch.manual_seed(0)
        model, (x, y) = case.model(), case.batch()
        start = time.perf_counter()
        step = ours(case, model, x, y)
        lowering = time.perf_counter() - start
        a, b = in_turn([step, eager(case, model, x, y)])
        count = sum(parameter.numel() for parameter in model.parameters())
        row = (
            name,
            f"{count / 1e6:.2f}M",
            f"{lowering:.1f}",
            f"{a * 1e3:.2f}",
            f"{b * 1e3:.2f}",
            f"{a / b:.2f}",
        )
        console.print(*row)
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()
