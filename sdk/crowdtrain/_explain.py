"""``crowdtrain.explain``: what a program does, and what it costs, for people.

Costs are read off the nests. A floating-point operation counts once for every output and iteration, a fused
multiplication and addition twice, an elementary function once. A nest moves each word that it reads once, and each that
it writes. It takes as long as the slower of the two: its operations, at the speed of a large matrix product (an
elementary function being as many as its definition), and its words, at the speed of a large map.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from crowdtrain_engine import (
    Axis,
    Dataset,
    DType,
    Executor,
    Instruction,
    Nest,
    Program,
    Read,
    State,
    TensorType,
)
from crowdtrain_engine.elementary import FUNCTIONS
from crowdtrain_engine.ops import BY_CODE, BY_NAME, FIRST_ELEMENTARY

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "Costs",
    "MachineSpeed",
    "NestCost",
    "explain",
    "format_bytes",
    "format_duration",
    "format_time",
    "measure",
]

WORD = 4
_FLOATS = {op.code: 2 if op.name == "ffma" else 1 for op in BY_CODE.values() if op.name.startswith("f")} | {
    op.code: 1 for op in BY_CODE.values() if op.code >= FIRST_ELEMENTARY
}
del _FLOATS[BY_NAME["f2i"].code], _FLOATS[BY_NAME["f2u"].code]
_LENGTHS = {BY_NAME[name].code: len(function.body) for name, function in FUNCTIONS.items()}


@dataclass(frozen=True)
class MachineSpeed:
    """What a machine reaches on large matrix products and large maps."""

    flops: float
    """floating-point operations a second"""
    bandwidth: float
    """bytes a second, read and written"""


@dataclass(frozen=True)
class NestCost:
    """One nest of a program, and what a step spends on it."""

    number: int
    module: str
    """where it comes from: what its label says before a colon"""
    what: str
    nest: Nest
    flops: int
    bytes: int
    operations: int
    """single operations on words; twice as many fit into a fused one"""

    def seconds(self, machine: MachineSpeed) -> float:
        """Estimated time on a machine."""
        return max(2 * self.operations / machine.flops, self.bytes / machine.bandwidth)


@dataclass(frozen=True)
class Costs:
    """What one step of a program costs."""

    program: Program
    nests: tuple[NestCost, ...]

    @classmethod
    def of(cls, program: Program) -> Costs:
        labels = program.labels.nests
        return cls(program, tuple(_cost(i, nest, labels[i]) for i, nest in enumerate(program.nests)))

    @property
    def flops(self) -> int:
        return sum(nest.flops for nest in self.nests)

    def seconds(self, machine: MachineSpeed) -> float:
        """Estimated time of a step, one nest after another."""
        return sum(nest.seconds(machine) for nest in self.nests)

    @cached_property
    def group_words(self) -> Mapping[str, int]:
        """Words of each group of the state."""
        bounds, labels = self.program.bounds, self.program.labels
        return {
            name: sum(kind.size for kind in self.program.state[bounds[i] : bounds[i + 1]])
            for i, name in enumerate(labels.groups)
        }

    @cached_property
    def peak(self) -> int:
        """Most bytes that values take at one time, if each is kept from its nest to the last that reads it."""
        program, first = self.program, self.program.first_nest
        end = len(program.nests)
        last = dict.fromkeys((*program.next, *program.logs), end)
        for i in reversed(range(end)):
            for read in program.nests[i].reads:
                last.setdefault(read.value, i)
        held, peak = 0, 0
        ending: dict[int, int] = {}
        for i, nest in enumerate(program.nests):
            held += nest.type.size
            peak = max(peak, held)
            ends = last.get(first + i, i)
            ending[ends] = ending.get(ends, 0) + nest.type.size
            held -= ending.pop(i, 0)
        return WORD * peak


def _cost(number: int, nest: Nest, label: str) -> NestCost:
    module, _, what = label.partition(": ") if ": " in label else ("", "", label)
    times = nest.type.size * nest.fold_length
    flops = sum(_FLOATS.get(instruction.code, 0) for instruction in nest.body)
    operations = sum(_LENGTHS.get(instruction.code, 1) for instruction in nest.body)
    read = sum(min(math.prod(read.shape), times) for read in nest.reads)
    return NestCost(
        number, module, what, nest, times * flops, WORD * (read + nest.type.size), times * operations
    )


def measure(threads: int | None = None, seconds: float = 0.2) -> MachineSpeed:
    """How fast this machine is, measured for about ``seconds`` with ``threads`` threads (all by default)."""
    n, words = 512, 1 << 24
    i, j, k = (Axis(n, ((loop, 1),)) for loop in range(3))
    fma, add = (
        Instruction(BY_NAME[name].code, *args) for name, args in (("ffma", (1, 2, 0)), ("fadd", (1, 1)))
    )
    product = Nest(DType.f32, (n, n), (Read(0, (i, k)), Read(0, (k, j))), (fma,), 3, fold=(n,))
    double = Nest(DType.f32, (words,), (Read(0, (Axis(words, ((0, 1),)),)),), (add,), 2)
    flops = 2 * n**3 / _seconds(product, threads, seconds / 2)
    return MachineSpeed(flops, 2 * WORD * words / _seconds(double, threads, seconds / 2))


def _seconds(nest: Nest, threads: int | None, seconds: float) -> float:
    """Best time of a step that is this nest of one tensor."""
    program = Program((1,), (TensorType(nest.dtype, nest.outer),), (), (nest,), (1,))
    state = State.from_tensors(program, [np.zeros(nest.outer, np.float32)])
    executor = Executor(program, state, Dataset.from_tensors({}), backend="native", threads=threads)
    executor.run(1)  # memory is touched for the first time
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        executor.run(1)
        times.append(time.perf_counter() - start)
    return min(times)


def explain(
    program: Program,
    *,
    machine: MachineSpeed | None = None,
    module: str = "",
    rows: int = 20,
    console: Console | None = None,
) -> None:
    """Prints what a program is and costs: its modules and its nests, the dearest first, at most ``rows`` of each.

    ``machine`` says for which times are estimated; by default this one, measured for a moment. Of ``module`` only the
    nests of modules that begin so are shown.
    """
    from rich.console import Console as RichConsole

    machine = machine or measure()
    console = console or RichConsole()
    costs = Costs.of(program)
    _print_summary(costs, machine, console)
    console.print(_modules(costs, machine, module, rows))
    console.print(_nests(costs, machine, module, rows))


def _print_summary(costs: Costs, machine: MachineSpeed, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    for what, text in _facts(costs, machine):
        table.add_row(Text(what), Text(text))  # labels are a stranger's: no markup
    console.print(table, highlight=False)


def _facts(costs: Costs, machine: MachineSpeed) -> Iterable[tuple[str, str]]:
    program, groups = costs.program, costs.group_words
    yield (
        "program",
        f"0x{program.root.hex()}{' (open: any number of samples and steps)' if program.is_open else ''}",
    )
    yield "nests", f"{len(program.nests):,}, {len(program.encode()):,} bytes in all"
    if "parameters" in groups:
        yield "parameters", f"{groups['parameters']:,}"
    sizes = ", ".join(f"{name} {format_bytes(WORD * words)}" for name, words in groups.items())
    yield "state", f"{format_bytes(WORD * sum(groups.values()))} ({sizes})"
    for name, kind in zip(program.labels.data, program.data, strict=True):
        rows = "any number of" if kind.shape[:1] == (0,) else f"{kind.shape[0]:,}" if kind.shape else "no"
        yield f"data {name}", f"{rows} rows of {_type(kind.dtype, kind.shape[1:])}"
    yield "values", f"{format_bytes(costs.peak)} at most at one time"
    seconds = costs.seconds(machine)
    yield "a step", f"{_count(costs.flops)}FLOP, about {format_time(seconds)}"
    yield "logs", ", ".join(program.labels.logs) or "nothing"
    yield "machine", f"{_count(machine.flops)}FLOP/s, {format_bytes(machine.bandwidth)}/s"


def _table(title: str, *left: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in ("FLOP", "moved", "time", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _modules(costs: Costs, machine: MachineSpeed, prefix: str, rows: int) -> Table:
    from rich.markup import escape

    modules: dict[str, list[NestCost]] = {}
    for nest in costs.nests:
        if nest.module.startswith(prefix):
            modules.setdefault(nest.module, []).append(nest)
    table = _table("Modules, by time", "module", "nests")
    total = costs.seconds(machine)
    order = sorted(modules, key=lambda name: -sum(nest.seconds(machine) for nest in modules[name]))
    for name in order[:rows]:
        table.add_row(escape(name) or "-", str(len(modules[name])), *_numbers(modules[name], machine, total))
    rest = [nest for name in order[rows:] for nest in modules[name]]
    if rest:
        table.add_row(
            f"{len(order) - rows} more", str(len(rest)), *_numbers(rest, machine, total), style="dim"
        )
    return table


def _nests(costs: Costs, machine: MachineSpeed, prefix: str, rows: int) -> Table:

    from rich.markup import escape

    table = _table("Nests, by time", "nest", "shape", "fold")
    total = costs.seconds(machine)
    shown = sorted(
        (nest for nest in costs.nests if nest.module.startswith(prefix)),
        key=lambda nest: -nest.seconds(machine),
    )
    for cost in shown[:rows]:
        name = f"{cost.number}  {cost.module}: {cost.what}" if cost.module else f"{cost.number}  {cost.what}"
        fold = " × ".join(map(str, cost.nest.fold))
        table.add_row(
            escape(name), _type(cost.nest.dtype, cost.nest.outer), fold, *_numbers([cost], machine, total)
        )
    if shown[rows:]:
        table.add_row(
            f"{len(shown) - rows} more", "", "", *_numbers(shown[rows:], machine, total), style="dim"
        )
    return table


def _numbers(nests: Iterable[NestCost], machine: MachineSpeed, total: float) -> tuple[str, str, str, str]:
    part = tuple(nests)
    seconds = sum(nest.seconds(machine) for nest in part)
    flops, moved = sum(nest.flops for nest in part), sum(nest.bytes for nest in part)
    return _count(flops), format_bytes(moved), format_time(seconds), f"{seconds / total:.1%}"


def _type(dtype: DType, shape: tuple[int, ...]) -> str:
    return f"{dtype.name}[{', '.join(map(str, shape))}]"


def _count(number: float) -> str:
    return _scaled(number, {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 0.0})


def format_bytes(number: float) -> str:
    """A number of bytes, for people."""
    return _scaled(number, {"PB": 1e15, "TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 0.0})


def format_duration(seconds: float) -> str:
    """A time of seconds to years, for people."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def format_time(seconds: float) -> str:
    """A time of any length, for people."""
    if seconds >= 120 or not seconds:
        return format_duration(seconds)
    if seconds < 1e-6:
        return f"{seconds / 1e-9:.2g} ns"
    return _scaled(seconds, {"s": 1.0, "ms": 1e-3, "µs": 1e-6})


def _scaled(number: float, units: Mapping[str, float]) -> str:
    """``number`` in the first of the units, greatest first, that it reaches; one of size 0 is for the rest."""
    unit, size = next((unit, size) for unit, size in units.items() if number >= size)
    return f"{number / (size or 1.0):.3g} {unit}"
