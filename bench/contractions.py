"""Nests that multiply and add, as PyTorch would compute them: ``mm``, ``bmm``, ``conv2d`` and its gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from crowdtrain_engine import Axis, Instruction, Mode, Nest, Program, Read, TensorType
from crowdtrain_engine.ops import BY_NAME
from crowdtrain_engine.program import Operand
from torch import Tensor

__all__ = ["Contraction", "alone", "recognise"]

_FMA = (Instruction(BY_NAME["ffma"].code, 1, 2, 0),)


@dataclass(frozen=True)
class Contraction:
    """What a nest is called, and PyTorch's call for the same operands, given under the shapes that the nest reads."""

    name: str
    call: Callable[[Tensor, Tensor], Callable[[], Tensor]]


def alone(nest: Nest) -> tuple[Nest, Program]:
    """The nest reading values 0, 1 …, one for each operand, and a program of it alone whose state they are."""
    state: list[TensorType] = []
    operands: list[Operand] = []
    for operand in nest.operands:
        if isinstance(operand, Read):
            operands.append(replace(operand, value=len(state)))
            state.append(TensorType(nest.dtype, operand.shape))
        else:
            operands.append(operand)
    nest = replace(nest, operands=tuple(operands))
    count = len(state)
    return nest, Program((count,), tuple(state), (), (nest,), tuple(range(count)), (count,))


def recognise(nest: Nest) -> Contraction | None:
    """What PyTorch has for ``nest``; None if it is no sum of products, or one that PyTorch has no single call for."""
    if nest.body != _FMA or not nest.fold or len(nest.reads) != 2 or len(nest.operands) != 2:
        return None
    extents = (*nest.outer, *nest.fold)
    if all(_inside(axis, extents) for read in nest.reads for axis in read.axes):
        return _product(nest)
    return _convolution(nest)


def _inside(axis: Axis, extents: Sequence[int]) -> bool:
    """Whether every position is in range."""
    if axis.mode in (Mode.EXACT, Mode.GATHER):
        return False
    moves = [coefficient * (extents[loop] - 1) for loop, coefficient in axis.terms]
    low, high = (axis.offset + sum(f(move, 0) for move in moves) for f in (min, max))
    return low // axis.divisor >= 0 and high // axis.divisor < axis.size


# ---------------------------------------------------------------- matrix products


def _strides(read: Read) -> dict[int, int]:
    """Words between neighbours along each loop that moves the read; 0 where the loop is divided."""
    strides: dict[int, int] = {}
    step = 1
    for axis in reversed(read.axes):
        for loop, coefficient in axis.terms:
            strides[loop] = strides.get(loop, 0) + (coefficient * step if axis.mode is Mode.AFFINE else 0)
        step *= axis.size
    return strides


def _view(tensor: Tensor, read: Read, loops: Sequence[int], extents: Sequence[int]) -> Tensor:
    """What is read, with a dimension for each of ``loops``: a view, or where a loop is divided, a copy."""
    shape = [extents[loop] for loop in loops]
    if all(axis.mode is Mode.AFFINE for axis in read.axes):
        strides, offset, step = _strides(read), 0, 1
        for axis in reversed(read.axes):
            offset, step = offset + axis.offset * step, step * axis.size
        return tensor.as_strided(shape, [strides[loop] for loop in loops], offset)
    index = dict(zip(loops, torch.meshgrid(*map(torch.arange, shape), indexing="ij"), strict=True))
    flat = torch.zeros(shape, dtype=torch.int64)
    for axis in read.axes:
        moved = sum(
            (coefficient * index[loop] for loop, coefficient in axis.terms), torch.tensor(axis.offset)
        )
        flat = flat * axis.size + moved // axis.divisor
    return tensor.reshape(-1)[flat]


def _product(nest: Nest) -> Contraction | None:
    extents, rank = (*nest.outer, *nest.fold), len(nest.outer)
    x, y = map(_strides, nest.reads)
    fold = [loop for loop in range(rank, len(extents)) if extents[loop] > 1]
    batch = [loop for loop in range(rank) if loop in x and loop in y]
    rows = [loop for loop in range(rank) if loop in x and loop not in y]
    columns = [loop for loop in range(rank) if loop in y and loop not in x]
    if any(loop not in x or loop not in y for loop in fold) or not (rows or columns):
        return None  # sums, or dot products of rows

    def size(loops: Iterable[int]) -> int:
        return math.prod(extents[loop] for loop in loops)

    def matrices(tensor: Tensor, read: Read, left: Sequence[int], right: Sequence[int]) -> Tensor:
        """The operand as [batch, left, right]: a view where there is one, else a copy."""
        view = _view(tensor, read, (*batch, *left, *right), extents)
        shaped = view.reshape(size(batch), size(left), size(right))
        return shaped if batch else shaped[0]

    def call(a: Tensor, b: Tensor) -> Callable[[], Tensor]:
        left = matrices(a, nest.reads[0], rows, fold)
        right = matrices(b, nest.reads[1], fold, columns)
        return lambda: torch.matmul(left, right)

    along = "".join("N" if _lies(loops, strides) else "T" for loops, strides in ((fold, x), (columns, y)))
    name = f"{size(rows)} × {size(columns)} × {size(fold)} {along}"
    return Contraction(f"{size(batch)} of {name}" if batch else name, call)


