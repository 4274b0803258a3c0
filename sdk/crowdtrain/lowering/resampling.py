"""Lowerings of up- and down-sampling: each dimension of an image times a banded matrix of fixed weights.

Nearest, linear and cubic interpolation and adaptive average pooling differ only in the matrices; a gradient
has the transposed ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import Expr, fma
from crowdtrain.lowering.index import Index
from crowdtrain.lowering.table import lowers
from crowdtrain.lowering.tensor import Tensor

__all__: list[str] = []

Matrix = NDArray[np.float64]
"""[outputs, inputs]"""

_LARGEST_WINDOW = 16
"""Elements of a window over several dimensions beyond which they are resampled one after another."""


@dataclass(frozen=True)
class _Band:
    """A matrix whose row o is 0 outside the ``width`` columns from (o · numerator + offset) // divisor on."""

    numerator: int
    offset: int
    divisor: int
    weights: Matrix
    """[outputs, width]; columns that do not exist have weight 0"""

    @classmethod
    def of(cls, matrix: Matrix) -> _Band:
        outputs, inputs = matrix.shape
        common = math.gcd(outputs, inputs)
        numerator, divisor = inputs // common, outputs // common
        used = (matrix != 0).any(1)
        first = (matrix != 0).argmax(1)
        last = inputs - 1 - (matrix != 0)[:, ::-1].argmax(1)
        rows = np.arange(outputs)
        offset = int((first * divisor + divisor - 1 - rows * numerator)[used].min())
        starts = (rows * numerator + offset) // divisor
        width = int((last - starts)[used].max()) + 1
        columns = starts[:, None] + np.arange(width)
        inside = (columns >= 0) & (columns < inputs)
        weights = np.where(inside, np.take_along_axis(matrix, columns.clip(0, inputs - 1), 1), 0.0)
        return cls(numerator, offset, divisor, weights)

    @property
    def width(self) -> int:
        return int(self.weights.shape[1])

    def position(self, output: Index, column: Index) -> Index:
        return (output * self.numerator + self.offset + column * self.divisor) // self.divisor


def _resample(b: Builder, x: Tensor, matrices: Sequence[Matrix], what: str) -> Tensor:
    """The last dimensions of x, each times its matrix."""
    bands = [_Band.of(matrix) for matrix in matrices]
    first = len(x.shape) - len(bands)
    if math.prod(band.width for band in bands) > _LARGEST_WINDOW:
        for d, band in enumerate(bands):
            x = _pass(b, x, {first + d: band}, what)
        return x
    return _pass(b, x, {first + d: band for d, band in enumerate(bands)}, what)


def _pass(b: Builder, x: Tensor, bands: dict[int, _Band], what: str) -> Tensor:
    """Some dimensions of x times the matrices of ``bands``, in one nest or, where that is a copy, none."""
    b.bordered(x, tuple(bands))
    shape = tuple(len(bands[d].weights) if d in bands else n for d, n in enumerate(x.shape))
    rank = len(shape)

    def read(i: Sequence[Index], columns: Sequence[Index]) -> Expr:
        at = dict(zip(bands, columns, strict=True))
        return x.read(tuple(bands[d].position(p, at[d]) if d in bands else p for d, p in enumerate(i)))

    if all(band.width == 1 and (band.weights == 1).all() for band in bands.values()):
        return b.tensor(x.dtype, shape, lambda *i: read(i, [Index()] * len(bands)), what)
    if all((band.weights == band.weights[0, 0]).all() for band in bands.values()):
        widths = [band.width for band in bands.values()]
        total = b.sum(shape, widths, lambda *i: read(i[:rank], i[rank:]), f"{what}: sum")
        weight = math.prod(float(band.weights[0, 0]) for band in bands.values())
        return b.pointwise(lambda s: s * weight, total, what=what)
    tables = {d: b.table(band.weights.astype(np.float32), f"{what}: weights") for d, band in bands.items()}

    def step(acc: Expr, *i: Index) -> Expr:
        place, columns = i[:rank], i[rank:]
        weight, *others = (tables[d][place[d], k] for d, k in zip(bands, columns, strict=True))
        for other in others:
            weight = weight * other
        return fma(read(place, columns), weight, acc)

    return b.fold(shape, [band.width for band in bands.values()], step, what)


MakeMatrix = Callable[[int, int, bool, float | None], Matrix]
"""From the numbers of inputs and outputs, whether corners are aligned, and the scale if it was given."""


def _scale(inputs: int, outputs: int, align_corners: bool, scale: float | None) -> float:
    """Inputs for each output, as PyTorch counts them."""
    if align_corners:
        return (inputs - 1) / (outputs - 1) if outputs > 1 else 0.0
    return 1.0 / scale if scale else inputs / outputs


def _sources(inputs: int, outputs: int, align_corners: bool, scale: float | None) -> NDArray[np.float64]:
    """Where each output lies among the inputs."""
    step = _scale(inputs, outputs, align_corners, scale)
    places = np.arange(outputs)
    return np.asarray(places * step if align_corners else (places + 0.5) * step - 0.5, np.float64)


def _filled(inputs: int, starts: NDArray[np.float64], weights: Matrix) -> Matrix:
    """The matrix with ``weights`` from each of ``starts`` on; what lies outside falls on the edge."""
    matrix = np.zeros((len(starts), inputs))
    columns = (starts[:, None].astype(np.int64) + np.arange(weights.shape[1])).clip(0, inputs - 1)
    np.add.at(matrix, (np.arange(len(starts))[:, None], columns), weights)
    return matrix


