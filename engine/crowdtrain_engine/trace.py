"""Running a segment checkpoint by checkpoint, and taking it apart again when it is disputed.

:func:`run_segment` gives the checkpoints whose roots make the trace. :class:`Replay` computes the finer
commitments of docs/PROTOCOL.md on demand: the states inside an interval, the values of a step, the partial
sums of a fold. A :class:`Deviation` makes both consistently wrong, for tests and demonstrations of
dishonest solvers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from crowdtrain_engine import merkle, reference
from crowdtrain_engine.execution import Executor
from crowdtrain_engine.program import Nest, Program
from crowdtrain_engine.state import Array, Dataset, State

__all__ = [
    "Checkpoint",
    "Deviation",
    "Machine",
    "Replay",
    "StateTrees",
    "Step",
    "accumulators",
    "checkpoint_count",
    "run_segment",
    "seal",
    "trace_root",
]

Words = NDArray[np.uint32]
RunNest = Callable[[int, Sequence[Words]], Words]

_BLOCK = 1 << 12
"""Fold iterations whose operands are read at once."""


def checkpoint_count(steps: int, interval: int) -> int:
    """Checkpoints after the input: one every ``interval`` steps, and the output."""
    return -(-steps // interval)


def trace_root(checkpoints: Sequence[bytes]) -> bytes:
    """Root over the state roots at checkpoints 0 … m."""
    return merkle.root(checkpoints)


def seal(trace_root: bytes, solver: bytes) -> bytes:
    """What a solver (20 bytes of address) commits to before the trace is shown."""
    return sha256(trace_root + solver).digest()


class Deviation:
    """How a dishonest solver departs from the program; this base class departs in nothing.

    Every hook must give the same answer each time it is asked the same, so that a lie can be defended.
    Steps are counted from 0 in the segment.
    """

    def program(self, program: Program) -> Program:
        """The program that is run instead; same values, types and labels."""
        return program

    def data(self, data: Dataset) -> Dataset:
        """The data that are read instead; same names, types and shapes."""
        return data

    def acts(self, step: int) -> bool:
        """Whether :meth:`step` changes this step. All other steps run at full speed."""
        return False

    def step(
        self, step: int, program: Program, values: list[Words], nest: RunNest
    ) -> tuple[list[Words], list[Words]]:
        """The values and the next state's tensors that are claimed for a step in which this acts.

        ``values`` are those that ``program`` gives, flat; ``nest(i, values)`` computes the output of its nest
        ``i`` from given values.
        """
        return values, [values[value] for value in program.next]

    def root(self, checkpoint: int, root: bytes) -> bytes:
        """The root that stands in the trace at ``checkpoint``, where the state's is ``root``."""
        return root


class Machine:
    """A program with its data, run on any state of a segment, honestly or with a :class:`Deviation`.

    ``backend``, ``threads`` and ``isa`` are those of :class:`Executor`, whose errors the first use raises.
    """

    def __init__(
        self,
        program: Program,
        data: Dataset,
        *,
        backend: str = "native",
        threads: int | None = None,
        isa: str | None = None,
        deviation: Deviation | None = None,
    ) -> None:
        self.program = program.bind(data.rows) if program.is_open else program
        self.data = data
        self.deviation = deviation or Deviation()
        self._options = {"backend": backend, "threads": threads, "isa": isa}
        self._executor: Executor | None = None

    def _at(self, state: State) -> Executor:
        if self._executor is None:
            program, data = self.deviation.program(self.program), self.deviation.data(self.data)
            self._executor = Executor(program, state, data, **self._options)  # type: ignore[arg-type]
        else:
            self._executor.state = state
        return self._executor

    def run(self, state: State, first: int, steps: int) -> tuple[State, dict[str, Array]]:
        """The state after steps ``first … first + steps - 1`` of the segment, and what they logged."""
        executor = self._at(state)
        parts: list[dict[str, Array]] = []
        step, stop = first, first + steps
        while step < stop:
            altered = next((s for s in range(step, stop) if self.deviation.acts(s)), stop)
            parts.append(executor.run(altered - step))
            if altered < stop:
                values, following = self._altered(executor, altered)
                parts.append(_logs(executor.program, values))
                executor.state = _state(executor.program, following)
            step = altered + 1
        return executor.state, {
            name: np.concatenate([part[name] for part in parts]) for name in self.program.labels.logs
        }

    def step(self, state: State, number: int) -> Step:
        """Step ``number`` of the segment from ``state``, with everything that it computes."""
        executor = self._at(state)
        if self.deviation.acts(number):
            values, following = self._altered(executor, number)
        else:
            values = executor.values()
            following = [values[value] for value in executor.program.next]
        after = _state(executor.program, following)
        return Step(self.program, executor.program.nests, self.data, state, values, after)

    def nest(self, state: State, number: int, values: Sequence[Words]) -> Words:
        """The output of nest ``number`` from ``values``; ``state`` is any that fits the program."""
        return self._at(state).nest(number, values)

    def _altered(self, executor: Executor, step: int) -> tuple[list[Words], list[Words]]:
        return self.deviation.step(step, executor.program, executor.values(), executor.nest)


