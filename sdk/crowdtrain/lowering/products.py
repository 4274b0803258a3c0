"""Lowerings of matrix products and convolutions: sums of products, each term added with one rounding."""

from __future__ import annotations

from collections.abc import Sequence

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import Expr, fma
from crowdtrain.lowering.index import Exact, Index, exact
from crowdtrain.lowering.table import lowers
from crowdtrain.lowering.tensor import Tensor

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
