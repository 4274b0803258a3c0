"""Training steps beside eager PyTorch's: time, memory, commitments, threads, and what the time is spent on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from crowdtrain._explain import Costs
from crowdtrain_engine import Executor, Program

from bench.cases import CASES, MAX_STEPS, Eager, Lowered, Ours, Side
from bench.memory import measure_memory
from bench.timing import Call, Effort, Measured, in_turn, run_module

__all__ = ["INTERVAL", "Share", "Trained", "committing", "measure_training", "profile", "try_compiled"]

INTERVAL = 20
"""Steps between two checkpoints."""
CHECKED = 5
"""Steps after which losses are compared."""


@dataclass(frozen=True)
class Share:
    """What nests of one kind do in a step."""

    kind: str
    groups: int
    """nests, or groups of nests that run together"""
    seconds: float
    flops: int | None
    """None for scatters, which skip most of the operations that their nests describe"""
    bytes: int
    """words that come from outside of a group or are used there, 4 bytes each, once for each group"""


@dataclass(frozen=True)
class Trained:
    """A case, measured."""

    name: str
    parameters: int
    nests: int
    lowering: float
    """seconds"""
    flops: int
    """of a step"""
    times: dict[str, Measured]
    """of a step: ``ours``, ``eager``, ``compiled`` where that works, ``ours_1`` and ``eager_1`` with one thread"""
    compiled: str
    """why there is no ``compiled``"""
    loss_error: float
    """relative difference between the losses of ours and eager PyTorch's after a few steps"""
    memory: dict[str, int] | None
    """bytes that are resident at most, above what is after imports: ``ours`` and ``eager``"""
    arena: int
    """bytes planned for what one nest gives another"""
    committing: float
    """share of the time in which checkpoints are made and hashed"""
    profile: tuple[Share, ...]

    @property
    def scaling(self) -> float | None:
        """How many times faster ours is with all threads than with one; None if it was not measured."""
        return self.times["ours_1"].ratio(self.times["ours"])[0] if "ours_1" in self.times else None


