"""Programs of one nest: matrix products, convolutions and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

from crowdtrain_engine import Axis, DType, Instruction, Mode, Nest, Program, Read, TensorType
from crowdtrain_engine.ops import BY_NAME

__all__ = ["FMA", "WHICH", "convolution", "matrix_product", "one_nest"]

FMA = BY_NAME["ffma"].code
WHICH = ("forward", "input", "weight")


def one_nest(nest: Nest, shapes_read: Sequence[tuple[int, ...]]) -> Program:
    """One nest over state tensors of these shapes, which stay as they are."""
    state = tuple(TensorType(DType.f32, shape) for shape in shapes_read)
    value = len(state)
    return Program((value,), state, (), (nest,), tuple(range(value)), (value,))


def _axis(size: int, *terms: tuple[int, int], offset: int = 0, divisor: int = 1) -> Axis:
    return Axis(size, tuple(sorted(terms)), offset, Mode.AFFINE if divisor == 1 else Mode.EXACT, divisor)


def matrix_product(rows: int, columns: int, depth: int, *, transposed: bool = False) -> Program:
    """``out[m, n]``, the sum over ``k`` of ``x[m, k] * y[k, n]`` (``y[n, k]``, if ``transposed``)."""
    x = Read(0, (Axis(rows, ((0, 1),)), Axis(depth, ((2, 1),))))
    y_axes = (Axis(depth, ((2, 1),)), Axis(columns, ((1, 1),)))
    y = Read(1, y_axes[::-1] if transposed else y_axes)
    nest = Nest(DType.f32, (rows, columns), (x, y), (Instruction(FMA, 1, 2, 0),), 3, (depth,))
    return one_nest(nest, [x.shape, y.shape])


def convolution(
    which: str, batch: int, inputs: int, outputs: int, size: tuple[int, int], kernel: int, stride: int = 1,
    dilation: int = 1, padding: int = 0,
) -> Program:  # fmt: skip
    """A convolution (``which`` is "forward") or its gradient for its "input" or "weight"."""
    height, width = size
    high, wide = (max(1, (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1) for n in size)
    image, result = (batch, inputs, height, width), (batch, outputs, high, wide)
    weight = (outputs, inputs, kernel, kernel)
    if which == "forward":  # loops n, co, h, w; fold ci, kh, kw
        outer, fold, shapes_read = result, (inputs, kernel, kernel), [image, weight]
        rows = _axis(height, (2, stride), (5, dilation), offset=-padding)
        columns = _axis(width, (3, stride), (6, dilation), offset=-padding)
        first = [_axis(batch, (0, 1)), _axis(inputs, (4, 1)), rows, columns]
        second = [_axis(outputs, (1, 1)), _axis(inputs, (4, 1)), _axis(kernel, (5, 1)), _axis(kernel, (6, 1))]
    elif which == "input":  # loops n, ci, h, w; fold co, kh, kw
        outer, fold, shapes_read = image, (outputs, kernel, kernel), [result, weight]
        rows = _axis(high, (2, 1), (5, -dilation), offset=padding, divisor=stride)
        columns = _axis(wide, (3, 1), (6, -dilation), offset=padding, divisor=stride)
        first = [_axis(batch, (0, 1)), _axis(outputs, (4, 1)), rows, columns]
        second = [_axis(outputs, (4, 1)), _axis(inputs, (1, 1)), _axis(kernel, (5, 1)), _axis(kernel, (6, 1))]
    else:  # loops co, ci, kh, kw; fold n, h, w
        outer, fold, shapes_read = weight, (batch, high, wide), [image, result]
        rows = _axis(height, (5, stride), (2, dilation), offset=-padding)
        columns = _axis(width, (6, stride), (3, dilation), offset=-padding)
        first = [_axis(batch, (4, 1)), _axis(inputs, (1, 1)), rows, columns]
        second = [_axis(batch, (4, 1)), _axis(outputs, (0, 1)), _axis(high, (5, 1)), _axis(wide, (6, 1))]
    reads = (Read(0, tuple(first)), Read(1, tuple(second)))
    return one_nest(Nest(DType.f32, outer, reads, (Instruction(FMA, 1, 2, 0),), 3, fold), shapes_read)
