"""Lowerings of matrix products and convolutions: sums of products, each term added with one rounding."""

from __future__ import annotations

from collections.abc import Sequence

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import Expr, const, eq, fabs, fma, lt, select, sqrt
from crowdtrain.lowering.index import Exact, Index, exact
from crowdtrain.lowering.reductions import Reduction
from crowdtrain.lowering.table import CannotLower, lowers
from crowdtrain.lowering.tensor import Tensor, broadcast, reshape

__all__: list[str] = []


def _product(b: Builder, x: Tensor, y: Tensor, what: str) -> Tensor:
    """x · y over the last two dimensions; any before them are batches. x is [.., n, k], y [.., k, m]."""
    b.plain(x)
    b.plain(y)
    *batch, rows, inner = x.shape
    columns = y.shape[-1]

    def factors(*i: Index) -> tuple[Expr, Expr]:
        *at, n, m, k = i
        return x[(*at, n, k)], y[(*at, k, m)]

    return b.contract((*batch, rows, columns), (inner,), factors, what)


@lowers("mm.default")
def _mm(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    return _product(b, x, y, "forward")


@lowers("bmm.default")
def _bmm(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    return _product(b, x, y, "product")


@lowers("addmm.default")
def _addmm(b: Builder, bias: Tensor, x: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = _product(b, x, y, "forward")

    def combine(p: Expr, c: Expr) -> Expr:
        scaled = c * float(beta)
        return p + scaled if alpha == 1 else fma(p, float(alpha), scaled)

    return b.pointwise(combine, product, bias, what="bias")


@lowers("addmv.default")
def _addmv(b: Builder, bias: Tensor, x: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    column = _product(b, x, reshape(y, (y.size, 1)), "product")
    product = reshape(column, x.shape[:1])
    return b.pointwise(lambda p, c: fma(p, float(alpha), c * float(beta)), product, bias, what="bias")


@lowers("_trilinear.default")
def _trilinear(
    b: Builder,
    x: Tensor,
    y: Tensor,
    z: Tensor,
    expand_x: Sequence[int],
    expand_y: Sequence[int],
    expand_z: Sequence[int],
    over: Sequence[int],
    unroll: int = 1,
) -> Tensor:
    """Sum over some dimensions of x · y · z, after new ones were put in where they lack them."""
    parts = []
    for tensor, new in ((x, expand_x), (y, expand_y), (z, expand_z)):
        shape = list(b.plain(tensor).shape)
        for d in sorted(new):
            shape.insert(d, 1)
        parts.append(reshape(tensor, tuple(shape)))
    whole = broadcast(*(part.shape for part in parts))
    r = Reduction(whole, over)

    def factors(*i: Index) -> tuple[Expr, Expr]:
        at = r.at(*i)
        first, second, third = (
            part[tuple(p if n > 1 else 0 for p, n in zip(at, part.shape, strict=True))] for part in parts
        )
        return first * second, third

    return b.contract(r.shape, r.over, factors, "product")


@lowers("_cdist_forward.default")
def _cdist(b: Builder, x: Tensor, y: Tensor, order: float, mode: int | None) -> Tensor:
    """Distances of each row of x [.., n, k] from each row of y [.., m, k]."""
    _check_order(order)
    b.plain(x)
    b.plain(y)
    *batch, rows, inner = x.shape

    def step(acc: Expr, *i: Index) -> Expr:
        *at, n, m, k = i
        distance = x[(*at, n, k)] - y[(*at, m, k)]
        return acc + fabs(distance) if order == 1 else fma(distance, distance, acc)

    total = b.fold((*batch, rows, y.shape[-2]), (inner,), step, "distances")
    return total if order == 1 else b.pointwise(sqrt, total, what="distances")


@lowers("_cdist_backward.default")
def _cdist_backward(
    b: Builder, gradient: Tensor, x: Tensor, y: Tensor, order: float, distances: Tensor
) -> Tensor:
    """The gradient of x: each distance pulls along its own direction, and one of 0 not at all."""
    _check_order(order)
    for tensor in (gradient, x, y, distances):
        b.plain(tensor)

    def step(acc: Expr, *i: Index) -> Expr:
        *at, n, k, m = i
        pull, difference = gradient[(*at, n, m)], x[(*at, n, k)] - y[(*at, m, k)]
        if order == 1:
            sign = select(lt(difference, 0.0), -1.0, select(lt(0.0, difference), const(1.0), 0.0))
            return fma(pull, sign, acc)
        distance = distances[(*at, n, m)]
        return acc + select(eq(distance, 0.0), 0.0, pull * difference / distance)

    return b.fold(x.shape, (y.shape[-2],), step, "distance gradient")


def _check_order(order: float) -> None:
    if order not in (1, 2):
        raise CannotLower(f"distances of order {order}", "Use order 1 or 2.")


class _Convolution:
    """Positions of one convolution of images ``[n, groups * c, *space]`` with ``[groups * o, c, *kernel]``.

    It knows how a position of the larger image, one of the smaller and one of the kernel go together:
    large + padding = small * stride + kernel * dilation.
    """

    def __init__(
        self,
        weight: Tensor,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> None:
        self.kernel = weight.shape[2:]
        rank = len(self.kernel)
        self.space = range(2, 2 + rank)
        self._stride, self._padding, self._dilation = (
            tuple(numbers) * (rank // len(numbers)) for numbers in (stride, padding, dilation)
        )
        self.groups = groups
        self.outputs, self.inputs = weight.shape[0] // groups, weight.shape[1]
        """channels of the smaller and the larger image in one group"""

    def large(self, small: Sequence[Index], kernel: Sequence[Index]) -> tuple[Index, ...]:
        """Positions in the larger image; they may lie outside."""
        return tuple(
            i * s + k * d - p
            for i, k, s, p, d in zip(small, kernel, self._stride, self._padding, self._dilation, strict=True)
        )

    def small(self, large: Sequence[Index], kernel: Sequence[Index]) -> tuple[Index | Exact, ...]:
        """Positions in the smaller image; they may lie outside, or between two of its elements."""
        return tuple(
            exact(i + p - k * d, s)
            for i, k, s, p, d in zip(large, kernel, self._stride, self._padding, self._dilation, strict=True)
        )

    def down(self, b: Builder, image: Tensor, weight: Tensor, shape: Sequence[int], what: str) -> Tensor:
        """From the larger image to the smaller, of shape ``shape``: the convolution itself."""
        rank = len(self.kernel)

        def factors(*i: Index) -> tuple[Expr, Expr]:
            n, o, small, c, kernel = i[0], i[1], i[2 : 2 + rank], i[2 + rank], i[3 + rank :]
            channel = o // self.outputs * self.inputs + c
            return image.read((n, channel, *self.large(small, kernel))), weight[(o, c, *kernel)]

        b.bordered(image, self.space)
        return b.contract(shape, (self.inputs, *self.kernel), factors, what)

    def up(self, b: Builder, image: Tensor, weight: Tensor, shape: Sequence[int], what: str) -> Tensor:
        """From the smaller image to the larger, of shape ``shape``: the transposed convolution."""
        rank = len(self.kernel)

        def factors(*i: Index) -> tuple[Expr, Expr]:
            n, channel, large, o, kernel = i[0], i[1], i[2 : 2 + rank], i[2 + rank], i[3 + rank :]
            out = channel // self.inputs * self.outputs + o
            return image.read((n, out, *self.small(large, kernel))), weight[
                (out, channel % self.inputs, *kernel)
            ]

        b.bordered(image, self.space)
        return b.contract(shape, (self.outputs, *self.kernel), factors, what)

    def weight(self, b: Builder, large: Tensor, small: Tensor, shape: Sequence[int], what: str) -> Tensor:
        """The gradient of the weight, of shape ``shape``."""

        def factors(*i: Index) -> tuple[Expr, Expr]:
            rank = len(self.kernel)
            o, c, kernel, n, place = i[0], i[1], i[2 : 2 + rank], i[2 + rank], i[3 + rank :]
            channel = o // self.outputs * self.inputs + c
            return large.read((n, channel, *self.large(place, kernel))), small[(n, o, *place)]

        b.bordered(large, self.space)
        return b.contract(shape, (small.shape[0], *small.shape[2:]), factors, what)


@lowers("convolution.default")
def _convolution(
    b: Builder,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    b.plain(x)
    b.plain(weight)
    c = _Convolution(weight, stride, padding, dilation, groups)
    shape = _output_shape(x, weight, stride, padding, dilation, transposed, output_padding, groups)
    result = (c.up if transposed else c.down)(b, x, weight, shape, "forward")
    if bias is None:
        return result
    ones = (1,) * len(c.kernel)
    across = b.view(bias, (bias.size, *ones), lambda *i: (i[0],))
    return b.pointwise(lambda v, w: v + w, result, across, what="bias")


def _output_shape(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> tuple[int, ...]:
    space = []
    for d, (n, k) in enumerate(zip(x.shape[2:], weight.shape[2:], strict=True)):
        s, p, reach = (
            stride[d % len(stride)],
            padding[d % len(padding)],
            dilation[d % len(dilation)] * (k - 1) + 1,
        )
        if transposed:
            space.append((n - 1) * s - 2 * p + reach + output_padding[d % len(output_padding)])
        else:
            space.append((n + 2 * p - reach) // s + 1)
    channels = weight.shape[1] * groups if transposed else weight.shape[0]
    return (x.shape[0], channels, *space)


@lowers("convolution_backward.default")
def _convolution_backward(
    b: Builder,
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    for tensor in (gradient, x, weight):
        b.plain(tensor)
    c = _Convolution(weight, stride, padding, dilation, groups)
    to_input, to_weight, to_bias = None, None, None
    if wanted[0]:
        to_input = (c.down if transposed else c.up)(b, gradient, weight, x.shape, "input gradient")
    if wanted[1]:
        large, small = (gradient, x) if transposed else (x, gradient)
        to_weight = c.weight(b, large, small, weight.shape, "weight gradient")
    if wanted[2]:
        over = (gradient.shape[0], *gradient.shape[2:])
        to_bias = b.sum(
            gradient.shape[1:2], over, lambda o, n, *place: gradient[(n, o, *place)], "bias gradient"
        )
    return to_input, to_weight, to_bias
