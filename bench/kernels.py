"""Kernels alone, beside PyTorch's: products, convolutions, elementwise operations, norms, softmax, embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import crowdtrain as ct
import numpy as np
import torch
import torch.nn.functional as F
from crowdtrain_engine import Axis, DType, Executor, Instruction, Nest, Program, Read
from crowdtrain_engine.native import NativePlan
from crowdtrain_engine.ops import BY_NAME
from torch import Tensor, nn

from bench.contractions import Contraction, alone, recognise
from bench.timing import Call, Effort, Measured, in_turn

__all__ = [
    "OPERATIONS",
    "SQUARES",
    "Kernel",
    "Operation",
    "contractions",
    "measure_kernels",
    "measure_nest",
    "measure_operation",
    "operations",
    "square",
]

SQUARES = (512, 768, 1024, 1536, 2048)


@dataclass(frozen=True)
class Kernel:
    """A kernel alone: the times of both, and what it does."""

    name: str
    where: str
    """models that contain it, or a heading"""
    ours: Measured
    theirs: Measured
    flops: int
    bytes: int
    """words read and written once, 4 bytes each"""


# ---------------------------------------------------------------- sums of products


def square(n: int) -> Nest:
    """A product of two matrices of n × n."""
    x, y = (Read(i, (Axis(n, ((a, 1),)), Axis(n, ((b, 1),)))) for i, (a, b) in enumerate(((0, 2), (2, 1))))
    return Nest(DType.f32, (n, n), (x, y), (Instruction(BY_NAME["ffma"].code, 1, 2, 0),), 3, (n,))


def contractions(programs: Mapping[str, Program]) -> list[tuple[Nest, Contraction, str]]:
    """Every different sum of products that the programs contain and PyTorch has a call for, with the names of the
    programs.
    """
    found: dict[bytes, tuple[Nest, Contraction, list[str]]] = {}
    for model, program in programs.items():
        for nest in program.nests:
            known = recognise(nest)
            if known is None:
                continue
            single, _ = alone(nest)
            _, _, models = found.setdefault(single.encode(), (single, known, []))
            if model not in models:
                models.append(model)
    return [(nest, known, ", ".join(models)) for nest, known, models in found.values()]


def measure_nest(nest: Nest, known: Contraction, where: str, threads: int, effort: Effort) -> Kernel:
    """A nest of two operands beside PyTorch's call."""
    torch.set_num_threads(threads)
    _, program = alone(nest)
    tensors = [torch.randn(kind.shape) for kind in program.state]
    words = [tensor.numpy().reshape(-1).view(np.uint32) for tensor in tensors]
    plan = NativePlan(program, threads)
    calls = {"ours": Call(partial(plan.nest, 0, words)), "theirs": Call(known.call(*tensors))}
    times = in_turn(calls, effort.rounds, effort.kernel_seconds)
    flops = 2 * nest.type.size * nest.fold_length
    moved = 4 * (sum(kind.size for kind in program.state) + nest.type.size)
    return Kernel(known.name, where, times["ours"], times["theirs"], flops, moved)


# ---------------------------------------------------------------- other operations


