"""Speed of the native engine beside PyTorch's, on the same processor, in turn in one run.

Prints for each shape the time of ours and of PyTorch's, their ratio (below 1: ours is faster), and our GFLOP/s;
then how fast tensors are hashed. Run on an idle machine: ``python bench/engine.py [threads]``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from crowdtrain_engine import Program, _native, isas
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "engine"))
from products import WHICH, convolution, matrix_product

ROUNDS = 7
MATRICES = [
    (256, 256, 256),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (64, 256, 256),
    (64, 10, 1568),
]
# batch, channels in, channels out, size, kernel, stride
IMAGES = [(64, 1, 16, 28, 3, 1), (64, 16, 32, 14, 3, 1), (32, 64, 64, 32, 3, 1), (32, 64, 128, 32, 3, 2)]


def best(ours: Callable[[], object], theirs: Callable[[], object], threads: int) -> tuple[float, float]:
    """Seconds for one call of each, the best of some rounds in turn. One thread is timed by its processor time."""
    clock = time.process_time if threads == 1 else time.perf_counter
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for call, taken in zip((ours, theirs), times, strict=True):
            repeats, elapsed = 0, 0.0
            start = clock()
            while elapsed < 0.05:
                call()
                repeats += 1
                elapsed = clock() - start
            taken.append(elapsed / repeats)
    return min(times[0]), min(times[1])


def runner(program: Program, tensors: list[torch.Tensor], threads: int) -> Callable[[], object]:
    header, _, *nests = program.leaves
    plan = _native.Plan(header, list(nests), isas()[0], threads)
    return partial(plan.nest, 0, [tensor.numpy() for tensor in tensors])


def measure_matrices(table: Table, threads: int) -> None:
    for rows, columns, depth in MATRICES:
        for transposed in (False, True):
            x = torch.randn(rows, depth)
            y = torch.randn(columns, depth) if transposed else torch.randn(depth, columns)
            program = matrix_product(rows, columns, depth, transposed=transposed)
            ours, theirs = best(
                runner(program, [x, y], threads), partial(torch.mm, x, y.T if transposed else y), threads
            )
            name = f"{rows} x {depth} by {depth} x {columns}{' transposed' if transposed else ''}"
            add_row(table, name, ours, theirs, rows * columns * depth)


def measure_convolutions(table: Table, threads: int) -> None:
    for batch, inputs, outputs, size, kernel, stride in IMAGES:
        padding = kernel // 2
        image = torch.randn(batch, inputs, size, size)
        weight = torch.randn(outputs, inputs, kernel, kernel)
        result = F.conv2d(image, weight, stride=stride, padding=padding)
        grad = torch.randn_like(result)
        backward = partial(
            torch.ops.aten.convolution_backward, grad, image, weight, None, [stride] * 2, [padding] * 2,
            [1, 1], False, [0, 0], 1,
        )  # fmt: skip
        tensors = {"forward": [image, weight], "input": [grad, weight], "weight": [image, grad]}
        theirs_calls: dict[str, Callable[[], object]] = {
            "forward": partial(F.conv2d, image, weight, stride=stride, padding=padding),
            "input": partial(backward, [True, False, False]),
            "weight": partial(backward, [False, True, False]),
        }
        for which in WHICH:
            program = convolution(
                which, batch, inputs, outputs, (size, size), kernel, stride=stride, padding=padding
            )
            ours, theirs = best(runner(program, tensors[which], threads), theirs_calls[which], threads)
            name = f"conv {inputs} to {outputs}, {size} x {size}, stride {stride}, batch {batch}: {which}"
            add_row(table, name, ours, theirs, result.numel() * inputs * kernel * kernel)


def add_row(table: Table, name: str, ours: float, theirs: float, multiplications: int) -> None:
    speed = 2 * multiplications / ours / 1e9
    table.add_row(name, f"{ours * 1e3:.3f}", f"{theirs * 1e3:.3f}", f"{ours / theirs:.2f}", f"{speed:.1f}")


def measure_hashing(console: Console, threads: int) -> None:
    tensor = np.random.default_rng(0).integers(0, 1 << 32, 64 << 20, np.uint32)
    for count in sorted({1, threads}):
        seconds, _ = best(partial(_native.tensor_root, tensor, count), list, count)
        console.print(f"hashing with {count} threads: {tensor.nbytes / seconds / 1e9:.2f} GB/s")


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() or 1
    torch.set_num_threads(threads)
    console = Console(width=120)
    table = Table(title=f"{isas()[0]}, {threads} threads, PyTorch {torch.__version__}")
    table.add_column("")
    for heading in ("ours, ms", "PyTorch, ms", "ratio", "GFLOP/s"):
        table.add_column(heading, justify="right")
    measure_matrices(table, threads)
    measure_convolutions(table, threads)
    console.print(table)
    measure_hashing(console, threads)


if __name__ == "__main__":
    main()
