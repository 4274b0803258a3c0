"""What is to be done, as far as time, bytes and money go: the segments of a plan and the groups between them.

A blueprint is turned into a workload; a plan that is too large to be built is outlined (:mod:`.outline`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from crowdtrain_engine import Program
from crowdtrain_engine.trace import checkpoint_count
from crowdtrain_engine.validation import cost

from crowdtrain._errors import PlanError
from crowdtrain.chain import Source
from crowdtrain.strategies.blueprint import Blueprint
from crowdtrain.tensors import group_types

__all__ = ["MAX_GROUPS", "MAX_TASKS", "Task", "Workload", "check_number"]

MAX_TASKS = 2**20
"""most segments that are simulated"""
MAX_GROUPS = 2**22
INITIALLY = -1
"""stands for the segment that made a group which is there from the beginning"""


def check_number(what: str, value: float, *, least: float = 0.0, above: bool = False) -> None:
    """Raises PlanError unless ``value`` is a number of at least ``least``, or ``above`` it; infinity is one."""
    if not isinstance(value, int | float) or not (value > least if above else value >= least):
        raise PlanError(f"{what} must be {'more than' if above else 'at least'} {least:g}, it is {value}")


@dataclass(frozen=True, slots=True)
class Task:
    """A segment. Groups are numbers of the workload's ``sizes``."""

    operations: float
    """body operations, as ``cost`` counts them"""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    memory: float = 0.0
    """bytes that the machine needs"""
    worker: int | None = None
    """segments of one worker are best done by one machine; None for those that belong to no worker"""
    what: str = "train"
    round: int = 0
    price: float = 0.0
    fallbacks: tuple[int, ...] = ()
    """what takes the place of each input that is not there when the segment is claimed; the input itself if it must be
    there, and nothing if all must"""
    quorum: int = 0
    """least number of inputs with another fallback that must be there"""
    checkpoints: int = 1
    """states like its output that are hashed and written while it is done"""

    @property
    def groups(self) -> tuple[int, ...]:
        """Inputs and fallbacks."""
        return self.inputs + self.fallbacks


