"""``crowdtrain.lower_stages``: from the stages of a model to the programs of a pipeline that trains it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from crowdtrain_engine import DType, TensorType
from torch.fx import Graph, GraphModule

from crowdtrain._training import (
    ACTIVATIONS,
    INPUT_GRADIENTS,
    INPUTS,
    OUTPUT_GRADIENTS,
    SQUARES,
    LoweredPipeline,
    LoweredProgram,
    LoweredStage,
)
from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.errors import InvalidOption, UnsupportedModel
from crowdtrain.lowering.step import (
    Fed,
    check_seed,
    checked,
    examples,
    named,
    state_of,
    traced_program,
    type_of,
)
from crowdtrain.lowering.tensor import Tensor
from crowdtrain.lowering.trace import Trace, trace, trace_stage
from crowdtrain.lowering.update import (
    GRADIENTS,
    Optimizers,
    Training,
    TrainingOptions,
    accumulated,
    assigned,
    keep_loss,
)

__all__ = ["lower_stages"]

State = Mapping[str, Mapping[str, Tensor]]
Groups = Iterator[tuple[str, str, TensorType, float | None]]
Tensors = Mapping[str, torch.Tensor]


def lower_stages(
    stages: Sequence[torch.nn.Module],
    loss: Callable[[Any, Any], torch.Tensor],
    *,
    optimizer: Optimizers,
    example: tuple[Any, Any],
    micro_batches: int,
    clip_grad_norm: float | None = None,
    clip_grad_value: float | None = None,
    seed: int = 0,
) -> LoweredPipeline:
    """The programs of a pipeline that trains a model whose parts are ``stages``, each called with what the one before
    gives: a tensor, or a tuple of them as positional arguments.

    ``example`` is one micro-batch; ``micro_batches`` of them make an update, as ``accumulate`` does in :func:`lower`,
    whose other arguments these are. ``loss`` takes what the last stage gives. Selectors of optimizers see the names
    that parameters have in ``torch.nn.Sequential(*stages)``. ``clip_grad_norm`` bounds the norm over all stages.
    Stage k draws its random numbers from ``seed`` + k.

    What a stage's programs have in common: groups ``parameters`` and ``buffers`` (if any), and ``counters`` (``step``:
    micro-batches so far; ``seed`` if it draws). The first stage reads ``inputs``, the last ``targets``, both by
    ``order``, [micro-batches, batch]; all stages but the first take a group ``inputs``.

    ``forward`` (None for the last stage) gives the group ``activations``. ``backward`` computes them once more, from
    the same inputs, buffers and counters, takes the group ``output gradients`` (in the last stage it computes the loss
    instead, and logs it), gives ``input gradients``, and adds to the group ``gradients``. Outputs and inputs through
    which no gradient flows are left out of these groups; a group without tensors does not exist, and neither does the
    program of a stage in or before which nothing is trained. ``update`` moves those parameters that have a gradient
    by the group ``gradients``, with the optimizers' slots and counters; with ``clip_grad_norm`` it takes the groups
    ``squares.k``, one number each: the squared norm of the gradients of each stage k that is updated.

    Raises what :func:`lower` raises; UnsupportedModel if stages share a parameter or buffer, or if one draws random
    numbers in its gradient.
    """
    stages = tuple(stages)
    if not stages:
        raise InvalidOption("a pipeline needs at least one stage")
    if not isinstance(micro_batches, int) or not 1 <= micro_batches < 2**31:
        raise InvalidOption(f"micro_batches must be a whole number, 1 or more, it is {micro_batches!r}")
    check_seed(seed)
    _check_apart(stages)
    optimizers = assigned(
        optimizer,
        {
            f"{k}.{name}": parameter
            for k, stage in enumerate(stages)
            for name, parameter in stage.named_parameters()
            if parameter.requires_grad
        },
    )
    options = TrainingOptions([], clip_grad_norm, clip_grad_value)
    inputs, targets = examples(example)
    lines = [_Line(k, stage, (seed + k) % 2**32, micro_batches) for k, stage in enumerate(stages)]
    for line in lines[:-1]:
        inputs = line.go_forward(inputs)
    gradients = lines[-1].go_back_from(
        inputs, targets if isinstance(example[1], tuple | list) else targets[0], loss, targets
    )
    for line in reversed(lines[:-1]):
        gradients = line.go_back(gradients)
    moved = {line.number: line.moved for line in lines if line.moved}
    norms = tuple(moved) if clip_grad_norm is not None else ()
    updates = {k: lines[k].update(_of_stage(k, optimizers, options), norms) for k in moved}
    return LoweredPipeline(
        tuple(LoweredStage(line.forward, line.backward, updates.get(line.number)) for line in lines),
        micro_batches,
        clip_grad_value,
    )


def _check_apart(stages: Sequence[torch.nn.Module]) -> None:
    """Raises UnsupportedModel if two stages have a tensor in common."""
    owners: dict[int, tuple[int, str]] = {}
    for k, stage in enumerate(stages):
        for name, tensor in (*stage.named_parameters(), *stage.named_buffers()):
            place = tensor.data_ptr() or id(tensor)
            other, known = owners.setdefault(place, (k, name))
            if other != k:
                raise UnsupportedModel(
                    f"stage {k} has {name}, which is {known} of stage {other}: stages are updated apart, so they "
                    f"cannot share a tensor; put both uses into one stage, or give each its own copy"
                )


def _of_stage(
    number: int, optimizers: Sequence[tuple[Any, Sequence[str]]], options: TrainingOptions
) -> TrainingOptions:
    """The options of one stage: of the optimizers those that take a parameter of it."""
    rules = []
    for optimizer, names in optimizers:
        mine = {name.partition(".")[2] for name in names if name.partition(".")[0] == str(number)}
        if mine:
            rules.append((lambda name, _, mine=mine: name in mine, optimizer))
    return TrainingOptions(rules, options.clip_grad_norm, options.clip_grad_value)


class _Line:
    """One stage on its way to its programs."""

    def __init__(self, number: int, stage: torch.nn.Module, seed: int, micro_batches: int) -> None:
        self.number = number
        self.forward: LoweredProgram | None = None
        self.backward: LoweredProgram | None = None
        self._stage, self._seed, self._parts = stage, seed, micro_batches
        self._parameters, self._buffers = state_of(stage)
        self._inputs: tuple[torch.Tensor, ...] = ()
        self._outputs: tuple[torch.Tensor, ...] = ()

    @property
    def moved(self) -> tuple[str, ...]:
        """Parameters that have a gradient."""
        return tuple(self.backward.initial.get(GRADIENTS, {})) if self.backward is not None else ()

    def go_forward(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Lowers the way down; what the outputs look like."""
        self._inputs = inputs
        traced, outputs = trace_stage(self._stage, self._parameters, self._buffers, inputs)
        for i, output in enumerate(outputs):
            checked(f"output {i} of stage {self.number}", output)
        self._outputs = outputs
        self.forward = self._program(traced, _Forward(named(outputs, ACTIVATIONS)))
        return outputs

    def go_back_from(
        self,
        inputs: tuple[torch.Tensor, ...],
        shaped: Any,
        loss: Callable[[Any, Any], torch.Tensor],
        targets: Sequence[torch.Tensor],
    ) -> list[torch.Tensor | None]:
        """Lowers the last stage; what the gradients of its inputs look like."""
        self._inputs = inputs
        traced = trace(self._stage, loss, self._parameters, self._buffers, inputs, shaped)
        return self._derived(traced, 1, Fed(named(targets, "targets")), loss=True)

    def go_back(self, gradients: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Lowers the way up from the gradients of the outputs; what those of the inputs look like."""
        if all(gradient is None for gradient in gradients):
            return [None] * len(self._inputs)
        traced, outputs = trace_stage(self._stage, self._parameters, self._buffers, self._inputs, gradients)
        names = named(gradients, ACTIVATIONS)
        fed = Fed({name: t for name, t in names.items() if t is not None}, OUTPUT_GRADIENTS)
        derived = self._derived(traced, len(outputs), fed)
        assert self.forward is not None
        assert self.backward is not None
        if self.forward.draws != self.backward.draws:
            raise UnsupportedModel(
                f"the gradient of stage {self.number} draws random numbers, so that the stage cannot be computed once "
                f"more as it was; draw them forward only"
            )
        return derived

    def _derived(
        self, traced: Trace, outputs: int, fed: Fed, *, loss: bool = False
    ) -> list[torch.Tensor | None]:
        nodes = iter(traced.outputs[0][outputs:])
        flows = [t.requires_grad and next(nodes) is not None for t in self._inputs]
        derived = [t.detach() if flow else None for t, flow in zip(self._inputs, flows, strict=True)]
        passed = {name: t for name, t in named(derived, INPUTS).items() if t is not None}
        self.backward = self._program(traced, _Backward(passed, self._parts, loss=loss), fed)
        return derived

    def _program(self, traced: Trace, goal: _Forward | _Backward, *fed: Fed) -> LoweredProgram:
        given = Fed(named(self._inputs, INPUTS), INPUTS if self.number else None)
        return traced_program(traced, goal, self._parameters, self._buffers, (given, *fed), self._seed)

    def update(self, options: TrainingOptions, norms: Sequence[int]) -> LoweredProgram:
        """The program that updates this stage; ``norms``: the stages whose gradients are clipped together."""
        moved = {name: self._parameters[name] for name in self.moved}
        parameters = dict(self._stage.named_parameters())
        goal = _Update(Training(options, {name: parameters[name] for name in moved}))
        fed = [
            Fed({name: t.detach() for name, t in moved.items()}, GRADIENTS),
            *(Fed({SQUARES: torch.zeros(())}, f"{SQUARES}.{k}") for k in norms),
        ]
        return traced_program(_given(moved, len(norms)), goal, moved, {}, fed, 0)


def _given(moved: Tensors, norms: int) -> Trace:
    """A step that is given gradients, and squared norms as its results."""
    graph = Graph()
    count = len(moved)
    nodes = [graph.placeholder(f"given{i}") for i in range(2 * count + norms)]
    graph.output((nodes[2 * count :], nodes[count : 2 * count], []))
    return Trace(GraphModule(torch.nn.Module(), graph), tuple(moved))


class _Forward:
    """What a step is for that goes down through a stage: to keep the activations."""

    counters: Mapping[str, float] = {}

    def __init__(self, outputs: Tensors) -> None:
        self._outputs = outputs

    def groups(self, moved: Mapping[str, tuple[int, ...]]) -> Groups:
        for name, tensor in self._outputs.items():
            yield ACTIVATIONS, name, type_of(tensor), 0.0

    def build(
        self, b: Builder, state: State, results: Sequence[Tensor], gradients: Mapping[str, Tensor]
    ) -> None:
        for tensor, result in zip(state[ACTIVATIONS].values(), results, strict=True):
            b.next(tensor, result)


class _Backward:
    """What a step is for that goes up through a stage: to keep the gradients of inputs, and to add those of parameters;
    in the last stage to keep the loss, too."""

    def __init__(self, passed: Tensors, parts: int, *, loss: bool) -> None:
        self._passed, self._parts, self._loss = passed, parts, loss

    @property
    def counters(self) -> Mapping[str, float]:
        return {"loss": 0.0} if self._loss else {}

    def groups(self, moved: Mapping[str, tuple[int, ...]]) -> Groups:
        for name, tensor in self._passed.items():
            yield INPUT_GRADIENTS, name, type_of(tensor), 0.0
        for name, shape in moved.items():
            yield GRADIENTS, name, TensorType(DType.f32, shape), 0.0

    def build(
        self, b: Builder, state: State, results: Sequence[Tensor], gradients: Mapping[str, Tensor]
    ) -> None:
        if self._loss:
            keep_loss(b, state, results[0])
        passed = results[len(results) - len(self._passed) :]
        for (name, tensor), gradient in zip(state.get(INPUT_GRADIENTS, {}).items(), passed, strict=True):
            with b.label(f"gradient: {name}"):
                b.next(tensor, b.stored(gradient))
        for name, tensor in state.get(GRADIENTS, {}).items():
            with b.label(f"gradient: {name}"):
                b.next(tensor, accumulated(b, tensor, gradients[name], self._parts))


class _Update:
    """What a step is for that only updates."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self.groups = training.groups

    @property
    def counters(self) -> Mapping[str, float]:
        return self._training.own_counters

    def build(
        self, b: Builder, state: State, results: Sequence[Tensor], gradients: Mapping[str, Tensor]
    ) -> None:
        self._training.update(b, state, gradients, results or None)
