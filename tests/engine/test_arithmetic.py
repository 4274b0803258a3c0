"""The primitive operations against exact rational arithmetic, Python integers, and the C library's fmaf."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from crowdtrain_engine.arithmetic import PRIMITIVES, U32, evaluate
from crowdtrain_engine.elementary import FUNCTIONS
from crowdtrain_engine.ops import BY_NAME, FIRST_ELEMENTARY, NAN, OPS

INF, SIGN, ONE = 0x7F800000, 0x80000000, 0x3F800000
EDGES = [
    0,
    1,
    2,
    0x7FFFFF,
    0x800000,
    0x800001,
    0x33800000,
    0x34000000,
    0x3F000000,
    0x3F7FFFFF,
    ONE,
    0x3F800001,
]
EDGES += [0x4B7FFFFF, 0x4B800000, 0x4EFFFFFF, 0x4F000000, 0x4F7FFFFF, 0x4F800000, 0x7F7FFFFF, INF]
EDGES += [word | SIGN for word in EDGES] + [NAN, 0xFFC00001, 0x7F800001, 0xFFFFFFFF]


def words(*values: int) -> U32:
    return np.array(values, np.uint32)


def number(word: int) -> float:
    return float(np.uint32(word).view(np.float32))


def rounded(value: Fraction, sign_of_zero: int = 0) -> int:
    """The binary32 word nearest to an exact value, ties to even, by integers only."""
    if value == 0:
        return sign_of_zero
    sign, magnitude = (SIGN if value < 0 else 0), abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    exponent = max(exponent, -126)
    significand = round(magnitude / Fraction(2) ** (exponent - 23))  # Python rounds a Fraction's ties to even
    return sign | min(((exponent + 126) << 23) + significand, INF)


def operands(count: int, arity: int, seed: int) -> list[U32]:
    """Uniform words, words of few bits and near exponents (ties, cancellation, subnormals), and edges."""
    rng = np.random.default_rng(seed)
    columns = []
    for _ in range(arity):
        uniform = rng.integers(0, 2**32, count, dtype=np.uint32)
        one_bit = np.uint32(1) << rng.integers(0, 24, (3, count), dtype=np.uint32)
        sparse = (one_bit[0] ^ one_bit[1] ^ (one_bit[2] >> 22)) & 0x7FFFFF
        exponent = rng.choice(np.array([0, 1, 2, 24, 62, 64, 75, 103, 126, 127, 128, 130, 150, 254]), count)
        sparse |= (exponent.astype(np.uint32) << 23) | (uniform & SIGN)
        edge = rng.choice(words(*EDGES), count)
        columns.append(np.choose(rng.integers(0, 3, count), [uniform, sparse, edge]))
    return columns


def exact(name: str, arguments: tuple[int, ...]) -> int:
    """The right word by rational arithmetic; specials and signs of zero are those of Python's float64."""
    values = [number(word) for word in arguments]
    special: dict[str, Callable[..., Any]] = {
        "fadd": lambda a, b: a + b,
        "fsub": lambda a, b: a - b,
        "fmul": lambda a, b: a * b,
        "ffma": lambda a, b, c: a * b + c,
    }
    if name == "fdiv":
        a, b = values
        sign = (arguments[0] ^ arguments[1]) & SIGN
        if math.isnan(a) or math.isnan(b) or (math.isinf(a) and math.isinf(b)) or a == b == 0:
            return NAN
        if b == 0 or math.isinf(a):
            return sign | INF
        return sign if math.isinf(b) else rounded(Fraction(a) / Fraction(b), sign)
    limit = special[name](*values)
    if not all(map(math.isfinite, values)):
        return NAN if math.isnan(limit) else int(np.float32(limit).view(np.uint32))
    return rounded(special[name](*map(Fraction, values)), SIGN if math.copysign(1, limit) < 0 else 0)


@pytest.mark.parametrize("name", ["fadd", "fsub", "fmul", "fdiv", "ffma"])
def test_float_operations_round_the_exact_result_once(name: str) -> None:
    columns = operands(30_000, BY_NAME[name].arity, seed=1)
    got = evaluate(name, *columns)
    for arguments, word in zip(zip(*(c.tolist() for c in columns), strict=True), got.tolist(), strict=True):
        assert word == exact(name, arguments), [hex(a) for a in arguments]


def test_square_root_brackets_its_argument() -> None:
    (column,) = operands(30_000, 1, seed=2)
    for argument, word in zip(column.tolist(), evaluate("fsqrt", column).tolist(), strict=True):
        value = number(argument)
        if argument & ~SIGN == 0 or argument == INF:
            assert word == argument
        elif math.isnan(value) or argument & SIGN:
            assert word == NAN
        else:  # the nearest word: the argument lies between the squares of the midpoints around the root
            below, root, above = (Fraction(number(word + step)) for step in (-1, 0, 1))
            assert ((below + root) / 2) ** 2 < Fraction(value) < ((root + above) / 2) ** 2, hex(argument)


