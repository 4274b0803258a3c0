"""From a module and a loss to a graph of ATen operations: forward, loss and gradients, without mutation.

Every node of the graph knows its place: the module and the user's source line that it comes from, or is the
gradient of. The first pass runs the model on fake tensors and records what autograd does; a second one takes out
operations in place, if there are any (torch.func.functionalize). Then the graph is rewritten (``rewrites``).
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from types import FrameType
from typing import Any

import torch
from torch._decomp import core_aten_decompositions
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    unset_fake_temporarily,
)
from torch.fx import GraphModule, Interpreter, Node, traceback
from torch.fx.experimental.proxy_tensor import (
    PythonKeyTracer,
    disable_proxy_modes_tracing,
    get_proxy_mode,
    get_proxy_slot,
    make_fx,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.fx.node import map_arg
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from crowdtrain.lowering.errors import DataDependent, Place, UnsupportedModel, UnsupportedOperation
from crowdtrain.lowering.rewrites import rewrite

__all__ = ["Trace", "place_of", "trace", "trace_evaluation", "trace_stage"]

Tensors = Mapping[str, torch.Tensor]

_HIDDEN = (
    os.path.dirname(torch.__file__) + os.sep,
    os.path.dirname(os.path.dirname(__file__)) + os.sep,
    "<eval_with_key>",
    "<string>",
)
"""What the files of frames that are not the user's begin with: two folders, and generated code."""

_LINE = 120
"""Characters of a source line that are shown."""

_WHOLE = (
    "_log_softmax_backward_data", "_safe_softmax", "_softmax_backward_data", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "embedding_dense_backward", "eye",
    "native_batch_norm_backward", "native_group_norm_backward", "nll_loss2d_backward", "nll_loss2d_forward",
    "nll_loss_backward", "nll_loss_forward", "select_backward", "select_scatter", "slice_backward",
    "threshold_backward", "upsample_bicubic2d", "upsample_bilinear2d", "upsample_linear1d",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_trilinear3d",
)  # fmt: skip
"""Operations with a lowering of their own, though PyTorch could take them apart."""


@dataclass(frozen=True)
class Trace:
    """A step as a graph.

    Placeholders: parameters, buffers, inputs, targets. Outputs: the results (the loss, metrics or a stage's outputs,
    then the gradient or None of each input that requires one), the gradient (or None) of each parameter in
    ``trained``, and each buffer as it is afterwards.
    """

    graph: GraphModule
    trained: tuple[str, ...]
    again: bool = False
    """whether another step has computed the buffers already, so that they stay as they are"""

    @property
    def outputs(self) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
        """Nodes of the results, of the gradients of parameters, and of the buffers afterwards."""
        ((results, gradients, changed),) = next(reversed(self.graph.graph.nodes)).args
        return results, gradients, changed


def trace(
    model: torch.nn.Module,
    loss: Callable[[Any, Any], torch.Tensor],
    parameters: Tensors,
    buffers: Tensors,
    inputs: Sequence[torch.Tensor],
    targets: Any,
) -> Trace:
    """Traces one step of ``model`` in its present mode on tensors of these shapes and types.

    ``targets`` is what ``loss`` takes as its second argument: a tensor or a tuple of tensors. Raises
    UnsupportedModel if the loss is not one f32 number that depends on a parameter, DataDependent if Python
    reads a tensor's values.
    """

    def measure(output: Any, targets: Any, leaves: Sequence[torch.Tensor], places: _Places) -> Any:
        places.part = "loss"
        value = loss(output, targets)
        _check_loss(value)
        return (value,), lambda: torch.autograd.grad(value, leaves, allow_unused=True)

    return Trace(_trace(model, measure, parameters, buffers, inputs, targets), _trained(parameters))


