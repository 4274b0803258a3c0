"""Sizes of whole tensors."""

from __future__ import annotations

import math

from crowdtrain_engine import TensorType

from crowdtrain.lowering.builder import LONG_SUM, Builder
from crowdtrain.lowering.expr import ReadExpr, fma
from crowdtrain.lowering.index import Index, Loop
from crowdtrain.lowering.tensor import Tensor, reshape

__all__ = ["sum_of_squares"]


def sum_of_squares(b: Builder, tensor: Tensor, what: str) -> Tensor:
    """The sum of the squares of all elements; of a large tensor by columns, which lie side by side in memory."""
    size = tensor.size
    columns = 1 if size <= LONG_SUM else _divisor_near_root(size)
    table = reshape(_as_it_lies(b.settle(tensor)), (size // columns, columns))
    parts = b.fold(
        (columns,),
        (size // columns,),
        lambda acc, j, i: fma(table[i, j], table[i, j], acc),
        f"{what}: columns",
    )
    return reshape(parts, ()) if columns == 1 else b.sum((), (columns,), lambda j: parts[j], what)


def _divisor_near_root(size: int) -> int:
    """A divisor of ``size``, as near to its root as there is one."""
    return next(d for d in range(math.isqrt(size), 0, -1) if size % d == 0)


def _as_it_lies(tensor: Tensor) -> Tensor:
    """The value of which ``tensor`` has the dimensions in another order, if it is such a view."""
    read = tensor.element
    if not isinstance(read, ReadExpr):
        return tensor
    loops = [
        atom
        for index in read.indices
        if isinstance(index, Index) and not index.offset
        for atom, coefficient in index.terms
        if isinstance(atom, Loop) and coefficient == 1
    ]
    extents = tuple(loop.extent for loop in loops)
    whole = tuple(extent for extent in read.shape if extent > 1)
    if extents != whole or len(set(loops)) != len(loops) or math.prod(whole) != tensor.size:
        return tensor
    return Tensor.stored(read.value, TensorType(tensor.dtype, read.shape))
