"""Random numbers from a counter: each is a function of the seed, the step, the operation and its element.

Philox2x32 with ten rounds (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011). The key is
the seed; the counter is the element's position and a number that no other operation of any step has. What is
made of the two words that it gives is the same, word for word, as in :mod:`crowdtrain.random`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from crowdtrain_engine import DType

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import (
    Expr,
    const,
    convert,
    f32,
    fma,
    i32,
    log,
    lt,
    operation,
    select,
    sqrt,
    u32,
    word_of,
)
from crowdtrain.lowering.index import Index
from crowdtrain.lowering.table import CannotLower, Row, lowers, number
from crowdtrain.lowering.tensor import Tensor, broadcast, reshape
from crowdtrain.random import KEY_STEP, MULTIPLIER, ROUNDS, SINE

__all__ = ["DRAWING", "Draws"]

DRAWING: set[str] = set()
"""Operations that draw random numbers."""

Numbers = Callable[[Expr, Expr], Expr]
"""From the two words of an element to the element."""


class Draws:
    """The random numbers of one step, which draws ``count`` times, from the state's ``counters`` seed and step."""

    def __init__(self, b: Builder, counters: Mapping[str, Tensor], count: int) -> None:
        seed, step = counters["seed"], counters["step"]
        with b.label("random numbers"):
            self._keys = b.map((ROUNDS,), lambda i: seed[()] + word_of(i) * KEY_STEP, "keys")
            self._numbers = b.map((count,), lambda i: step[()] * count + word_of(i), "numbers of draws")
        self._drawn = 0

    def draw(self, b: Builder, shape: Sequence[int], numbers: Numbers, what: str) -> Tensor:
        """A tensor whose elements are made from the words of the next draw; stored, as they take long to compute."""
        draw, self._drawn = self._drawn, self._drawn + 1

        def element(i: Index) -> Expr:
            return numbers(*self._words(word_of(i), self._numbers[draw]))

        return reshape(b.map((math.prod(shape),), element, what), tuple(shape))

    def _words(self, left: Expr, right: Expr) -> tuple[Expr, Expr]:
        multiplier = const(MULTIPLIER, u32)
        for i in range(ROUNDS):
            mixed = operation("ixor", u32, operation("umulh", u32, left, multiplier), self._keys[i])
            left, right = operation("ixor", u32, mixed, right), left * multiplier
        return left, right


def _draws(*names: str) -> Callable[[Row], Row]:
    DRAWING.update(f"aten.{name}" for name in names)
    return lowers(*names)


def _drawn(b: Builder, shape: Sequence[int], numbers: Numbers, what: str) -> Tensor:
    assert b.draws is not None
    return b.draws.draw(b, shape, numbers, what)


def _shift(word: Expr, by: int) -> Expr:
    return operation("shr", u32, word, const(by, u32))


def _real(word: Expr) -> Expr:
    """A word read as i32."""
    return convert(convert(word, i32), f32)


# ------------------------------------------------------------------ uniform


def _uniform(word: Expr, _: Expr) -> Expr:
    """A multiple of 2^-24, at least 0 and below 1."""
    return _real(_shift(word, 8)) * 2.0**-24


@_draws("rand.default")
def _rand(b: Builder, shape: list[int], *, dtype: DType = f32) -> Tensor:
    return _drawn(b, shape, _uniform, "uniform numbers")


@_draws("rand_like.default")
def _rand_like(b: Builder, x: Tensor, *, dtype: DType = f32) -> Tensor:
    return _drawn(b, x.shape, _uniform, "uniform numbers")


