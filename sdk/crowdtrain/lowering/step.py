"""``crowdtrain.lower``: from a model, a loss and an optimizer to the program of one training step."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

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
from crowdtrain.lowering.tensor import Tensor
from crowdtrain.lowering.trace import Trace, place_of, trace
from crowdtrain.lowering.update import Optimizers, Training, TrainingOptions
from crowdtrain.optim import EMA

__all__ = [
    "ROWS", "Fed", "Goal", "check_seed", "checked", "examples", "lower", "named", "state_of", "step_program",
    "traced_program", "type_of",
]  # fmt: skip

ROWS = (
    cumulative, division, elementwise, gathers, losses, normalization, pooling, products, random, reductions,
    resampling, sorting, trigonometry, views,
)  # fmt: skip
"""Modules whose rows fill the table."""

_DTYPES = {torch.float32: DType.f32, torch.int64: DType.i32, torch.int32: DType.i32, torch.bool: DType.u32}
_WIDENED = {torch.float64: torch.float32, torch.int32: torch.int64}
"""Types of examples that are traced as another: classes, for one, must be int64 in PyTorch."""

T = TypeVar("T")

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
        """The nests that follow from the results of the traced step (those that are not None) and the gradients of
        parameters.
        """


@dataclass(frozen=True)
class Fed:
    """Tensors that a step is given besides parameters and buffers, by name: from the data, or a group of the state."""

    tensors: Mapping[str, torch.Tensor]
    group: str | None = None
    """None for data: what ``order`` names in this step"""


def step_program(
    model: torch.nn.Module,
    example: tuple[Any, Any],
    traced: Callable[..., Trace],
    goal: Goal,
    seed: int,
) -> LoweredProgram:
    """The program of a step of ``model``. ``traced`` gives its graph, from parameters, buffers, inputs and targets."""
    check_seed(seed)
    parameters, buffers = state_of(model)
    inputs, targets = examples(example)
    shaped = targets if isinstance(example[1], tuple | list) else targets[0]
    graph = traced(parameters, buffers, inputs, shaped)
    fed = Fed({**named(inputs, "inputs"), **named(targets, "targets")})
    return traced_program(graph, goal, parameters, buffers, (fed,), seed)


def traced_program(
    traced: Trace,
    goal: Goal,
    parameters: Mapping[str, torch.Tensor],
    buffers: Mapping[str, torch.Tensor],
    fed: Sequence[Fed],
    seed: int,
) -> LoweredProgram:
    """The program of a graph whose placeholders are these parameters, buffers, and what it is ``fed``."""
    return _Lowering(traced, goal, parameters, buffers, fed, seed).program()


def check_seed(seed: Any) -> None:
    """Raises InvalidOption for anything that is no seed."""
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InvalidOption(f"seed must be a whole number from 0 to 2^32 - 1, it is {seed!r}")


def state_of(model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A model's parameters and buffers; UnsupportedModel if a program cannot hold one."""
    own = dict(model.named_parameters())
    parameters = {name: checked(f"parameter {name}", p, (torch.float32,)) for name, p in own.items()}
    for name, p in own.items():
        parameters[name].requires_grad_(p.requires_grad)
    return parameters, {name: checked(f"buffer {name}", t) for name, t in model.named_buffers()}


