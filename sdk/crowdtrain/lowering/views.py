"""Lowerings of operations that only move elements: other positions, no nests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from crowdtrain_engine import DType
from numpy.typing import NDArray

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import Const, Expr, convert, eq, f32, fma, i32, operation, select, u32, word_of
from crowdtrain.lowering.index import Index, exact, placed
from crowdtrain.lowering.table import CannotLower, axes, lowers, number, promote
from crowdtrain.lowering.tensor import Tensor, reshape

__all__: list[str] = []

Positions = tuple[Index, ...]


@lowers("view.default", "_unsafe_view.default", "reshape.default")
def _view(b: Builder, x: Tensor, shape: Sequence[int]) -> Tensor:
    known = 1
    for extent in shape:
        known *= extent if extent != -1 else 1
    return reshape(x, tuple(x.size // known if extent == -1 else extent for extent in shape))


@lowers("permute.default")
def _permute(b: Builder, x: Tensor, dims: Sequence[int]) -> Tensor:
    order = [d % len(x.shape) for d in dims]
    return b.view(
        x, [x.shape[d] for d in order], lambda *i: tuple(i[order.index(d)] for d in range(len(order)))
    )


@lowers("unsqueeze.default")
def _unsqueeze(b: Builder, x: Tensor, dim: int) -> Tensor:
    at = dim % (len(x.shape) + 1)
    return b.view(x, (*x.shape[:at], 1, *x.shape[at:]), lambda *i: (*i[:at], *i[at + 1 :]))


@lowers("squeeze.dims", "squeeze.dim", "squeeze.default")
def _squeeze(b: Builder, x: Tensor, dims: int | Sequence[int] | None = None) -> Tensor:
    gone = [d for d in axes(dims, len(x.shape)) if x.shape[d] == 1] if dims != [] else []
    kept = [d for d in range(len(x.shape)) if d not in gone]

    def positions(*i: Index) -> tuple[Index | int, ...]:
        return tuple(i[kept.index(d)] if d in kept else 0 for d in range(len(x.shape)))

    return b.view(x, [x.shape[d] for d in kept], positions)


@lowers("expand.default")
def _expand(b: Builder, x: Tensor, sizes: Sequence[int]) -> Tensor:
    new = len(sizes) - len(x.shape)
    shape = [x.shape[d - new] if extent == -1 else extent for d, extent in enumerate(sizes)]
    if x.size < Tensor(x.dtype, tuple(shape), x.__getitem__).size:
        b.settle(x)
    return b.view(
        x, shape, lambda *i: tuple(0 if n == 1 else p for p, n in zip(i[new:], x.shape, strict=True))
    )


@lowers("slice.Tensor")
def _slice(
    b: Builder, x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    d = dim % len(x.shape)
    chosen = range(*slice(start, end, step).indices(x.shape[d]))
    shape = (*x.shape[:d], len(chosen), *x.shape[d + 1 :])
    return b.view(x, shape, lambda *i: placed(i, d, i[d] * step + chosen.start))


@lowers("select.int")
def _select(b: Builder, x: Tensor, dim: int, index: int) -> Tensor:
    d = dim % len(x.shape)
    at = index % x.shape[d]
    return b.view(x, (*x.shape[:d], *x.shape[d + 1 :]), lambda *i: (*i[:d], at, *i[d:]))


@lowers("split_with_sizes.default")
def _split(b: Builder, x: Tensor, sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return tuple(_slice(b, x, dim, start, start + size) for start, size in zip(starts, sizes, strict=True))


@lowers("flip.default")
def _flip(b: Builder, x: Tensor, dims: Sequence[int]) -> Tensor:
    turned = axes(dims, len(x.shape)) if dims else ()
    return b.view(
        x, x.shape, lambda *i: tuple(x.shape[d] - 1 - i[d] if d in turned else i[d] for d in range(len(i)))
    )


@lowers("repeat.default")
def _repeat(b: Builder, x: Tensor, times: Sequence[int]) -> Tensor:
    new = len(times) - len(x.shape)
    extents = (1,) * new + x.shape
    shape = [n * t for n, t in zip(extents, times, strict=True)]
    return b.view(b.settle(x), shape, lambda *i: tuple(p % n for p, n in zip(i[new:], x.shape, strict=True)))


_MOST_PIECES = 8


@lowers("cat.default")
def _cat(b: Builder, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Each element is in one piece; the others, read beyond their edges, give 0, so `or` finds it."""
    pieces = [t for t in tensors if t.shape != (0,)]
    if len(pieces) > _MOST_PIECES:
        half = len(pieces) // 2
        pieces = [b.settle(_cat(b, pieces[:half], dim)), b.settle(_cat(b, pieces[half:], dim))]
    if len(pieces) == 1:
        return pieces[0]
    dtype, d = promote(*pieces), dim % len(pieces[0].shape)
    pieces = [b.settle(number(b, piece, dtype)) for piece in pieces]
    starts = [sum(piece.shape[d] for piece in pieces[:k]) for k in range(len(pieces))]
    shape = (*pieces[0].shape[:d], sum(piece.shape[d] for piece in pieces), *pieces[0].shape[d + 1 :])
    parts = [(p, start) for p, start in zip(pieces, starts, strict=True) if not _is_zero(p)]
    if not parts:
        return b.constant(0, dtype, shape)
    along = _edge(pieces, d)
    if along is None:
        parts = [(b.bordered(piece, (d,)), start) for piece, start in parts]

    def read(piece: Tensor, start: int, i: Sequence[Index]) -> Expr:
        if along is None:
            return piece.read(placed(i, d, i[d] - start))
        return piece.read(placed(placed(i, d, 0), along, (i[d] - start) * shape[along] + i[along]))

    def element(*i: Index) -> Expr:
        word, *words = (read(piece, start, i) for piece, start in parts)
        for other in words:
            word = operation("ior", dtype, word, other)
        return word

    return b.tensor(dtype, shape, element, "cat")


