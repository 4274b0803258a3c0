"""Times of calls measured in turn, and of what machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from crowdtrain import MachineSpeed
from crowdtrain._explain import measure
from crowdtrain_engine import isas

__all__ = ["FULL", "QUICK", "Call", "Effort", "Measured", "facts", "in_turn", "limits", "run_module"]

BUSY = 0.5
"""Load average above which a machine is not idle."""
SETTLING = 0.02
"""Seconds before a round in which nothing runs: PyTorch's threads spin for some milliseconds after their last work,
and whoever comes next would share a processor with them."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is measured."""

    rounds: int = 9
    seconds: float = 0.3
    """of each round and side, at least"""
    kernel_seconds: float = 0.1
    """the same, for kernels alone"""


FULL = Effort()
QUICK = Effort(rounds=3, seconds=0.05, kernel_seconds=0.02)


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds for one call, round after round."""

    rounds: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """The median."""
        return median(self.rounds)

    def ratio(self, other: Measured) -> tuple[float, float, float]:
        """This time by the other's, by pairs of rounds: the median and the quartiles."""
        pairs = [a / b for a, b in zip(self.rounds, other.rounds, strict=True)]
        low, middle, high = np.percentile(pairs, [25, 50, 75])
        return float(middle), float(low), float(high)


@dataclass(frozen=True, slots=True)
class Call:
    """What is timed, and what is done before each round, untimed."""

    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    most: int = 1 << 30
    """calls of a round, at most"""


def in_turn(calls: Mapping[str, Call], rounds: int, seconds: float) -> dict[str, Measured]:
    """Times each call for at least ``seconds`` in each of some rounds: in each round all of them, in the same order.

    Before a round is timed, the threads of other sides fall asleep, and the call is made once: what another side left
    in the caches is gone.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call.prepare()
            time.sleep(SETTLING)
            call.run()
            count, elapsed, start = 0, 0.0, time.perf_counter()
            while elapsed < seconds and count < call.most:
                call.run()
                count += 1
                elapsed = time.perf_counter() - start
            times[name].append(elapsed / count)
    return {name: Measured(tuple(taken)) for name, taken in times.items()}


def run_module(module: str, *arguments: str, timeout: float | None = None) -> str:
    """What a module of this package prints, run in a process of its own. Raises the errors of ``subprocess.run``."""
    command = [sys.executable, "-m", f"bench.{module}", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    folder = Path(__file__).parents[1]
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=timeout
    )
    return done.stdout


def facts(threads: int) -> dict[str, str | int | float | bool]:
    """What the numbers depend on: processor, versions, and whether anybody else was at work."""
    load = os.getloadavg()[0]
    return {
        "processor": _processor(),
        "isa": os.environ.get("CROWDTRAIN_ISA") or isas()[0],
        "threads": threads,
        "processors": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pytorch": torch.__version__,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "load": round(load, 2),
        "idle": load < BUSY,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))
    }
    named = [fields.get(key, "") for key in ("model name", "cpu family", "model", "stepping")]
    return f"{named[0] or platform.machine()} (family {named[1]}, model {named[2]}, stepping {named[3]})"


def limits(threads: int, effort: Effort) -> dict[str, MachineSpeed]:
    """What the machine can do: a large product and a large copy of PyTorch's, and the same by the engine."""
    torch.set_num_threads(threads)
    n, words = 2048, 1 << 26
    x, y, product = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
    source, copy = torch.ones(words), torch.empty(words)
    calls = {
        "product": Call(lambda: torch.mm(x, y, out=product)),
        "copy": Call(lambda: copy.copy_(source)),
    }
    times = in_turn(calls, effort.rounds, effort.kernel_seconds)
    best = {name: min(measured.rounds) for name, measured in times.items()}
    theirs = MachineSpeed(2 * n**3 / best["product"], 2 * copy.nbytes / best["copy"])
    time.sleep(SETTLING)
    return {"PyTorch": theirs, "engine": measure(threads, effort.rounds * effort.kernel_seconds)}
