"""Running programs: one call for a few steps, an executor for many, and single values for disputes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crowdtrain_engine import reference
from crowdtrain_engine._errors import BackendError, DataError
from crowdtrain_engine.native import NativePlan
from crowdtrain_engine.profile import NestTime
from crowdtrain_engine.program import Program
from crowdtrain_engine.state import Array, Dataset, State

__all__ = ["BACKENDS", "Executor", "execute"]

Words = NDArray[np.uint32]


class Backend(Protocol):
    """A way to run a program; every backend gives the words of the reference."""

    def run(self, state: list[Words], data: list[Words], steps: int) -> list[Words]:
        """Runs ``steps`` steps on flat ``state``, in place; one array ``[steps, words]`` for each log."""

    def values(self, state: list[Words], data: list[Words]) -> list[Words]:
        """Every value of one step, flat; ``state`` stays as it is."""

    def nest(self, number: int, values: Sequence[Words]) -> Words:
        """The output of one nest from the values before it."""

    def profile(self, state: list[Words], data: list[Words], steps: int) -> list[NestTime]:
        """As :meth:`run`, but gives how long the nests took."""

    @property
    def memory(self) -> int:
        """Bytes for all that one nest of a step gives another."""


class ReferenceBackend:
    """The reference interpreter as a backend."""

    def __init__(self, program: Program, threads: int | None = None, isa: str | None = None) -> None:
        self._program = program

    def run(self, state: list[Words], data: list[Words], steps: int) -> list[Words]:
        rows: list[list[Words]] = [[] for _ in self._program.logs]
        for _ in range(steps):
            values = self.values(state, data)
            for row, value in zip(rows, self._program.logs, strict=True):
                row.append(values[value])
            self._move(state, values)
        return [np.stack(row) if row else np.empty((0, 0), np.uint32) for row in rows]

    def values(self, state: list[Words], data: list[Words]) -> list[Words]:
        return [value.copy() for value in reference.run_step(self._program, [*state, *data])]

    def nest(self, number: int, values: Sequence[Words]) -> Words:
        return reference.run_nest(self._program.nests[number], values)

    def profile(self, state: list[Words], data: list[Words], steps: int) -> list[NestTime]:
        seconds = [0.0] * len(self._program.nests)
        for _ in range(steps):
            values = [tensor.copy() for tensor in (*state, *data)]
            for i, nest in enumerate(self._program.nests):
                start = time.perf_counter()
                values.append(reference.run_nest(nest, values))
                seconds[i] += time.perf_counter() - start
            self._move(state, values)
        return [NestTime((i,), "reference", spent) for i, spent in enumerate(seconds)]

    @property
    def memory(self) -> int:
        return sum(4 * nest.type.size for nest in self._program.nests)

    def _move(self, state: list[Words], values: list[Words]) -> None:
        for tensor, value in zip(state, self._program.next, strict=True):
            tensor[:] = values[value]


BACKENDS: Mapping[str, type[ReferenceBackend] | type[NativePlan]] = {
    "native": NativePlan,
    "reference": ReferenceBackend,
}


def words(tensor: Array) -> Words:
    """The words of a tensor, flat, without a copy."""
    return tensor.reshape(-1).view(np.uint32)


class Executor:
    """A program with its data and a state that moves on, step after step.

    Raises ProgramError or DataError if they do not fit together, BackendError for an unknown backend or ISA.
    ``threads`` defaults to the number of processors; ``isa`` to the best that runs here. Neither changes a word.
    """

    def __init__(
        self,
        program: Program,
        state: State,
        data: Dataset,
        *,
        backend: str = "native",
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        if backend not in BACKENDS:
            raise BackendError(f"backend {backend!r} does not exist; there are {', '.join(BACKENDS)}")
        self.program = program.bind(data.rows) if program.is_open else program
        self.program.validate()
        state.check(self.program)
        data.check(self.program)
        self._data = [words(tensor) for tensor in data.tensors.values()]
        self._backend: Backend = BACKENDS[backend](self.program, threads, isa)
        self._load(state)

    def _load(self, state: State) -> None:
        self._state = [words(tensor).copy() for tensor in state.tensors]
        self._copy: State | None = None

    @property
    def state(self) -> State:
        """A copy of the state as it stands."""
        if self._copy is None:
            self._copy = State.from_tensors(
                self.program,
                [
                    tensor.copy().view(kind.dtype.numpy).reshape(kind.shape)
                    for tensor, kind in zip(self._state, self.program.state, strict=True)
                ],
            )
        return self._copy

    @state.setter
    def state(self, state: State) -> None:
        if state is self._copy:
            return  # a checkpoint from which the run goes on
        state.check(self.program)
        self._load(state)

    @property
    def memory(self) -> int:
        """Bytes for all that one nest of a step gives another, as planned; state and data are not in it."""
        return self._backend.memory

    def run(self, steps: int) -> dict[str, Array]:
        """Runs ``steps`` steps; what was logged, each ``[steps, *shape]``. Raises DataError for less than none."""
        self._move_on(steps)
        logs = self._backend.run(self._state, self._data, steps)
        named: dict[str, Array] = {}
        for name, value, rows in zip(self.program.labels.logs, self.program.logs, logs, strict=True):
            kind = self.program.types[value]
            named[name] = rows.view(kind.dtype.numpy).reshape(steps, *kind.shape)
        return named

    def profile(self, steps: int) -> tuple[NestTime, ...]:
        """Runs ``steps`` steps; how long the nests took in them, in the order in which they run.

        A nest on which nothing depends is not run, and not listed. Raises DataError if ``steps`` is negative.
        """
        self._move_on(steps)
        return tuple(self._backend.profile(self._state, self._data, steps))

    def _move_on(self, steps: int) -> None:
        if steps < 0:
            raise DataError(f"steps must not be negative, it is {steps}")
        self._copy = None

    def values(self) -> list[Words]:
        """Every value of the next step, flat; the state stays where it is."""
        return self._backend.values(self._state, self._data)

    def nest(self, number: int, values: Sequence[Words]) -> Words:
        """The output of nest ``number`` from the values before it."""
        return self._backend.nest(number, values)


def execute(
    program: Program,
    state: State,
    data: Dataset,
    *,
    steps: int,
    backend: str = "native",
    threads: int | None = None,
    isa: str | None = None,
) -> tuple[State, dict[str, Array]]:
    """Runs ``steps`` steps of ``program``; the state after them, and what was logged (each ``[steps, *shape]``).

    An open program is bound to ``data`` first. Raises ProgramError or DataError if they do not fit together, and
    BackendError for a backend or ISA that cannot run here.
    """
    executor = Executor(program, state, data, backend=backend, threads=threads, isa=isa)
    logs = executor.run(steps)
    return executor.state, logs
