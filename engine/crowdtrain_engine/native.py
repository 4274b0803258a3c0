"""The native backend: C++ kernels behind the words of the reference."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crowdtrain_engine._errors import BackendError
from crowdtrain_engine.profile import NestTime
from crowdtrain_engine.program import Program

__all__ = ["NativePlan", "isas"]

Words = NDArray[np.uint32]


def isas() -> list[str]:
    """Instruction sets of the native backend that run on this machine, best first."""
    from crowdtrain_engine import _native

    return list(_native.isas())


class NativePlan:
    """A program compiled for one instruction set. ``isa`` names the one that runs."""

    def __init__(self, program: Program, threads: int | None = None, isa: str | None = None) -> None:
        from crowdtrain_engine import _native

        available = isas()
        chosen = isa or os.environ.get("CROWDTRAIN_ISA") or available[0]
        if chosen not in available:
            raise BackendError(
                f"instruction set {chosen!r} does not run here; there are {', '.join(available)}"
            )
        header, _, *nests = program.leaves
        self._plan = _native.Plan(header, list(nests), chosen, threads or os.cpu_count() or 1)
        self.isa: str = self._plan.isa

    def run(self, state: list[Words], data: list[Words], steps: int) -> list[Words]:
        """See :class:`crowdtrain_engine.execution.Backend`."""
        return list(self._plan.run(state, data, steps))

    def values(self, state: list[Words], data: list[Words]) -> list[Words]:
        """See :class:`crowdtrain_engine.execution.Backend`."""
        return list(self._plan.values(state, data))

    def nest(self, number: int, values: Sequence[Words]) -> Words:
        """See :class:`crowdtrain_engine.execution.Backend`."""
        return self._plan.nest(number, list(values))

    def profile(self, state: list[Words], data: list[Words], steps: int) -> list[NestTime]:
        """See :class:`crowdtrain_engine.execution.Backend`."""
        kinds = self._plan.kinds()
        return [
            NestTime(tuple(nests), kinds[nests[0]] if len(nests) == 1 else "rows", nanoseconds / 1e9)
            for nests, nanoseconds in self._plan.profile(state, data, steps)
        ]

    @property
    def memory(self) -> int:
        """See :class:`crowdtrain_engine.execution.Backend`."""
        return self._plan.memory
