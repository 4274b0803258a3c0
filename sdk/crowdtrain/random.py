"""The random numbers of programs, word for word: for repeating elsewhere what a program draws.

Philox2x32 with ten rounds (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011): the key is
the seed of the state's ``counters``; the counter is the position of an element in its tensor (row-major) and the
number of the draw. A program whose steps draw ``count`` times draws number ``step * count + i`` for the i-th
time in a step, in the order in which PyTorch runs its operations, gradients last::

    draws = crowdtrain.random.Draws(seed=0, step=3, count=program.draws)
    first_mask = draws.bernoulli((64, 256), 0.9)
    second_mask = draws.bernoulli((64, 10), 0.5)
"""

from __future__ import annotations

import math

import numpy as np
from crowdtrain_engine.arithmetic import PlainFloats, evaluate
from numpy.typing import NDArray

__all__ = ["KEY_STEP", "MULTIPLIER", "ROUNDS", "SINE", "Draws", "philox"]

Words = NDArray[np.uint32]
Floats = NDArray[np.float32]
Shape = tuple[int, ...]

ROUNDS = 10
MULTIPLIER = 0xD256D193
KEY_STEP = 0x9E3779B9
"""By how much the key grows from round to round."""

SINE = tuple(
    float.fromhex(text)
    for text in (
        "-0x1.555554p-3",
        "0x1.111122p-7",
        "-0x1.a02358p-13",
        "0x1.72c64ep-19",
        "-0x1.b3dfb0p-26",
    )
)
"""(sin r / r - 1) / r² as a polynomial of r², for |r| at most π / 2, lowest power first."""


def philox(key: int, left: Words, right: Words) -> tuple[Words, Words]:
    """The two words for each counter ``(left, right)``."""
    for i in range(ROUNDS):
        product = left.astype(np.uint64) * MULTIPLIER
        high, low = (product >> np.uint64(32)).astype(np.uint32), product.astype(np.uint32)
        left, right = high ^ np.uint32((key + i * KEY_STEP) % 2**32) ^ right, low
    return left, right


class Draws:
    """What one step draws; each call gives the next draw. ``count`` is the number of draws in a step."""

    def __init__(self, seed: int, step: int, count: int) -> None:
        self._seed = seed
        self._next = step * count
        self._end = self._next + count

    def words(self, size: int) -> tuple[Words, Words]:
        """The two words of each element. Raises IndexError if the step draws no more."""
        if self._next == self._end:
            raise IndexError("the step draws no more random numbers")
        draw, self._next = self._next, self._next + 1
        return philox(self._seed, np.arange(size, dtype=np.uint32), np.full(size, draw % 2**32, np.uint32))

    def uniform(self, shape: Shape, low: float = 0.0, high: float = 1.0) -> Floats:
        """``low + (high - low) * u`` with u a multiple of 2^-24, 0 ≤ u < 1: ``rand``, ``uniform_``."""
        word, _ = self.words(math.prod(shape))
        unit = _times(_float(word >> np.uint32(8)), 2.0**-24)
        return _shaped(unit if (low, high) == (0, 1) else _fma(unit, high - low, low), shape)

    def bernoulli(self, shape: Shape, p: float) -> Floats:
        """1 with probability ``p``, rounded to a multiple of 2^-32, else 0: ``bernoulli_``, and so dropout."""
        word, _ = self.words(math.prod(shape))
        return (word < round(p * 2**32)).astype(np.float32).reshape(shape)

    def integers(self, shape: Shape, low: int, high: int) -> NDArray[np.int32]:
        """From ``low`` to below ``high``, each as likely as the others within (high - low) / 2^32: ``randint``."""
        word, _ = self.words(math.prod(shape))
        scaled = word.astype(np.uint64) * np.uint64(high - low) >> np.uint64(32)
        return (scaled.astype(np.int64) + low).astype(np.int32).reshape(shape)

    def exponential(self, shape: Shape, rate: float = 1.0) -> Floats:
        """``-log(u) / rate`` with u an odd multiple of 2^-24: ``exponential_``."""
        word, _ = self.words(math.prod(shape))
        unit = _fma(_float(word >> np.uint32(9)), 2.0**-23, 2.0**-24)
        return _shaped(_times(evaluate("log", unit), -1.0 / rate), shape)

    def normal(self, shape: Shape, mean: float = 0.0, std: float = 1.0) -> Floats:
        """Normal numbers: ``randn``, ``normal_``. At most 6.77 from the mean in units of ``std``."""
        left, right = self.words(math.prod(shape))
        unit = _fma(evaluate("u2f", left), 2.0**-32, 2.0**-33)
        radius = evaluate("fsqrt", _times(evaluate("log", unit), -2.0))
        angle = _times(_float(right), math.pi * 2.0**-32)
        square = evaluate("fmul", angle, angle)
        series = _word(SINE[-1])
        for coefficient in reversed(SINE[:-1]):
            series = evaluate("ffma", square, series, _word(coefficient))
        sine = evaluate("ffma", evaluate("fmul", angle, square), series, angle)
        number = evaluate("fmul", radius, sine)
        return _shaped(number if (mean, std) == (0, 1) else _fma(number, std, mean), shape)


def _word(value: float) -> Words:
    with PlainFloats():
        return np.asarray(value, np.float32).view(np.uint32)


def _float(word: Words) -> Words:
    return evaluate("i2f", word)


def _times(word: Words, factor: float) -> Words:
    return evaluate("fmul", word, _word(factor))


def _fma(word: Words, factor: float, addend: float) -> Words:
    return evaluate("ffma", word, _word(factor), _word(addend))


def _shaped(words: Words, shape: Shape) -> Floats:
    return words.view(np.float32).reshape(shape)