def examples(example: Any) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Inputs and targets of one batch; UnsupportedModel if they are not one."""
    if not isinstance(example, tuple | list) or len(example) != 2:
        raise UnsupportedModel("the example must be a pair: a batch of inputs and its targets")
    inputs, targets = _tensors("inputs", example[0]), _tensors("targets", example[1])
    batches = {tensor.shape[:1] for tensor in (*inputs, *targets)}
    if not inputs or len(batches) != 1 or () in batches:
        shapes = [tuple(tensor.shape) for tensor in (*inputs, *targets)]
        raise UnsupportedModel(
            f"inputs and targets need one first dimension, the batch; the example has {shapes}"
        )
    return inputs, targets


def checked(what: str, tensor: torch.Tensor, allowed: Sequence[torch.dtype] = tuple(_DTYPES)) -> torch.Tensor:
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
        result.append(checked(what, tensor.to(wide), (torch.float32, torch.int64)))
    return tuple(result)


def named(tensors: Sequence[T], what: str) -> dict[str, T]:
    """``what``, or ``what.0`` and so on where there are several."""
    return {what if len(tensors) == 1 else f"{what}.{i}": tensor for i, tensor in enumerate(tensors)}


def type_of(tensor: torch.Tensor) -> TensorType:
    """The type that a tensor has in a program."""
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
        fed: Sequence[Fed],
        seed: int,
    ) -> None:
        self._b = Builder()
        self._trace = traced
        self._goal = goal
        self._parameters = parameters
        self._buffers = buffers
        self._fed = fed
        self._initial: dict[str, dict[str, Array]] = {}
        self._state: dict[str, dict[str, Tensor]] = {}
        self._env: dict[Node, Any] = {}
        nodes = list(traced.graph.graph.nodes)
        self._places_in = [node for node in nodes if node.op == "placeholder"]
        self._constants = [node for node in nodes if node.op == "get_attr"]
        self._results, self._gradients, self._changed = traced.outputs
        self._roles = self._find_roles()
        self._seed = np.asarray(seed, np.uint32)
        self._draws = sum(str(node.target) in DRAWING for node in nodes)

    def program(self) -> LoweredProgram:
        """The program."""
        b = self._b
        self._declare()
        batch = self._batch(
            {name: tensor for fed in self._fed if fed.group is None for name, tensor in fed.tensors.items()}
        )
        given = [
            tensor
            for fed in self._fed
            for tensor in (
                (batch[name] for name in fed.tensors)
                if fed.group is None
                else self._state[fed.group].values()
            )
        ]
        if self._draws:
            b.draws = Draws(b, self._state["counters"], self._draws)
        own = (*self._state.get("parameters", {}).values(), *self._state.get("buffers", {}).values())
        self._env.update(zip(self._places_in, (*own, *given), strict=True))
        for node in self._constants:
            self._env[node] = self._constant(node)
        for node in self._trace.graph.graph.nodes:
            if node.op == "call_function":
                self._call(node)
        counters = self._state["counters"]
        if not self._trace.again:
            for buffer, node in zip(self._state.get("buffers", {}).values(), self._changed, strict=True):
                self._assign(buffer, node)
        with b.label("counters"):
            b.next(counters["step"], b.pointwise(lambda s: s + 1, counters["step"], what="step"))
        results = [self._env[node] for node in self._results if node is not None]
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
            self._add("parameters", name, type_of(tensor), _array(name, tensor))
        for name, tensor in self._buffers.items():
            self._add("buffers", name, type_of(tensor), _array(name, tensor))
        for fed in self._fed:
            if fed.group is not None:
                for name, tensor in fed.tensors.items():
                    self._add(fed.group, name, type_of(tensor))
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
        return self._b.table(_array(name, checked(f"constant {name}", tensor)), name)

    def _add(self, group: str, name: str, kind: TensorType, values: Array | None = None) -> None:
        self._state.setdefault(group, {})[name] = self._b.state(group, name, kind)
        zeros = np.zeros(kind.shape, kind.dtype.numpy)
        self._initial.setdefault(group, {})[name] = zeros if values is None else values

    def _batch(self, examples: Mapping[str, torch.Tensor]) -> dict[str, Tensor]:
        """The samples of this step: ``order[step]`` names them, and each data tensor is read there."""
        if not examples:
            return {}
        b, step = self._b, self._state["counters"]["step"]
        types = {name: type_of(tensor) for name, tensor in examples.items()}
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
            return {name: b.map(types[name].shape, rows(tensor), name) for name, tensor in data.items()}

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
        if ours is not None and isinstance(theirs, torch.Tensor) and ours.type != type_of(theirs):
            raise UnsupportedOperation(
                name, place, f"its lowering gives {ours.type}, PyTorch {type_of(theirs)}"
            )