class _Apply(nn.Module):
    """Writes what an operation makes of fixed tensors into buffers, step after step, and trains next to nothing."""

    def __init__(self, operation: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.operation = operation
        self.weight = nn.Parameter(torch.zeros(1))
        self.names = [f"tensor{i}" for i in range(len(tensors))]
        for name, tensor in zip(self.names, tensors, strict=True):
            self.register_buffer(name, tensor)
        self.results = operation(*tensors)
        for i, result in enumerate(self.results):
            self.register_buffer(f"result{i}", torch.zeros_like(result))

    def forward(self, x: Tensor) -> Tensor:
        results = self.operation(*(getattr(self, name) for name in self.names))
        for i, result in enumerate(results):
            getattr(self, f"result{i}").copy_(result.detach())
        return x * self.weight


@dataclass(frozen=True)
class Operation:
    """An operation with its operands."""

    call: Callable[..., Sequence[Tensor]]
    operands: Callable[[], Sequence[Tensor]]

    def lowered(self, steps: int, threads: int) -> Executor:
        """The operation as a program, ready to run that many steps."""
        model = _Apply(self.call, self.operands())
        program = ct.lower(
            model, lambda y, _: y.sum(), optimizer=ct.optim.SGD(lr=0.0), example=(torch.zeros(1, 1), ())
        )
        data = ct.Dataset(np.zeros((1, 1), np.float32), order=np.zeros((steps, 1), np.uint32))
        return Executor(program, program.initial_state(), data, threads=threads)


def _norm_gradient(
    grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor
) -> Sequence[Tensor]:
    size = [weight.numel()]
    grads: Sequence[Tensor] = torch.ops.aten.native_layer_norm_backward(
        grad, x, size, mean, rstd, weight, bias, [True, True, True]
    )
    return grads


def _norm_operands(rows: int, width: int) -> tuple[Tensor, ...]:
    x, weight, bias = torch.randn(rows, width), torch.randn(width), torch.randn(width)
    _, mean, rstd = torch.native_layer_norm(x, [width], weight, bias, 1e-5)
    return torch.randn(rows, width), x, mean, rstd, weight, bias


def operations(tokens: int, width: int, vocabulary: int, length: int) -> dict[str, Operation]:
    """The operations of a transformer of that width over so many tokens, ``length`` of them in a sequence."""
    hidden, scores = (tokens, 4 * width), (tokens * width // 64, length)
    aten = torch.ops.aten
    return {
        f"add, {hidden}": Operation(lambda x, y: (x + y,), lambda: (torch.randn(hidden), torch.randn(hidden))),
        f"gelu, {hidden}": Operation(lambda x: (F.gelu(x),), lambda: (torch.randn(hidden),)),
        f"gelu gradient, {hidden}": Operation(
            lambda g, x: (aten.gelu_backward(g, x),), lambda: (torch.randn(hidden), torch.randn(hidden))
        ),
        f"softmax, {scores}": Operation(lambda x: (x.softmax(-1),), lambda: (torch.randn(scores),)),
        f"softmax gradient, {scores}": Operation(
            lambda g, y: (aten._softmax_backward_data(g, y, -1, torch.float32),),
            lambda: (torch.randn(scores), torch.randn(scores).softmax(-1)),
        ),
        f"layer norm, {(tokens, width)}": Operation(
            lambda x, w, b: (F.layer_norm(x, (width,), w, b),),
            lambda: (torch.randn(tokens, width), torch.randn(width), torch.randn(width)),
        ),
        f"layer norm gradients, {(tokens, width)}": Operation(_norm_gradient, lambda: _norm_operands(tokens, width)),
        f"embedding gradient, {vocabulary} × {width}, {tokens} tokens": Operation(
            lambda g, i: (aten.embedding_dense_backward(g, i, vocabulary, -1, False),),
            lambda: (torch.randn(tokens, width), torch.randint(vocabulary, (tokens,))),
        ),
    }  # fmt: skip


OPERATIONS = operations(tokens=2048, width=384, vocabulary=256, length=128)
"""Those of GPT-11M."""


def measure_operation(name: str, operation: Operation, threads: int, effort: Effort) -> Kernel:
    """An operation as a program of its own beside PyTorch's call."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    operands = operation.operands()
    steps = 1 << 12
    executor = operation.lowered(steps, threads)
    before = executor.state

    def reset() -> None:
        executor.state = before

    calls = {
        "ours": Call(lambda: executor.run(1), reset, steps - 2),
        "theirs": Call(lambda: operation.call(*operands), most=steps),
    }
    with torch.no_grad():
        times = in_turn(calls, effort.rounds, effort.kernel_seconds)
        results = operation.call(*operands)
    moved = 4 * sum(tensor.numel() for tensor in (*operands, *results))
    return Kernel(name, "operation", times["ours"], times["theirs"], 0, moved)


def measure_kernels(
    programs: Mapping[str, Program],
    squares: Sequence[int],
    others: Mapping[str, Operation],
    threads: int,
    effort: Effort,
) -> Iterator[Kernel]:
    """Square products, every sum of products of the programs, and the other operations."""
    for n in squares:
        nest = square(n)
        known = recognise(nest)
        if known is None:
            raise RuntimeError("a product of matrices is not recognised")
        yield measure_nest(nest, known, "square", threads, effort)
    for nest, known, where in contractions(programs):
        yield measure_nest(nest, known, where, threads, effort)
    for name, operation in others.items():
        yield measure_operation(name, operation, threads, effort)
