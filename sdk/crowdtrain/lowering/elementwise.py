"""Lowerings of operations that work on each element alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from crowdtrain_engine import DType

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import (
    Expr,
    const,
    cos,
    eq,
    erf,
    exp,
    f32,
    fabs,
    fma,
    le,
    log,
    logical_not,
    lt,
    maximum,
    minimum,
    ne,
    operation,
    select,
    sigmoid,
    sin,
    sqrt,
    tanh,
    u32,
)
from crowdtrain.lowering.table import CannotLower, lowers, number, promote
from crowdtrain.lowering.tensor import Tensor

__all__ = ["expm1", "log1p", "power"]

Number = Tensor | float | int


def _relu(x: Expr) -> Expr:
    return select(lt(x, 0), 0, x)


def _sign(x: Expr) -> Expr:
    return select(lt(x, 0), -1, select(lt(0, x), 1, x))


def _abs(x: Expr) -> Expr:
    return fabs(x) if x.dtype is f32 else select(lt(x, 0), -x, x)


def log1p(x: Expr) -> Expr:
    """Kahan's: what is lost in u = 1 + x is made good by the factor x / (u - 1)."""
    u = x + 1.0
    small = select(eq(u, 1.0), x, log(u) * (x / (u - 1.0)))
    return select(eq(u, math.inf), u, small)


def expm1(x: Expr) -> Expr:
    """Near 0, 2t / (1 - t) with t = tanh(x / 2), which loses nothing there."""
    t = tanh(x * 0.5)
    return select(lt(fabs(x), 1.0), (t + t) / (1.0 - t), exp(x) - 1.0)


def _unary(name: str, function: Callable[[Expr], Expr], *, any_type: bool = False) -> None:
    @lowers(f"{name}.default")
    def row(b: Builder, x: Tensor) -> Tensor:
        return b.pointwise(function, x if any_type else number(b, x, f32), what=name)


_unary("relu", _relu, any_type=True)
_unary("neg", lambda x: -x, any_type=True)
_unary("abs", _abs, any_type=True)
_unary("sign", _sign, any_type=True)
_unary("logical_not", lambda x: eq(x, 0), any_type=True)
_unary("isnan", lambda x: ne(x, x), any_type=True)
_unary("isinf", lambda x: eq(fabs(x), math.inf))
_unary("signbit", lambda x: operation("shr", u32, x, const(31, u32)), any_type=True)
_unary("exp", exp)
_unary("log", log)
_unary("sqrt", sqrt)
_unary("rsqrt", lambda x: 1.0 / sqrt(x))
_unary("reciprocal", lambda x: 1.0 / x)
_unary("sigmoid", sigmoid)
_unary("tanh", tanh)
_unary("erf", erf)
_unary("sin", sin)
_unary("cos", cos)
_unary("erfc", lambda x: 1.0 - erf(x))
_unary("exp2", lambda x: exp(x * math.log(2)))
_unary("log2", lambda x: log(x) * math.log2(math.e))
_unary("log10", lambda x: log(x) * math.log10(math.e))
_unary("log1p", log1p)
_unary("expm1", expm1)


@lowers("bitwise_not.default")
def _bitwise_not(b: Builder, x: Tensor) -> Tensor:
    if x.dtype is u32:
        return b.pointwise(logical_not, x, what="not")
    return b.pointwise(lambda v: operation("ixor", v.dtype, v, const(-1, v.dtype)), x, what="not")


def _binary(b: Builder, what: str, function: Callable[[Expr, Expr], Expr], x: Number, y: Number) -> Tensor:
    dtype = promote(x, y)
    return b.pointwise(function, number(b, x, dtype), number(b, y, dtype), what=what)


@lowers("add.Tensor", "add.Scalar")
def _add(b: Builder, x: Number, y: Number, *, alpha: float | int = 1) -> Tensor:
    if promote(x, y) is u32:
        raise CannotLower("a sum of booleans", "Use logical_or")
    if alpha == 1:
        return _binary(b, "add", lambda u, v: u + v, x, y)
    dtype = promote(x, y, alpha)
    if dtype is f32:
        return _binary(b, "add", lambda u, v: fma(v, float(alpha), u), number(b, x, f32), y)
    return _binary(b, "add", lambda u, v: u + v * alpha, x, y)


@lowers("sub.Tensor", "sub.Scalar")
def _sub(b: Builder, x: Number, y: Number, *, alpha: float | int = 1) -> Tensor:
    if alpha == 1:
        return _binary(b, "sub", lambda u, v: u - v, x, y)
    result: Tensor = _add(b, x, y, alpha=-alpha)
    return result


@lowers("mul.Tensor", "mul.Scalar")
def _mul(b: Builder, x: Number, y: Number) -> Tensor:
    return _binary(b, "mul", lambda u, v: u * v, x, y)