def test_fma_equals_the_c_library() -> None:
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    library.fmaf.argtypes = [ctypes.c_float] * 3
    library.fmaf.restype = ctypes.c_float
    a, b, c = operands(300_000, 3, seed=3)
    near = PRIMITIVES["fneg"](PRIMITIVES["fmul"](a, b)) + np.random.default_rng(4).integers(
        0, 4, len(c), np.uint32
    )
    c = np.where(np.arange(len(c)) % 2 == 0, near, c)  # half of the sums cancel almost wholly
    floats = (column.view(np.float32).tolist() for column in (a, b, c))
    want = np.fromiter(map(library.fmaf, *floats), np.float32, len(c))
    want_words = np.where(np.isnan(want), np.uint32(NAN), want.view(np.uint32))
    np.testing.assert_array_equal(evaluate("ffma", a, b, c), want_words)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((0x3F800001, 0x3F800001, 0xBF800002), 0x28800000),  # (1 + u)^2 - (1 + 2u) = u^2, lost without fusing
        ((0x00000001, 0x3F000000, 0x00000001), 0x00000002),  # 1.5 of the least subnormal: ties to even
        ((0x00000001, 0x3F000000, 0x00000000), 0x00000000),  # half of it: ties to even
        ((0x00000001, 0x3F000001, 0x00000000), 0x00000001),  # just more than half
        ((0x7F7FFFFF, 0x40000000, 0xFF7FFFFF), 0x7F7FFFFF),  # the product overflows, the sum does not
        ((0x7F7FFFFF, 0x3F800000, 0x73000000), 0x7F800000),  # half an ulp above the largest overflows
        ((0x7F7FFFFF, 0x3F800000, 0x72FFFFFF), 0x7F7FFFFF),
        ((0x3F800000, 0x80000000, 0x80000000), 0x80000000),
        ((0x3F800000, 0x80000000, 0x00000000), 0x00000000),
        ((0x3F800000, 0x3F800000, 0xBF800000), 0x00000000),
        ((0x00000001, 0x80000001, 0x00000000), 0x80000000),  # an underflowing product keeps its sign
        ((0x7F800000, 0x00000000, 0x3F800000), NAN),
        ((0x7F800000, 0x3F800000, 0xFF800000), NAN),
        ((0x3F800000, 0x3F800000, 0xFFC00001), NAN),
    ],
)
def test_fma_of_hard_operands(arguments: tuple[int, int, int], word: int) -> None:
    assert int(evaluate("ffma", *(words(a)[0] for a in arguments))) == word


def signed(word: int) -> int:
    return word - 2**32 if word & SIGN else word


def saturated(word: int, low: int, high: int) -> int:
    value = number(word)
    return 0 if math.isnan(value) else int(max(min(value, high), low)) % 2**32


def negated(word: int) -> int:
    return NAN if math.isnan(number(word)) else word ^ SIGN


ON_INTEGERS: dict[str, Callable[..., int]] = {
    "fneg": negated,
    "fabs": lambda a: negated(a | SIGN),
    "flt": lambda a, b: number(a) < number(b),
    "fle": lambda a, b: number(a) <= number(b),
    "feq": lambda a, b: number(a) == number(b),
    "ilt": lambda a, b: signed(a) < signed(b),
    "ult": operator.lt,
    "ieq": operator.eq,
    "iadd": lambda a, b: (a + b) % 2**32,
    "isub": lambda a, b: (a - b) % 2**32,
    "imul": lambda a, b: a * b % 2**32,
    "umulh": lambda a, b: a * b >> 32,
    "iand": operator.and_,
    "ior": operator.or_,
    "ixor": operator.xor,
    "shl": lambda a, b: (a << b % 32) % 2**32,
    "shr": lambda a, b: a >> b % 32,
    "sar": lambda a, b: (signed(a) >> b % 32) % 2**32,
    "select": lambda a, b, c: b if a else c,
    "f2i": lambda a: saturated(a, -(2**31), 2**31 - 1),
    "f2u": lambda a: saturated(a, 0, 2**32 - 1),
    "i2f": lambda a: rounded(Fraction(signed(a))),
    "u2f": lambda a: rounded(Fraction(a)),
}


@pytest.mark.parametrize("name", ON_INTEGERS)
def test_other_operations_equal_python_integers(name: str) -> None:
    columns = operands(20_000, BY_NAME[name].arity, seed=5)
    columns[-1][::3] = columns[0][::3]  # equal operands too
    columns[0][1::3] %= 3  # and small ones
    got = evaluate(name, *columns)
    for arguments, word in zip(zip(*(c.tolist() for c in columns), strict=True), got.tolist(), strict=True):
        assert word == ON_INTEGERS[name](*arguments), [hex(a) for a in arguments]


def test_every_operation_is_defined_and_no_other() -> None:
    assert set(PRIMITIVES) == {op.name for op in OPS if op.code < FIRST_ELEMENTARY}
    assert set(FUNCTIONS) == {op.name for op in OPS if op.code >= FIRST_ELEMENTARY}


@pytest.mark.parametrize("name", BY_NAME)
def test_words_in_words_out_of_any_shape(name: str) -> None:
    arity = BY_NAME[name].arity
    for shapes in ([()] * arity, [(3, 1), (1, 4), ()][:arity], [(0,)] * arity):
        result = evaluate(name, *(np.full(shape, 0x40490FDB, np.uint32) for shape in shapes))
        assert isinstance(result, np.ndarray)
        assert result.dtype == np.uint32
        assert result.shape == np.broadcast_shapes(*shapes)


def test_unknown_operation() -> None:
    with pytest.raises(KeyError, match="sinh"):
        evaluate("sinh", words(0))
