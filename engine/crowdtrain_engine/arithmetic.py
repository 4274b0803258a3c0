"""What each operation of :mod:`crowdtrain_engine.ops` computes, to the last bit: numpy over words.

This module is part of the specification; every backend must yield these words. It relies on numpy's float32
and float64 ``+ - * / sqrt`` and conversions being IEEE-754's, rounding to nearest even. They are in the mode that
``PlainFloats`` sets for the time of an operation, whatever another library has set for the thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._native import PlainFloats
from .elementary import FUNCTIONS, Function
from .ops import BY_CODE, NAN

__all__ = ["PRIMITIVES", "U32", "PlainFloats", "evaluate"]

U32 = NDArray[np.uint32]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def _float(word: U32) -> F32:
    return np.asarray(word, np.uint32).view(np.float32)


def _signed(word: U32) -> NDArray[np.int32]:
    return np.asarray(word, np.uint32).view(np.int32)


def _wide(word: U32) -> NDArray[np.uint64]:
    return np.asarray(word, np.uint64)


def _word(value: NDArray[Any]) -> U32:
    """The words of a float32 result (every NaN is ``NAN``), or of an integer or boolean one."""
    value = np.asarray(value)
    if value.dtype == np.float32:
        return np.where(np.isnan(value), np.uint32(NAN), value.view(np.uint32))
    return value.astype(np.uint32)


def _ffma(a: F32, b: F32, c: F32) -> F32:
    """``a * b + c`` rounded once: an exact product in float64, a sum rounded to odd, then to float32.

    Rounding to odd keeps in the last of 53 bits whether anything was lost, so that only the second rounding,
    to 24 bits or (for a subnormal result) fewer, counts: Boldo and Melquiond, "Emulation of FMA and correctly
    rounded sums", 2008. Knuth's two-sum gives the sum's error exactly; float64 has the range for all of it.
    """
    product = a.astype(np.float64) * b.astype(np.float64)
    addend = c.astype(np.float64)
    total = np.asarray(product + addend)
    virtual = total - product
    error = (product - (total - virtual)) + (addend - virtual)
    truncated = total.view(np.int64) - (error * total < 0)
    odd = truncated | (np.abs(error) > 0)  # the error is NaN where the total is not finite
    return odd.view(np.float64).astype(np.float32)


def _truncate(a: F32, low: int, high: int) -> NDArray[np.int64]:
    clipped = np.clip(a.astype(np.float64), low, high)
    return np.where(np.isnan(a), 0, clipped).astype(np.int64)


def _select(a: U32, b: U32, c: U32) -> U32:
    return np.where(a != 0, b, c)


_FORMULAS: dict[str, Callable[..., NDArray[Any]]] = {
    "fadd": lambda a, b: _float(a) + _float(b),
    "fsub": lambda a, b: _float(a) - _float(b),
    "fmul": lambda a, b: _float(a) * _float(b),
    "fdiv": lambda a, b: _float(a) / _float(b),
    "ffma": lambda a, b, c: _ffma(_float(a), _float(b), _float(c)),
    "fsqrt": lambda a: np.sqrt(_float(a)),
    "fneg": lambda a: -_float(a),
    "fabs": lambda a: np.abs(_float(a)),
    "flt": lambda a, b: _float(a) < _float(b),
    "fle": lambda a, b: _float(a) <= _float(b),
    "feq": lambda a, b: _float(a) == _float(b),
    "ilt": lambda a, b: _signed(a) < _signed(b),
    "ult": lambda a, b: a < b,
    "ieq": lambda a, b: a == b,
    "iadd": lambda a, b: a + b,
    "isub": lambda a, b: a - b,
    "imul": lambda a, b: a * b,
    "umulh": lambda a, b: _wide(a) * _wide(b) >> np.uint64(32),
    "iand": lambda a, b: a & b,
    "ior": lambda a, b: a | b,
    "ixor": lambda a, b: a ^ b,
    "shl": lambda a, b: a << (b & np.uint32(31)),
    "shr": lambda a, b: a >> (b & np.uint32(31)),
    "sar": lambda a, b: _signed(a) >> _signed(b & np.uint32(31)),
    "select": _select,
    "f2i": lambda a: _truncate(_float(a), -(2**31), 2**31 - 1),
    "f2u": lambda a: _truncate(_float(a), 0, 2**32 - 1),
    "i2f": lambda a: _signed(a).astype(np.float32),
    "u2f": lambda a: a.astype(np.float32),
}


def _over_words(formula: Callable[..., NDArray[Any]]) -> Callable[..., U32]:
    def operation(*words: U32) -> U32:
        with PlainFloats(), np.errstate(all="ignore"):
            return _word(formula(*words))

    return operation


PRIMITIVES: dict[str, Callable[..., U32]] = {
    name: _over_words(formula) for name, formula in _FORMULAS.items()
}
"""One function of uint32 arrays (of any shapes that broadcast) for each primitive operation."""


def evaluate(name: str, *words: U32) -> U32:
    """The operation called ``name``, primitive or elementary, of uint32 arrays of any shapes that broadcast.

    Raises ``KeyError`` for a name that is not in :data:`crowdtrain_engine.ops.BY_NAME`.
    """
    if name in FUNCTIONS:
        return _run(FUNCTIONS[name], *words)
    return PRIMITIVES[name](*words)


def _run(function: Function, argument: U32) -> U32:
    words: list[U32] = [argument, argument]  # reference 0 is unused
    words += [np.asarray(immediate, np.uint32) for immediate in function.immediates]
    for code, *references in function.body:
        op = BY_CODE[code]
        words.append(PRIMITIVES[op.name](*(words[reference] for reference in references[: op.arity])))
    return words[-1]