def _state(program: Program, tensors: Sequence[Words]) -> State:
    return State.from_tensors(
        program,
        [
            words.copy().view(kind.dtype.numpy).reshape(kind.shape)
            for words, kind in zip(tensors, program.state, strict=True)
        ],
    )


def _logs(program: Program, values: Sequence[Words]) -> dict[str, Array]:
    return {
        name: values[value].view(program.types[value].dtype.numpy).reshape(1, *program.types[value].shape)
        for name, value in zip(program.labels.logs, program.logs, strict=True)
    }


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state of the trace. ``logs`` are those since the checkpoint before, each ``[steps, *shape]``."""

    number: int
    step: int
    """steps run so far"""
    state: State
    root: bytes
    """what stands in the trace"""
    logs: dict[str, Array]


def run_segment(
    machine: Machine, state: State, *, steps: int, interval: int, start: int = 0
) -> Iterator[Checkpoint]:
    """Runs a segment and yields its checkpoints, one by one as they are reached.

    From the start: ``state`` is the input, and the first checkpoint is number 0, the input itself. To go on
    from checkpoint ``start``: ``state`` is its state, and the first that is yielded is number ``start + 1``.
    """
    if start == 0:
        yield Checkpoint(0, 0, state, machine.deviation.root(0, state.root), {})
    for number in range(start + 1, checkpoint_count(steps, interval) + 1):
        first = (number - 1) * interval
        length = min(interval, steps - first)
        state, logs = machine.run(state, first, length)
        yield Checkpoint(number, first + length, state, machine.deviation.root(number, state.root), logs)


class StateTrees:
    """The Merkle trees of a state: one over each group's tensors, and one over the groups."""

    def __init__(self, program: Program, state: State) -> None:
        roots = merkle.tensor_roots(state.tensors)
        bounds = program.bounds
        self.tensors = [merkle.Tree(roots[a:b]) for a, b in pairwise(bounds)]
        self.groups = merkle.Tree([tree.root for tree in self.tensors])
        self._roots = roots
        self._bounds = bounds

    def root(self, tensor: int) -> bytes:
        """Root of state tensor number ``tensor``."""
        return self._roots[tensor]

    def proof(self, tensor: int) -> list[bytes]:
        """Siblings of state tensor number ``tensor`` in its group, then of the group in the state."""
        group = sum(start <= tensor for start in self._bounds[1:])
        return self.tensors[group].proof(tensor - self._bounds[group]) + self.groups.proof(group)


