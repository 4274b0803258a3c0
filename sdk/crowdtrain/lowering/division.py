"""Lowerings of rounding to whole numbers, and of quotients and remainders."""

from __future__ import annotations

from collections.abc import Callable

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import (
    Expr,
    const,
    convert,
    divide,
    eq,
    f32,
    fabs,
    fma,
    i32,
    logical_and,
    logical_not,
    lt,
    ne,
    operation,
    select,
    u32,
)
from crowdtrain.lowering.table import CannotLower, Row, lowers, number, promote
from crowdtrain.lowering.tensor import Tensor

__all__: list[str] = []

Number = Tensor | float | int

_WHOLE = float(1 << 23)
"""From here on every f32 is a whole number."""


def _where_not_whole(x: Expr, rounded: Expr) -> Expr:
    """``rounded`` with the sign of x where x may have a fraction, else x itself (NaN too)."""
    sign = operation("iand", u32, x, const(1 << 31, u32))
    return select(lt(fabs(x), _WHOLE), operation("ior", f32, fabs(rounded), sign), x)


def _trunc(x: Expr) -> Expr:
    return _where_not_whole(x, convert(convert(x, i32), f32))


def _floor(x: Expr) -> Expr:
    toward_zero = _trunc(x)
    return select(lt(x, toward_zero), toward_zero - 1.0, toward_zero)


def _ceil(x: Expr) -> Expr:
    toward_zero = _trunc(x)
    return select(lt(toward_zero, x), toward_zero + 1.0, toward_zero)


def _round(x: Expr) -> Expr:
    """To the nearest, halves to even: a sum with 2²³ has no room for a fraction."""
    return _where_not_whole(x, (fabs(x) + _WHOLE) - _WHOLE)


def _rounding(name: str, function: Callable[[Expr], Expr]) -> None:
    @lowers(f"{name}.default")
    def row(b: Builder, x: Tensor) -> Tensor:
        return b.pointwise(function, x, what=name) if x.dtype is f32 else x


_rounding("trunc", _trunc)
_rounding("floor", _floor)
_rounding("ceil", _ceil)
_rounding("round", _round)


@lowers("round.decimals")
def _round_decimals(b: Builder, x: Tensor, *, decimals: int) -> Tensor:
    scale = 10.0**decimals
    return b.pointwise(lambda v: _round(v * scale) / scale, x, what="round")


Parts = tuple[Expr, Expr]
"""A quotient toward zero, and the rest, which has the sign of the dividend."""


def _float_parts(x: Expr, divisor: Expr) -> Parts:
    """The quotient may be off by one, and is put right by the rest; exact for quotients below 2²³."""
    quotient = _trunc(x / divisor)
    rest = fma(-quotient, divisor, x)
    step = select(logical_and(ne(rest, 0.0), ne(lt(rest, 0.0), lt(x, 0.0))), -1.0, 0.0)
    step = select(lt(fabs(rest), fabs(divisor)), step, 1.0)
    toward = select(eq(lt(x, 0.0), lt(divisor, 0.0)), step, -step)
    return quotient + toward, fma(-toward, divisor, rest)


def _integer_parts_by(divisor: int) -> Callable[[Expr], Parts]:
    """For a fixed divisor above 0: by a multiplication."""

    def parts(x: Expr) -> Parts:
        negative = lt(x, 0)
        quotient = divide(select(negative, -x, x), divisor)
        signed = select(negative, -quotient, quotient)
        return signed, x - signed * divisor

    return parts


def _integer_parts(x: Expr, divisor: Expr) -> Parts:
    """Two approximations by f32, each of which makes the rest smaller by 2²³, and a last step."""
    quotient = convert(convert(x, f32) / convert(divisor, f32), i32)
    rest = x - quotient * divisor
    quotient = quotient + convert(convert(rest, f32) / convert(divisor, f32), i32)
    rest = x - quotient * divisor

    def size(v: Expr) -> Expr:
        return select(lt(v, 0), -v, v)

    wrong_side = logical_and(ne(rest, 0), ne(lt(rest, 0), lt(x, 0)))
    step = select(wrong_side, -1, select(lt(size(rest), size(divisor)), const(0, i32), 1))
    toward = select(eq(lt(x, 0), lt(divisor, 0)), step, -step)
    return quotient + toward, rest - toward * divisor


def _differ(rest: Expr, divisor: Expr) -> Expr:
    """Whether a rest has another sign than the divisor, so that floor and truncation part."""
    zero = const(0, rest.dtype)
    return logical_and(logical_not(eq(rest, zero)), ne(lt(rest, zero), lt(divisor, zero)))


Choose = Callable[[Parts, Expr], Expr]
"""What is made of the parts and the divisor."""


def _division(b: Builder, x: Number, divisor: Number, what: str, choose: Choose) -> Tensor:
    dtype = promote(x, divisor)
    if dtype is u32:
        raise CannotLower("a division of booleans")
    dividend = number(b, x, dtype)
    if dtype is i32 and isinstance(divisor, int) and divisor > 0:
        by = _integer_parts_by(divisor)
        return b.pointwise(lambda v: choose(by(v), const(divisor, i32)), dividend, what=what)
    parts = _float_parts if dtype is f32 else _integer_parts
    return b.pointwise(lambda v, n: choose(parts(v, n), n), dividend, number(b, divisor, dtype), what=what)


def _row(what: str, choose: Choose) -> Row:
    def row(b: Builder, x: Number, divisor: Number) -> Tensor:
        return _division(b, x, divisor, what, choose)

    return row


lowers("fmod.Scalar", "fmod.Tensor")(_row("fmod", lambda parts, n: parts[1]))
lowers("remainder.Scalar", "remainder.Tensor", "remainder.Scalar_Tensor")(
    _row("remainder", lambda parts, n: select(_differ(parts[1], n), parts[1] + n, parts[1]))
)
_truncated = _row("quotient", lambda parts, n: parts[0])
_floored = _row("quotient", lambda parts, n: select(_differ(parts[1], n), parts[0] - 1, parts[0]))


@lowers("div.Tensor_mode", "div.Scalar_mode")
def _div_mode(b: Builder, x: Number, divisor: Number, *, rounding_mode: str | None) -> Tensor:
    if rounding_mode is None:
        return b.pointwise(lambda u, v: u / v, number(b, x, f32), number(b, divisor, f32), what="div")
    result: Tensor = (_floored if rounding_mode == "floor" else _truncated)(b, x, divisor)
    return result
