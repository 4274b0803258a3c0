"""Plans that are too large to be built, by numbers alone: the same segments and groups as those of ``strategies``, but
for means of means where workers are more than builders merge.

What merges and codecs cost is what their programs take for a number, about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crowdtrain_engine import Program
from crowdtrain_engine.validation import cost

from crowdtrain._errors import PlanError
from crowdtrain.optim import SGD
from crowdtrain.optim.rule import Optimizer
from crowdtrain.simulation.workload import MAX_TASKS, Task, Workload, check_number
from crowdtrain.strategies.codecs import Codec, Quantized, TopK
from crowdtrain.strategies.stepwise import SPARSE_SPECTRUM

__all__ = ["RECIPES", "Model", "Recipe", "outline"]

WORD = 4.0
MEAN, OPTIMIZE, ENCODE, DECODE = 2, 12, 45, 9
"""body operations for a number: to add up one worker's, to apply an optimizer, to encode and to decode"""
FAN_IN = 64
"""most workers whose changes one segment merges; with more, means of means are taken"""


@dataclass(frozen=True)
class Model:
    """A model, as far as its training takes time. Raises PlanError for numbers that cannot be."""

    parameters: float
    """numbers that are trained"""
    operations: float
    """body operations of one worker's step"""
    word: float = WORD
    """bytes of a number: 2 in half precision"""
    slots: int = 2
    """numbers that the optimizer keeps for each parameter"""
    memory: float = 0.0
    """bytes that a step needs"""
    data: float = 0.0
    """bytes of the data that a worker reads in all"""

    def __post_init__(self) -> None:
        for what in ("parameters", "operations", "word"):
            check_number(what, getattr(self, what), above=True)
        for what in ("slots", "memory", "data"):
            check_number(what, getattr(self, what))
        if not math.isfinite(
            self.parameters * self.word * (self.slots + 1) + self.operations + self.memory + self.data
        ):
            raise PlanError("the numbers of a model must be finite")

    @classmethod
    def of(cls, program: Program, *, data: float = 0.0) -> Model:
        """The model that a program trains, with ``data`` bytes for each worker."""
        from crowdtrain.runs import memory_needed

        sizes = {
            name: sum(kind.size for kind in program.state[program.bounds[g] : program.bounds[g + 1]])
            for g, name in enumerate(program.labels.groups)
        }
        parameters = sizes.get("parameters", max(sizes.values()))
        slots = round((sum(sizes.values()) - parameters) / parameters)
        return cls(
            parameters, cost(program).operations, slots=slots, memory=float(memory_needed(program)), data=data
        )


@dataclass(frozen=True)
class Recipe:
    """A strategy, by numbers. Raises PlanError for numbers of which no plan can be made."""

    name: str
    steps: int
    """of each worker between two merges"""
    kept: float = 1.0
    """what a step is worth beside one of synchronous data parallelism: part of the gain that is kept"""
    gradients: bool = False
    """whether gradients are merged, instead of parameters"""
    codec: Codec | None = None
    """how workers' changes travel"""
    broadcast: Codec | None = None
    """how merged changes travel"""
    fragments: int = 1
    """parts of the model that are merged in turn, each once in ``steps``"""
    overlap: bool = False
    """whether training goes on while a fragment is merged, which then arrives a fragment's time later"""
    shards: int = 1
    """parts of the model that are merged side by side"""
    outer_slots: int = 1
    """numbers that the outer optimizer keeps for each parameter"""
    quorum: float = 1.0
    """part of the workers without whom nothing is merged; who is late adds to the next round"""
    outer: Optimizer | None = None
    """with which merges move the parameters; one that suits the number of rounds if it is not given"""
    decay: float = 1.0
    """what is kept, from round to round, of what codes have lost"""

    def __post_init__(self) -> None:
        for what in ("steps", "fragments", "shards"):
            value = getattr(self, what)
            if not isinstance(value, int) or not 1 <= value <= 10**9:
                raise PlanError(f"{what} must be a whole number of at least 1, it is {value}")
        if not 0 < self.kept <= 2 or self.steps % self.fragments:
            raise PlanError("kept is more than 0 and at most 2; steps must be a multiple of fragments")
        if not 0 < self.quorum <= 1 or (self.quorum < 1 and (self.fragments > 1 or self.gradients)):
            raise PlanError("a quorum is a part of the workers, and of parameters that are merged together")