def _nearest(inputs: int, outputs: int, _: bool, scale: float | None) -> Matrix:
    step = np.float32(_scale(inputs, outputs, False, scale))
    starts = np.floor(np.arange(outputs, dtype=np.float32) * step)
    return _filled(inputs, starts.astype(np.float64), np.ones((outputs, 1)))


def _nearest_exact(inputs: int, outputs: int, _: bool, scale: float | None) -> Matrix:
    step = np.float32(_scale(inputs, outputs, False, scale))
    starts = np.floor((np.arange(outputs, dtype=np.float32) + np.float32(0.5)) * step)
    return _filled(inputs, starts.astype(np.float64), np.ones((outputs, 1)))


def _linear(inputs: int, outputs: int, align_corners: bool, scale: float | None) -> Matrix:
    source = _sources(inputs, outputs, align_corners, scale).clip(min=0.0)
    rest = source - np.floor(source)
    return _filled(inputs, np.floor(source), np.stack((1 - rest, rest), 1))


_CUBIC = -0.75
"""The parameter of the cubic convolution kernel (Keys 1981)."""


def _cubic(inputs: int, outputs: int, align_corners: bool, scale: float | None) -> Matrix:
    source = _sources(inputs, outputs, align_corners, scale)
    rest = source - np.floor(source)

    def near(t: NDArray[np.float64]) -> NDArray[np.float64]:
        return ((_CUBIC + 2) * t - (_CUBIC + 3)) * t * t + 1

    def far(t: NDArray[np.float64]) -> NDArray[np.float64]:
        return ((_CUBIC * t - 5 * _CUBIC) * t + 8 * _CUBIC) * t - 4 * _CUBIC

    weights = np.stack((far(rest + 1), near(rest), near(1 - rest), far(2 - rest)), 1)
    return _filled(inputs, np.floor(source) - 1, weights)


def _mean(inputs: int, outputs: int) -> Matrix:
    """Each output is the mean of its share of the inputs; shares overlap where they do not come out even."""
    matrix = np.zeros((outputs, inputs))
    for o in range(outputs):
        start, stop = o * inputs // outputs, -(-(o + 1) * inputs // outputs)
        matrix[o, start:stop] = 1 / (stop - start)
    return matrix


def _sampling(name: str, make: MakeMatrix, *, has_corners: bool) -> None:
    def matrices(inputs: Sequence[int], outputs: Sequence[int], options: Sequence[object]) -> list[Matrix]:
        corners = bool(options[0]) if has_corners else False
        scales = [s if isinstance(s, float) else None for s in options[has_corners:]]
        scales += [None] * (len(outputs) - len(scales))
        return [make(n, m, corners, s) for n, m, s in zip(inputs, outputs, scales, strict=True)]

    @lowers(f"{name}.default")
    def forward(b: Builder, x: Tensor, size: Sequence[int], *options: object) -> Tensor:
        return _resample(b, x, matrices(x.shape[2:], size, options), "resampling")

    @lowers(f"{name}_backward.default")
    def backward(
        b: Builder, gradient: Tensor, size: Sequence[int], shape: Sequence[int], *options: object
    ) -> Tensor:
        transposed = [matrix.T for matrix in matrices(shape[2:], size, options)]
        return _resample(b, gradient, transposed, "resampling gradient")


for _rank in (1, 2, 3):
    _sampling(f"upsample_nearest{_rank}d", _nearest, has_corners=False)
    _sampling(f"_upsample_nearest_exact{_rank}d", _nearest_exact, has_corners=False)
for _name in ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"):
    _sampling(_name, _linear, has_corners=True)
_sampling("upsample_bicubic2d", _cubic, has_corners=True)


@lowers("_adaptive_avg_pool2d.default", "_adaptive_avg_pool3d.default")
def _adaptive_pool(b: Builder, x: Tensor, places: Sequence[int]) -> Tensor:
    extents = x.shape[-len(places) :]
    return _resample(b, x, [_mean(n, m) for n, m in zip(extents, places, strict=True)], "average pool")


def _adaptive_pool_backward(b: Builder, gradient: Tensor, x: Tensor, rank: int) -> Tensor:
    sizes = zip(x.shape[-rank:], gradient.shape[-rank:], strict=True)
    return _resample(b, gradient, [_mean(n, m).T for n, m in sizes], "average pool gradient")


@lowers("_adaptive_avg_pool2d_backward.default")
def _adaptive_pool_backward2(b: Builder, gradient: Tensor, x: Tensor) -> Tensor:
    return _adaptive_pool_backward(b, gradient, x, 2)


@lowers("_adaptive_avg_pool3d_backward.default")
def _adaptive_pool_backward3(b: Builder, gradient: Tensor, x: Tensor) -> Tensor:
    return _adaptive_pool_backward(b, gradient, x, 3)


def _edge_padding(extent: int, before: int, after: int) -> Matrix:
    """Positions beyond an edge show the edge."""
    columns = np.arange(-before, extent + after).clip(0, extent - 1)
    return np.asarray(columns[:, None] == np.arange(extent), np.float64)


@lowers(*(f"replication_pad{rank}d_backward.default" for rank in (1, 2, 3)))
def _edge_padding_backward(b: Builder, gradient: Tensor, x: Tensor, pads: Sequence[int]) -> Tensor:
    rank = len(pads) // 2
    sizes = zip(x.shape[-rank:], reversed(range(rank)), strict=True)
    matrices = [_edge_padding(n, pads[2 * k], pads[2 * k + 1]).T for n, k in sizes]
    return _resample(b, gradient, matrices, "padding gradient")
