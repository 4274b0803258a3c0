"""The workers of a plan: a model's program, the data of each, and the groups that each keeps to itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from crowdtrain_engine import Dataset, State, TensorType
from crowdtrain_engine.state import Array

from crowdtrain._errors import PlanError
from crowdtrain._training import LoweredProgram
from crowdtrain.lowering.update import GRADIENTS
from crowdtrain.strategies.blueprint import Draft, Either, Piece, Ref, Role
from crowdtrain.strategies.programs import regroup
from crowdtrain.tensors import group_types

__all__ = [
    "BUFFERS", "CLOCK", "COUNTERS", "FROZEN", "PARAMETERS", "Crew", "Layout", "Team", "balanced", "drawing_apart",
    "positive", "trained",
]  # fmt: skip

PARAMETERS, BUFFERS, FROZEN, COUNTERS, CLOCK = "parameters", "buffers", "frozen", "counters", "clock"
Groups = Mapping[str, Ref | Either]


class Layout:
    """A worker's program with its state in groups of which some travel.

    The groups are ``parts`` (the trained parameters: one group, or several that are merged at different times or with
    different workers), ``frozen`` (parameters that do not change, if any), groups of buffers that are merged (if any),
    and what a worker keeps to itself: the optimizer's moments, counters.
    """

    def __init__(
        self,
        program: LoweredProgram,
        parts: Mapping[str, Sequence[str]],
        buffers: Mapping[str, Sequence[str]],
        *,
        state: State | None = None,
        clocked: bool = False,
    ) -> None:
        """``parts`` and ``buffers`` name what is in each group; ``state`` is where training begins instead of the
        model's own weights. With ``clocked`` workers may lose rounds: the number of the step is a group ``clock`` that
        is not theirs.

        Raises PlanError without parameters to train, or for parts that are not theirs.
        """
        moved = trained(program)
        if not moved:
            raise PlanError("the model has no parameter that is trained")
        listed = [name for names in parts.values() for name in names]
        if sorted(listed) != sorted(moved) or not all(parts.values()):
            raise PlanError("the parts must hold each trained parameter once, and none of them may be empty")
        self.parts = {part: tuple(names) for part, names in parts.items()}
        self.buffers = {group: tuple(names) for group, names in buffers.items()}
        self.frozen = tuple(name for name in program.initial[PARAMETERS] if name not in set(listed))
        groups = {part: [(PARAMETERS, name) for name in names] for part, names in parts.items()}
        if self.frozen:
            groups[FROZEN] = [(PARAMETERS, name) for name in self.frozen]
        groups |= {group: [(BUFFERS, name) for name in names] for group, names in buffers.items()}
        merged = set(groups)
        for group, tensors in program.initial.items():
            if group == GRADIENTS and len(parts) > 1:
                groups |= {
                    f"{GRADIENTS} of {part}": [(GRADIENTS, name) for name in names]
                    for part, names in parts.items()
                }
            elif group not in (PARAMETERS, BUFFERS):
                groups[group] = [(group, name) for name in tensors]
        if clocked:
            groups[CLOCK] = [(COUNTERS, "step")]
            groups[COUNTERS].remove((COUNTERS, "step"))
            merged.add(CLOCK)
        self.private = tuple(group for group in groups if group not in merged)
        """groups that a worker keeps to itself"""
        begun = program.initial_state(state)
        self.tensors = {
            group: {name: begun[old][name] for old, name in listing} for group, listing in groups.items()
        }
        """what each group begins as"""
        self.program = regroup(program, groups)
        kinds = dict(zip(self.program.labels.groups, group_types(self.program), strict=True))
        self.types: dict[str, dict[str, TensorType]] = {
            group: dict(zip(names, kinds[group], strict=True))
            for group, names in (*self.parts.items(), *self.buffers.items())
        }
        """of the tensors in each group that is merged"""


class Team:
    """Workers, each with a program and data of its own, in a plan that is being drafted. What has one name in several
    programs is merged."""

    def __init__(self, draft: Draft, layouts: Sequence[Layout], data: Sequence[Dataset]) -> None:
        """Raises PlanError without workers, or if what is merged begins differently."""
        if not data:
            raise PlanError("a plan needs the data of at least one worker")
        self.draft = draft
        self.apply, self.zeros = draft.apply, draft.zeros
        self.layouts, self.data = tuple(layouts), tuple(data)
        self.shared: dict[str, Ref] = {}
        """parts and buffers, as they were merged last"""
        self.types: dict[str, dict[str, TensorType]] = {}
        self.own: list[dict[str, Ref]] = []
        """what each worker keeps to itself"""
        self._before: dict[int, dict[str, Ref]] = {}
        """what each worker of a clocked program kept a round before"""
        self._frozen: list[dict[str, Ref]] = []
        known: dict[int, dict[str, Ref]] = {}
        for worker, layout in enumerate(layouts):
            if id(layout) not in known:
                known[id(layout)] = {group: draft.begin(group, t) for group, t in layout.tensors.items()}
            begun = known[id(layout)]
            for group, types in layout.types.items():
                if self.shared.setdefault(group, begun[group]) != begun[group]:
                    raise PlanError(
                        f"{group} of worker {worker} begins as other tensors than that of one before it"
                    )
                self.types.setdefault(group, types)
            self._frozen.append({FROZEN: begun[FROZEN]} if layout.frozen else {})
            own = {group: begun[group] for group in layout.private}
            own[COUNTERS] = draft.begin(COUNTERS, drawing_apart(layout.tensors[COUNTERS], worker))
            self.own.append(own)

    @property
    def workers(self) -> int:
        """Their number."""
        return len(self.data)

    def buffers_of(self, part: str) -> str | None:
        """The group of buffers that is merged along with a part."""
        group = f"{BUFFERS} of {part}"
        return group if group in self.types else None

    def keep(self, worker: int, part: str) -> None:
        """A part, and its buffers, that a worker keeps to itself."""
        groups = (part, self.buffers_of(part))
        self.own[worker] |= {group: self.shared[group] for group in groups if group is not None}

    def train(
        self, worker: int, round_: int, steps: int, start: Groups | None = None, what: str = "train"
    ) -> dict[str, Ref]:
        """A segment in which a worker trains from ``start`` (what was merged last, unless it says otherwise); what came
        out. What it keeps to itself goes on from its last one; if that is not there and its program is clocked, from
        the one before.
        """
        layout = self.layouts[worker]
        own: Groups = self.own[worker]
        if CLOCK in layout.tensors:
            before = self._before.get(worker, self.own[worker])
            own = {name: Either(ref, before[name]) for name, ref in self.own[worker].items()}
            self._before[worker] = self.own[worker]
        merged = {group: self.shared[group] for group in layout.types}
        inputs = {**merged, **self._frozen[worker], **own, **(start or {})}
        out = self.draft.add(
            layout.program, self.data[worker], inputs, steps=steps, role=Role(what, round_, worker)
        )
        self.own[worker] = {name: out[name] for name in self.own[worker]}
        return out

    def result(self, worker: int = 0, of: str = "") -> list[Piece]:
        """A worker's model, merged or kept to itself; ``of`` is added to the names of its groups."""
        layout = self.layouts[worker]
        final = {**self.shared, **self._frozen[worker], **self.own[worker]}
        listed = [(PARAMETERS, part, names) for part, names in layout.parts.items()]
        listed += [(PARAMETERS, FROZEN, layout.frozen)] if layout.frozen else []
        listed += [(BUFFERS, group, names) for group, names in layout.buffers.items()]
        return [Piece(f"{kind}{of}", names, final[group].source) for kind, group, names in listed]


