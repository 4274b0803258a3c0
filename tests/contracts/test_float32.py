"""Float32.sol against the CPU: the same words for generated operands of every kind, in batches on anvil."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from web3.contract import Contract

Words = npt.NDArray[np.uint32]

NAN = np.uint32(0x7FC00000)
BATCH = 16384
_POSITIVE = """
    00000000 00000001 00000002 007fffff 00800000 00800001 00ffffff 01000000 33800000 33800001
    34000000 3f7fffff 3f800000 3f800001 40000000 40490fdb 4b000000 4b800000 4effffff 4f000000
    4f7fffff 4f800000 7f000000 7f7fffff 7f800000 7f800001 7fbfffff 7fc00000 7fffffff"""
SPECIAL = np.array([int(word, 16) for word in _POSITIVE.split()], np.uint32)
SPECIAL = np.concatenate([SPECIAL, SPECIAL | np.uint32(0x80000000)])


def _floats(words: Words) -> npt.NDArray[np.float32]:
    return words.view(np.float32)


def _words(floats: npt.NDArray[Any]) -> Words:
    """Bits of the values as binary32, every NaN being NAN."""
    words = np.ascontiguousarray(floats.astype(np.float32)).view(np.uint32)
    return np.where(np.isnan(_floats(words)), NAN, words)


def _fma(a: Words, b: Words, c: Words) -> Words:
    """a * b + c rounded once.

    The product is exact in binary64, and the sum is rounded there to odd, so that the second rounding gives
    what one alone would (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums").
    """
    product = _floats(a).astype(np.float64) * _floats(b).astype(np.float64)
    addend = _floats(c).astype(np.float64)
    total = product + addend
    tail = total - product
    error = (product - (total - tail)) + (addend - tail)
    bits = total.view(np.int64)
    inexact = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
    away = (error > 0) == (total > 0)
    odd = np.where(inexact, np.where(away, bits + 1, bits - 1), bits)
    return _words(odd.view(np.float64))


def _to_integer(a: Words, low: int, high: int) -> Words:
    values = np.nan_to_num(_floats(a).astype(np.float64), nan=0.0)
    return np.clip(np.trunc(values), low, high).astype(np.int64).astype(np.uint32)


def _binary(operation: np.ufunc) -> Callable[[Words, Words], Words]:
    return lambda a, b: _words(operation(_floats(a), _floats(b)))


def _compare(operation: np.ufunc) -> Callable[[Words, Words], Words]:
    return lambda a, b: operation(_floats(a), _floats(b)).astype(np.uint32)


CPU: dict[str, tuple[int, Callable[..., Words]]] = {
    "add": (2, _binary(np.add)),
    "sub": (2, _binary(np.subtract)),
    "mul": (2, _binary(np.multiply)),
    "div": (2, _binary(np.divide)),
    "fma": (3, _fma),
    "sqrt": (1, lambda a: _words(np.sqrt(_floats(a)))),
    "neg": (1, lambda a: _words(-_floats(a))),
    "abs": (1, lambda a: _words(np.abs(_floats(a)))),
    "lt": (2, _compare(np.less)),
    "le": (2, _compare(np.less_equal)),
    "eq": (2, _compare(np.equal)),
    "toInt32": (1, lambda a: _to_integer(a, -(2**31), 2**31 - 1)),
    "toUint32": (1, lambda a: _to_integer(a, 0, 2**32 - 1)),
    "fromInt32": (1, lambda a: _words(a.view(np.int32).astype(np.float64))),
    "fromUint32": (1, lambda a: _words(a.astype(np.float64))),
}


@pytest.fixture(scope="module")
def float32(deploy: Callable[..., Contract]) -> Contract:
    return deploy("Float32Batch")


def _evaluate(float32: Contract, name: str, operands: Words) -> Words:
    rows = operands.astype(">u4").tobytes()
    out = float32.functions[name](rows).call({"gas": 10**12})
    return np.frombuffer(out, ">u4").astype(np.uint32)


def _check(float32: Contract, name: str, operands: Words) -> None:
    with np.errstate(all="ignore"):
        expected = CPU[name][1](*np.ascontiguousarray(operands.T))
    for start in range(0, len(operands), BATCH):
        rows = operands[start : start + BATCH]
        got, want = _evaluate(float32, name, rows), expected[start : start + BATCH]
        if not np.array_equal(got, want):
            at = int(np.flatnonzero(got != want)[0])
            shown = ", ".join(f"{word:#010x}" for word in rows[at])
            pytest.fail(f"{name}({shown}) gave {got[at]:#010x}, the CPU {want[at]:#010x}")


def _generate(rng: np.random.Generator, arity: int, count: int) -> Words:
    """Rows of operands, an equal share of each kind; the kinds are those that arithmetic finds hard."""
    share = count // 7
    sign = rng.integers(0, 2, (count, arity), np.uint32) << np.uint32(31)
    uniform = rng.integers(0, 2**32, (share, arity), np.uint32)
    near = _near_exponents(rng, share, arity, 2)
    # The last operand undoes the others, up to a few units in its last place.
    cancelling = _near_exponents(rng, share, arity, 8)
    if arity > 1:
        with np.errstate(all="ignore"):  # the product may well overflow
            partial = np.prod(_floats(cancelling[:, :-1]), axis=1, dtype=np.float32)
        nudge = rng.integers(0, 9, share, np.uint32) - np.uint32(4)
        cancelling[:, -1] = (partial.view(np.uint32) ^ np.uint32(0x80000000)) + nudge
    subnormal = rng.integers(0, 2**24, (share, arity), np.uint32)
    subnormal[:, 0] = np.where(
        rng.random(share) < 0.5, _near_exponents(rng, share, 1, 40)[:, 0], subnormal[:, 0]
    )
    # Few significant bits, so that ties and exact results are common.
    short = _near_exponents(rng, share, arity, 26) & ~np.uint32(0x7FFFF)
    special = rng.choice(SPECIAL, (share, arity))
    wide = _near_exponents(rng, count - 6 * share, arity, 120)
    rows: Words = np.concatenate([uniform, near, cancelling, subnormal, short, special, wide]) ^ sign
    return rows


def _near_exponents(rng: np.random.Generator, count: int, arity: int, spread: int) -> Words:
    field = rng.integers(1, 255, (count, 1)) + rng.integers(-spread, spread + 1, (count, arity))
    middle = rng.random((count, 1)) < 0.5
    field = np.where(middle, 127 + rng.integers(-spread, spread + 1, (count, arity)), field)
    fraction = rng.integers(0, 2**23, (count, arity), np.uint32)
    words: Words = (np.clip(field, 0, 254).astype(np.uint32) << np.uint32(23)) | fraction
    return words


@pytest.mark.parametrize("name", CPU)
def test_special_operands(float32: Contract, name: str) -> None:
    arity = CPU[name][0]
    grid = np.stack(np.meshgrid(*[SPECIAL] * min(arity, 2), indexing="ij"), axis=-1).reshape(
        -1, min(arity, 2)
    )
    for third in SPECIAL if arity == 3 else [None]:
        rows = grid if third is None else np.concatenate([grid, np.full((len(grid), 1), third)], axis=1)
        _check(float32, name, rows.astype(np.uint32))


@pytest.mark.parametrize("name", CPU)
def test_generated_operands(float32: Contract, name: str) -> None:
    arity = CPU[name][0]
    count = 120_000 if name in ("add", "mul", "div", "fma", "sqrt") else 20_000
    _check(float32, name, _generate(np.random.default_rng(arity), arity, count))


@pytest.mark.slow
@pytest.mark.parametrize("name", CPU)
def test_millions_of_generated_operands(float32: Contract, name: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        _check(float32, name, _generate(rng, CPU[name][0], 200_000))


def test_expected_fma_is_that_of_the_c_library() -> None:
    fmaf = ctypes.CDLL(ctypes.util.find_library("m")).fmaf
    fmaf.argtypes, fmaf.restype = [ctypes.c_float] * 3, ctypes.c_float
    a, b, c = np.ascontiguousarray(_generate(np.random.default_rng(3), 3, 50_000).T)
    values = [
        fmaf(*row) for row in zip(_floats(a).tolist(), _floats(b).tolist(), _floats(c).tolist(), strict=True)
    ]
    with np.errstate(all="ignore"):
        assert np.array_equal(_fma(a, b, c), _words(np.array(values)))