def measure_training(
    name: str,
    threads: int,
    effort: Effort,
    compile_seconds: float,
    say: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Measures a case. ``torch.compile`` has so many seconds, none if 0. ``say`` is told what is being done."""
    case = CASES[name]
    say("lowering")
    start = time.perf_counter()
    lowered = Lowered(case)
    lowering = time.perf_counter() - start
    ours = Ours(lowered, threads)
    sides: dict[str, Side] = {"ours": ours, "eager": Eager(case, threads)}
    loss_error = _compare(ours, sides["eager"])
    say("torch.compile")
    reason = try_compiled(name, threads, compile_seconds)
    if not reason:
        sides["compiled"] = Eager(case, threads, compiled=True)
        sides["compiled"].step()
    if threads > 1:
        sides |= {"ours_1": Ours(lowered, 1), "eager_1": Eager(case, 1)}
    say("training in turn")
    calls = {side: Call(it.step, it.reset, MAX_STEPS - 2) for side, it in sides.items()}
    times = in_turn(calls, effort.rounds, effort.seconds)
    say("profile")
    ours.reset()
    shares = profile(lowered.program, ours.executor, effort)
    say("commitments")
    committed = committing(ours, effort)
    say("memory")
    return Trained(
        name, lowered.parameters, len(lowered.program.nests), lowering, Costs.of(lowered.program).flops, times,
        reason, loss_error, measure_memory(name, threads), ours.executor.memory, committed, shares,
    )  # fmt: skip


def _compare(ours: Side, eager: Side) -> float:
    ours.reset()
    eager.reset()
    pairs = [(ours.loss(), eager.loss()) for _ in range(CHECKED)]
    return max(abs(a - b) / abs(b) for a, b in pairs)


# ---------------------------------------------------------------- torch.compile


def try_compiled(name: str, threads: int, seconds: float) -> str:
    """Why ``torch.compile`` cannot be measured, or nothing: one step of it is tried in a process of its own, whose
    compiled code the next process finds in PyTorch's cache.
    """
    if not seconds:
        return "not asked for"
    try:
        run_module("training", name, str(threads), timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"not compiled within {seconds:g} s"
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"it ended with {error.returncode}"]
        reason: str = next((line for line in reversed(lines) if "Error" in line), lines[-1])
        return reason[:200]
    return ""


def main() -> None:
    """Compiles a case and trains two steps."""
    side = Eager(CASES[sys.argv[1]], int(sys.argv[2]), compiled=True)
    side.step()
    side.step()


# ---------------------------------------------------------------- commitments


def committing(ours: Ours, effort: Effort) -> float:
    """The share of time that checkpoints take: as :class:`crowdtrain_engine.trace.Machine` makes them, the state is
    copied, hashed, and taken up again.
    """
    executor = ours.executor
    shares: list[float] = []
    ours.reset()
    until = time.perf_counter() + effort.rounds * effort.seconds / 3
    while len(shares) < 3 or time.perf_counter() < until:
        start = time.perf_counter()
        executor.run(INTERVAL)
        trained = time.perf_counter()
        state = executor.state
        _ = state.root
        executor.state = state
        end = time.perf_counter()
        shares.append((end - trained) / (end - start))
    return median(shares)


# ---------------------------------------------------------------- what the time is spent on


def profile(program: Program, executor: Executor, effort: Effort) -> tuple[Share, ...]:
    """What each kind of nest does in a step, the dearest first; medians of some rounds of steps."""
    executor.run(1)
    rounds = []
    for _ in range(effort.rounds):
        start, steps = time.perf_counter(), 0
        total: list[float] = []
        while time.perf_counter() - start < effort.seconds / 3 or not steps:
            groups = executor.profile(1)
            total = [a + group.seconds for a, group in zip(total or [0.0] * len(groups), groups, strict=True)]
            steps += 1
        rounds.append([seconds / steps for seconds in total])
    groups = executor.profile(0)
    seconds = [median(times) for times in zip(*rounds, strict=True)]
    costs = Costs.of(program).nests
    readers = _readers(program)
    shares: dict[str, Share] = {}
    for group, spent in zip(groups, seconds, strict=True):
        old = shares.get(group.kind, Share(group.kind, 0, 0.0, 0, 0))
        flops = (
            None if group.kind == "scatter" else (old.flops or 0) + sum(costs[n].flops for n in group.nests)
        )
        moved = old.bytes + _moved(program, group.nests, readers)
        shares[group.kind] = Share(group.kind, old.groups + 1, old.seconds + spent, flops, moved)
    return tuple(sorted(shares.values(), key=lambda share: -share.seconds))


def _readers(program: Program) -> dict[int, set[int]]:
    """By value: the nests that read it; -1 stands for the next state and the logs."""
    readers: dict[int, set[int]] = {}
    for value in (*program.next, *program.logs):
        readers.setdefault(value, set()).add(-1)
    for i, nest in enumerate(program.nests):
        for read in nest.reads:
            readers.setdefault(read.value, set()).add(i)
    return readers


def _moved(program: Program, nests: tuple[int, ...], readers: dict[int, set[int]]) -> int:
    """Bytes that a group reads from outside, and writes for others."""
    outputs = {program.first_nest + n for n in nests}
    words: dict[int, int] = {}
    for n in nests:
        nest = program.nests[n]
        for read in nest.reads:
            if read.value not in outputs:
                size = min(program.types[read.value].size, nest.type.size * nest.fold_length)
                words[read.value] = max(words.get(read.value, 0), size)
    written = [value for value in outputs if readers.get(value, set()) - set(nests)]
    return 4 * (sum(words.values()) + sum(program.types[value].size for value in written))


if __name__ == "__main__":
    main()