class Step:
    """One step taken apart: its values with their pages and trees, and what proves each of them.

    ``nests`` are the nests that were really run: a deviating solver's partial sums come from them.
    """

    def __init__(
        self,
        program: Program,
        nests: Sequence[Nest],
        data: Dataset,
        before: State,
        values: Sequence[Words],
        after: State,
    ) -> None:
        self.program = program
        self.nests = nests
        self.values = values
        self._data = data
        self._before = before
        self._after = after
        self._pages: tuple[int, merkle.Tree] | None = None

    @cached_property
    def before(self) -> StateTrees:
        """Trees of the state before the step."""
        return StateTrees(self.program, self._before)

    @cached_property
    def after(self) -> StateTrees:
        """Trees of the state after it."""
        return StateTrees(self.program, self._after)

    @cached_property
    def data(self) -> merkle.Tree:
        """Tree over the dataset's tensors."""
        return merkle.Tree(self._data.roots)

    @cached_property
    def outputs(self) -> merkle.Tree:
        """Tree over the tensor roots of the nests' outputs."""
        return merkle.Tree(merkle.tensor_roots(self.values[self.program.first_nest :]))

    def page(self, value: int, index: int) -> bytes:
        """Page ``index`` of a value: 1,024 bytes."""
        return merkle.page(self.values[value], index)

    def pages(self, value: int) -> merkle.Tree:
        """Tree over the pages of a value. The one asked for last is kept."""
        if self._pages is None or self._pages[0] != value:
            self._pages = value, merkle.tensor_tree(self.values[value])
        return self._pages[1]

    def value_root(self, value: int) -> tuple[bytes, list[bytes]]:
        """Tensor root of a value, and its siblings in group and state, in the dataset, or among the
        outputs.
        """
        state, first = len(self.program.state), self.program.first_nest
        if value < state:
            return self.before.root(value), self.before.proof(value)
        if value < first:
            return self.data.levels[0][value - state], self.data.proof(value - state)
        return self.outputs.levels[0][value - first], self.outputs.proof(value - first)

    def accumulators(
        self, value: int, word: int, stops: Sequence[int], start: int = 0, accumulator: int | None = None
    ) -> list[int]:
        """See :func:`accumulators`, for a word of the nest whose output is ``value``."""
        nest = self.nests[value - self.program.first_nest]
        return accumulators(nest, self.values, word, stops, start, accumulator)


def accumulators(
    nest: Nest,
    values: Sequence[Words],
    word: int,
    stops: Sequence[int],
    start: int = 0,
    accumulator: int | None = None,
) -> list[int]:
    """Accumulators of output ``word`` after fold iterations ``start … stop - 1``, for each of ascending
    stops.

    ``accumulator`` is the one before ``start``; by default the nest's ``init``. One iteration after
    another, as the meaning of a fold demands.
    """
    found: list[int] = []
    acc = np.full(1, nest.init if accumulator is None else accumulator, np.uint32)
    at = start
    for stop in stops:
        while at < stop:
            end = min(stop, at + _BLOCK)
            iterations = np.arange(at, end)
            block = [
                words
                for words, _ in reference.reads(nest, values, np.full_like(iterations, word), iterations)
            ]
            for i in range(end - at):
                acc = reference.body(nest, acc, [words[i : i + 1] for words in block])
            at = end
        found.append(int(acc[0]))
    return found


class Replay:
    """A segment as one machine ran it, taken apart on demand. What was asked for last is kept.

    ``trace`` holds the roots at all checkpoints; ``state_at(i)`` gives the state of checkpoint ``i`` (of any
    but the last), from wherever the run has stored it.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        steps: int,
        interval: int,
        trace: Sequence[bytes],
        state_at: Callable[[int], State],
    ) -> None:
        self.machine = machine
        self.program = machine.program
        self.steps = steps
        self.interval = interval
        self.trace = tuple(trace)
        self.state_at = state_at
        self._states: tuple[int, tuple[bytes, ...]] | None = None
        self._step: tuple[int, Step] | None = None

    @classmethod
    def run(cls, machine: Machine, state: State, *, steps: int, interval: int) -> Replay:
        """Runs the segment and keeps the states of its checkpoints in memory."""
        checkpoints = list(run_segment(machine, state, steps=steps, interval=interval))
        trace = [checkpoint.root for checkpoint in checkpoints]
        return cls(
            machine, steps=steps, interval=interval, trace=trace, state_at=lambda i: checkpoints[i].state
        )

    def states(self, checkpoint: int) -> tuple[bytes, ...]:
        """State roots of the interval that ends at ``checkpoint`` (≥ 1), both ends included."""
        if self._states is None or self._states[0] != checkpoint:
            first = (checkpoint - 1) * self.interval
            state = self.state_at(checkpoint - 1)
            roots = [state.root]
            for step in range(first, min(first + self.interval, self.steps)):
                state, _ = self.machine.run(state, step, 1)
                roots.append(state.root)
            self._states = checkpoint, tuple(roots)
        return self._states[1]

    def step(self, number: int) -> Step:
        """Step ``number`` of the segment, from 0, with everything that it computes."""
        if self._step is None or self._step[0] != number:
            checkpoint, offset = divmod(number, self.interval)
            state = self.state_at(checkpoint)
            if offset:
                state, _ = self.machine.run(state, checkpoint * self.interval, offset)
            self._step = number, self.machine.step(state, number)
        return self._step[1]