@lowers("div.Tensor", "div.Scalar")
def _div(b: Builder, x: Number, y: Number) -> Tensor:
    return b.pointwise(lambda u, v: u / v, number(b, x, f32), number(b, y, f32), what="div")


@lowers("maximum.default")
def _maximum(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    return _binary(b, "maximum", maximum, x, y)


@lowers("minimum.default")
def _minimum(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    return _binary(b, "minimum", minimum, x, y)


def _first_number(function: Callable[[Expr, Expr], Expr]) -> Callable[[Expr, Expr], Expr]:
    """``function`` of two numbers; of a number and a NaN, the number."""
    return lambda x, y: select(ne(x, x), y, select(ne(y, y), x, function(x, y)))


@lowers("fmax.default")
def _fmax(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    return _binary(b, "maximum", _first_number(maximum), x, y)


@lowers("fmin.default")
def _fmin(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    return _binary(b, "minimum", _first_number(minimum), x, y)


@lowers("copysign.Tensor", "copysign.Scalar")
def _copysign(b: Builder, x: Tensor, y: Number) -> Tensor:
    def copy(u: Expr, v: Expr) -> Expr:
        sign = operation("iand", u32, v, const(1 << 31, u32))
        return operation("ior", f32, operation("iand", u32, u, const(2**31 - 1, u32)), sign)

    return b.pointwise(copy, number(b, x, f32), number(b, y, f32), what="copysign")


@lowers("hypot.default")
def _hypot(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    """The larger times sqrt(1 + (smaller / larger)²), so that no square overflows."""

    def hypot(u: Expr, v: Expr) -> Expr:
        large, small = maximum(fabs(u), fabs(v)), minimum(fabs(u), fabs(v))
        ratio = small / large
        return select(eq(large, 0.0), 0.0, large * sqrt(fma(ratio, ratio, 1.0)))

    return b.pointwise(hypot, x, y, what="hypot")


@lowers("clamp.default", "clamp.Tensor")
def _clamp(b: Builder, x: Tensor, low: Number | None = None, high: Number | None = None) -> Tensor:
    dtype = promote(*(v for v in (x, low, high) if v is not None))
    result = number(b, x, dtype)
    if low is not None:
        result = b.pointwise(lambda v, m: select(lt(v, m), m, v), result, number(b, low, dtype), what="clamp")
    if high is not None:
        result = b.pointwise(
            lambda v, m: select(lt(m, v), m, v), result, number(b, high, dtype), what="clamp"
        )
    return result


@lowers("hardtanh.default")
def _hardtanh(b: Builder, x: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    result: Tensor = _clamp(b, x, low, high)
    return result


def _comparison(name: str, function: Callable[[Expr, Expr], Expr]) -> None:
    @lowers(f"{name}.Tensor", f"{name}.Scalar")
    def row(b: Builder, x: Number, y: Number) -> Tensor:
        return _binary(b, name, function, x, y)


_comparison("eq", eq)
_comparison("ne", ne)
_comparison("lt", lt)
_comparison("le", le)
_comparison("gt", lambda u, v: lt(v, u))
_comparison("ge", lambda u, v: le(v, u))


def _logic(name: str, op: str) -> None:
    @lowers(f"bitwise_{name}.Tensor", f"bitwise_{name}.Scalar")
    def bitwise(b: Builder, x: Number, y: Number) -> Tensor:
        return _binary(b, name, lambda u, v: operation(op, u.dtype, u, v), x, y)

    @lowers(f"logical_{name}.default")
    def logical(b: Builder, x: Tensor, y: Tensor) -> Tensor:
        return _binary(b, name, lambda u, v: operation(op, u32, u, v), number(b, x, u32), number(b, y, u32))


_logic("and", "iand")
_logic("or", "ior")
_logic("xor", "ixor")


@lowers("where.self")
def _where(b: Builder, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    dtype = promote(x, y)
    return b.pointwise(select, condition, number(b, x, dtype), number(b, y, dtype), what="where")


_MOST_MULTIPLICATIONS = 64


def power(x: Expr, exponent: float) -> Expr:
    """x to a constant: whole and half exponents by products and square roots, others as exp(e log x)."""
    if exponent < 0:
        return 1.0 / power(x, -exponent)
    whole, rest = divmod(exponent, 1.0)
    if rest not in (0.0, 0.5) or whole > _MOST_MULTIPLICATIONS:
        return exp(log(x) * exponent)
    result, square = sqrt(x) if rest else const(1.0), x
    bits = int(whole)
    while bits:
        if bits & 1:
            result = result * square
        bits >>= 1
        square = square * square if bits else square
    return result


@lowers("pow.Tensor_Scalar")
def _pow_scalar(b: Builder, x: Tensor, exponent: float | int) -> Tensor:
    if x.dtype is not f32 and (isinstance(exponent, float) or exponent < 0):
        x = number(b, x, f32)
    if x.dtype is f32:
        return b.pointwise(lambda v: power(v, float(exponent)), x, what="pow")
    if not 0 <= exponent <= _MOST_MULTIPLICATIONS:
        raise CannotLower(f"an integer to the power of {exponent}")

    def whole_power(v: Expr) -> Expr:
        result: Expr = const(1, v.dtype)
        for _ in range(int(exponent)):
            result = result * v
        return result

    return b.pointwise(whole_power, x, what="pow")


@lowers("pow.Tensor_Tensor")
def _pow_tensor(b: Builder, x: Tensor, exponent: Tensor) -> Tensor:
    return b.pointwise(lambda v, e: exp(e * log(v)), number(b, x, f32), number(b, exponent, f32), what="pow")


@lowers("pow.Scalar")
def _pow_of_number(b: Builder, base: float, exponent: Tensor) -> Tensor:
    if base <= 0:
        raise CannotLower(f"{base} to the power of a tensor")
    return b.pointwise(lambda e: exp(e * math.log(base)), number(b, exponent, f32), what="pow")


@lowers("leaky_relu.default")
def _leaky_relu(b: Builder, x: Tensor, slope: float = 0.01) -> Tensor:
    return b.pointwise(lambda v: select(lt(0.0, v), v, v * slope), x, what="leaky relu")


@lowers("softshrink_backward.default", "hardshrink_backward.default")
def _shrink_backward(b: Builder, gradient: Tensor, x: Tensor, limit: float) -> Tensor:
    return b.pointwise(
        lambda g, v: select(le(fabs(v), float(limit)), 0.0, g), gradient, x, what="shrink gradient"
    )


@lowers("elu.default")
def _elu(b: Builder, x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    def elu(v: Expr) -> Expr:
        return select(lt(0.0, v), v * scale, expm1(v * input_scale) * (alpha * scale))

    return b.pointwise(elu, x, what="elu")


@lowers("gelu.default")
def _gelu(b: Builder, x: Tensor, *, approximate: str = "none") -> Tensor:
    def exact_gelu(v: Expr) -> Expr:
        return v * 0.5 * (erf(v * math.sqrt(0.5)) + 1.0)

    def tanh_gelu(v: Expr) -> Expr:
        inner = fma(v * v * v, 0.044715, v) * math.sqrt(2 / math.pi)
        return v * 0.5 * (tanh(inner) + 1.0)

    return b.pointwise(exact_gelu if approximate == "none" else tanh_gelu, x, what="gelu")


@lowers("threshold_backward.default")
def _threshold_backward(b: Builder, gradient: Tensor, x: Tensor, threshold: float) -> Tensor:
    return b.pointwise(
        lambda g, v: select(le(v, float(threshold)), 0.0, g), gradient, x, what="relu gradient"
    )


@lowers("_to_copy.default")
def _to_copy(b: Builder, x: Tensor, *, dtype: DType | None = None) -> Tensor:
    return x if dtype is None else number(b, x, dtype)


@lowers("alias.default", "clone.default", "detach.default", "lift_fresh_copy.default")
def _same(b: Builder, x: Tensor) -> Tensor:
    return x


@lowers("copy.default")
def _copy(b: Builder, x: Tensor, source: Tensor) -> Tensor:
    copied = number(b, source, x.dtype)
    rank = len(x.shape) - len(copied.shape)
    sizes = (1,) * rank + copied.shape
    return b.view(
        copied, x.shape, lambda *i: tuple(0 if n == 1 else p for p, n in zip(i, sizes, strict=True))[rank:]
    )


@lowers("full.default")
def _full(b: Builder, shape: list[int], value: float | int, *, dtype: DType | None = None) -> Tensor:
    return b.constant(value, promote(value) if dtype is None else dtype, shape)


@lowers("full_like.default")
def _full_like(b: Builder, x: Tensor, value: float | int, *, dtype: DType | None = None) -> Tensor:
    return b.constant(value, x.dtype if dtype is None else dtype, x.shape)


@lowers("scalar_tensor.default")
def _scalar_tensor(b: Builder, value: float | int, *, dtype: DType | None = None) -> Tensor:
    return b.constant(value, f32 if dtype is None else dtype)


@lowers("empty.memory_format", "empty_permuted.default")
def _empty(b: Builder, shape: list[int], *_: object, dtype: DType | None = None) -> Tensor:
    return b.constant(0, f32 if dtype is None else dtype, shape)


@lowers("new_empty_strided.default")
def _new_empty(b: Builder, x: Tensor, shape: list[int], _: Any, *, dtype: DType | None = None) -> Tensor:
    return b.constant(0, x.dtype if dtype is None else dtype, shape)
