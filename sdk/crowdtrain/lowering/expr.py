"""Expressions over words: what a nest's body computes, written with Python's operators.

``+ - *`` and negation follow the operands' type, ``/`` is of f32 only; a Python number next to an expression
becomes a constant of its type. Nothing is computed here except where all operands are constant.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from crowdtrain_engine import DType
from crowdtrain_engine.arithmetic import PlainFloats, evaluate
from crowdtrain_engine.ops import NAN

from crowdtrain.lowering.index import Atom, Exact, Index

__all__ = [
    "Accumulator", "Const", "Expr", "Operation", "Position", "ReadExpr", "Scalar", "Word", "as_expr", "bits",
    "const", "convert", "cos", "divide", "eq", "erf", "exp", "fabs", "fma", "le", "log", "logical_and",
    "logical_not", "logical_or", "lt", "maximum", "minimum", "ne", "operation", "select", "sigmoid", "sin", "sqrt",
    "tanh", "word_of",
]  # fmt: skip

f32, i32, u32 = DType.f32, DType.i32, DType.u32


@dataclass(frozen=True, eq=False)
class Expr:
    """One word for each iteration of a nest. Identity is equality; the builder finds equal subexpressions."""

    dtype: DType

    def _binary(self, other: Scalar, names: tuple[str, str], *, swap: bool = False) -> Expr:
        a, b = self, as_expr(other, self.dtype)
        if a.dtype is not b.dtype:
            raise TypeError(f"{names[0]} of {a.dtype.name} and {b.dtype.name}")
        return operation(
            names[0] if self.dtype is f32 else names[1], self.dtype, *((b, a) if swap else (a, b))
        )

    def __add__(self, other: Scalar) -> Expr:
        return self._binary(other, ("fadd", "iadd"))

    def __radd__(self, other: Scalar) -> Expr:
        return self._binary(other, ("fadd", "iadd"), swap=True)

    def __sub__(self, other: Scalar) -> Expr:
        return self._binary(other, ("fsub", "isub"))

    def __rsub__(self, other: Scalar) -> Expr:
        return self._binary(other, ("fsub", "isub"), swap=True)

    def __mul__(self, other: Scalar) -> Expr:
        return self._binary(other, ("fmul", "imul"))

    def __rmul__(self, other: Scalar) -> Expr:
        return self._binary(other, ("fmul", "imul"), swap=True)

    def __truediv__(self, other: Scalar) -> Expr:
        return self._binary(other, ("fdiv", "no integer division"))

    def __rtruediv__(self, other: Scalar) -> Expr:
        return self._binary(other, ("fdiv", "no integer division"), swap=True)

    def __neg__(self) -> Expr:
        return operation("fneg", f32, self) if self.dtype is f32 else const(0, self.dtype) - self


Scalar = Expr | float | int


@dataclass(frozen=True, eq=False)
class Const(Expr):
    """The same word everywhere."""

    word: int = 0


@dataclass(frozen=True, eq=False)
class Operation(Expr):
    """An operation of :mod:`crowdtrain_engine.ops`."""

    op: str = ""
    args: tuple[Expr, ...] = ()


@dataclass(frozen=True, eq=False)
class ReadExpr(Expr):
    """The word of value number ``value``, of shape ``shape``, at a position; outside it, ``fill``."""

    value: int = 0
    shape: tuple[int, ...] = ()
    indices: tuple[Index | Exact, ...] = ()
    fill: int = 0


@dataclass(frozen=True, eq=False)
class Position(Expr):
    """A position as a u32 or i32 word."""

    index: Index = field(default_factory=Index)


@dataclass(frozen=True, eq=False)
class Accumulator(Expr):
    """What a fold has gathered so far."""


@dataclass(frozen=True, eq=False)
class Word(Atom):
    """A word of a tensor as part of a position; beyond 2^31 it is outside everything."""

    expr: Expr
    low: int = 0
    high: int = 2**31 - 1


def bits(value: float | int, dtype: DType) -> int:
    """The word of a Python number: f32 rounded to nearest (every NaN the same), integers modulo 2^32.

    Raises OverflowError for an integer that 32 bits cannot hold.
    """
    if dtype is f32:
        with PlainFloats(), np.errstate(over="ignore"):
            number = np.float32(value)
        return NAN if np.isnan(number) else int(number.view(np.uint32))
    if not -(2**31) <= value < 2**32:
        raise OverflowError(f"{value} does not fit in 32 bits")
    return int(value) % 2**32


def const(value: float | int, dtype: DType = f32) -> Const:
    """A constant; ``value`` is a number, not a word."""
    return Const(dtype, bits(value, dtype))


def as_expr(value: Scalar, dtype: DType) -> Expr:
    """``value`` itself, or the constant of type ``dtype`` that it stands for."""
    return value if isinstance(value, Expr) else const(value, dtype)


def operation(op: str, dtype: DType, *args: Expr) -> Expr:
    """The operation ``op``, computed at once if all is constant, left out where it changes nothing."""
    if all(isinstance(arg, Const) for arg in args):
        words = evaluate(op, *(np.asarray(arg.word, np.uint32) for arg in args if isinstance(arg, Const)))
        return Const(dtype, int(words))
    if (op, args[-1].word if isinstance(args[-1], Const) else None) in _NEUTRAL_RIGHT:
        return args[0]
    if (op, args[0].word if isinstance(args[0], Const) else None) in _NEUTRAL_LEFT:
        return args[1]
    if op == "select" and isinstance(args[0], Const):
        return args[1] if args[0].word else args[2]
    return Operation(dtype, op, args)


_ONE = bits(1.0, f32)
_NEUTRAL_LEFT = {("fmul", _ONE), ("iadd", 0), ("imul", 1), ("ior", 0)}
_NEUTRAL_RIGHT = _NEUTRAL_LEFT | {("fdiv", _ONE), ("fsub", 0), ("isub", 0), ("shl", 0), ("shr", 0)}


def fma(a: Scalar, b: Scalar, c: Scalar) -> Expr:
    """a · b + c of f32, rounded once."""
    return operation("ffma", f32, as_expr(a, f32), as_expr(b, f32), as_expr(c, f32))


def _same(a: Scalar, b: Scalar) -> tuple[Expr, Expr]:
    dtype = a.dtype if isinstance(a, Expr) else b.dtype if isinstance(b, Expr) else f32
    left, right = as_expr(a, dtype), as_expr(b, dtype)
    if left.dtype is not right.dtype:
        raise TypeError(f"{left.dtype.name} beside {right.dtype.name}")
    return left, right


def select(condition: Expr, then: Scalar, otherwise: Scalar) -> Expr:
    """``then`` where ``condition`` is not the word 0, else ``otherwise``."""
    a, b = _same(then, otherwise)
    return operation("select", a.dtype, condition, a, b)


_LESS = {f32: "flt", i32: "ilt", u32: "ult"}


def lt(a: Scalar, b: Scalar) -> Expr:
    """1 where a < b, else 0 (as every comparison with a NaN)."""
    left, right = _same(a, b)
    return operation(_LESS[left.dtype], u32, left, right)


def le(a: Scalar, b: Scalar) -> Expr:
    """1 where a ≤ b."""
    left, right = _same(a, b)
    return operation("fle", u32, left, right) if left.dtype is f32 else logical_not(lt(right, left))


def eq(a: Scalar, b: Scalar) -> Expr:
    """1 where a = b."""
    left, right = _same(a, b)
    return operation("feq" if left.dtype is f32 else "ieq", u32, left, right)


def ne(a: Scalar, b: Scalar) -> Expr:
    """1 where a ≠ b, and where one is a NaN."""
    return logical_not(eq(a, b))


def logical_not(a: Expr) -> Expr:
    """1 for the word 0, else 0."""
    return operation("ieq", u32, a, const(0, u32))


def logical_and(a: Expr, b: Expr) -> Expr:
    """Of two words that are 0 or 1."""
    return operation("iand", u32, a, b)


def logical_or(a: Expr, b: Expr) -> Expr:
    """Of two words that are 0 or 1."""
    return operation("ior", u32, a, b)


def maximum(a: Scalar, b: Scalar) -> Expr:
    """b where a < b, else a: of two zeros the first, and a NaN wins only as the first."""
    left, right = _same(a, b)
    return select(lt(left, right), right, left)


def minimum(a: Scalar, b: Scalar) -> Expr:
    """b where b < a, else a."""
    left, right = _same(a, b)
    return select(lt(right, left), right, left)


def sqrt(a: Expr) -> Expr:
    return operation("fsqrt", f32, a)


def fabs(a: Expr) -> Expr:
    return operation("fabs", f32, a)


def exp(a: Expr) -> Expr:
    return operation("exp", f32, a)


def log(a: Expr) -> Expr:
    return operation("log", f32, a)


def tanh(a: Expr) -> Expr:
    return operation("tanh", f32, a)


def erf(a: Expr) -> Expr:
    return operation("erf", f32, a)


def sigmoid(a: Expr) -> Expr:
    return operation("sigmoid", f32, a)


def sin(a: Expr) -> Expr:
    return operation("sin", f32, a)


def cos(a: Expr) -> Expr:
    return operation("cos", f32, a)


def convert(a: Expr, dtype: DType) -> Expr:
    """``a`` as another type: numbers keep their value where it fits, f32 is cut toward zero."""
    if a.dtype is dtype:
        return a
    if dtype is f32:
        return operation("i2f" if a.dtype is i32 else "u2f", f32, a)
    if a.dtype is f32:
        return operation("f2i" if dtype is i32 else "f2u", dtype, a)
    return replace(a, dtype=dtype)


def divide(a: Expr, divisor: int) -> Expr:
    """floor(a / divisor) of an integer word below 2^31, for a divisor of at least 1.

    By a multiplication: Granlund and Montgomery, "Division by invariant integers using multiplication", 1994.
    """
    if divisor == 1:
        return a
    shift = (divisor - 1).bit_length()
    magic = const((1 << (31 + shift)) // divisor + 1, a.dtype)
    return operation("shr", a.dtype, operation("umulh", a.dtype, a, magic), const(shift - 1, a.dtype))


def word_of(index: Index, dtype: DType = u32) -> Expr:
    """A position as an integer word."""
    if not index.terms:
        return const(index.offset, dtype)
    return Position(dtype, index)
