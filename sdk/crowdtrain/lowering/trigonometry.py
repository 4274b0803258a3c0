"""Lowerings of trigonometric and hyperbolic functions and their inverses."""

from __future__ import annotations

import math
from collections.abc import Callable

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.elementwise import expm1, log1p
from crowdtrain.lowering.expr import (
    Expr,
    const,
    cos,
    eq,
    exp,
    f32,
    fabs,
    fma,
    log,
    logical_and,
    lt,
    operation,
    select,
    sin,
    sqrt,
    u32,
)
from crowdtrain.lowering.table import lowers, number
from crowdtrain.lowering.tensor import Tensor

__all__: list[str] = []


def _signed(size: Expr, like: Expr) -> Expr:
    """``size``, which is not negative, with the sign of ``like``."""
    return operation("ior", f32, size, operation("iand", u32, like, const(1 << 31, u32)))


_ATAN = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)
"""Coefficients of x² … for arctangent below tan(π/8), from Moshier's Cephes library (atanf)."""


def _atan(x: Expr) -> Expr:
    """Reduced to below tan(π/8) by atan(x) = π/2 - atan(1/x) = π/4 + atan((x - 1) / (x + 1))."""
    size = fabs(x)
    large, middle = lt(math.tan(3 * math.pi / 8), size), lt(math.tan(math.pi / 8), size)
    start = select(large, math.pi / 2, select(middle, const(math.pi / 4), 0.0))
    t = select(large, -1.0 / size, select(middle, (size - 1.0) / (size + 1.0), size))
    z = t * t
    polynomial: Expr = const(_ATAN[0])
    for coefficient in _ATAN[1:]:
        polynomial = fma(polynomial, z, coefficient)
    return _signed(start + fma(polynomial * z, t, t), x)


def _asin(x: Expr) -> Expr:
    return _atan(x / sqrt((1.0 - x) * (1.0 + x)))


def _acos(x: Expr) -> Expr:
    return _atan(sqrt((1.0 - x) / (1.0 + x))) * 2.0


def _sinh(x: Expr) -> Expr:
    e = expm1(fabs(x))
    return _signed(select(eq(e, math.inf), e, (e + e / (e + 1.0)) * 0.5), x)


def _cosh(x: Expr) -> Expr:
    e = exp(fabs(x))
    return (e + 1.0 / e) * 0.5


def _asinh(x: Expr) -> Expr:
    size = fabs(x)
    near = log1p(size + size * size / (sqrt(fma(size, size, 1.0)) + 1.0))
    return _signed(select(lt(size, 1e8), near, log(size) + math.log(2)), x)


def _acosh(x: Expr) -> Expr:
    t = x - 1.0
    return select(lt(x, 1e8), log1p(t + sqrt(t * (x + 1.0))), log(x) + math.log(2))


def _atanh(x: Expr) -> Expr:
    size = fabs(x)
    return _signed(log1p(size * 2.0 / (1.0 - size)) * 0.5, x)


def _unary(name: str, function: Callable[[Expr], Expr]) -> None:
    @lowers(f"{name}.default")
    def row(b: Builder, x: Tensor) -> Tensor:
        return b.pointwise(function, number(b, x, f32), what=name)


_unary("tan", lambda x: sin(x) / cos(x))
_unary("atan", _atan)
_unary("asin", _asin)
_unary("acos", _acos)
_unary("sinh", _sinh)
_unary("cosh", _cosh)
_unary("asinh", _asinh)
_unary("acosh", _acosh)
_unary("atanh", _atanh)


@lowers("atan2.default")
def _atan2(b: Builder, y: Tensor, x: Tensor) -> Tensor:
    def angle(v: Expr, u: Expr) -> Expr:
        both_zero = logical_and(eq(u, 0.0), eq(v, 0.0))
        first = select(both_zero, 0.0, _atan(fabs(v) / fabs(u)))
        left = operation("shr", u32, u, const(31, u32))
        return _signed(select(left, math.pi - first, first), v)

    return b.pointwise(angle, number(b, y, f32), number(b, x, f32), what="atan2")