Q2, Q4 = Quantized(2), Quantized(4)
BRISK, HEAVY = (SGD(lr=1.0, momentum=momentum, nesterov=True) for momentum in (0.5, 0.6))
SPARSE = TopK(16, 4, Q2)
RECIPES = (
    Recipe("data parallel", 1, gradients=True, outer_slots=2),
    Recipe("DeMo", 1, kept=0.72, gradients=True, codec=SPARSE_SPECTRUM, outer_slots=0),
    Recipe("local SGD", 50, kept=0.32, outer_slots=0, outer=SGD(lr=1.0)),
    Recipe("DiLoCo", 50, kept=0.74, outer=BRISK),
    Recipe("DiLoCo, 4-bit", 8, kept=0.92, codec=Q4, broadcast=Q4, outer=BRISK),
    Recipe("DiLoCo, 2-bit", 25, kept=0.88, codec=Q2, broadcast=Q2, outer=HEAVY),
    Recipe("DiLoCo, rare", 40, kept=0.76, codec=Q2, broadcast=Q2, outer=HEAVY),
    Recipe("SparseLoCo", 10, kept=0.85, codec=SPARSE, broadcast=SPARSE, outer=BRISK, decay=0.95),
    Recipe("streaming DiLoCo", 20, kept=0.87, codec=Q2, broadcast=Q2, fragments=4, outer=BRISK),
    Recipe("elastic DiLoCo", 8, kept=0.92, codec=Q4, quorum=0.5, outer=BRISK),
)  # fmt: skip
"""Strategies that are compared. Each kept this part of the gain when a small GPT was trained (``docs/STRATEGIES.md``);
for another model that is a guess: measure, and give other recipes."""


def outline(
    model: Model,
    recipe: Recipe,
    *,
    workers: int,
    rounds: int,
    shares: Sequence[float] | None = None,
    fan_in: int = FAN_IN,
) -> Workload:
    """A strategy's workload. ``shares`` are the workers' parts of the steps, relative to one another; equal by default.

    With one worker nothing is merged: its segments follow one another. Raises PlanError for numbers of which no
    workload can be made.
    """
    for what, number in (("workers", workers), ("rounds", rounds)):
        if not isinstance(number, int) or not 1 <= number <= MAX_TASKS:
            raise PlanError(f"{what} must be a whole number from 1 to {MAX_TASKS}, it is {number}")
    if not isinstance(fan_in, int) or fan_in < 2:
        raise PlanError(f"fan_in must be at least 2, it is {fan_in}")
    parts = recipe.fragments * recipe.shards
    segments = workers * rounds * recipe.fragments * (1 + 2 * parts)
    if workers * rounds * recipe.fragments > MAX_TASKS:
        raise PlanError(f"about {segments} segments are too many to be simulated")
    if recipe.quorum < 1 and workers > fan_in:
        raise PlanError(f"a quorum can be taken of {fan_in} workers at most, there are {workers}")
    if shares is not None and (len(shares) != workers or not all(0 < share < math.inf for share in shares)):
        raise PlanError("each worker must have a share above 0")
    draft = _Draft(model, recipe, workers, shares, fan_in)
    for slot in range(rounds * recipe.fragments):
        draft.round(slot)
    return draft.finish()


