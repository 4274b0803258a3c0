"""The workers of a plan: a model's program, the data of each, and the groups that each keeps to itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crowdtrain_engine import Dataset, State, TensorType

from crowdtrain._errors import PlanError
from crowdtrain._training import LoweredProgram
from crowdtrain.lowering.update import GRADIENTS
from crowdtrain.strategies.blueprint import Draft, Either, Piece, Ref, Role
from crowdtrain.strategies.programs import regroup
from crowdtrain.tensors import group_types

__all__ = ["BUFFERS", "FROZEN", "PARAMETERS", "Crew", "balanced", "positive", "trained"]

PARAMETERS, BUFFERS, FROZEN = "parameters", "buffers", "frozen"
Groups = Mapping[str, Ref | Either]


class Crew:
    """Workers that train one model, each on data of its own, in a plan that is being drafted.

    The program's groups are ``parts`` (the trained parameters: one group, or several that are merged at different
    times), ``frozen`` (parameters that do not change, if any), ``buffers`` (if any), and what each worker keeps to
    itself: the optimizer's moments, counters.
    """

    def __init__(
        self,
        draft: Draft,
        program: LoweredProgram,
        data: Sequence[Dataset],
        *,
        parts: Mapping[str, Sequence[str]] | None = None,
        state: State | None = None,
    ) -> None:
        """``parts`` names the parameters in each part; all that are trained are one part if it is not given.

        ``state`` is where training begins instead of the model's own weights. Raises PlanError without workers or
        parameters to train, or for parts that are not theirs.
        """
        if not data:
            raise PlanError("a plan needs the data of at least one worker")
        self.draft = draft
        self.apply, self.zeros = draft.apply, draft.zeros
        self.data = tuple(data)
        moved = trained(program)
        if not moved:
            raise PlanError("the model has no parameter that is trained")
        self.parts = {PARAMETERS: tuple(moved)} if parts is None else {k: tuple(v) for k, v in parts.items()}
        listed = [name for names in self.parts.values() for name in names]
        if sorted(listed) != sorted(moved) or not all(self.parts.values()):
            raise PlanError("the parts must hold each trained parameter once, and none of them may be empty")
        frozen = [name for name in program.initial[PARAMETERS] if name not in set(listed)]
        kept = {g: [(g, n) for n in tensors] for g, tensors in program.initial.items() if g != PARAMETERS}
        begun = program.initial_state(state)
        starts = {g: dict(begun[g]) for g in kept}
        if GRADIENTS in kept and len(self.parts) > 1:
            kept.pop(GRADIENTS)
            gradients = starts.pop(GRADIENTS)
            for part, names in self.parts.items():
                kept[self.gradients_of(part)] = [(GRADIENTS, name) for name in names]
                starts[self.gradients_of(part)] = {name: gradients[name] for name in names}
        groups = {part: [(PARAMETERS, name) for name in names] for part, names in self.parts.items()}
        if frozen:
            groups[FROZEN] = [(PARAMETERS, name) for name in frozen]
        self.program = regroup(program, {**groups, **kept})
        kinds = dict(zip(self.program.labels.groups, group_types(self.program), strict=True))
        self.types: dict[str, dict[str, TensorType]] = {
            part: dict(zip(names, kinds[part], strict=True)) for part, names in self.parts.items()
        }
        """of the parameters in each part"""
        self.shared: dict[str, Ref] = {}
        """the parts and buffers, as they were merged last"""
        for part, listing in groups.items():
            self.shared[part] = draft.begin(part, {name: begun[PARAMETERS][name] for _, name in listing})
        self.buffers: dict[str, TensorType] = {}
        if BUFFERS in begun:
            self.shared[BUFFERS] = draft.begin(BUFFERS, begun[BUFFERS])
            self.buffers = dict(zip(begun[BUFFERS], kinds[BUFFERS], strict=True))
        private = {g: draft.begin(g, tensors) for g, tensors in starts.items() if g != BUFFERS}
        self.own: list[dict[str, Ref]] = [dict(private) for _ in data]
        """what each worker keeps to itself"""
        self._frozen = tuple(frozen)

    @property
    def workers(self) -> int:
        """Their number."""
        return len(self.data)

    def gradients_of(self, part: str) -> str:
        """The group that holds the gradients of a part."""
        return GRADIENTS if len(self.parts) == 1 else f"{GRADIENTS} of {part}"

    def train(
        self, worker: int, round_: int, steps: int, start: Groups | None = None, what: str = "train"
    ) -> dict[str, Ref]:
        """A segment in which a worker trains from ``start`` (what was merged last, unless it says otherwise); what came
        out. What it keeps to itself goes on from its last one.
        """
        inputs = {**self.shared, **self.own[worker], **(start or {})}
        out = self.draft.add(
            self.program, self.data[worker], inputs, steps=steps, role=Role(what, round_, worker)
        )
        self.own[worker] = {name: out[name] for name in self.own[worker]}
        return out

    def result(self, groups: Mapping[str, Ref] | None = None) -> list[Piece]:
        """The model as it was merged last, or with ``groups`` in place of some of it."""
        final = {**self.shared, **(groups or {})}
        pieces = [Piece(PARAMETERS, names, final[part].source) for part, names in self.parts.items()]
        if self._frozen:
            pieces.append(Piece(PARAMETERS, self._frozen, final[FROZEN].source))
        if self.buffers:
            pieces.append(Piece(BUFFERS, tuple(self.buffers), final[BUFFERS].source))
        return pieces


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
