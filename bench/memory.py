"""The memory that a side needs to train a case, in a process of its own: ``python -m bench.memory SIDE …``.

What is measured is the most that is resident while the side is set up and trains a few steps, above what is resident
after its imports. Ours reads a job's files, as a solver does, and so without PyTorch.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

STEPS = 3
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

__all__ = ["measure_memory"]


def _status(field: str) -> int:
    """Bytes of a field of Linux's /proc/self/status."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return 1024 * int(line.split()[1])


def _train_ours(folder: Path, threads: int) -> int:
    from crowdtrain.bundle import load_bundle
    from crowdtrain_engine import Executor

    before = _begin()
    job = load_bundle(folder)
    executor = Executor(job.program, job.state, job.data, threads=threads)
    del job
    executor.run(STEPS)
    return _status("VmHWM") - before


def _train_eager(name: str, threads: int) -> int:
    from bench.cases import CASES, Eager

    before = _begin()
    side = Eager(CASES[name], threads)
    for _ in range(STEPS):
        side.step()
    return _status("VmHWM") - before


def _begin() -> int:
    """What is resident now; from here on the most that is resident is measured."""
    _CLEAR.write_text("5")
    return _status("VmRSS")


def measure_memory(name: str, threads: int) -> dict[str, int] | None:
    """Bytes that ours and eager PyTorch need at most; None where the system does not tell."""
    if not _CLEAR.exists():
        return None
    from crowdtrain import save_bundle

    from bench.cases import CASES, Lowered
    from bench.timing import run_module

    with tempfile.TemporaryDirectory() as folder:
        lowered = Lowered(CASES[name], STEPS)
        save_bundle(Path(folder), lowered.program, lowered.data, lowered.state)
        commands = {"ours": folder, "eager": name}
        return {side: int(run_module("memory", side, what, str(threads))) for side, what in commands.items()}


def main() -> None:
    side, what, threads = sys.argv[1:]
    print(_train_ours(Path(what), int(threads)) if side == "ours" else _train_eager(what, int(threads)))


if __name__ == "__main__":
    main()