class _Draft:
    """The workload in the making."""

    def __init__(
        self, model: Model, recipe: Recipe, workers: int, shares: Sequence[float] | None, fan_in: int
    ) -> None:
        self._model, self._recipe, self._workers, self._fan_in = model, recipe, workers, fan_in
        mean = sum(shares) / workers if shares else 1.0
        self._shares = [share / mean for share in shares] if shares else [1.0] * workers
        self._parts = recipe.fragments * recipe.shards
        self._numbers = model.parameters / self._parts
        self._sizes: list[float] = []
        self._tasks: list[Task] = []
        size = model.word * self._numbers
        self._shared = [self._group(size) for _ in range(self._parts)]
        self._memory = [self._group(recipe.outer_slots * size) for _ in range(self._parts)]
        self._zeros = self._group(size)
        moments = self._group(model.slots * model.word * model.parameters)
        self._data = [self._group(model.data) for _ in range(workers)] if model.data else []
        self._own = [moments] * workers
        self._local = [list(self._shared) for _ in range(workers)]
        """what each worker trains next"""
        self._bases = [list(self._shared) for _ in range(workers)]
        """the parts as each worker has received them last"""
        self._lost = [[self._zeros] * self._parts for _ in range(workers)]
        self._lost_in_merge = [self._zeros] * self._parts
        self._arriving: list[int] = []
        self._own_before: list[int | None] = [None] * workers

    def finish(self) -> Workload:
        """The workload."""
        result = self._local[0] if self._workers == 1 else self._shared
        return Workload(tuple(self._sizes), tuple(self._tasks), frozenset(result))

    def round(self, slot: int) -> None:
        """Workers train, then a fragment is merged."""
        first = slot % self._recipe.fragments * self._recipe.shards
        due = list(range(first, first + self._recipe.shards))
        for worker in range(self._workers):
            self._train(slot, worker)
        if self._workers == 1:
            return
        for part in self._arriving:
            self._mix(slot, part)
        for part in due:
            sent = [self._send(slot, worker, part) for worker in range(self._workers)]
            self._merge(slot, part, sent)
        if self._recipe.overlap:
            self._arriving = due
            return
        for local, bases in zip(self._local, self._bases, strict=True):
            for part in due:
                local[part] = bases[part]

    def _train(self, slot: int, worker: int) -> None:
        model, recipe, size = self._model, self._recipe, self._model.word * self._numbers
        steps = recipe.steps / recipe.fragments * self._shares[worker]
        inputs = [*self._local[worker], *self._data[worker : worker + 1]]
        outputs = [size] * self._parts
        instead: dict[int, int] = {}
        if not recipe.gradients:
            own, before = self._own[worker], self._own_before[worker]
            inputs.append(own)
            outputs.append(model.slots * model.word * model.parameters)
            if recipe.quorum < 1 and before is not None:
                instead[own] = before
            self._own_before[worker] = own
        made = self._add(
            "train", slot, worker, steps * model.operations, inputs, outputs, model.memory, instead
        )
        self._local[worker] = made[: self._parts]
        if not recipe.gradients:
            self._own[worker] = made[-1]

    def _send(self, slot: int, worker: int, part: int) -> int:
        local = self._local[worker][part]
        if self._recipe.codec is None:
            return local
        inputs = [local, self._lost[worker][part]]
        if not self._recipe.gradients:
            inputs.append(self._bases[worker][part])
        size = self._model.word * self._numbers
        operations = ENCODE * self._numbers
        outputs = [self._coded(self._recipe.codec), size]
        code, self._lost[worker][part] = self._add("encode", slot, worker, operations, inputs, outputs)
        return code

    def _merge(self, slot: int, part: int, sent: list[int]) -> None:
        recipe, n, size = self._recipe, self._numbers, self._model.word * self._numbers
        each = n * (MEAN + (DECODE if recipe.codec else 0))
        while len(sent) > self._fan_in:
            heads = [sent[i : i + self._fan_in] for i in range(0, len(sent), self._fan_in)]
            sent = [self._add("mean", slot, None, each * len(few), few, [size])[0] for few in heads]
            each = n * MEAN
        inputs = [self._shared[part], self._memory[part], *sent]
        outputs = [size, recipe.outer_slots * size]
        operations = each * len(sent) + n * OPTIMIZE
        if recipe.broadcast is not None:
            inputs.append(self._lost_in_merge[part])
            outputs += [size, self._coded(recipe.broadcast)]
            operations += ENCODE * n
        instead = dict.fromkeys(sent, self._zeros) if recipe.quorum < 1 else {}
        made = self._add(
            "merge", slot, None, operations, inputs, outputs,
            instead=instead, quorum=math.ceil(recipe.quorum * len(instead)),
        )  # fmt: skip
        self._shared[part], self._memory[part] = made[:2]
        for worker in range(self._workers):
            if recipe.broadcast is None:
                self._bases[worker][part] = made[0]
                continue
            known = [self._bases[worker][part], made[3]]
            (base,) = self._add("receive", slot, worker, DECODE * n, known, [size])
            self._bases[worker][part] = base
        if recipe.broadcast is not None:
            self._lost_in_merge[part] = made[2]

    def _mix(self, slot: int, part: int) -> None:
        """What was merged a fragment's time ago reaches the workers, who keep a share of what they have."""
        for worker, local in enumerate(self._local):
            inputs = [self._bases[worker][part], local[part]]
            size = self._model.word * self._numbers
            (local[part],) = self._add("mix", slot, worker, MEAN * self._numbers, inputs, [size])

    def _coded(self, codec: Codec) -> float:
        return codec.bits((max(1, math.ceil(self._numbers)),)) / 8 * self._numbers

    def _group(self, size: float) -> int:
        self._sizes.append(size)
        return len(self._sizes) - 1

    def _add(
        self, what: str, slot: int, worker: int | None, operations: float,
        inputs: Sequence[int], outputs: Sequence[float], memory: float | None = None,
        instead: Mapping[int, int] | None = None, quorum: int = 0,
    ) -> list[int]:  # fmt: skip
        """A segment; the groups that it makes. ``instead`` are the fallbacks of optional inputs."""
        made = [self._group(size) for size in outputs]
        if memory is None:
            memory = sum(self._sizes[g] for g in inputs) + sum(outputs)
        groups = tuple(dict.fromkeys(inputs))
        others = tuple(instead.get(g, g) for g in groups) if instead else ()
        self._tasks.append(
            Task(operations, groups, tuple(made), memory, worker, what, slot, fallbacks=others, quorum=quorum)
        )
        return made