def _is_zero(tensor: Tensor) -> bool:
    return isinstance(tensor.element, Const) and tensor.element.word == 0


def _edge(pieces: Sequence[Tensor], d: int) -> int | None:
    """A dimension beyond whose edge to read instead of ``d``, where all pieces have an extent of 1 and no edge."""
    if any(piece.shape[d] != 1 for piece in pieces) or all(piece.has_edges((d,)) for piece in pieces):
        return None
    others = (e for e in range(len(pieces[0].shape)) if e != d)
    return next((e for e in others if all(_is_zero(p) or p.has_edges((e,)) for p in pieces)), None)


@lowers("constant_pad_nd.default")
def _pad(b: Builder, x: Tensor, pads: Sequence[int], value: float | int = 0) -> Tensor:
    before, after = [0] * len(x.shape), [0] * len(x.shape)
    for k in range(len(pads) // 2):
        before[-1 - k], after[-1 - k] = pads[2 * k], pads[2 * k + 1]
    shape = tuple(n + p + q for n, p, q in zip(x.shape, before, after, strict=True))
    b.bordered(x, [d for d in range(len(shape)) if before[d] > 0 or after[d] > 0])

    def element(*i: Index) -> Expr:
        return x.read(tuple(p - n for p, n in zip(i, before, strict=True)), value)

    return b.tensor(x.dtype, shape, element, "pad")


@lowers("arange.start_step")
def _arange(
    b: Builder, start: float | int, end: float | int, step: float | int = 1, *, dtype: DType | None = None
) -> Tensor:
    kind = promote(start, end, step) if dtype is None else dtype
    count = max(0, -int(-(end - start) // step))
    if isinstance(start, int) and isinstance(step, int):
        return b.tensor(kind, (count,), lambda i: convert(word_of(i * step + start, i32), kind), "arange")
    return b.tensor(
        f32, (count,), lambda i: fma(convert(word_of(i, i32), f32), float(step), float(start)), "arange"
    )


@lowers("slice_scatter.default")
def _slice_scatter(
    b: Builder,
    x: Tensor,
    source: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    """x with ``source`` in place of a slice."""
    d = dim % len(x.shape)
    chosen = range(*slice(start, end, step).indices(x.shape[d]))
    b.bordered(source, (d,))

    def moved(*i: Index) -> Expr:
        return source.read((*i[:d], exact(i[d] - chosen.start, step), *i[d + 1 :]))

    if _is_zero(x):
        return b.tensor(x.dtype, x.shape, moved, "slice gradient")
    ones = b.stored(b.constant(1, u32, (len(chosen),)))

    def element(*i: Index) -> Expr:
        return select(ones.read((exact(i[d] - chosen.start, step),)), moved(*i), x[i])

    return b.tensor(x.dtype, x.shape, element, "slice scatter")


@lowers("as_strided.default")
def _as_strided(b: Builder, x: Tensor, *_: object) -> Tensor:
    raise CannotLower("it depends on how a tensor lies in memory", "Use view, permute, expand or slices.")


@lowers("diagonal.default")
def _diagonal(b: Builder, x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal as the last dimension."""
    rank = len(x.shape)
    rows, columns = dim1 % rank, dim2 % rank
    down, right = max(0, -offset), max(0, offset)
    length = max(0, min(x.shape[rows] - down, x.shape[columns] - right))
    others = [d for d in range(rank) if d not in (rows, columns)]

    def positions(*i: Index) -> tuple[Index, ...]:
        place = {rows: i[-1] + down, columns: i[-1] + right, **dict(zip(others, i, strict=False))}
        return tuple(place[d] for d in range(rank))

    return b.view(x, [*(x.shape[d] for d in others), length], positions)


@lowers("diagonal_scatter.default")
def _diagonal_scatter(
    b: Builder, x: Tensor, source: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    rank = len(x.shape)
    rows, columns = dim1 % rank, dim2 % rank
    down = max(0, -offset)
    b.bordered(source, (len(source.shape) - 1,))

    def element(*i: Index) -> Expr:
        on = eq(word_of(i[rows] + offset, i32), word_of(i[columns], i32))
        others = [p for d, p in enumerate(i) if d not in (rows, columns)]
        return select(on, source.read((*others, i[rows] - down)), x[i])

    return b.tensor(x.dtype, x.shape, element, "diagonal scatter")


@lowers("unfold.default")
def _unfold(b: Builder, x: Tensor, dim: int, size: int, step: int) -> Tensor:
    """Windows along a dimension, as the last one."""
    if not x.shape:
        return b.view(x, (size,), lambda _: ())
    d = dim % len(x.shape)
    shape = (*x.shape[:d], (x.shape[d] - size) // step + 1, *x.shape[d + 1 :], size)
    return b.view(x, shape, lambda *i: placed(i[:-1], d, i[d] * step + i[-1]))


@lowers("eye.default", "eye.m")
def _eye(b: Builder, rows: int, columns: int | None = None, *, dtype: DType | None = None) -> Tensor:
    def element(i: Index, j: Index) -> Expr:
        return convert(eq(word_of(i, i32), word_of(j, i32)), f32 if dtype is None else dtype)

    shape = (rows, rows if columns is None else columns)
    return b.tensor(f32 if dtype is None else dtype, shape, element, "eye")


def _triangle_indices(name: str, make: Callable[[int, int, int], NDArray[np.int64]]) -> None:
    @lowers(f"{name}.default")
    def row(b: Builder, rows: int, columns: int, offset: int = 0, *, dtype: DType | None = None) -> Tensor:
        return b.table(make(rows, columns, offset).astype(np.int32), "indices of a triangle")


_triangle_indices("tril_indices", lambda n, m, k: np.stack(np.tril_indices(n, k, m)))
_triangle_indices("triu_indices", lambda n, m, k: np.stack(np.triu_indices(n, k, m)))
