"""From an expression over loops to a nest: operands, immediates and instructions, each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from crowdtrain_engine import Axis, DType, Instruction, Mode, Nest, Read
from crowdtrain_engine import Index as LoopOperand
from crowdtrain_engine.ops import BY_NAME
from crowdtrain_engine.program import Operand

from crowdtrain.lowering.expr import (
    Accumulator,
    Const,
    Expr,
    Operation,
    Position,
    ReadExpr,
    Word,
    const,
    convert,
    divide,
)
from crowdtrain.lowering.index import Atom, Exact, Index, Loop, Quotient, Remainder

__all__ = ["emit", "is_axis", "position"]

_T = TypeVar("_T")
_Slot = tuple[str, int]
"""("operand" | "immediate" | "instruction", number in its list), or ("accumulator", 0)"""


def is_axis(index: Index | Exact) -> bool:
    """Whether an axis of a read can express ``index`` as it is."""
    if isinstance(index, Exact):
        return index.inner.is_affine
    if index.is_affine:
        return True
    (atom, coefficient), *more = index.terms
    if more or coefficient != 1:
        return False
    if isinstance(atom, Quotient):
        return atom.inner.is_affine
    return isinstance(atom, Word) and index.offset == 0 and isinstance(atom.expr, ReadExpr)


def position(index: Index, dtype: DType) -> Expr:
    """``index``, which must not be negative, as arithmetic on the words of loops."""
    total: Expr = const(index.offset, dtype)
    for atom, coefficient in index.terms:
        total = total + _atom(atom, dtype) * coefficient
    return total


def _atom(atom: Atom, dtype: DType) -> Expr:
    if isinstance(atom, Loop):
        return Position(dtype, Index.of(atom))
    if isinstance(atom, Word):
        return convert(atom.expr, dtype)
    assert isinstance(atom, Quotient | Remainder)
    inner, divisor = atom.inner, atom.divisor
    lift = max(0, -(inner.low // divisor))
    n = position(inner + lift * divisor, dtype)
    quotient = divide(n, divisor)
    return quotient - lift if isinstance(atom, Quotient) else n - quotient * divisor


def emit(dtype: DType, outer: Sequence[Loop], fold: Sequence[Loop], expr: Expr, init: int) -> Nest:
    """The nest that gives ``expr`` for every index of ``outer``, folded over ``fold`` if there is one.

    Every position in ``expr`` must satisfy :func:`is_axis`.
    """
    emitter = _Emitter({loop: number for number, loop in enumerate((*outer, *fold))})
    result = emitter.slot(expr)
    return Nest(
        dtype,
        tuple(loop.extent for loop in outer),
        tuple(emitter.operands),
        emitter.body(),
        emitter.reference(result),
        tuple(loop.extent for loop in fold),
        init,
        tuple(emitter.immediates),
    )


class _Emitter:
    def __init__(self, loops: Mapping[Loop, int]) -> None:
        self.operands: list[Operand] = []
        self.immediates: list[int] = []
        self._instructions: list[tuple[str, tuple[_Slot, ...]]] = []
        self._loops = loops
        self._slots: dict[Expr, _Slot] = {}

    def slot(self, expr: Expr) -> _Slot:
        """Where the word of ``expr`` stands; it is added if it is not there."""
        if expr not in self._slots:
            self._slots[expr] = self._add(expr)
        return self._slots[expr]

    def _add(self, expr: Expr) -> _Slot:
        if isinstance(expr, Accumulator):
            return "accumulator", 0
        if isinstance(expr, Const):
            return "immediate", _place(self.immediates, expr.word)
        if isinstance(expr, ReadExpr):
            axes = tuple(self._axis(i, size) for i, size in zip(expr.indices, expr.shape, strict=True))
            return "operand", _place(self.operands, Read(expr.value, axes, expr.fill))
        if isinstance(expr, Position):
            if len(expr.index.terms) == 1 and expr.index.terms[0][1] == 1 and not expr.index.offset:
                ((atom, _),) = expr.index.terms
                if isinstance(atom, Loop):
                    return "operand", _place(self.operands, LoopOperand(self._loops[atom]))
            return self.slot(position(expr.index, expr.dtype))
        assert isinstance(expr, Operation)
        return "instruction", _place(self._instructions, (expr.op, tuple(map(self.slot, expr.args))))

    def _axis(self, index: Index | Exact, size: int) -> Axis:
        if isinstance(index, Exact):
            return Axis(size, self._terms(index.inner), index.inner.offset, Mode.EXACT, index.divisor)
        if index.is_affine:
            return Axis(size, self._terms(index), index.offset)
        ((atom, _),) = index.terms
        if isinstance(atom, Quotient):
            inner = atom.inner + index.offset * atom.divisor
            return Axis(size, self._terms(inner), inner.offset, Mode.FLOOR, atom.divisor)
        assert isinstance(atom, Word)
        _, operand = self.slot(atom.expr)
        return Axis(size, mode=Mode.GATHER, operand=operand)

    def _terms(self, index: Index) -> tuple[tuple[int, int], ...]:
        terms = [(self._loops[atom], c) for atom, c in index.terms if isinstance(atom, Loop)]
        return tuple(sorted(terms))

    def body(self) -> tuple[Instruction, ...]:
        return tuple(
            Instruction(BY_NAME[op].code, *map(self.reference, args)) for op, args in self._instructions
        )

    def reference(self, slot: _Slot) -> int:
        kind, number = slot
        first = {"accumulator": 0, "operand": 1, "immediate": 1 + len(self.operands)}
        return first.get(kind, 1 + len(self.operands) + len(self.immediates)) + number


def _place(items: list[_T], item: _T) -> int:
    """Position of ``item`` in ``items``, at the end if it was not there."""
    if item not in items:
        items.append(item)
    return items.index(item)
