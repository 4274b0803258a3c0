"""Lowerings of running sums, products and extremes, of products over dimensions, and of searches in sorted rows."""

from __future__ import annotations

import math
from collections.abc import Callable

from crowdtrain_engine import DType

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import (
    Expr,
    const,
    eq,
    exp,
    f32,
    i32,
    le,
    log,
    logical_and,
    lt,
    maximum,
    minimum,
    select,
    u32,
    word_of,
)
from crowdtrain.lowering.index import Index, placed
from crowdtrain.lowering.reductions import Reduction
from crowdtrain.lowering.table import CannotLower, lowers, number
from crowdtrain.lowering.tensor import Tensor

__all__: list[str] = []

Combine = Callable[[Expr, Expr], Expr]

_SHORT = 64
"""Extent up to which each running result is a fold from the start; longer ones go by blocks."""


def _up_to(place: Index, own: Index) -> Expr:
    """1 for places that are not after ``own``."""
    return le(word_of(place, i32), word_of(own, i32))


def _running(b: Builder, x: Tensor, d: int, combine: Combine, start: Expr, what: str) -> Tensor:
    """The combination of all elements up to each along dimension ``d``; ``start`` is neutral.

    By blocks of about the square root of the extent: within each block, then over the blocks before.
    """
    b.settle(x)
    extent = x.shape[d]
    if extent <= _SHORT:

        def step(acc: Expr, *i: Index) -> Expr:
            return select(_up_to(i[-1], i[d]), combine(acc, x[placed(i[:-1], d, i[-1])]), acc)

        return b.fold(x.shape, (extent,), step, what, init=start)
    size = math.isqrt(extent - 1) + 1
    blocks = -(-extent // size)
    b.bordered(x, (d,))
    shape = (*x.shape[:d], blocks, size, *x.shape[d + 1 :])
    fill = _number_of(start)

    def inside(acc: Expr, *i: Index) -> Expr:
        block, own, place = i[d], i[d + 1], i[-1]
        read = x.read((*i[:d], block * size + place, *i[d + 2 : -1]), fill)
        return select(_up_to(place, own), combine(acc, read), acc)

    within = b.fold(shape, (size,), inside, f"{what}: within blocks", init=start)

    def before(acc: Expr, *i: Index) -> Expr:
        block, place = i[d], i[-1]
        last = within[(*i[:d], place, Index.of(size - 1), *i[d + 1 : -1])]
        return select(lt(word_of(place, i32), word_of(block, i32)), combine(acc, last), acc)

    outside = b.fold(
        (*x.shape[:d], blocks, *x.shape[d + 1 :]), (blocks,), before, f"{what}: blocks before", init=start
    )

    def joined(*i: Index) -> Expr:
        block, own = i[d] // size, i[d] % size
        return combine(outside[placed(i, d, block)], within[(*i[:d], block, own, *i[d + 1 :])])

    return b.map(x.shape, joined, what)


def _number_of(start: Expr) -> float:
    """A neutral element as a number, to fill with."""
    return {0: 0.0, _ONE.word: 1.0, _LEAST.word: -math.inf, _GREATEST.word: math.inf}[start.word]  # type: ignore[attr-defined]


_ONE, _LEAST, _GREATEST = const(1.0), const(-math.inf), const(math.inf)


@lowers("cumsum.default")
def _cumsum(b: Builder, x: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    kind = (i32 if x.dtype is u32 else x.dtype) if dtype is None else dtype
    terms = number(b, x, kind)
    if not x.shape:
        return terms
    return _running(b, terms, dim % len(x.shape), lambda u, v: u + v, const(0, kind), "running sum")


@lowers("cumprod.default")
def _cumprod(b: Builder, x: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    factors = number(b, x, f32)
    if not x.shape:
        return factors
    return _running(b, factors, dim % len(x.shape), lambda u, v: u * v, _ONE, "running product")


@lowers("logcumsumexp.default")
def _logcumsumexp(b: Builder, x: Tensor, dim: int) -> Tensor:
    """Exponentials are taken of differences from the running maximum, so none overflows."""
    if not x.shape:
        return x
    d = dim % len(x.shape)
    greatest = _running(b, x, d, maximum, _LEAST, "running maximum")

    def step(acc: Expr, *i: Index) -> Expr:
        own = i[:-1]
        term = exp(x[placed(own, d, i[-1])] - greatest[own])
        return select(_up_to(i[-1], i[d]), acc + term, acc)

    total = b.fold(x.shape, (x.shape[d],), step, "running sum of exponentials")
    return b.pointwise(lambda s, m: log(s) + m, total, greatest, what="running logarithm of the sum")


def _running_extreme(name: str, better: Combine, start: Expr) -> None:
    @lowers(f"{name}.default")
    def row(b: Builder, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """The extremes, and the last position up to each element where one is found."""
        if x.dtype is not f32:
            raise CannotLower("of integers", "Convert to float first.")
        if not x.shape:
            return x, b.constant(0, i32)
        d = dim % len(x.shape)
        extreme = _running(b, x, d, better, start, name)

        def last(acc: Expr, *i: Index) -> Expr:
            found = eq(x[placed(i[:-1], d, i[-1])], extreme[i[:-1]])
            return select(logical_and(_up_to(i[-1], i[d]), found), word_of(i[-1], i32), acc)

        return extreme, b.fold(x.shape, (x.shape[d],), last, f"{name}: positions", init=const(0, i32))


_running_extreme("cummax", maximum, _LEAST)
_running_extreme("cummin", minimum, _GREATEST)


def _product_over(b: Builder, x: Tensor, dims: int | None, keepdim: bool, dtype: DType | None) -> Tensor:
    kind = (i32 if x.dtype is u32 else x.dtype) if dtype is None else dtype
    r, factors = Reduction(x.shape, dims), number(b, x, kind)
    total = b.fold(r.shape, r.over, lambda acc, *i: acc * factors[r.at(*i)], "product", init=const(1, kind))
    return r.shaped(total, keepdim)


@lowers("prod.default")
def _prod(b: Builder, x: Tensor, *, dtype: DType | None = None) -> Tensor:
    return _product_over(b, x, None, False, dtype)


@lowers("prod.dim_int")
def _prod_dim(
    b: Builder, x: Tensor, dim: int, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    return _product_over(b, x, dim, keepdim, dtype)


def _search(b: Builder, edges: Tensor, x: Tensor, right: bool) -> Tensor:
    """How many of the sorted ``edges`` (in a row of their own for each row of x, or one for all) come before each
    element of x.
    """
    b.settle(x)
    b.settle(edges)
    rank = len(edges.shape) - 1

    def count(acc: Expr, *i: Index) -> Expr:
        edge, value = edges[(*i[:rank], i[-1])], x[i[:-1]]
        return acc + (le(edge, value) if right else lt(edge, value))

    counted = b.fold(x.shape, edges.shape[-1:], count, "search", init=const(0, u32))
    return number(b, counted, i32)


@lowers("bucketize.Tensor")
def _bucketize(
    b: Builder, x: Tensor, edges: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    return _search(b, edges, x, right)


@lowers("searchsorted.Tensor")
def _searchsorted(
    b: Builder,
    edges: Tensor,
    x: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    if sorter is not None:
        raise CannotLower("with a sorter", "Gather the sorted rows first.")
    return _search(b, edges, x, right or side == "right")
