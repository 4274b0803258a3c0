"""Lowerings of sorting: the rank of each element is the number of elements that come before it."""

from __future__ import annotations

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import (
    Expr,
    Word,
    const,
    eq,
    i32,
    logical_and,
    lt,
    operation,
    select,
    u32,
    word_of,
)
from crowdtrain.lowering.index import Index
from crowdtrain.lowering.table import CannotLower, lowers
from crowdtrain.lowering.tensor import Tensor, reshape

__all__: list[str] = []

_LONGEST = 1 << 14
"""Elements along a sorted dimension: the work is their square."""


def _key(x: Expr) -> Expr:
    """An i32 in the order of x: the bits of an f32, those of magnitudes turned round below 0; both zeros are
    equal, and a NaN is greater than all.
    """
    if x.dtype is i32:
        return x
    if x.dtype is u32:
        return operation("ixor", i32, x, const(1 << 31, u32))
    word = x + 0.0  # -0 becomes 0
    below = operation("sar", i32, word, const(31, i32))
    return operation("ixor", i32, word, operation("shr", i32, below, const(1, i32)))


def _ordered(b: Builder, x: Tensor, dim: int, count: int, *, descending: bool) -> tuple[Tensor, Tensor]:
    """The first ``count`` elements along ``dim`` in order, and their positions; equal ones in the order in
    which they stand.
    """
    if not x.shape:
        return x, b.constant(0, i32)
    d = dim % len(x.shape)
    extent = x.shape[d]
    if extent > _LONGEST:
        raise CannotLower(f"a dimension of {extent} elements is sorted, at most {_LONGEST} can be")
    b.settle(x)
    keys = b.settle(b.pointwise(_key, x, what="keys")) if x.dtype is not i32 else x

    def along(i: tuple[Index, ...], position: Index) -> tuple[Index, ...]:
        return (*i[:d], position, *i[d + 1 :])

    def count_before(acc: Expr, *i: Index) -> Expr:
        own, other, place = keys[i[:-1]], keys[along(i[:-1], i[-1])], i[-1]
        better = lt(own, other) if descending else lt(other, own)
        tie = logical_and(eq(own, other), lt(word_of(place, i32), word_of(i[d], i32)))
        return acc + operation("ior", i32, better, tie)

    rank = b.fold(x.shape, (extent,), count_before, "ranks", init=const(0, i32))

    def find(acc: Expr, *i: Index) -> Expr:
        found = eq(rank[along(i[:-1], i[-1])], word_of(i[d], i32))
        return select(found, word_of(i[-1], i32), acc)

    shape = (*x.shape[:d], count, *x.shape[d + 1 :])
    positions = b.fold(shape, (extent,), find, "positions", init=const(0, i32))
    b.bordered(x, (d,))
    return b.view(x, shape, lambda *i: along(i, Index.of(Word(positions[i])))), positions


@lowers("topk.default")
def _topk(
    b: Builder, x: Tensor, k: int, dim: int = -1, largest: bool = True, is_sorted: bool = True
) -> tuple[Tensor, Tensor]:
    return _ordered(b, x, dim, k, descending=largest)


@lowers("sort.default")
def _sort(b: Builder, x: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    return _ordered(b, x, dim, x.shape[dim] if x.shape else 1, descending=descending)


@lowers("sort.stable")
def _sort_stably(
    b: Builder, x: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    return _ordered(b, x, dim, x.shape[dim] if x.shape else 1, descending=descending)


@lowers("kthvalue.default")
def _kthvalue(b: Builder, x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    if not x.shape:
        return x, b.constant(0, i32)
    d = dim % len(x.shape)
    shape = (*x.shape[:d], 1, *x.shape[d + 1 :]) if keepdim else (*x.shape[:d], *x.shape[d + 1 :])

    def only(ordered: Tensor) -> Tensor:
        return b.view(ordered, shape, lambda *i: (*i[:d], k - 1, *i[d + keepdim :]))

    values, positions = _ordered(b, x, d, k, descending=False)
    return only(values), only(positions)


@lowers("median.dim")
def _median(b: Builder, x: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower of two in the middle."""
    extent = x.shape[dim] if x.shape else 1
    result: tuple[Tensor, Tensor] = _kthvalue(b, x, (extent - 1) // 2 + 1, dim, keepdim)
    return result


@lowers("median.default")
def _median_of_all(b: Builder, x: Tensor) -> Tensor:
    result: Tensor = _median(b, reshape(x, (x.size,)))[0]
    return result
