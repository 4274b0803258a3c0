"""Lowerings of sums, means, variances, extremes and softmax over dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from crowdtrain_engine import DType

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.elementwise import power
from crowdtrain.lowering.expr import (
    Expr,
    const,
    convert,
    eq,
    exp,
    f32,
    fabs,
    i32,
    log,
    logical_and,
    logical_or,
    lt,
    maximum,
    minimum,
    ne,
    select,
    sqrt,
    u32,
    word_of,
)
from crowdtrain.lowering.index import Index
from crowdtrain.lowering.table import axes, lowers, number
from crowdtrain.lowering.tensor import Tensor, reshape

__all__ = ["Reduction", "mean_of"]


class Reduction:
    """Dimensions of a tensor, shared out into those that stay and those that are folded."""

    def __init__(self, shape: Sequence[int], dims: int | Sequence[int] | None) -> None:
        self._rank = len(shape)
        self.dims = axes(dims, self._rank)
        self.kept = tuple(d for d in range(self._rank) if d not in self.dims)
        self.shape = tuple(shape[d] for d in self.kept)
        self.over = tuple(shape[d] for d in self.dims)
        self.with_ones = tuple(1 if d in self.dims else extent for d, extent in enumerate(shape))

    @property
    def count(self) -> int:
        """Elements that go into one result."""
        return math.prod(self.over)

    def at(self, *indices: Index) -> tuple[Index, ...]:
        """Positions in the tensor, from those of :attr:`shape` and then :attr:`over`."""
        place = dict(zip((*self.kept, *self.dims), indices, strict=True))
        return tuple(place[d] for d in range(self._rank))

    def shaped(self, result: Tensor, keepdim: bool) -> Tensor:
        """The result with the folded dimensions as 1, or without them."""
        return reshape(result, self.with_ones) if keepdim else result


def sum_of(b: Builder, r: Reduction, x: Tensor, what: str) -> Tensor:
    """Sum of an f32 tensor."""
    return b.sum(r.shape, r.over, lambda *i: x[r.at(*i)], what)


def mean_of(b: Builder, r: Reduction, x: Tensor, what: str) -> Tensor:
    """Mean of an f32 tensor, not yet stored."""
    total = sum_of(b, r, x, f"{what}: sum")
    return b.pointwise(lambda s: s * (1.0 / r.count), total, what=what)


@lowers("sum.dim_IntList", "sum.default")
def _sum(
    b: Builder,
    x: Tensor,
    dims: Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Tensor:
    kind = (i32 if x.dtype is u32 else x.dtype) if dtype is None else dtype
    r, terms = Reduction(x.shape, dims), number(b, x, kind)
    if kind is f32:
        return r.shaped(sum_of(b, r, terms, "sum"), keepdim)
    total = b.fold(r.shape, r.over, lambda acc, *i: acc + terms[r.at(*i)], "sum", init=const(0, kind))
    return r.shaped(total, keepdim)


@lowers("mean.dim", "mean.default")
def _mean(
    b: Builder,
    x: Tensor,
    dims: Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Tensor:
    r = Reduction(x.shape, dims)
    return r.shaped(mean_of(b, r, number(b, x, f32), "mean"), keepdim)


def _variance(
    b: Builder, x: Tensor, dims: Sequence[int] | None, correction: float | None, keepdim: bool
) -> tuple[Tensor, Tensor]:
    """Variance and mean: the second pass over x sums squares of distances from the mean."""
    r, b_x = Reduction(x.shape, dims), b.settle(x)
    mean = b.settle(mean_of(b, r, b_x, "mean"))

    def square(*i: Index) -> Expr:
        distance = b_x[r.at(*i)] - mean[i[: len(r.shape)]]
        return distance * distance

    total = b.sum(r.shape, r.over, square, "variance: sum")
    freedom = max(0.0, r.count - (1 if correction is None else correction))
    variance = b.pointwise(lambda s: s / freedom, total, what="variance")
    return r.shaped(variance, keepdim), r.shaped(mean, keepdim)


@lowers("var.correction")
def _var(
    b: Builder,
    x: Tensor,
    dims: Sequence[int] | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> Tensor:
    return _variance(b, x, dims, correction, keepdim)[0]


@lowers("var_mean.correction")
def _var_mean(
    b: Builder,
    x: Tensor,
    dims: Sequence[int] | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> tuple[Tensor, Tensor]:
    return _variance(b, x, dims, correction, keepdim)


@lowers("linalg_vector_norm.default")
def _norm(
    b: Builder,
    x: Tensor,
    order: float = 2,
    dims: Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Tensor:
    r = Reduction(x.shape, dims)
    if order == 2:
        b.settle(x)
        total = b.contract(r.shape, r.over, lambda *i: (x[r.at(*i)], x[r.at(*i)]), "norm: sum of squares")
        return r.shaped(b.pointwise(sqrt, total, what="norm"), keepdim)
    sizes = b.pointwise(fabs, x, what="sizes")
    if order == 1:
        return r.shaped(sum_of(b, r, sizes, "norm"), keepdim)
    if math.isinf(order):
        return r.shaped(_extreme(b, r, sizes, greatest=order > 0), keepdim)
    if order == 0:
        used = b.pointwise(lambda v: convert(ne(v, 0.0), f32), x, what="used")
        return r.shaped(sum_of(b, r, used, "norm"), keepdim)
    powers = b.pointwise(lambda v: power(v, order), sizes, what="powers")
    total = sum_of(b, r, powers, "norm: sum of powers")
    return r.shaped(b.pointwise(lambda v: power(v, 1 / order), total, what="norm"), keepdim)


@lowers("dist.default")
def _dist(b: Builder, x: Tensor, y: Tensor, order: float = 2) -> Tensor:
    result: Tensor = _norm(b, b.pointwise(lambda u, v: u - v, x, y, what="difference"), order)
    return result


_LEAST = {f32: -math.inf, i32: -(2**31), u32: 0}
_GREATEST = {f32: math.inf, i32: 2**31 - 1, u32: 2**32 - 1}


def _extreme(b: Builder, r: Reduction, x: Tensor, *, greatest: bool) -> Tensor:
    better, start = (maximum, _LEAST) if greatest else (minimum, _GREATEST)
    what = "max" if greatest else "min"
    first = const(start[x.dtype], x.dtype)
    return b.fold(r.shape, r.over, lambda acc, *i: better(acc, x[r.at(*i)]), what, init=first)


@lowers("amax.default")
def _amax(b: Builder, x: Tensor, dims: Sequence[int] = (), keepdim: bool = False) -> Tensor:
    r = Reduction(x.shape, dims)
    return r.shaped(_extreme(b, r, x, greatest=True), keepdim)


@lowers("amin.default")
def _amin(b: Builder, x: Tensor, dims: Sequence[int] = (), keepdim: bool = False) -> Tensor:
    r = Reduction(x.shape, dims)
    return r.shaped(_extreme(b, r, x, greatest=False), keepdim)


@lowers("max.default")
def _max(b: Builder, x: Tensor) -> Tensor:
    return _extreme(b, Reduction(x.shape, None), x, greatest=True)


@lowers("min.default")
def _min(b: Builder, x: Tensor) -> Tensor:
    return _extreme(b, Reduction(x.shape, None), x, greatest=False)


def _first(b: Builder, r: Reduction, x: Tensor, extreme: Tensor) -> Tensor:
    """Where along the one folded dimension ``extreme`` is found first; 0 if nowhere (a NaN)."""

    def step(acc: Expr, *i: Index) -> Expr:
        found = eq(x[r.at(*i)], extreme[i[: len(r.shape)]])
        return select(logical_and(lt(acc, 0), found), word_of(i[-1], i32), acc)

    place = b.fold(r.shape, r.over, step, "position of the extreme", init=const(-1, i32))
    return b.pointwise(lambda p: select(lt(p, 0), 0, p), place, what="position of the extreme")


def _with_position(name: str, *, greatest: bool) -> None:
    @lowers(f"{name}.dim")
    def row(b: Builder, x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
        r = Reduction(x.shape, dim)
        b.settle(x)
        extreme = _extreme(b, r, x, greatest=greatest)
        return r.shaped(extreme, keepdim), r.shaped(_first(b, r, x, extreme), keepdim)

    @lowers(f"arg{name}.default")
    def arg(b: Builder, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        b.settle(x)
        flat = reshape(x, (x.size,)) if dim is None else x
        r = Reduction(flat.shape, 0 if dim is None else dim)
        place = _first(b, r, flat, _extreme(b, r, flat, greatest=greatest))
        return place if dim is None else r.shaped(place, keepdim)


_with_position("max", greatest=True)
_with_position("min", greatest=False)


def _truth(name: str, function: Callable[[Expr, Expr], Expr], start: int) -> None:
    def truth(b: Builder, x: Tensor, dims: int | Sequence[int] | None, keepdim: bool) -> Tensor:
        r = Reduction(x.shape, dims)

        def step(acc: Expr, *i: Index) -> Expr:
            return function(acc, ne(x[r.at(*i)], 0))

        return r.shaped(b.fold(r.shape, r.over, step, name, init=const(start, u32)), keepdim)

    @lowers(f"{name}.default", f"{name}.dim", f"{name}.dims")
    def row(b: Builder, x: Tensor, dims: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        return truth(b, x, dims, keepdim)


_truth("any", logical_or, 0)
_truth("all", logical_and, 1)


@lowers("_softmax.default")
def _softmax(b: Builder, x: Tensor, dim: int, _: bool) -> Tensor:
    return _exponentials(b, x, dim, lambda m: m, lambda s: 1.0 / s)


@lowers("_safe_softmax.default")
def _safe_softmax(b: Builder, x: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """Softmax, and 0 where everything is minus infinity: rows in which attention sees nothing."""
    return _exponentials(
        b, x, dim, lambda m: select(eq(m, -math.inf), 0.0, m), lambda s: select(eq(s, 0.0), 0.0, 1.0 / s)
    )


def _exponentials(
    b: Builder, x: Tensor, dim: int, shift: Callable[[Expr], Expr], scale: Callable[[Expr], Expr]
) -> Tensor:
    """exp(x - ``shift`` of its maximum over ``dim``), times ``scale`` of the sum of these."""
    b.settle(x)
    r = Reduction(x.shape, dim)
    greatest = b.pointwise(shift, _extreme(b, r, x, greatest=True), what="shift")
    powers = b.settle(b.pointwise(lambda v, m: exp(v - m), x, r.shaped(greatest, True), what="exponentials"))
    total = sum_of(b, r, powers, "sum of exponentials")
    inverse = b.pointwise(scale, total, what="inverse of the sum")
    return b.pointwise(lambda e, s: e * s, powers, r.shaped(inverse, True), what="softmax")


@lowers("_log_softmax.default")
def _log_softmax(b: Builder, x: Tensor, dim: int, _: bool) -> Tensor:
    b.settle(x)
    r = Reduction(x.shape, dim)
    greatest = _extreme(b, r, x, greatest=True)
    total = b.sum(r.shape, r.over, lambda *i: exp(x[r.at(*i)] - greatest[i[:-1]]), "sum of exponentials")
    logarithm = r.shaped(b.pointwise(log, total, what="logarithm of the sum"), True)
    shifted = b.pointwise(lambda v, m: v - m, x, r.shaped(greatest, True), what="shifted")
    return b.pointwise(lambda v, s: v - s, shifted, logarithm, what="log softmax")


@lowers("_softmax_backward_data.default")
def _softmax_backward(b: Builder, gradient: Tensor, output: Tensor, dim: int, _: DType) -> Tensor:
    r = Reduction(output.shape, dim)
    b.settle(gradient)
    total = b.contract(
        r.shape, r.over, lambda *i: (gradient[r.at(*i)], output[r.at(*i)]), "softmax gradient: sum"
    )
    return b.pointwise(
        lambda g, y, s: y * (g - s), gradient, output, r.shaped(total, True), what="softmax gradient"
    )


@lowers("_log_softmax_backward_data.default")
def _log_softmax_backward(b: Builder, gradient: Tensor, output: Tensor, dim: int, _: DType) -> Tensor:
    r = Reduction(output.shape, dim)
    b.settle(gradient)
    total = r.shaped(sum_of(b, r, gradient, "log softmax gradient: sum"), True)
    return b.pointwise(lambda g, y, s: g - exp(y) * s, gradient, output, total, what="log softmax gradient")