class Crew(Team):
    """Workers that train one model, each on data of its own."""

    def __init__(
        self,
        draft: Draft,
        program: LoweredProgram,
        data: Sequence[Dataset],
        *,
        parts: Mapping[str, Sequence[str]] | None = None,
        state: State | None = None,
        clocked: bool = False,
    ) -> None:
        """``parts`` names the parameters in each part; all that are trained are one part if it is not given.

        Buffers are merged along with the first part. Raises PlanError without workers or parameters to train, or for
        parts that are not theirs.
        """
        buffers = program.initial.get(BUFFERS)
        layout = Layout(
            program,
            {PARAMETERS: trained(program)} if parts is None else parts,
            {BUFFERS: list(buffers)} if buffers else {},
            state=state,
            clocked=clocked,
        )
        super().__init__(draft, [layout] * len(data), data)

    @property
    def buffers(self) -> Mapping[str, TensorType]:
        """Types of the buffers."""
        return self.types.get(BUFFERS, {})

    def buffers_of(self, part: str) -> str | None:
        return BUFFERS if self.buffers and part == next(iter(self.layouts[0].parts)) else None

    def gradients_of(self, part: str) -> str:
        """The group that holds the gradients of a part."""
        return GRADIENTS if len(self.layouts[0].parts) == 1 else f"{GRADIENTS} of {part}"


def drawing_apart(counters: Mapping[str, Array], shift: int) -> Mapping[str, Array]:
    """Counters to begin with whose seed, if there is one, is moved on: each worker draws numbers of its own."""
    if "seed" not in counters:
        return counters
    return {**counters, "seed": np.asarray((int(counters["seed"]) + shift) % 2**32, np.uint32)}


def trained(program: LoweredProgram) -> list[str]:
    """Parameters that the program changes, or computes gradients of."""
    group = program.labels.groups.index(PARAMETERS)
    places = range(program.bounds[group], program.bounds[group + 1])
    derived = program.initial.get(GRADIENTS, {})
    names = {program.labels.state[i]: program.next[i] != i for i in places}
    return [name for name, moves in names.items() if moves or name in derived]


def positive(**numbers: int) -> None:
    """Raises PlanError for a number below 1, by its name."""
    for name, number in numbers.items():
        if number < 1:
            raise PlanError(f"{name} must be at least 1, it is {number}")


def balanced(program: LoweredProgram, count: int, *, strided: bool = False) -> dict[str, tuple[str, ...]]:
    """The trained parameters in ``count`` parts of about one size: consecutive ones together, or dealt out in turn.

    Raises PlanError if there are fewer parameters than parts.
    """
    sizes = {name: program.initial[PARAMETERS][name].size for name in trained(program)}
    if len(sizes) < count:
        raise PlanError(f"{len(sizes)} parameters cannot be cut into {count} parts")
    names, total = list(sizes), sum(sizes.values())
    parts: list[list[str]] = [[] for _ in range(count)]
    filled = [0] * count
    done = 0
    for i, name in enumerate(names):
        left = len(names) - i
        empty = [k for k in range(count) if not parts[k]]
        if len(empty) == left:
            k = empty[0]
        elif strided:
            k = min(range(count), key=lambda k: filled[k])
        else:
            k = min(count - 1, (done + sizes[name] // 2) * count // total)
        parts[k].append(name)
        filled[k] += sizes[name]
        done += sizes[name]
    return {f"{PARAMETERS}.{k}": tuple(part) for k, part in enumerate(parts)}