def trace_stage(
    model: torch.nn.Module,
    parameters: Tensors,
    buffers: Tensors,
    inputs: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor | None] = (),
) -> tuple[Trace, tuple[torch.Tensor, ...]]:
    """Traces a stage of a model in its present mode; with the ``gradients`` of its outputs (None where there is none),
    backward too.

    Also gives zeros that look like the outputs, and require a gradient where those do. Raises UnsupportedModel if the
    stage gives anything but a tensor or several, DataDependent if Python reads a tensor's values.
    """
    shapes: list[tuple[torch.Size, torch.dtype, bool]] = []

    def measure(output: Any, targets: Any, leaves: Sequence[torch.Tensor], places: _Places) -> Any:
        outputs = _outputs(output)
        shapes.extend((tensor.shape, tensor.dtype, tensor.requires_grad) for tensor in outputs)
        moving = [o for o, gradient in zip(outputs, gradients, strict=False) if gradient is not None]

        def derive() -> Sequence[torch.Tensor | None]:
            if not moving or not leaves:
                return ()
            return torch.autograd.grad(moving, leaves, grad_outputs=targets, allow_unused=True)

        return outputs, derive

    given = [gradient for gradient in gradients if gradient is not None]
    graph = _trace(model, measure, parameters, buffers, inputs, given)
    examples = (torch.zeros(s, dtype=d, requires_grad=g) for s, d, g in shapes)
    trained = _trained(parameters) if given else ()
    return Trace(graph, trained, again=bool(given)), tuple(examples)


def _trained(parameters: Tensors) -> tuple[str, ...]:
    return tuple(name for name, tensor in parameters.items() if tensor.requires_grad)


def _outputs(output: Any) -> tuple[torch.Tensor, ...]:
    parts = tuple(output) if isinstance(output, tuple | list) else (output,)
    for part in parts:
        if not isinstance(part, torch.Tensor):
            raise UnsupportedModel(
                f"a stage must give a tensor or a tuple of tensors, {type(part).__name__} is among what it gives"
            )
    if not parts:
        raise UnsupportedModel("a stage gives nothing to the next one")
    return parts


def trace_evaluation(
    model: torch.nn.Module,
    metrics: Mapping[str, Callable[[Any, Any], torch.Tensor]],
    parameters: Tensors,
    buffers: Tensors,
    inputs: Sequence[torch.Tensor],
    targets: Any,
) -> Trace:
    """Traces ``model`` in its present mode, and what each of ``metrics`` makes of its output, as f32 numbers.

    Raises UnsupportedModel if a metric is not one number, DataDependent if Python reads a tensor's values.
    """

    def measure(output: Any, targets: Any, leaves: Sequence[torch.Tensor], places: _Places) -> Any:
        values = []
        for name, metric in metrics.items():
            places.part = f"metric {name}"
            values.append(_checked_metric(name, metric(output, targets)))
        return tuple(values), tuple

    return Trace(_trace(model, measure, parameters, buffers, inputs, targets), ())


def _trace(
    model: torch.nn.Module,
    measure: Callable[[Any, Any, Sequence[torch.Tensor], _Places], Any],
    parameters: Tensors,
    buffers: Tensors,
    inputs: Sequence[torch.Tensor],
    targets: Any,
) -> GraphModule:
    """The graph of a step. ``measure`` gives the results, and a function that gives gradients of the leaves (parameters
    and inputs that require them): of what the step computes, they come last.
    """
    places = _Places(model)
    names = (*parameters, *buffers)
    flat, form = tree_flatten(targets)
    derived = len(_trained(parameters))

    def step(*tensors: torch.Tensor) -> Any:
        state = dict(zip(names, tensors, strict=False))
        rest = tensors[len(names) :]
        with _plain_operations(), places, _holding(model, state) as after:
            # what autograd calls a leaf may not be changed in place, a copy may
            given = (tensor.clone() if tensor.requires_grad else tensor for tensor in rest[: len(inputs)])
            output = model(*given)
            leaves = [tensor for tensor in tensors if tensor.requires_grad]
            results, gradients = measure(output, tree_unflatten(rest[len(inputs) :], form), leaves, places)
            changed = [after(name) for name in buffers]
        try:
            found = gradients()
        except NotImplementedError as error:
            place = traceback.current_meta.get("custom", {}).get("place", Place(backward=True))
            raise UnsupportedOperation("what has no gradient in PyTorch", place, str(error)) from error
        return (*results, *found[derived:]), found[:derived], changed

    tensors = (*parameters.values(), *buffers.values(), *inputs, *flat)
    with traceback.preserve_node_meta():
        graph = _make_graph(step, tensors)
        _check_shapes(graph)
        _drop_aliases(graph)
        if any(_is_mutation(node) for node in graph.graph.nodes):
            constant = [tensor.detach() for tensor in tensors]
            graph = _make_graph(torch.func.functionalize(_Replay(graph).run), constant)
    graph.graph.eliminate_dead_code()
    rewrite(graph)
    return graph