@_draws("uniform.default")
def _uniform_between(b: Builder, x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    if (low, high) == (0, 1):
        return _drawn(b, x.shape, _uniform, "uniform numbers")
    return _drawn(b, x.shape, lambda *words: fma(_uniform(*words), high - low, low), "uniform numbers")


@_draws("exponential.default")
def _exponential(b: Builder, x: Tensor, rate: float = 1.0) -> Tensor:
    def exponential(word: Expr, _: Expr) -> Expr:
        return log(fma(_real(_shift(word, 9)), 2.0**-23, 2.0**-24)) * (-1.0 / rate)

    return _drawn(b, x.shape, exponential, "exponential numbers")


# ------------------------------------------------------------------ bernoulli, integers


@_draws("bernoulli.p")
def _bernoulli(b: Builder, x: Tensor, p: float) -> Tensor:
    threshold = round(p * 2**32)
    if threshold == 2**32:
        return _drawn(b, x.shape, lambda *_: const(1.0), "random mask")
    return _drawn(b, x.shape, lambda word, _: select(lt(word, threshold), 1.0, 0.0), "random mask")


@_draws("bernoulli.Tensor")
def _bernoulli_of_each(b: Builder, x: Tensor, p: Tensor) -> Tensor:
    uniform = _drawn(b, x.shape, _uniform, "uniform numbers")
    return b.pointwise(lambda u, q: select(lt(u, q), 1.0, 0.0), uniform, p, what="random mask")


@_draws("randint.low")
def _randint(b: Builder, low: int, high: int, shape: Sequence[int], *, dtype: DType = i32) -> Tensor:
    if high - low >= 2**32:
        raise CannotLower("a range beyond 32 bits")

    def scaled(word: Expr, _: Expr) -> Expr:
        return convert(operation("umulh", u32, word, const(high - low, u32)), i32) + low

    return number(b, _drawn(b, shape, scaled, "random integers"), dtype)


@_draws("randint.default")
def _randint_below(b: Builder, high: int, shape: Sequence[int], *, dtype: DType = i32) -> Tensor:
    result: Tensor = _randint(b, 0, high, shape, dtype=dtype)
    return result


@_draws("randint_like.low_dtype")
def _randint_like(b: Builder, x: Tensor, low: int, high: int, *, dtype: DType | None = None) -> Tensor:
    result: Tensor = _randint(b, low, high, x.shape, dtype=dtype or x.dtype)
    return result


@_draws("randint_like.default")
def _randint_like_below(b: Builder, x: Tensor, high: int, *, dtype: DType | None = None) -> Tensor:
    result: Tensor = _randint_like(b, x, 0, high, dtype=dtype)
    return result


# ------------------------------------------------------------------ normal


def _normal(left: Expr, right: Expr) -> Expr:
    """Box and Muller's transform with the sine of an angle between -pi / 2 and pi / 2, which takes all values."""
    radius = sqrt(log(fma(convert(left, f32), 2.0**-32, 2.0**-33)) * -2.0)
    angle = _real(right) * (math.pi * 2.0**-32)
    square = angle * angle
    series: Expr = const(SINE[-1])
    for coefficient in reversed(SINE[:-1]):
        series = fma(square, series, coefficient)
    return radius * fma(angle * square, series, angle)


@_draws("randn.default")
def _randn(b: Builder, shape: Sequence[int], *, dtype: DType = f32) -> Tensor:
    return _drawn(b, shape, _normal, "normal numbers")


@_draws("randn_like.default")
def _randn_like(b: Builder, x: Tensor, *, dtype: DType = f32) -> Tensor:
    return _drawn(b, x.shape, _normal, "normal numbers")


@_draws("normal.float_float")
def _normal_of_shape(
    b: Builder, mean: float, std: float, shape: Sequence[int], *, dtype: DType = f32
) -> Tensor:
    if (mean, std) == (0, 1):
        return _drawn(b, shape, _normal, "normal numbers")
    return _drawn(b, shape, lambda *words: fma(_normal(*words), std, mean), "normal numbers")


@_draws("normal_functional.default")
def _normal_instead(b: Builder, x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    result: Tensor = _normal_of_shape(b, mean, std, x.shape)
    return result


@_draws("normal.Tensor_Tensor", "normal.Tensor_float", "normal.float_Tensor")
def _normal_of_each(b: Builder, mean: Tensor | float = 0.0, std: Tensor | float = 1.0) -> Tensor:
    means, stds = number(b, mean, f32), number(b, std, f32)
    drawn = _drawn(b, broadcast(means.shape, stds.shape), _normal, "normal numbers")
    return b.pointwise(fma, drawn, stds, means, what="normal numbers")