@dataclass(frozen=True)
class Workload:
    """Segments, each after those it builds on. Raises PlanError for what cannot be one."""

    sizes: tuple[float, ...] = field(repr=False)
    """bytes of each group; a group that no segment makes is in the store from the beginning"""
    tasks: tuple[Task, ...] = field(repr=False)
    result: frozenset[int] = field(default=frozenset(), repr=False)
    """groups that the buyer wants"""

    def __post_init__(self) -> None:
        if not 1 <= len(self.tasks) <= MAX_TASKS or len(self.sizes) > MAX_GROUPS:
            raise PlanError(
                f"1 to {MAX_TASKS} segments with up to {MAX_GROUPS} groups can be simulated, "
                f"not {len(self.tasks)} with {len(self.sizes)}"
            )
        for group, size in enumerate(self.sizes):
            if not 0 <= size < math.inf:
                raise PlanError(f"group {group} cannot have {size} bytes")
        makers = self.makers
        for index, task in enumerate(self.tasks):
            for what in ("operations", "memory", "price"):
                value = getattr(task, what)
                if not 0 <= value < math.inf:
                    raise PlanError(f"segment {index}: {what} cannot be {value}")
            for group in task.groups:
                if not 0 <= group < len(self.sizes) or makers[group] >= index:
                    raise PlanError(f"segment {index} needs group {group}, which nothing before it makes")
            optional = sum(i != other for i, other in zip(task.inputs, task.fallbacks, strict=False))
            if len(task.fallbacks) not in (0, len(task.inputs)) or not 0 <= task.quorum <= optional:
                raise PlanError(
                    f"segment {index} has {optional} optional inputs, of which it needs {task.quorum}"
                )
        if any(not 0 <= group < len(self.sizes) for group in self.result):
            raise PlanError("the result is made of groups that are not there")

    @classmethod
    def of(cls, blueprint: Blueprint, operations: Callable[[Program], float] | None = None) -> Workload:
        """What a blueprint asks for. A group that a program leaves alone stays the group that it was.

        ``operations`` says what a step of a program is worth, by default what :func:`cost` counts; with the seconds
        that it takes on some machine, that machine has the speed 1.
        """
        from crowdtrain.runs import memory_needed

        work = operations or (lambda program: cost(program).operations)
        worth = {program.root: work(program) for program in blueprint.programs}
        needs = {program.root: float(memory_needed(program)) for program in blueprint.programs}
        kinds = {program.root: group_types(program) for program in blueprint.programs}
        kept = {program.root: _unchanged(program) for program in blueprint.programs}
        sizes: list[float] = []
        numbers: dict[Source | bytes, int] = {}

        def group(key: Source | bytes, size: float) -> int:
            if key not in numbers:
                numbers[key] = len(sizes)
                sizes.append(size)
            return numbers[key]

        used = {source for spec in blueprint.plan.segments for source in spec.all_sources}
        used |= {piece.source for piece in blueprint.result}
        tasks = []
        for index, spec in enumerate(blueprint.plan.segments):
            root, role, optional = spec.program_root, blueprint.roles[index], spec.optional
            bytes_of = [4.0 * sum(kind.size for kind in types) for types in kinds[root]]
            inputs = [group(source, bytes_of[i]) for i, source in enumerate(spec.inputs)]
            fallbacks = [group(source, bytes_of[i]) for i, source in enumerate(spec.fallbacks)]
            outputs = []
            for i, is_kept in enumerate(kept[root]):
                source = Source(index, i)
                if is_kept and not optional[i]:
                    numbers[source] = inputs[i]
                elif (
                    not is_kept or source in used
                ):  # which input an optional one was is only known when it is claimed
                    outputs.append(group(source, bytes_of[i]))
            data = blueprint.dataset(index)
            if data.tensors:
                inputs.append(group(spec.data_root, sum(tensor.nbytes for tensor in data.tensors.values())))
                fallbacks += inputs[-1:] if fallbacks else []
            inputs = inputs if fallbacks else list(dict.fromkeys(inputs))
            tasks.append(
                Task(
                    spec.steps * worth[root], tuple(inputs), tuple(outputs), needs[root], role.worker, role.what,
                    role.round, spec.price, tuple(fallbacks), spec.quorum, checkpoint_count(spec.steps, spec.interval),
                )
            )  # fmt: skip
        result = frozenset(numbers[piece.source] for piece in blueprint.result)
        return cls(tuple(sizes), tuple(tasks), result)

    @cached_property
    def makers(self) -> tuple[int, ...]:
        """The segment that makes each group, or -1. Raises PlanError if several do."""
        makers = [INITIALLY] * len(self.sizes)
        for index, task in enumerate(self.tasks):
            for group in task.outputs:
                if not 0 <= group < len(makers) or makers[group] != INITIALLY:
                    raise PlanError(
                        f"segment {index} cannot make group {group}: it is not there, or made twice"
                    )
                makers[group] = index
        return tuple(makers)

    @cached_property
    def sources(self) -> tuple[frozenset[int], ...]:
        """The segments that each segment builds on, or may."""
        makers = self.makers
        return tuple(frozenset(makers[g] for g in task.groups) - {INITIALLY} for task in self.tasks)

    @cached_property
    def private(self) -> frozenset[int]:
        """Groups that a worker makes, and nobody but the same worker needs."""
        shared = set(self.result)
        for task in self.tasks:
            shared.update(g for g in task.groups if not self._is_own(g, task.worker))
        return frozenset(
            g for g, maker in enumerate(self.makers)
            if g not in shared and maker != INITIALLY and self.tasks[maker].worker is not None
        )  # fmt: skip

    def _is_own(self, group: int, worker: int | None) -> bool:
        maker = self.makers[group]
        return maker != INITIALLY and worker is not None and self.tasks[maker].worker == worker

    @property
    def operations(self) -> float:
        """Of all segments."""
        return math.fsum(task.operations for task in self.tasks)

    @property
    def price(self) -> float:
        """Of all segments."""
        return math.fsum(task.price for task in self.tasks)

    def bytes(self, groups: Iterable[int]) -> float:
        """Of some groups together, each counted once."""
        return sum(self.sizes[group] for group in dict.fromkeys(groups))


def _unchanged(program: Program) -> list[bool]:
    """Of each group: whether a step leaves it as it is."""
    bounds = program.bounds
    return [
        all(program.next[i] == i for i in range(bounds[g], bounds[g + 1])) for g in range(len(program.groups))
    ]
