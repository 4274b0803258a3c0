"""A plan with everything that it needs, and how to write one: segments whose groups feed one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from crowdtrain_engine import Dataset, DType, Program, State, TensorType, merkle
from crowdtrain_engine.state import Array
from crowdtrain_engine.validation import cost

from crowdtrain._errors import PlanError
from crowdtrain.chain import INITIAL, SegmentSpec, Source
from crowdtrain.plan import MAX_GROUPS, Piece, Plan, assemble, interval_of
from crowdtrain.strategies.programs import Written
from crowdtrain.tensors import group_types

__all__ = ["Blueprint", "Draft", "Either", "Piece", "Ref", "Role", "no_data"]


@dataclass(frozen=True, slots=True)
class Role:
    """What a segment is for. Segments of one ``worker`` are best done by one machine, which then has their inputs."""

    what: str
    """``"train"``, ``"encode"``, ``"merge"`` and so on"""
    round: int = 0
    worker: int | None = None
    """None for a segment that belongs to no worker"""

    def __str__(self) -> str:
        whose = "" if self.worker is None else f" of worker {self.worker}"
        return f"{self.what}{whose}, round {self.round}"


@dataclass(frozen=True, slots=True)
class Ref:
    """A group of tensors: where it comes from, and the types of its tensors."""

    source: Source
    types: tuple[TensorType, ...]

    @property
    def size(self) -> int:
        """Bytes of the tensors."""
        return 4 * sum(kind.size for kind in self.types)


@dataclass(frozen=True, slots=True)
class Either:
    """A group, or another one if its segment is not committed when it is needed."""

    ref: Ref
    fallback: Ref


@dataclass(frozen=True)
class Blueprint:
    """A plan, and what solvers need to carry it out."""

    plan: Plan
    programs: tuple[Program, ...] = field(repr=False)
    datasets: tuple[Dataset, ...] = field(repr=False)
    initial: State = field(repr=False)
    roles: tuple[Role, ...] = field(repr=False)
    """of each segment"""
    result: tuple[Piece, ...] = field(repr=False)
    """what the trained model is made of"""

    @property
    def workers(self) -> int:
        """Number of machines that can be at work side by side."""
        return 1 + max((role.worker for role in self.roles if role.worker is not None), default=0)

    def program(self, index: int) -> Program:
        """The program of segment ``index``."""
        return self._programs[self.plan.segments[index].program_root]

    def dataset(self, index: int) -> Dataset:
        """The dataset of segment ``index``."""
        return self._datasets[self.plan.segments[index].data_root]

    def assemble(self, outputs: Callable[[Source], Sequence[Array]]) -> State:
        """The trained model's state, for ``load_into``; ``outputs`` gives the tensors of a group, in order."""
        return assemble(self.result, outputs)

    @cached_property
    def _programs(self) -> Mapping[bytes, Program]:
        return {program.root: program for program in self.programs}

    @cached_property
    def _datasets(self) -> Mapping[bytes, Dataset]:
        return {data.root: data for data in self.datasets}


def no_data() -> Dataset:
    """The dataset of a program that reads none."""
    return Dataset.from_tensors({})


@dataclass
class _Planned:
    program: Program
    data: Dataset
    inputs: tuple[Source, ...]
    fallbacks: tuple[Source, ...]
    quorum: int
    steps: int
    interval: int
    role: Role


