"""Lowerings of max and average pooling over the last dimensions of ``[.., channels, *space]``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import Expr, const, eq, i32, logical_and, lt, maximum, select, u32, word_of
from crowdtrain.lowering.index import Exact, Index, exact
from crowdtrain.lowering.table import CannotLower, lowers
from crowdtrain.lowering.tensor import Tensor

__all__: list[str] = []


@dataclass(frozen=True)
class _Window:
    """A window that moves over an image: position + padding = place * stride + offset * dilation."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @classmethod
    def of(
        cls,
        size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int] = (1,),
        *,
        rank: int,
    ) -> _Window:
        def whole(numbers: Sequence[int]) -> tuple[int, ...]:
            return tuple(numbers) * (rank // len(numbers))

        return cls(whole(size), whole(stride or size), whole(padding), whole(dilation))

    @property
    def rank(self) -> int:
        return len(self.size)

    def places(self, extents: Sequence[int], ceil_mode: bool) -> tuple[int, ...]:
        """How often it fits. In ceil mode a last window must begin inside the image or its left padding."""
        result = []
        for n, k, s, p, d in zip(extents, self.size, self.stride, self.padding, self.dilation, strict=True):
            room = n + 2 * p - d * (k - 1) - 1
            count = (-(-room // s) if ceil_mode else room // s) + 1
            result.append(count - 1 if ceil_mode and (count - 1) * s >= n + p else count)
        return tuple(result)

    def positions(self, places: Sequence[Index], offsets: Sequence[Index]) -> tuple[Index, ...]:
        """Positions in the image; they may lie outside."""
        return tuple(
            i * s + k * d - p
            for i, k, s, p, d in zip(places, offsets, self.stride, self.padding, self.dilation, strict=True)
        )

    def windows(self, positions: Sequence[Index], offsets: Sequence[Index]) -> tuple[Index | Exact, ...]:
        """The places at which the window covers ``positions`` with ``offsets``."""
        return tuple(
            exact(i + p - k * d, s)
            for i, k, s, p, d in zip(
                positions, offsets, self.stride, self.padding, self.dilation, strict=True
            )
        )


def _flat(positions: Sequence[Index], extents: Sequence[int]) -> Index:
    flat = Index()
    for position, extent in zip(positions, extents, strict=True):
        flat = flat * extent + position
    return flat


@lowers("max_pool2d_with_indices.default", "max_pool3d_with_indices.default")
def _max_pool(
    b: Builder,
    x: Tensor,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """Maxima, and the flat position in the plane where each is found first."""
    rank = _rank(x, size)
    w = _Window.of(size, stride, padding, dilation, rank=rank)
    lead, extents = x.shape[:-rank], x.shape[-rank:]
    shape = (*lead, *w.places(extents, ceil_mode))
    b.bordered(x, range(len(lead), len(x.shape)))

    def at(i: Sequence[Index], offsets: Sequence[Index]) -> Expr:
        return x.read((*i[: len(lead)], *w.positions(i[len(lead) :], offsets)), -math.inf)

    greatest = b.fold(
        shape, w.size, lambda acc, *i: maximum(acc, at(i[:-rank], i[-rank:])), "maximum", init=-math.inf
    )

    def first(acc: Expr, *i: Index) -> Expr:
        i, offsets = i[:-rank], i[-rank:]
        found = logical_and(lt(acc, 0), eq(at(i, offsets), greatest[i]))
        return select(found, word_of(_flat(w.positions(i[len(lead) :], offsets), extents), i32), acc)

    return greatest, b.fold(shape, w.size, first, "position of the maximum", init=const(-1, i32))


def _rank(x: Tensor, size: Sequence[int]) -> int:
    rank = len(size)
    if rank == 1 or len(x.shape) < rank:
        raise CannotLower(f"a window of {list(size)} over {len(x.shape)} dimensions")
    return rank


@lowers("max_pool2d_with_indices_backward.default", "max_pool3d_with_indices_backward.default")
def _max_pool_backward(
    b: Builder,
    gradient: Tensor,
    x: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Each element gathers from the windows that found their maximum in it."""
    rank = len(size)
    w = _Window.of(size, stride, padding, dilation, rank=rank)
    lead, extents = len(x.shape) - rank, x.shape[-rank:]
    space = range(lead, len(x.shape))
    b.bordered(gradient, space)
    b.bordered(indices, space)

    def step(acc: Expr, *i: Index) -> Expr:
        i, offsets = i[:-rank], i[-rank:]
        window = (*i[:lead], *w.windows(i[lead:], offsets))
        own = word_of(_flat(i[lead:], extents), i32)
        return acc + select(eq(indices.read(window, -1), own), gradient.read(window), 0.0)

    return b.fold(x.shape, w.size, step, "max pool gradient")


def _divisor(
    b: Builder,
    w: _Window,
    extents: Sequence[int],
    places: Sequence[int],
    count_include_pad: bool,
    override: int | None,
) -> Tensor:
    """By what each sum is divided: the elements of the image, or of it and its padding, in the window."""
    full = math.prod(w.size)
    if override is not None:
        return b.constant(float(override), shape=places)
    margins = w.padding if count_include_pad else (0,) * w.rank
    inside = all(
        (n - 1) * s - p + k <= extent + margin and p <= margin
        for n, s, p, k, extent, margin in zip(
            places, w.stride, w.padding, w.size, extents, margins, strict=True
        )
    )
    if inside:
        return b.constant(float(full), shape=places)
    padded = [extent + 2 * margin for extent, margin in zip(extents, margins, strict=True)]
    ones = b.stored(b.constant(1.0, shape=padded))

    def covered(acc: Expr, *i: Index) -> Expr:
        positions = w.positions(i[: w.rank], i[w.rank :])
        return acc + ones.read(tuple(p + margin for p, margin in zip(positions, margins, strict=True)))

    return b.fold(places, w.size, covered, "elements in each window")


@lowers("avg_pool2d.default", "avg_pool3d.default")
def _avg_pool(
    b: Builder,
    x: Tensor,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    rank = _rank(x, size)
    w = _Window.of(size, stride, padding, rank=rank)
    lead, extents = x.shape[:-rank], x.shape[-rank:]
    places = w.places(extents, ceil_mode)
    b.bordered(x, range(len(lead), len(x.shape)))

    def term(*i: Index) -> Expr:
        i, offsets = i[:-rank], i[-rank:]
        return x.read((*i[: len(lead)], *w.positions(i[len(lead) :], offsets)))

    total = b.sum((*lead, *places), w.size, term, "average pool: sum")
    divisor = _divisor(b, w, extents, places, count_include_pad, divisor_override)
    return b.pointwise(lambda s, n: s / n, total, divisor, what="average pool")


@lowers("avg_pool2d_backward.default", "avg_pool3d_backward.default")
def _avg_pool_backward(
    b: Builder,
    gradient: Tensor,
    x: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    rank = len(size)
    w = _Window.of(size, stride, padding, rank=rank)
    lead, extents = len(x.shape) - rank, x.shape[-rank:]
    divisor = _divisor(b, w, extents, gradient.shape[lead:], count_include_pad, divisor_override)
    shares = b.pointwise(lambda g, n: g / n, gradient, divisor, what="average pool gradient: shares")
    b.bordered(shares, range(lead, len(x.shape)))

    def term(*i: Index) -> Expr:
        i, offsets = i[:-rank], i[-rank:]
        return shares.read((*i[:lead], *w.windows(i[lead:], offsets)))

    return b.sum(x.shape, w.size, term, "average pool gradient")


@lowers("adaptive_max_pool2d.default", "adaptive_max_pool3d.default")
def _adaptive_max_pool(b: Builder, x: Tensor, places: Sequence[int]) -> tuple[Tensor, Tensor]:
    """As max pooling; the window of place o of m is from o · n // m up to the next multiple of 1 / m, rounded up."""
    rank = len(places)
    lead, extents = x.shape[:-rank], x.shape[-rank:]
    shape = (*lead, *places)
    widths = [
        max(-(-(o + 1) * n // m) - o * n // m for o in range(m)) for n, m in zip(extents, places, strict=True)
    ]
    b.bordered(x, range(len(lead), len(x.shape)))

    def at(i: Sequence[Index]) -> tuple[tuple[Index, ...], Expr]:
        place, offsets = i[len(lead) : -rank], i[-rank:]
        where = tuple((o * n) // m + k for o, k, n, m in zip(place, offsets, extents, places, strict=True))
        inside: Expr = const(1, u32)
        for p, o, n, m in zip(where, place, extents, places, strict=True):
            end = (o * n + (n + m - 1)) // m
            inside = logical_and(inside, lt(word_of(p, i32), word_of(end, i32)))
        return where, inside

    def value(i: Sequence[Index]) -> tuple[Expr, tuple[Index, ...]]:
        where, inside = at(i)
        return select(inside, x.read((*i[: len(lead)], *where), -math.inf), -math.inf), where

    greatest = b.fold(shape, widths, lambda acc, *i: maximum(acc, value(i)[0]), "maximum", init=-math.inf)

    def first(acc: Expr, *i: Index) -> Expr:
        own, where = value(i)
        found = logical_and(lt(acc, 0), eq(own, greatest[i[:-rank]]))
        return select(found, word_of(_flat(where, extents), i32), acc)

    return greatest, b.fold(shape, widths, first, "position of the maximum", init=const(-1, i32))


@lowers("adaptive_max_pool2d_backward.default", "adaptive_max_pool3d_backward.default")
def _adaptive_max_pool_backward(b: Builder, gradient: Tensor, x: Tensor, indices: Tensor) -> Tensor:
    """Each element gathers from those windows around it that found their maximum in it."""
    lead = len(x.shape) - 2 if len(x.shape) < 5 else len(x.shape) - 3
    extents, places = x.shape[lead:], gradient.shape[lead:]
    rank = len(extents)
    b.bordered(gradient, range(lead, len(x.shape)))
    b.bordered(indices, range(lead, len(x.shape)))

    def step(acc: Expr, *i: Index) -> Expr:
        i, offsets = i[:-rank], i[-rank:]
        near = zip(i[lead:], offsets, extents, places, strict=True)
        window = (*i[:lead], *((p * m) // n + k - 1 for p, k, n, m in near))
        own = word_of(_flat(i[lead:], extents), i32)
        return acc + select(eq(indices.read(window, -1), own), gradient.read(window), 0.0)

    widths = [-(-m // n) + 2 for n, m in zip(extents, places, strict=True)]
    return b.fold(x.shape, widths, step, "max pool gradient")