@contextmanager
def _plain_operations() -> Iterator[None]:
    """Recurrent layers and attention as the operations of which they consist; gradients whatever is set outside."""
    fused, fast = torch._C._get_mkldnn_enabled(), torch.backends.mha.get_fastpath_enabled()
    torch._C._set_mkldnn_enabled(False)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch._C._set_mkldnn_enabled(fused)
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _holding(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor]
) -> Iterator[Callable[[str], torch.Tensor]]:
    """Puts the tensors of ``state`` in place of the parameters and buffers of these names, for a while.

    A tensor that stands in several places is replaced in all of them. Gives a function that looks up a name.
    """
    given = {
        id(tensor): state[name]
        for named in (model.named_parameters(), model.named_buffers())
        for name, tensor in named
    }
    places: list[tuple[dict[str, Any], str, torch.Tensor]] = [
        (holder, key, tensor)
        for module in model.modules()
        for holder in (module._parameters, module._buffers)
        for key, tensor in holder.items()
        if tensor is not None
    ]
    try:
        for holder, key, tensor in places:
            holder[key] = given[id(tensor)]
        yield lambda name: _lookup(model, name)
    finally:
        for holder, key, tensor in places:
            holder[key] = tensor


def _lookup(model: torch.nn.Module, name: str) -> torch.Tensor:
    path, _, key = name.rpartition(".")
    tensor = model.get_submodule(path)._buffers[key]
    if not isinstance(tensor, torch.Tensor):
        raise UnsupportedModel(f"buffer {name} is no tensor any more after the model has run")
    return tensor


def place_of(node: Node) -> Place:
    """Where a node of a traced graph comes from."""
    place = node.meta.get("custom", {}).get("place")
    return place if isinstance(place, Place) else Place()


def _make_graph(function: Callable[..., Any], tensors: Sequence[torch.Tensor]) -> GraphModule:
    trace_it = make_fx(
        function, decomposition_table=_decompositions(), tracing_mode="fake", _allow_non_fake_inputs=True
    )
    return trace_it(*tensors)


@cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    table = dict(core_aten_decompositions())
    for name in _WHOLE:
        for overload in getattr(torch.ops.aten, name).overloads():
            table.pop(getattr(getattr(torch.ops.aten, name), overload), None)
    table[torch.ops.aten.native_batch_norm.default] = _batch_norm
    return table


def _batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> Any:
    """The form of batch norm whose signature says that it changes the running statistics."""
    legit = torch.ops.aten._native_batch_norm_legit
    if mean is None:
        return legit.no_stats(x, weight, bias, training, momentum, eps)
    return legit.default(x, weight, bias, mean, var, training, momentum, eps)


def _check_loss(value: Any) -> None:
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or value.dtype is not torch.float32:
        what = (
            f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        )
        raise UnsupportedModel(
            f"the loss must be one float32 number, it is {what}; reduce it, for example by its mean"
        )
    if not value.requires_grad:
        raise UnsupportedModel(
            "the loss depends on no parameter that requires a gradient, so there is nothing to train"
        )