class Draft:
    """A plan in the making: groups to begin with, then segments, each after those it builds on."""

    def __init__(self) -> None:
        self._initial: dict[str, Mapping[str, Array]] = {}
        self._segments: list[_Planned] = []
        self._bound: dict[tuple[int, tuple[int, ...]], tuple[Program, Program]] = {}
        self._begun: dict[tuple[tuple[TensorType, ...], bytes], Ref] = {}
        self._started: dict[tuple[int, str], tuple[Written, Ref]] = {}
        self._zeros: dict[tuple[TensorType, ...], Ref] = {}

    def begin(self, name: str, tensors: Mapping[str, Array]) -> Ref:
        """A group of the initial state, called about ``name``; or one that holds the same words, if there is one."""
        arrays = State({name: tensors}).tensors
        types = tuple(TensorType(DType.of(array.dtype), array.shape) for array in arrays)
        key = (types, merkle.root([merkle.tensor_root(array) for array in arrays]))
        if key not in self._begun:
            free = name if name not in self._initial else f"{name} ({len(self._initial)})"
            self._initial[free] = tensors
            self._begun[key] = Ref(Source(INITIAL, len(self._initial) - 1), types)
        return self._begun[key]

    def zeros(self, program: Program, group: str) -> Ref:
        """A group of words 0, of the types that ``group`` has in ``program``."""
        types = group_types(program)[program.labels.groups.index(group)]
        if types not in self._zeros:
            tensors = {str(i): np.zeros(kind.shape, kind.dtype.numpy) for i, kind in enumerate(types)}
            self._zeros[types] = self.begin("zeros", tensors)
        return self._zeros[types]

    def apply(
        self, written: Written, inputs: Mapping[str, Ref | Either], role: Role, *, quorum: int = 0
    ) -> dict[str, Ref]:
        """A segment of one step of a program that reads no data. Groups that ``inputs`` does not give begin as the
        program says, the same for everybody."""
        started = {}
        for group, tensors in written.initial.items():
            if group not in inputs:
                key = (id(written), group)
                if key not in self._started:
                    ref = self.begin(group, tensors)
                    self._started[key] = (written, ref)  # the first keeps its id from being used again
                started[group] = self._started[key][1]
        return self.add(written.program, no_data(), {**inputs, **started}, role=role, quorum=quorum)

    def add(
        self,
        program: Program,
        data: Dataset,
        inputs: Mapping[str, Ref | Either],
        *,
        role: Role,
        steps: int = 1,
        interval: int | None = None,
        quorum: int = 0,
    ) -> dict[str, Ref]:
        """A segment of ``steps`` steps; its output groups, by their names in ``program``.

        ``inputs`` gives each group of the program; of those that have a fallback, ``quorum`` must be there. Raises
        PlanError if one is missing, unknown, or of other types.
        """
        bound = self._bind(program, data)
        names = bound.labels.groups
        where = f"segment {len(self._segments)} ({role})"
        if set(inputs) != set(names):
            raise PlanError(
                f"{where}: its program has the groups {', '.join(names)}; given are {', '.join(inputs)}"
            )
        kinds = dict(zip(names, group_types(bound), strict=True))
        pairs = [
            (ref.ref, ref.fallback) if isinstance(ref, Either) else (ref, ref)
            for ref in map(inputs.get, names)
            if ref
        ]
        for (name, types), pair in zip(kinds.items(), pairs, strict=True):
            if any(ref.types != types for ref in pair):
                raise PlanError(f"{where}: group {name} has other types than what it is given")
        sources, others = (tuple(ref.source for ref in refs) for refs in zip(*pairs, strict=True))
        fallbacks = others if others != sources else ()
        interval = min(interval_of(steps) if interval is None else interval, steps)
        self._segments.append(_Planned(bound, data, sources, fallbacks, quorum, steps, interval, role))
        number = len(self._segments) - 1
        return {name: Ref(Source(number, i), kinds[name]) for i, name in enumerate(names)}

    def finish(self, result: Sequence[Piece], *, price: int = 0) -> Blueprint:
        """The blueprint; ``price`` token units are shared out by the work that each segment is.

        Groups of the initial state with which nothing begins are left out. Raises PlanError if no plan can be made.
        """
        sources = [source for planned in self._segments for source in planned.inputs + planned.fallbacks]
        sources += [piece.source for piece in result]
        used = {source.group for source in sources if source.segment == INITIAL}
        kept = [number for number in range(len(self._initial)) if number in used]
        if len(kept) > MAX_GROUPS:
            raise PlanError(f"the initial state has {len(kept)} groups, at most {MAX_GROUPS} can be")
        places = {number: i for i, number in enumerate(kept)}

        def placed(source: Source) -> Source:
            return Source(INITIAL, places[source.group]) if source.segment == INITIAL else source

        operations = {id(bound): cost(bound).operations for _, bound in self._bound.values()}
        works = [planned.steps * operations[id(planned.program)] for planned in self._segments]
        specs = [
            SegmentSpec(
                program_root=planned.program.root,
                data_root=planned.data.root,
                steps=planned.steps,
                interval=planned.interval,
                price=share,
                inputs=tuple(map(placed, planned.inputs)),
                fallbacks=tuple(map(placed, planned.fallbacks)),
                quorum=planned.quorum,
            )
            for planned, share in zip(self._segments, _shares(price, works), strict=True)
        ]
        groups = list(self._initial.items())
        return Blueprint(
            plan=Plan(tuple(specs)),
            programs=tuple({p.program.root: p.program for p in self._segments}.values()),
            datasets=tuple({p.data.root: p.data for p in self._segments}.values()),
            initial=State(dict(groups[number] for number in kept)),
            roles=tuple(planned.role for planned in self._segments),
            result=tuple(replace(piece, source=placed(piece.source)) for piece in result),
        )

    def _bind(self, program: Program, data: Dataset) -> Program:
        """``program`` for this data: the same object each time, whose root is then computed once."""
        key = (id(program), data.rows)
        if key not in self._bound:
            bound = program.bind(data.rows) if program.is_open else program
            bound.validate()
            self._bound[key] = (program, bound)  # the first keeps its id from being used again
        bound = self._bound[key][1]
        data.check(bound)
        return bound


def _shares(total: int, works: Sequence[int]) -> list[int]:
    """``total`` in parts as large as ``works``, to the unit."""
    done = paid = 0
    whole = sum(works)
    parts = []
    for work in works:
        done += work
        due = total * done // whole if whole else 0
        parts.append(due - paid)
        paid = due
    return parts
