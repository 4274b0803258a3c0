"""Lowerings of operations that find positions in integer tensors: gathers and scatters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import (
    Const,
    Expr,
    Word,
    const,
    convert,
    eq,
    f32,
    i32,
    logical_and,
    lt,
    maximum,
    minimum,
    select,
    u32,
    word_of,
)  # fmt: skip
from crowdtrain.lowering.index import Index, placed
from crowdtrain.lowering.table import CannotLower, lowers
from crowdtrain.lowering.tensor import Tensor, broadcast, reshape

__all__: list[str] = []


def _word(b: Builder, indices: Tensor) -> Callable[..., Index]:
    """Positions that are read from an integer tensor."""
    b.settle(indices)
    return lambda *i: Index.of(Word(indices[i]))


@lowers("gather.default")
def _gather(b: Builder, x: Tensor, dim: int, indices: Tensor) -> Tensor:
    if not x.shape:
        return b.view(x, indices.shape, lambda *i: ())
    d, word = dim % len(x.shape), _word(b, indices)
    b.bordered(x, (d,))
    return b.view(x, indices.shape, lambda *i: placed(i, d, word(*i)))


@lowers("index_select.default")
def _index_select(b: Builder, x: Tensor, dim: int, indices: Tensor) -> Tensor:
    d, word = dim % len(x.shape), _word(b, reshape(indices, (indices.size,)))
    b.bordered(x, (d,))
    return b.view(x, (*x.shape[:d], indices.size, *x.shape[d + 1 :]), lambda *i: placed(i, d, word(i[d])))


@lowers("embedding.default")
def _embedding(b: Builder, weight: Tensor, indices: Tensor, *_: object) -> Tensor:
    b.bordered(weight, (0,))
    word, rank = _word(b, indices), len(indices.shape)
    return b.view(weight, (*indices.shape, weight.shape[1]), lambda *i: (word(*i[:rank]), i[rank]))


@lowers("embedding_dense_backward.default")
def _embedding_backward(
    b: Builder, gradient: Tensor, indices: Tensor, rows: int, padding: int, by_frequency: bool
) -> Tensor:
    """Each row of the table gathers what was added up where its number stands; the padding row nothing."""
    if by_frequency:
        raise CannotLower("gradients are scaled by frequencies", "Leave scale_grad_by_freq out.")
    width, count = gradient.shape[-1], indices.size
    b.plain(gradient)
    numbers, parts = reshape(indices, (count,)), reshape(gradient, (count, width))
    if 0 <= padding < rows:
        numbers = b.pointwise(lambda n: select(eq(n, padding), -1, n), numbers, what="rows but padding")
    b.settle(numbers)

    def add(acc: Expr, row: Index, column: Index, n: Index) -> Expr:
        return select(eq(numbers[n], word_of(row, i32)), acc + parts[n, column], acc)

    return b.fold((rows, width), (count,), add, "scatter")


class _Indexing:
    """Indexing with integer tensors in some dimensions of a shape, as NumPy does it."""

    def __init__(self, b: Builder, shape: Sequence[int], indices: Sequence[Tensor | None]) -> None:
        if any(index is not None and index.dtype is u32 for index in indices):
            raise CannotLower("indices are booleans", "Use torch.where")
        given = {d: index for d, index in enumerate(indices) if index is not None}
        self.dims = tuple(given)
        self.common = broadcast(*(index.shape for index in given.values()))
        self._kept = [d for d in range(len(shape)) if d not in given]
        adjacent = self.dims == tuple(range(self.dims[0], self.dims[-1] + 1))
        self._first = self.dims[0] if adjacent else 0
        rest = [shape[d] for d in self._kept]
        self.shape = (*rest[: self._first], *self.common, *rest[self._first :])
        self._words = {d: self._positive(b, index, shape[d]) for d, index in given.items()}

    def _positive(self, b: Builder, index: Tensor, extent: int) -> Tensor:
        """Positions from 0; negative ones count from the end."""
        spread = b.view(index, self.common, lambda *i: _spread(i, index.shape))
        positive = b.pointwise(lambda n: select(lt(n, 0), n + extent, n), spread, what="positions")
        return b.settle(positive)

    def parts(self, i: Sequence[Index]) -> tuple[dict[int, Index], tuple[Index, ...]]:
        """Of a position in the result: those in dimensions that are kept, and those in the indices."""
        first, rank = self._first, len(self.common)
        rest = (*i[:first], *i[first + rank :])
        return dict(zip(self._kept, rest, strict=True)), tuple(i[first : first + rank])

    def joined(self, kept: dict[int, Index], common: Sequence[Index]) -> tuple[Index, ...]:
        """The position in the result of these."""
        rest = [kept[d] for d in self._kept]
        return (*rest[: self._first], *common, *rest[self._first :])

    def word(self, dim: int, common: Sequence[Index]) -> Expr:
        """The position in dimension ``dim`` that the indices name."""
        return self._words[dim][tuple(common)]


def _spread(i: Sequence[Index], shape: Sequence[int]) -> tuple[Index | int, ...]:
    last = i[len(i) - len(shape) :]
    return tuple(0 if extent == 1 else p for p, extent in zip(last, shape, strict=True))


@lowers("index.Tensor")
def _index(b: Builder, x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    at = _Indexing(b, x.shape, indices)
    b.bordered(x, at.dims)

    def positions(*i: Index) -> tuple[Index, ...]:
        kept, common = at.parts(i)
        return tuple(
            kept[d] if d in kept else Index.of(Word(at.word(d, common))) for d in range(len(x.shape))
        )

    return b.view(x, at.shape, positions)


@lowers("index_put.default", "_unsafe_index_put.default")
def _index_put(
    b: Builder, x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Tensor:
    """x with ``values`` added, or put, where the indices say; of several in one place the last is put."""
    at = _Indexing(b, x.shape, indices)
    b.settle(values)
    rank = len(x.shape)

    def found(i: Sequence[Index]) -> tuple[Expr, Expr]:
        place, common = i[:rank], i[rank:]
        here = [eq(at.word(d, common), word_of(place[d], i32)) for d in at.dims]
        match = here[0]
        for other in here[1:]:
            match = logical_and(match, other)
        position = at.joined({d: place[d] for d in range(rank) if d not in at.dims}, common)
        return match, values[_spread(position, values.shape)]

    return _scattered(b, x, at.common, found, accumulate=accumulate)


def _scattered(
    b: Builder,
    x: Tensor,
    over: Sequence[int],
    found: Callable[[Sequence[Index]], tuple[Expr, Expr]],
    *,
    accumulate: bool,
) -> Tensor:
    """x, changed by each of ``over`` for which ``found`` says that it concerns a position, and by what."""
    if accumulate:

        def add(acc: Expr, *i: Index) -> Expr:
            match, value = found(i)
            return select(match, acc + value, acc)

        total = b.fold(x.shape, over, add, "scatter", init=const(0, x.dtype))
        if isinstance(x.element, Const) and x.element.word == 0:
            return total
        return b.pointwise(lambda u, v: u + v, x, total, what="scatter")

    def put(acc: Expr, *i: Index) -> Expr:
        return select(*found(i), acc)

    if isinstance(x.element, Const):
        return b.fold(x.shape, over, put, "scatter", init=x.element)

    def touched(acc: Expr, *i: Index) -> Expr:
        return select(found(i)[0], 1, acc)

    put_there = b.fold(x.shape, over, put, "scatter: values", init=const(0, x.dtype))
    where = b.fold(x.shape, over, touched, "scatter: places", init=const(0, u32))
    return b.pointwise(select, where, put_there, x, what="scatter")


def _scatter_along(
    b: Builder, x: Tensor, dim: int, indices: Tensor, source: Tensor, *, accumulate: bool
) -> Tensor:
    rank, d = len(x.shape), dim % len(x.shape)
    smaller = [e for e in range(rank) if e != d]
    b.bordered(indices, smaller)
    b.bordered(source, smaller)

    def found(i: Sequence[Index]) -> tuple[Expr, Expr]:
        place, at = i[:rank], placed(i[:rank], d, i[rank])
        return eq(indices.read(at, -1), word_of(place[d], i32)), source.read(at)

    return _scattered(b, x, (indices.shape[d],), found, accumulate=accumulate)


@lowers("scatter.src")
def _scatter(b: Builder, x: Tensor, dim: int, indices: Tensor, source: Tensor) -> Tensor:
    return _scatter_along(b, x, dim, indices, source, accumulate=False)


@lowers("scatter_add.default")
def _scatter_add(b: Builder, x: Tensor, dim: int, indices: Tensor, source: Tensor) -> Tensor:
    return _scatter_along(b, x, dim, indices, source, accumulate=True)


@lowers("scatter.value")
def _scatter_value(b: Builder, x: Tensor, dim: int, indices: Tensor, value: float | int) -> Tensor:
    return _scatter_along(b, x, dim, indices, b.constant(value, x.dtype, indices.shape), accumulate=False)


@lowers("put.default")
def _put(b: Builder, x: Tensor, indices: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """x, read as one row, with ``source`` added or put where the indices say."""
    flat = [reshape(t, (t.size,)) for t in (x, indices, source)]
    return reshape(_index_put(b, flat[0], [flat[1]], flat[2], accumulate), x.shape)


_REDUCTIONS: dict[str, tuple[Callable[[Expr, Expr], Expr], float]] = {
    "sum": (lambda u, v: u + v, 0.0),
    "mean": (lambda u, v: u + v, 0.0),
    "prod": (lambda u, v: u * v, 1.0),
    "amax": (maximum, -math.inf),
    "amin": (minimum, math.inf),
}
"""How ``scatter_reduce`` combines, and what is neutral."""


@lowers("scatter_reduce.two")
def _scatter_reduce(
    b: Builder,
    x: Tensor,
    dim: int,
    indices: Tensor,
    source: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Tensor:
    if x.dtype is not f32:
        raise CannotLower("of integers", "Convert to float first.")
    rank, d = len(x.shape), dim % len(x.shape)
    combine, neutral = _REDUCTIONS[reduce]
    smaller = [e for e in range(rank) if e != d]
    b.settle(x)
    b.bordered(indices, smaller)
    b.bordered(source, smaller)

    def here(i: Sequence[Index]) -> tuple[Expr, tuple[Index | int, ...]]:
        at = placed(i[:rank], d, i[rank])
        return eq(indices.read(at, -1), word_of(i[d], i32)), at

    def step(acc: Expr, *i: Index) -> Expr:
        match, at = here(i)
        return select(match, combine(acc, source.read(at)), acc)

    over = (indices.shape[d],)
    found = b.fold(x.shape, over, step, f"scatter: {reduce}", init=neutral)
    count = b.fold(x.shape, over, lambda acc, *i: acc + here(i)[0], "scatter: count", init=const(0, u32))

    def finish(old: Expr, new: Expr, n: Expr) -> Expr:
        total = combine(old, new) if include_self else new
        if reduce == "mean":
            total = total / convert(n + 1 if include_self else n, f32)
        return select(n, total, old)

    return b.pointwise(finish, x, found, count, what="scatter")