def _checked_metric(name: str, value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or value.dtype.is_complex:
        what = (
            f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        )
        raise UnsupportedModel(f"metric {name} must be a tensor of one number, it is {what}")
    return value.reshape(()).to(torch.float32)


def _check_shapes(graph: GraphModule) -> None:
    for node in graph.graph.nodes:
        values = node.meta.get("val")
        for value in values if isinstance(values, list | tuple) else [values]:
            sizes = value.shape if isinstance(value, torch.Tensor) else ()
            if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
                raise DataDependent(place_of(node), f"{node.target} reads a tensor's value")
            if not all(isinstance(size, int) for size in sizes):
                raise UnsupportedOperation(
                    str(node.target),
                    place_of(node),
                    "the shape of its result depends on values",
                    "Keep shapes fixed: torch.where or a product with a mask instead of a selection.",
                )


class _Replay(Interpreter):
    """Runs a graph so that nodes traced from it inherit the places of its own."""

    def run_node(self, n: Node) -> Any:
        with traceback.annotate({"place": place_of(n)}):
            return super().run_node(n)


_VALUE_READS = frozenset(
    (
        torch.Tensor.__bool__,
        torch.Tensor.__float__,
        torch.Tensor.__index__,
        torch.Tensor.__int__,
        torch.Tensor.item,
        torch.Tensor.numpy,
        torch.Tensor.tolist,
    )
)


def _constant(tensor: torch.Tensor) -> torch.Tensor | None:
    """The values of a traced tensor that follows from nothing but constants; None if it does not."""
    mode = get_proxy_mode()
    tracer = mode.tracer if mode is not None else None
    proxy = get_proxy_slot(tensor, tracer, None) if isinstance(tracer, PythonKeyTracer) else None
    if not isinstance(tracer, PythonKeyTracer) or proxy is None:
        return None
    values: dict[Node, Any] = {}
    with disable_proxy_modes_tracing(), unset_fake_temporarily(), torch.no_grad():
        for node in tracer.graph.nodes:
            if node.op == "get_attr":
                values[node] = getattr(tracer.root, str(node.target)).clone()
            elif node.op == "call_function" and all(n in values for n in node.all_input_nodes):
                if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
                    args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
                    values[node] = node.target(*args, **kwargs)
            elif _changes(node) & values.keys():
                return None  # whatever shares its memory is constant no more
    found = values.get(proxy.proxy.node)
    return found if isinstance(found, torch.Tensor) else None


def _drop_aliases(graph: GraphModule) -> None:
    """Takes out what is only another name of a tensor, and what is not used: a second pass costs time for each node."""
    for node in graph.graph.nodes:
        if node.target in (torch.ops.aten.alias.default, torch.ops.aten.detach.default):
            node.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _is_mutation(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _changes(node: Node) -> set[Node]:
    """What an operation changes in place."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return set()
    pairs = zip(schema.arguments, node.args, strict=False)
    return {arg for formal, arg in pairs if isinstance(arg, Node) and formal.is_write}


_UNKNOWN_VALUES = (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode)
"""What PyTorch raises where its own code needs values."""


class _Places(TorchFunctionMode):
    """Notes for every operation, and for its gradient, the module and the user's line that call it."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.part = ""
        """what stands outside the model"""
        self._modules = {id(module): name for name, module in model.named_modules()}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        place = self._here()
        if func in _VALUE_READS and isinstance(args[0], FakeTensor) and args[0].constant is None:
            value = _constant(args[0])
            if value is None:
                name = getattr(func, "__name__", str(func))
                raise DataDependent(place, f"{name} reads the values of a tensor")
            args = (value, *args[1:])
        try:
            with traceback.annotate({"place": place}):
                result = func(*args, **(kwargs or {}))
        except _UNKNOWN_VALUES as error:
            name = getattr(func, "__name__", str(func))
            raise DataDependent(place, f"{name} depends on the values of a tensor ({error})") from error
        except (RuntimeError, TypeError) as error:
            if not hasattr(error, "__notes__"):  # the innermost call knows best
                error.add_note(f"in {place}")
            raise
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, torch.Tensor):
                _mark(tensor.grad_fn, replace(place, backward=True))
        return result

    def _here(self) -> Place:
        module, source = self.part or None, ""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and (module is None or not source):
            if module is None:
                module = self._modules.get(id(frame.f_locals.get("self")))
            path = frame.f_code.co_filename
            if not source and not path.startswith(_HIDDEN):
                line = linecache.getline(path, frame.f_lineno).strip()
                source = f"{path}:{frame.f_lineno}: {line[:_LINE]}" if line else f"{path}:{frame.f_lineno}"
            frame = frame.f_back
        return Place(module or "", source)


def _mark(function: Any, place: Place) -> None:
    """Lets the gradient of everything behind ``function`` that has no place yet be traced at ``place``."""
    todo = [function]
    while todo:
        function = todo.pop()
        if function is not None and "crowdtrain" not in function.metadata:
            function.metadata["crowdtrain"] = True
            function.register_prehook(lambda _, place=place: _enter(place))
            todo += [following for following, _ in function.next_functions]


def _enter(place: Place) -> None:
    traceback.current_meta["custom"] = {"place": place}