def _lies(loops: Sequence[int], strides: dict[int, int]) -> bool:
    """Whether words along the loops are neighbours in memory."""
    return not loops or strides[loops[-1]] == 1


# ---------------------------------------------------------------- convolutions


@dataclass(frozen=True)
class _Window:
    """How a convolution's nest finds rows or columns of its image: one term for an outer loop, one for the fold's."""

    outer: int
    fold: int
    offset: int
    divisor: int


def _window(axis: Axis, rank: int) -> _Window | None:
    terms = dict(axis.terms)
    outer = [coefficient for loop, coefficient in terms.items() if loop < rank]
    fold = [coefficient for loop, coefficient in terms.items() if loop >= rank]
    if not fold and axis.mode is Mode.EXACT:
        fold = [-1]  # a kernel of one word
    if len(outer) != 1 or len(fold) != 1 or axis.mode is Mode.FLOOR:
        return None
    return _Window(outer[0], fold[0], axis.offset, axis.divisor)


def _convolution(nest: Nest) -> Contraction | None:
    """A convolution of one group whose windows are the same along rows and columns, or one of its gradients."""
    rank = len(nest.outer)
    image, other = nest.reads
    if len(image.axes) != 4 or len(other.axes) != 4 or rank != 4 or len(nest.fold) != 3:
        return None
    windows = [_window(axis, rank) for axis in image.axes[2:]]
    if windows[0] is None or windows[0] != windows[1]:
        return None
    window = windows[0]
    batch_is_folded = all(loop >= rank for loop, _ in image.axes[0].terms) and bool(image.axes[0].terms)
    if window.fold < 0 or window.divisor > 1:
        return _input_gradient(nest, image, other, window)
    if batch_is_folded:
        return _weight_gradient(nest, image, other, window)
    if other.shape[1] != image.shape[1]:
        return None
    stride, dilation, padding = window.outer, window.fold, -window.offset

    def call(x: Tensor, w: Tensor) -> Callable[[], Tensor]:
        return lambda: F.conv2d(x, w, stride=stride, padding=padding, dilation=dilation)

    return Contraction(_name("forward", image.shape, other.shape, stride), call)


def _name(which: str, image: tuple[int, ...], weight: tuple[int, ...], stride: int) -> str:
    batch, inputs, height, width = image
    outputs, _, high, wide = weight
    strided = f", stride {stride}" if stride > 1 else ""
    return f"{batch} of {inputs} → {outputs}, {height} × {width} by {high} × {wide}{strided}: {which}"


def _gradients(
    image: Tensor, weight: Tensor, grad: Tensor, geometry: tuple[int, int, int], which: int
) -> Callable[[], Tensor]:
    stride, padding, dilation = geometry
    mask = [which == 0, which == 1, False]

    def run() -> Tensor:
        result: Tensor = torch.ops.aten.convolution_backward(
            grad, image, weight, None, [stride] * 2, [padding] * 2, [dilation] * 2, False, [0, 0], 1, mask
        )[which]
        return result

    return run


def _input_gradient(nest: Nest, grad: Read, weight: Read, window: _Window) -> Contraction | None:
    stride, padding, dilation = window.divisor, window.offset, -window.fold
    if weight.shape[:2] != (grad.shape[1], nest.outer[1]):
        return None

    def call(g: Tensor, w: Tensor) -> Callable[[], Tensor]:
        return _gradients(torch.zeros(nest.outer), w, g, (stride, padding, dilation), 0)

    return Contraction(_name("input gradient", nest.outer, weight.shape, stride), call)


def _weight_gradient(nest: Nest, image: Read, grad: Read, window: _Window) -> Contraction | None:
    stride, padding, dilation = window.fold, -window.offset, window.outer
    if nest.outer[:2] != (grad.shape[1], image.shape[1]):
        return None

    def call(x: Tensor, g: Tensor) -> Callable[[], Tensor]:
        return _gradients(x, torch.zeros(nest.outer), g, (stride, padding, dilation), 1)

    return Contraction(_name("weight gradient", image.shape, nest.outer, stride), call)
