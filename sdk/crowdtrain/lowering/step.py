"""``crowdtrain.lower``: from a model, a loss and an optimizer to the program of one training step."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from crowdtrain_engine import DType, TensorType
from crowdtrain_engine.state import Array
from torch.fx import Node

from crowdtrain._training import LoweredProgram
from crowdtrain.lowering import (
    cumulative,
    division,
    elementwise,
    gathers,
    losses,
    normalization,
    pooling,
    products,
    random,
    reductions,
    resampling,
    sorting,
    trigonometry,
    views,
)
from crowdtrain.lowering.assembly import CONSTANTS
from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.errors import InvalidOption, Place, UnsupportedModel, UnsupportedOperation
from crowdtrain.lowering.expr import ReadExpr, Word
from crowdtrain.lowering.index import Index
from crowdtrain.lowering.random import DRAWING, Draws
from crowdtrain.lowering.table import HINTS, TABLE, CannotLower
from crowdtrain.lowering.tensor import Tensor, reshape
from crowdtrain.lowering.trace import Trace, place_of, trace
from crowdtrain.lowering.update import Optimizers, Training, TrainingOptions
from crowdtrain.optim import EMA

__all__ = ["ROWS", "Goal", "lower", "step_program"]

ROWS = (
    cumulative, division, elementwise, gathers, losses, normalization, pooling, products, random, reductions,
    resampling, sorting, trigonometry, views,
)  # fmt: skip
"""Modules whose rows fill the table."""

_DTYPES = {torch.float32: DType.f32, torch.int64: DType.i32, torch.int32: DType.i32, torch.bool: DType.u32}
_WIDENED = {torch.float64: torch.float32, torch.int32: torch.int64}
"""Types of examples that are traced as another: classes, for one, must be int64 in PyTorch."""

_VIEWS = ("aten.alias", "aten.permute", "aten.squeeze", "aten.unsqueeze", "aten.view", "aten._unsafe_view")
_PRODUCTS = ("aten.mm.default", "aten.bmm.default")
_IGNORED = ("device", "layout", "memory_format", "non_blocking", "pin_memory")
_OUTSIDE = 2**32 - 1
_REGISTER = "Only buffers may be changed in place: use register_buffer"


def lower(
    model: torch.nn.Module,
    loss: Callable[[Any, Any], torch.Tensor],
    *,
    optimizer: Optimizers,
    example: tuple[Any, Any],
    clip_grad_norm: float | None = None,
    clip_grad_value: float | None = None,
    accumulate: int = 1,
    average: EMA | None = None,
    seed: int = 0,
) -> LoweredProgram:
    """The program of one training step of ``model``, as it is now: its mode, weights, frozen parameters.

    ``loss(output, targets)`` gives one float32 number. ``example`` is a batch ``(inputs, targets)`` as one
    step takes it, tensors or arrays or tuples of them, whose first dimension is the batch; only shapes and
    types matter. A tuple of inputs becomes the model's positional arguments.

    ``optimizer`` is one for all parameters, or a list of ``(selector, optimizer)``: the first whose selector fits
    takes a parameter. A selector is a name with wildcards, a function of name and parameter, or several of them::

        [(("*.bias", "*norm*"), AdamW(weight_decay=0)), ("*", AdamW(weight_decay=0.1))]

    With ``accumulate=k`` a step is a micro-batch: gradients add up, each divided by k, and every k-th step updates.
    ``clip_grad_value`` then bounds each element, ``clip_grad_norm`` the norm of all gradients together (as those
    functions of ``torch.nn.utils``, in this order). ``average`` keeps an average of the weights. ``seed`` (below 2^32)
    is that of dropout and all other random numbers, which :mod:`crowdtrain.random` repeats.

    State: groups ``parameters``, ``buffers`` (if any), one for each of the optimizers' slots, ``gradients`` (if they
    accumulate), ``average`` (if there is one), ``counters`` (``step``, ``seed`` if anything is random, ``loss`` of the
    last step, the optimizers' own, numbered where there are several optimizers) and ``constants`` (tensors that the
    code holds, and what follows from them alone, if any). 64-bit integers become 32-bit ones, booleans u32. Log:
    ``loss``. Data: ``inputs``, ``targets`` (``inputs.0`` and so on where there are several) and ``order``, [steps,
    batch]: step t reads the samples ``order[t]``. The program is open in the number of samples and steps; a step
    beyond the rows of ``order`` would read words 0, so executing code refuses it.

    Raises InvalidOption for options that make no sense, UnsupportedOperation for an operation that has no lowering,
    DataDependent for Python control flow on tensor values, UnsupportedModel for parameters, examples or a loss that
    no program can hold.
    """
    options = TrainingOptions(optimizer, clip_grad_norm, clip_grad_value, accumulate, average)
    training = Training(options, {name: p for name, p in model.named_parameters() if p.requires_grad})
    return step_program(model, example, partial(trace, model, loss), training, seed)


class Goal(Protocol):
    """What a step is for: its state besides parameters, buffers and constants, and what is made of its results."""

    def groups(
        self, moved: Mapping[str, tuple[int, ...]]
    ) -> Iterable[tuple[str, str, TensorType, float | None]]:
        """Group, name and type of each state tensor besides the counters; the number that fills it at first, None
        for the parameter's own values. ``moved``: the parameters that have a gradient, with their shapes.
        """

    @property
    def counters(self) -> Mapping[str, float]:
        """Single f32 numbers of the state besides the step, and their first values."""

    def build(
        self,
        b: Builder,
        state: Mapping[str, Mapping[str, Tensor]],
        results: Sequence[Tensor],
        gradients: Mapping[str, Tensor],
    ) -> None:
        """The nests that follow from the results of the traced step and the gradients of parameters."""


def step_program(
    model: torch.nn.Module,
    example: tuple[Any, Any],
    traced: Callable[..., Trace],
    goal: Goal,
    seed: int,
) -> LoweredProgram:
    """The program of a step of ``model``. ``traced`` gives its graph, from parameters, buffers, inputs and targets."""
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InvalidOption(f"seed must be a whole number from 0 to 2^32 - 1, it is {seed!r}")
    named = dict(model.named_parameters())
    parameters = {name: _checked(f"parameter {name}", p, (torch.float32,)) for name, p in named.items()}
    for name, p in named.items():
        parameters[name].requires_grad_(p.requires_grad)
    buffers = {name: _checked(f"buffer {name}", t, tuple(_DTYPES)) for name, t in model.named_buffers()}
    if not isinstance(example, tuple | list) or len(example) != 2:
        raise UnsupportedModel("the example must be a pair: a batch of inputs and its targets")
    inputs, targets = _tensors("inputs", example[0]), _tensors("targets", example[1])
    batches = {tensor.shape[:1] for tensor in (*inputs, *targets)}
    if not inputs or len(batches) != 1 or () in batches:
        shapes = [tuple(tensor.shape) for tensor in (*inputs, *targets)]
        raise UnsupportedModel(
            f"inputs and targets need one first dimension, the batch; the example has {shapes}"
        )
    shaped = targets if isinstance(example[1], tuple | list) else targets[0]
    graph = traced(parameters, buffers, inputs, shaped)
    return _Lowering(graph, goal, parameters, buffers, seed).program(
        _named(inputs, "inputs"), _named(targets, "targets")
    )


def _checked(what: str, tensor: torch.Tensor, allowed: Sequence[torch.dtype]) -> torch.Tensor:
    """``tensor`` on the CPU, without its gradient; UnsupportedModel if a program cannot hold it."""
    if tensor.dtype not in allowed:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
        raise UnsupportedModel(f"{what} is {tensor.dtype}, it must be {names}")
    if tensor.numel() == 0:
        raise UnsupportedModel(f"{what} has no elements: its shape is {tuple(tensor.shape)}")
    if tensor.is_meta or tensor.layout is not torch.strided:
        raise UnsupportedModel(
            f"{what} must be a dense tensor with values, it is {tensor.layout} on {tensor.device}"
        )
    return tensor.detach().cpu()


def _tensors(what: str, part: Any) -> tuple[torch.Tensor, ...]:
    result = []
    for value in part if isinstance(part, tuple | list) else (part,):
        try:
            tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(np.array(value))
        except (TypeError, ValueError, RuntimeError) as error:
            raise UnsupportedModel(f"{what} of the example must be tensors or arrays: {error}") from error
        wide = _WIDENED.get(tensor.dtype, tensor.dtype)
        result.append(_checked(what, tensor.to(wide), (torch.float32, torch.int64)))
    return tuple(result)


def _named(tensors: Sequence[torch.Tensor], what: str) -> dict[str, torch.Tensor]:
    return {what if len(tensors) == 1 else f"{what}.{i}": tensor for i, tensor in enumerate(tensors)}


def _type(tensor: torch.Tensor) -> TensorType:
    return TensorType(_DTYPES[tensor.dtype], tuple(tensor.shape))


def _array(what: str, tensor: torch.Tensor) -> Array:
    kind = _DTYPES[tensor.dtype].numpy
    values = tensor.detach().numpy()
    if values.dtype == np.int64 and values.size and not (values.min() >= -(2**31) and values.max() < 2**31):
        raise UnsupportedModel(f"{what} holds integers beyond 32 bits")
    return np.array(values, dtype=kind, order="C")


class _Lowering:
    """One traced step on its way to a program."""

    def __init__(
        self,
        traced: Trace,
        goal: Goal,
        parameters: Mapping[str, torch.Tensor],
        buffers: Mapping[str, torch.Tensor],
        seed: int,
    ) -> None:
        self._b = Builder()
        self._trace = traced
        self._goal = goal
        self._parameters = parameters
        self._buffers = buffers
        self._initial: dict[str, dict[str, Array]] = {}
        self._state: dict[str, dict[str, Tensor]] = {}
        self._env: dict[Node, Any] = {}
        nodes = list(traced.graph.graph.nodes)
        self._places_in = [node for node in nodes if node.op == "placeholder"]
        self._constants = [node for node in nodes if node.op == "get_attr"]
        ((self._results, self._gradients, self._changed),) = nodes[-1].args
        self._roles = self._find_roles()
        self._seed = np.asarray(seed, np.uint32)
        self._draws = sum(str(node.target) in DRAWING for node in nodes)

    def program(
        self, inputs: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]
    ) -> LoweredProgram:
        """The program for a batch of these inputs and targets."""
        b = self._b
        self._declare()
        batch = self._batch({**inputs, **targets})
        if self._draws:
            b.draws = Draws(b, self._state["counters"], self._draws)
        state = {**self._state["parameters"], **self._state.get("buffers", {})}
        self._env.update(zip(self._places_in, (*state.values(), *batch), strict=True))
        for node in self._constants:
            self._env[node] = self._constant(node)
        for node in self._trace.graph.graph.nodes:
            if node.op == "call_function":
                self._call(node)
        counters = self._state["counters"]
        for buffer, node in zip(self._state.get("buffers", {}).values(), self._changed, strict=True):
            self._assign(buffer, node)
        with b.label("counters"):
            b.next(counters["step"], b.pointwise(lambda s: s + 1, counters["step"], what="step"))
        results = [b.stored(reshape(self._env[node], ())) for node in self._results]
        gradients = zip(self._trace.trained, self._gradients, strict=True)
        self._goal.build(
            b, self._state, results, {name: self._env[node] for name, node in gradients if node is not None}
        )
        finished = b.finish()
        if b.constants:
            self._initial[CONSTANTS] = dict(b.constants)
        return LoweredProgram(
            finished.groups,
            finished.state,
            finished.data,
            finished.nests,
            finished.next,
            finished.logs,
            finished.labels,
            self._initial,
            self._draws,
        )

    def _declare(self) -> None:
        """All state tensors, group after group, with their first values."""
        for name, tensor in self._parameters.items():
            self._add("parameters", name, _type(tensor), _array(name, tensor))
        for name, tensor in self._buffers.items():
            self._add("buffers", name, _type(tensor), _array(name, tensor))
        gradients = zip(self._trace.trained, self._gradients, strict=True)
        moved = {name: tuple(self._parameters[name].shape) for name, node in gradients if node is not None}
        for group, name, kind, initial in self._goal.groups(moved):
            if initial != 0.0:  # zeros take no memory until they are written to
                fill = self._initial["parameters"][name] if initial is None else np.float32(initial)
                self._add(group, name, kind, np.broadcast_to(fill, kind.shape).copy())
            else:
                self._add(group, name, kind)
        self._add("counters", "step", TensorType(DType.u32, ()))
        if self._draws:
            self._add("counters", "seed", TensorType(DType.u32, ()), self._seed)
        for name, number in self._goal.counters.items():
            self._add("counters", name, TensorType(DType.f32, ()), np.asarray(number, np.float32))

    def _constant(self, node: Node) -> Tensor:
        """A tensor that the code holds."""
        tensor = getattr(self._trace.graph, str(node.target))
        if tensor.dtype not in _DTYPES:
            raise UnsupportedOperation("a constant tensor", place_of(node), f"of type {tensor.dtype}")
        if tensor.requires_grad:
            raise UnsupportedModel(
                f"a tensor that requires a gradient but is no parameter of the model is used by {place_of(node)}; "
                f"register it in the model, or detach it"
            )
        if tensor.numel() == 0:
            return self._b.constant(0, _DTYPES[tensor.dtype], tuple(tensor.shape))
        name = str(node.target)
        checked = _checked(f"constant {name}", tensor, tuple(_DTYPES))
        return self._b.table(_array(name, checked), name)

    def _add(self, group: str, name: str, kind: TensorType, values: Array | None = None) -> None:
        self._state.setdefault(group, {})[name] = self._b.state(group, name, kind)
        zeros = np.zeros(kind.shape, kind.dtype.numpy)
        self._initial.setdefault(group, {})[name] = zeros if values is None else values

    def _batch(self, examples: Mapping[str, torch.Tensor]) -> list[Tensor]:
        """The samples of this step: ``order[step]`` names them, and each data tensor is read there."""
        b, step = self._b, self._state["counters"]["step"]
        types = {name: _type(tensor) for name, tensor in examples.items()}
        data = {
            name: b.data(name, TensorType(kind.dtype, (0, *kind.shape[1:]))) for name, kind in types.items()
        }
        size = next(iter(types.values())).shape[0]
        order = b.data("order", TensorType(DType.u32, (0, size)))

        def rows(tensor: Tensor) -> Callable[..., ReadExpr]:
            def row(n: Index, *i: Index) -> ReadExpr:
                sample = ReadExpr(
                    DType.u32, b.value(order), order.shape, (Index.of(Word(step[()])), n), _OUTSIDE
                )
                return ReadExpr(tensor.dtype, b.value(tensor), tensor.shape, (Index.of(Word(sample)), *i))

            return row

        with b.label("batch"):
            return [b.map(types[name].shape, rows(tensor), name) for name, tensor in data.items()]

    def _call(self, node: Node) -> None:
        """Lowers one operation; its result is stored if it takes work and is used more than once."""
        if node.target is operator.getitem:
            source, number = node.args
            assert isinstance(source, Node)
            result = self._env[source][number]
        elif str(node.target) == "aten.copy_.default":
            self._check_assignment(node)
            return
        else:
            result = self._lowered(node)
        self._env[node] = result
        if isinstance(result, Tensor) and len(node.users) > 1:
            self._b.settle(result)

    def _assign(self, buffer: Tensor, node: Node) -> None:
        value = self._env[node]
        if value.type != buffer.type:
            raise UnsupportedModel(f"a buffer of {buffer.type} becomes {value.type}: {place_of(node)}")
        self._b.next(buffer, value)

    def _check_assignment(self, node: Node) -> None:
        """What is left of an operation in place, after its target: only buffers keep it beyond the step."""
        first = len(self._parameters)
        if node.args[0] not in self._places_in[first:]:
            what = (
                "a parameter"
                if node.args[0] in self._places_in
                else "a tensor that is neither buffer nor input"
            )
            raise UnsupportedOperation("an operation in place", place_of(node), f"on {what}", _REGISTER)

    def _labels(self, node: Node) -> Any:
        place = place_of(node)
        role = self._roles.get(node, "")
        if not role and place.backward and str(node.target) in _PRODUCTS:
            role = "input gradient"
        return self._b.label(place.module or "model", role, " (backward)" if place.backward else "")

    def _lowered(self, node: Node) -> Any:
        name, place = str(node.target), place_of(node)
        row = TABLE.get(name)
        if row is None:
            base = _base(node)
            raise UnsupportedOperation(
                name, place, hint=_REGISTER if base.endswith("_") else HINTS.get(base, "")
            )
        expected = node.meta["val"]
        for value in expected if isinstance(expected, list | tuple) else [expected]:
            if isinstance(value, torch.Tensor) and value.dtype not in _DTYPES:
                raise UnsupportedOperation(
                    name, place, f"its result is {value.dtype}", "Use float32 or int64."
                )
        with self._labels(node):
            try:
                arguments = [self._argument(value) for value in node.args]
                options = {k: self._argument(v) for k, v in node.kwargs.items() if k not in _IGNORED}
                result = row(self._b, *arguments, **options)
            except CannotLower as error:
                raise UnsupportedOperation(name, place, error.why, error.hint) from error
            except OverflowError as error:
                raise UnsupportedOperation(name, place, str(error), "Integers have 32 bits.") from error
        _compare(result, expected, name, place)
        return result

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Node):
            return self._env[value]
        if isinstance(value, list | tuple):
            return [self._argument(item) for item in value]
        if isinstance(value, torch.dtype):
            if value not in _DTYPES:
                raise CannotLower(f"it converts to {value}", "Use float32 or int64.")
            return _DTYPES[value]
        return value

    def _find_roles(self) -> dict[Node, str]:
        """What is said of the operations that give the gradients of parameters: "weight gradient"."""
        roles: dict[Node, str] = {}
        for name, gradient in zip(self._trace.trained, self._gradients, strict=True):
            todo = [gradient]
            while todo:
                node = todo.pop()
                if not isinstance(node, Node) or node in roles:
                    continue
                if _base(node) in _VIEWS:
                    todo.append(node.args[0])
                elif node.op == "call_function" and node.target is not operator.getitem:
                    roles[node] = f"{name.rpartition('.')[2]} gradient"
                    todo += node.args if _base(node) == "aten.add" else ()  # used twice: both parts are of it
        return roles


def _base(node: Node) -> str:
    """Name of an operation without its overload."""
    return str(node.target).rpartition(".")[0]


def _compare(result: Any, expected: Any, name: str, place: Place) -> None:
    """A row must give the shapes that PyTorch gives."""
    pairs = (
        zip(result, expected, strict=True) if isinstance(expected, list | tuple) else ((result, expected),)
    )
    for ours, theirs in pairs:
        if ours is not None and isinstance(theirs, torch.Tensor) and ours.type != _type(theirs):
            raise UnsupportedOperation(
                name, place, f"its lowering gives {ours.type}, PyTorch {_type(theirs)}"
            )
