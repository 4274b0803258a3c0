"""Builds programs: tensors and formulas in, nests out.

``map`` and ``fold`` make one nest each, from a formula over positions::

    b.map((n, m), lambda i, j: x[i, j] + y[j], "sum")
    b.fold((n, m), (k,), lambda acc, i, j, r: fma(x[i, r], w[r, j], acc), "product")

``pointwise`` makes a formula only: it becomes part of the nest that uses it, or a nest of its own once it is
stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from crowdtrain_engine import DType, Program, TensorType
from crowdtrain_engine.merkle import PAGE_WORDS
from crowdtrain_engine.program import MAX_WIDE_FOLD, MAX_WIDE_PAGES
from crowdtrain_engine.state import Array

from crowdtrain.lowering.assembly import Assembly
from crowdtrain.lowering.emit import emit
from crowdtrain.lowering.errors import LoweringError
from crowdtrain.lowering.expr import Accumulator, Const, Expr, Operation, Scalar, const, f32, fma
from crowdtrain.lowering.index import Index
from crowdtrain.lowering.positions import split_loops, with_tables
from crowdtrain.lowering.tensor import Formula, Tensor, broadcast, reshape

if TYPE_CHECKING:
    from crowdtrain.lowering.random import Draws

__all__ = ["LONG_SUM", "Builder"]

LONG_SUM = 1024
"""A plain sum of more terms than this is split into two nests, so that its rounding error stays small."""

_LAZY = (40, 5, 20)
"""Operations, reads and constants beyond which a formula is stored: three of them still fit into one nest."""


class Builder:
    """A program in the making. State and data tensors are declared first; nests follow one another."""

    def __init__(self) -> None:
        self._program = Assembly()
        self._where = ("", "", "")
        self._tables: dict[object, Tensor] = {}
        self.draws: Draws | None = None
        """where random numbers come from, if the step draws any"""

    def state(self, group: str, name: str, kind: TensorType) -> Tensor:
        """Declares a state tensor; until :meth:`next` says otherwise it stays as it is."""
        return Tensor.stored(self._program.state(group, name, kind), kind)

    def data(self, name: str, kind: TensorType) -> Tensor:
        """Declares a data tensor; a first dimension of 0 is open, and read at words only (a gather)."""
        return Tensor.stored(self._program.data(name, kind), kind)

    def table(self, values: Array, name: str) -> Tensor:
        """A tensor of fixed words: part of the state's group of constants, if anything needs it."""
        kind = TensorType(DType.of(values.dtype), values.shape)
        return Tensor.stored(self._program.constant(values, name), kind)

    @property
    def constants(self) -> Mapping[str, Array]:
        """The tensors of the group of constants, once the program is finished."""
        return self._program.constants

    def next(self, state: Tensor, following: Tensor) -> None:
        """``following`` becomes ``state`` in the next state."""
        assert state.value is not None
        self._program.next[state.value] = self.value(following)

    def log(self, name: str, tensor: Tensor) -> None:
        """Reports ``tensor`` after every step."""
        value = self.value(tensor)
        if self._program.shape(value) != tensor.shape:
            copy = self.map(tensor.shape, lambda *i: tensor[i], name)
            value = self.value(copy)
        self._program.logs[name] = value

    def finish(self) -> Program:
        """The valid program, without the nests on which nothing depends or that read only constants.

        Raises ProgramError if the limits of programs are exceeded, LoweringError if names cannot be labels.
        """
        program = self._program.finish()
        program.validate()
        if not program.labels.fits(program):
            raise LoweringError(
                "names of modules, parameters and buffers must be printable and below 200 characters"
            )
        return program

    @contextmanager
    def label(self, where: str, instead: str = "", after: str = "") -> Iterator[None]:
        """Labels of what is made inside: "where: what".

        ``instead`` replaces what comes before a colon in the words that say what it is; ``after`` is added to
        them, unless they speak of a gradient.
        """
        outside, self._where = self._where, (where, instead, after)
        try:
            yield
        finally:
            self._where = outside

    def _label(self, what: str) -> str:
        where, instead, after = self._where
        head, colon, tail = what.partition(":")
        head = instead or (head if "gradient" in head else head + after)
        return f"{where}: {head}{colon}{tail}" if where else what

    def map(self, shape: Sequence[int], formula: Formula, what: str) -> Tensor:
        """One nest: ``formula`` of every position of ``shape``."""
        return self._nest(tuple(shape), (), lambda _, *i: formula(*i), const(0), self._label(what))

    def fold(
        self, shape: Sequence[int], over: Sequence[int], step: Formula, what: str, *, init: Scalar = 0.0
    ) -> Tensor:
        """One nest: for every position of ``shape``, ``acc`` becomes ``step(acc, *position, *index)`` for
        every index of ``over``, ascending; it starts as ``init``, an f32 number or a constant expression.
        """
        start = init if isinstance(init, Expr) else const(init)
        return self._nest(tuple(shape), tuple(over), step, start, self._label(what))

    def sum(self, shape: Sequence[int], over: Sequence[int], term: Formula, what: str) -> Tensor:
        """Sum of ``term(*position, *index)`` (f32) over ``over``, in two nests if longer than
        ``LONG_SUM``. A product is added with one rounding.
        """

        def step(acc: Expr, *i: Index) -> Expr:
            added = term(*i)
            if isinstance(added, Operation) and added.op == "fmul":
                a, b = added.args
                return fma(a, b, acc)
            return acc + added

        return self._accumulate(shape, over, step, what, LONG_SUM)

    def contract(
        self, shape: Sequence[int], over: Sequence[int], factors: Callable[..., tuple[Expr, Expr]], what: str
    ) -> Tensor:
        """Sum of products, each added with one rounding; in two nests only where the protocol asks for it."""
        wide = math.prod(shape) > PAGE_WORDS * MAX_WIDE_PAGES
        longest = MAX_WIDE_FOLD if wide else 1 << 24
        return self._accumulate(shape, over, lambda acc, *i: fma(*factors(*i), acc), what, longest)

    def _accumulate(
        self, shape: Sequence[int], over: Sequence[int], step: Formula, what: str, longest: int
    ) -> Tensor:
        """A fold from 0 whose ``step`` adds; a long one as partial folds whose results are then summed."""
        if math.prod(over) <= longest:
            return self.fold(shape, over, step, what)
        dim, inner = _cut(over)
        rank, count, rest = len(shape), over[dim] // inner, over[dim] % inner
        before, after = tuple(over[:dim]), tuple(over[dim + 1 :])
        outside = (*before, count) if count > 1 else before

        def partial(acc: Expr, *i: Index) -> Expr:
            ahead, at = list(i[: len(outside)]), i[len(outside) : len(outside) + rank]
            r, *rest_of_fold = i[len(outside) + rank :]
            q = ahead.pop() if count > 1 else 0
            return step(acc, *at, *ahead, q * inner + r, *rest_of_fold)

        # what is kept comes last, where neighbours mostly are neighbours in memory too
        parts = self.fold((*outside, *shape), (inner, *after), partial, f"{what}: partial sums")
        total = self.fold(shape, outside, lambda acc, *i: acc + parts[(*i[rank:], *i[:rank])], what)
        if not rest:
            return total

        def tail(acc: Expr, *i: Index) -> Expr:
            return step(acc, *i[: rank + dim], count * inner + i[rank + dim], *i[rank + dim + 1 :])

        last = self.fold(shape, (*before, rest, *after), tail, f"{what}: last part")
        return self.pointwise(lambda a, b: a + b, total, last, what=what)

    def pointwise(self, function: Callable[..., Expr], *tensors: Tensor, what: str) -> Tensor:
        """``function`` of the elements of ``tensors``, broadcast against one another: a formula, no nest.

        A formula that would be computed again for every repetition of its elements, or would not fit, is
        stored first.
        """
        shape = broadcast(*(t.shape for t in tensors))
        for t in tensors:
            if t.size < math.prod(shape):
                self.settle(t)
        made = self._formula(function, shape, tensors, what)
        if not made.weight.fits(*_LAZY):
            for t in tensors:
                self.settle(t)
            made = self._formula(function, shape, tensors, what)
            self.settle(made)
        return made

    def _formula(
        self, function: Callable[..., Expr], shape: tuple[int, ...], tensors: Sequence[Tensor], what: str
    ) -> Tensor:
        def formula(*indices: Index) -> Expr:
            return function(*(t[_aligned(indices, t.shape)] for t in tensors))

        dtype = function(*(Accumulator(t.dtype) for t in tensors)).dtype
        return Tensor(dtype, shape, formula, label=self._label(what))

    def tensor(self, dtype: DType, shape: Sequence[int], formula: Formula, what: str) -> Tensor:
        """``formula`` of every position of ``shape``: no nest, unless it is too large to be part of one."""
        made = Tensor(dtype, tuple(shape), formula, label=self._label(what))
        return made if made.weight.fits(*_LAZY) else self.settle(made)

    def view(
        self, of: Tensor, shape: Sequence[int], positions: Callable[..., tuple[Index | int, ...]]
    ) -> Tensor:
        """A tensor whose element at ``i`` is that of ``of`` at ``positions(*i)``."""
        return Tensor(of.dtype, tuple(shape), lambda *i: of[positions(*i)], label=of.label)

    def constant(self, value: float | int, dtype: DType = f32, shape: Sequence[int] = ()) -> Tensor:
        """The same number everywhere."""
        word = const(value, dtype)
        return Tensor(dtype, tuple(shape), lambda *_: word)

    def settle(self, tensor: Tensor) -> Tensor:
        """``tensor``, stored if it takes operations to compute; a view of something stored stays a view."""
        return self._store(tensor) if tensor.is_computed else tensor

    def plain(self, tensor: Tensor) -> Tensor:
        """``tensor`` so that an element is one word read at positions that loops alone give."""
        return self._store(tensor) if tensor.is_gathered else self.settle(tensor)

    def stored(self, tensor: Tensor) -> Tensor:
        """``tensor``, stored under its very shape."""
        return self._store(tensor) if tensor.value is None else tensor

    def number(self, tensor: Tensor) -> Tensor:
        """The only element of ``tensor``, stored under the shape ()."""
        return self.stored(reshape(tensor, ()))

    def bordered(self, tensor: Tensor, dims: Sequence[int]) -> Tensor:
        """``tensor`` so that it may be read beyond its edges in ``dims``."""
        self.settle(tensor)
        return tensor if tensor.has_edges(dims) else self.stored(tensor)

    def value(self, tensor: Tensor) -> int:
        """Number of the value that is ``tensor``."""
        value = self.stored(tensor).value
        assert value is not None
        return value

    def _store(self, tensor: Tensor) -> Tensor:
        tensor.become(
            self._nest(tensor.shape, (), lambda _, *i: tensor[i], const(0), tensor.label or self._copy)
        )
        return tensor

    @property
    def _copy(self) -> str:
        return f"{self._where[0]}: copy" if self._where[0] else "copy"

    def _nest(
        self,
        shape: tuple[int, ...],
        over: tuple[int, ...],
        step: Formula,
        init: Expr,
        label: str,
    ) -> Tensor:
        if not isinstance(init, Const):
            raise TypeError("a fold starts from a constant")
        start = Accumulator(init.dtype) if over else init
        loops, expr = split_loops(shape, over, lambda *i: step(start, *i))
        expr = with_tables(expr, self._table, self._tables)
        outer = [loop for parts in loops[: len(shape)] for loop in parts]
        inner = [loop for parts in loops[len(shape) :] for loop in parts]
        nest = emit(expr.dtype, outer, inner, expr, init.word if over else 0)
        value = self._program.nest(nest, label)
        return Tensor.stored(value, TensorType(nest.dtype, shape))

    def _table(self, shape: Sequence[int], formula: Formula) -> Tensor:
        label = f"{self._copy}: positions"
        return self._nest(tuple(shape), (), lambda _, *i: formula(*i), const(0), label)


def _cut(over: Sequence[int]) -> tuple[int, int]:
    """Where to cut a long fold in two of about equal length: a dimension, and how much of it is inside."""
    total, after = math.prod(over), 1
    dim = len(over)
    while after * after < total:
        dim -= 1
        after *= over[dim]
    extent = over[dim]
    best = max(1, round(math.sqrt(total) / (after // extent)))
    divisors = [d for d in range(1, extent + 1) if extent % d == 0] if extent < 1 << 20 else []
    near = [d for d in divisors if best <= 8 * d and d <= 8 * best]
    return dim, min(near, key=lambda d: abs(math.log(d / best)), default=min(best, extent))


def _aligned(indices: tuple[Index, ...], shape: tuple[int, ...]) -> tuple[Index, ...]:
    """Positions in a tensor of shape ``shape`` that is broadcast to as many dimensions as ``indices``."""
    last = indices[len(indices) - len(shape) :]
    return tuple(Index() if extent == 1 else i for i, extent in zip(last, shape, strict=True))
