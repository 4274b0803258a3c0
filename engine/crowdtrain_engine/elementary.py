"""Elementary functions, each defined as a straight-line body over primitive operations.

The formulas below are the definition; a backend reproduces their words, whatever way it computes them. The
range reductions are textbook ones. Each polynomial is a weighted minimax fit made for this module: Lawson's
iteration on Chebyshev nodes against 40-digit values, weighted by the error caused in the result; coefficients
are rounded to f32 from the lowest up, the rest refitted after each. At most 2 ulp over all words.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from .ops import BY_NAME, NAN

__all__ = ["FUNCTIONS", "Function"]


@dataclass(frozen=True, slots=True)
class Function:
    """A function of one word: immediates and instructions ``(code, a, b, c)``, as in the body of a nest.

    Reference 0 is unused, 1 is the argument, the next ``len(immediates)`` are the immediates, then one for
    each instruction; the last instruction is the result. References past an operation's arity are 0.
    """

    name: str
    immediates: tuple[int, ...]
    body: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, eq=False, slots=True)
class _Word:
    """A node of a formula, with the f32 operators. An operand 1.0 is the word of the f32; 1 is the word 1."""

    op: str
    operands: tuple[_Word | float, ...] = ()

    def __add__(self, other: _Word | float) -> _Word:
        return _Word("fadd", (self, other))

    def __sub__(self, other: _Word | float) -> _Word:
        return _Word("fsub", (self, other))

    def __rsub__(self, other: float) -> _Word:
        return _Word("fsub", (other, self))

    def __mul__(self, other: _Word | float) -> _Word:
        return _Word("fmul", (self, other))

    def __truediv__(self, other: _Word) -> _Word:
        return _Word("fdiv", (self, other))

    def __lt__(self, other: float) -> _Word:
        return _Word("flt", (self, other))

    def __gt__(self, other: float) -> _Word:
        return _Word("flt", (other, self))


def _do(op: str, *operands: _Word | float) -> _Word:
    return _Word(op, operands)


def _fma(a: _Word, b: _Word | float, c: _Word | float) -> _Word:
    return _do("ffma", a, b, c)


def _select(condition: _Word, then: _Word | float, otherwise: _Word | float) -> _Word:
    return _do("select", condition, then, otherwise)


def _polynomial(x: _Word, *coefficients: float) -> _Word:
    """Horner's rule, the constant term first."""
    *lower, last, value = coefficients
    result = _fma(x, value, last)
    for coefficient in reversed(lower):
        result = _fma(x, result, coefficient)
    return result


def _coefficients(text: str) -> tuple[float, ...]:
    return tuple(map(float.fromhex, text.split()))


def _sign(x: _Word) -> _Word:
    return _do("iand", x, _SIGN)


def _power_of_2(exponent: _Word) -> _Word:
    """2^(e - 127), where e is the low 8 bits of ``exponent`` and the ninth bit is 0."""
    return _do("shl", exponent, 23)


_SIGN = 0x80000000
_MINUS_INFINITY, _INFINITY = float("-inf"), float("inf")
_LOG2_E = float.fromhex("0x1.715476p+0")
_LN_2 = float.fromhex("0x1.62e430p-1")  # relative error 2.8e-9
_LN_2_REST = float.fromhex("-0x1.05c610p-29")  # ln 2 - _LN_2
_ROUND = 1.5 * 2**23  # adding it rounds to an integer, which then stands in the low bits of the word


def _exp_parts(x: _Word) -> tuple[_Word, _Word, _Word, _Word]:
    """For |x| <= 104: r, (e^r - 1) / r and two exponents, with e^x = 2^n e^r and n = round(x / ln 2).

    So |r| <= 0.347; the reduction is Cody and Waite's, in two parts. 2^n may be no f32, hence two exponents
    about equal: n is (half - 127) + (rest - 127).
    """
    bias = _ROUND + 2 * 127
    biased = _fma(x, _LOG2_E, bias)
    n = biased - bias
    r = _fma(n, -_LN_2_REST, _fma(n, -_LN_2, x))
    half = _do("shr", biased, 1)
    return r, _fma(r, _polynomial(r, *_EXP), 1.0), half, _do("isub", biased, half)


def _exp(x: _Word) -> _Word:
    """e^r 2^(half - 127) 2^(rest - 127); only the last product can round, and only when it is subnormal.

    Below -104 it is 0, above 104 infinite; a NaN passes both tests.
    """
    x = _select(x < -104.0, -104.0, x)
    r, slope, half, rest = _exp_parts(_select(x > 104.0, 104.0, x))
    return _fma(r, slope, 1.0) * _power_of_2(half) * _power_of_2(rest)


# (e^r - 1 - r) / r^2
_EXP = _coefficients("0x1.fffffcp-2 0x1.555492p-3 0x1.5558bcp-5 0x1.1239cap-7 0x1.6a4166p-10")


def _sigmoid(x: _Word) -> _Word:
    """Of a = |x|, at most 104: sigmoid(-a) = 1 / (1 + e^a), reduced by 2^(half - 127) lest e^a overflow."""
    a = _do("fabs", x)
    r, slope, half, rest = _exp_parts(_select(a > 104.0, 104.0, a))
    one, power = _power_of_2(_do("isub", 254, half)), _power_of_2(rest)
    tail = one / (_fma(power * r, slope, one) + power)
    return _select(x < 0.0, tail, 1.0 - tail)


def _exp_of_minus_parts(x: _Word) -> tuple[_Word, _Word]:
    """2^n and 1 - e^-r with e^-x = 2^n e^-r, for 0 <= x <= 80; so 1 - e^-x = (1 - 2^n) + 2^n (1 - e^-r)."""
    bias = _ROUND + 127
    biased = _fma(x, -_LOG2_E, bias)
    r = _fma(biased - bias, _LN_2, x)
    return _power_of_2(biased), _fma(r * r, _polynomial(r, *_EXPM1), r)


# (1 - r - e^-r) / r^2
_EXPM1 = _coefficients("-0x1.fffff4p-2 0x1.55548cp-3 -0x1.555dc6p-5 0x1.123d16p-7 -0x1.672f96p-10")


def _tanh(x: _Word) -> _Word:
    """Of a = |x|, at most 10 (where tanh rounds to 1): (1 - e^-2a) / (1 + e^-2a)."""
    a = _do("fabs", x)
    a = _select(a > 10.0, 10.0, a)
    scale, rest = _exp_of_minus_parts(a + a)
    rest = scale * rest
    numerator = rest + (1.0 - scale)
    return _do("ior", numerator, _sign(x)) / (scale + 1.0 - rest)


def _erf(x: _Word) -> _Word:
    """Of a = |x|, at most 4 (where erf rounds to 1): 1 - e^-g with g = -log(erfc a) = a + a p(a)."""
    a = _do("fabs", x)
    a = _select(a > 4.0, 4.0, a)
    scale, rest = _exp_of_minus_parts(_fma(a, _polynomial(a, *_LOG_ERFC), a))
    return _fma(scale, rest, 1.0 - scale) * _do("ior", _sign(x), 1.0)


# -1 - log(erfc a) / a
_LOG_ERFC = _coefficients(
    "0x1.06eba8p-3 0x1.45f300p-1 0x1.a4f8c4p-4 -0x1.39b7cap-6 -0x1.637a28p-13 "
    "0x1.b744d8p-10 -0x1.4e29b6p-11 0x1.f28b4ap-14 -0x1.3b0340p-17"
)


def _log(x: _Word) -> _Word:
    """log x = k ln 2 + log m with x = 2^k m, sqrt(1/2) <= m < sqrt(2); log m = f + f^2 p(f) with f = m - 1.

    A subnormal x is first multiplied by 2^23. Infinity, NaN, zeros and negatives are sorted out at the end.
    """
    small = x < 2.0**-126
    scaled = _select(small, x * 2.0**23, x)
    distance = _do("isub", scaled, _select(small, _SQRT_HALF + (23 << 23), _SQRT_HALF))
    k = _do("i2f", _do("sar", distance, 23))
    f = _do("iadd", _do("iand", distance, 0x7FFFFF), _SQRT_HALF) - 1.0
    log_m = _fma(f * f, _polynomial(f, *_LOG1P), f)
    result = _select(x < _INFINITY, _fma(k, _LN_2, log_m), _INFINITY)
    without_sign = _do("shl", x, 1)
    return _select(x > 0.0, result, _select(without_sign, NAN, _MINUS_INFINITY))


_SQRT_HALF = 0x3F3504F3

# (log(1 + f) - f) / f^2
_LOG1P = _coefficients(
    "-0x1.fffff8p-2 0x1.55554ep-2 -0x1.000434p-2 0x1.99a52cp-3 -0x1.542652p-3 "
    "0x1.225a62p-3 -0x1.0f277cp-3 0x1.08ceeep-3 -0x1.39c1f4p-4"
)


def _half_turns(x: _Word, offset: int = 0) -> tuple[_Word, _Word, _Word]:
    """Of |x| / pi + offset / 2^25 = q + r / pi with |r| <= pi / 2: r, and a word whose first bit is q's last.

    Right if 1 <= |x| < infinity, when the third word that is given back is not 0.

    Payne and Hanek's reduction ("Radian reduction for trigonometric functions", 1983): |x| = m 2^e with a 24-bit
    m, which is multiplied by those 96 bits of 1 / pi that give m 2^e / pi modulo 128 in units of 2^-57. As no
    f32 is nearer than 2^-31 to a multiple of pi, at least 26 bits of r are right.
    """
    raised = _do("iadd", x, _IMPLICIT)
    exponent = _do("shr", raised, 23)  # 128 for 1 <= |x| < 2
    by_64, by_32 = _do("iand", exponent, 64), _do("iand", exponent, 32)
    five = [_select(by_64, _ONE_OVER_PI[i + 2], _ONE_OVER_PI[i]) for i in range(5)]
    four = [_select(by_32, five[i + 1], five[i]) for i in range(4)]
    power = _do("shl", 1, exponent)
    high, middle, low = (
        _do("ior", _do("shl", four[i], exponent), _do("umulh", four[i + 1], power)) for i in range(3)
    )
    m = _do("ior", _do("iand", x, _IMPLICIT - 1), _IMPLICIT)
    carried = _do("umulh", m, low)
    fine = _do("iadd", _do("imul", m, middle), carried)
    coarse = _do("iadd", _do("imul", m, high), _do("umulh", m, middle))
    coarse = _do("iadd", coarse, _do("ult", fine, carried))
    coarse = _do(
        "iadd", coarse, _do("shr", fine, 31)
    )  # to the nearest, so that the i32 `fine` is what is left
    if offset:
        coarse = _do("iadd", coarse, offset)
    turns = _do("shl", coarse, 6)
    fraction = _do("shl", turns, 1)
    rounded = _do("i2f", fraction)  # exact
    rest = _fma(rounded, _PI_REST * 2.0**-32, _do("i2f", fine) * (_PI * 2.0**-57))
    r = _fma(rounded, _PI * 2.0**-32, rest)
    return r, _do("ixor", turns, fraction), _do("iand", raised, 1 << 30)


def _sin_of_small(r: _Word, square: _Word) -> _Word:
    """sin r = r + r^3 p(r^2) for |r| <= pi / 2. Of infinity it is NaN, as p's last coefficient is negative."""
    return _fma(r * square, _polynomial(square, *_SIN), r)


def _sin(x: _Word) -> _Word:
    """Odd to the bit; below 1 no reduction is needed, and where r^2 is 0 the sine is r (or -0 would give 0)."""
    r, turns, reduced = _half_turns(x)
    r = _select(reduced, _do("ixor", r, _sign(_do("ixor", turns, x))), x)
    square = r * r
    return _select(square, _sin_of_small(r, square), r)


def _cos(x: _Word) -> _Word:
    """sin(|x| + pi / 2); below 1, sin(pi / 2 - |x|)."""
    r, turns, reduced = _half_turns(x, 1 << 24)
    r = _select(reduced, _do("ixor", r, _sign(turns)), _PI / 2 - _do("fabs", x))
    return _sin_of_small(r, r * r)


_IMPLICIT = 1 << 23
_PI = float.fromhex("0x1.921fb6p+1")
_PI_REST = float.fromhex("-0x1.777a5cp-24")  # pi - _PI
_ONE_OVER_PI = tuple(  # 2^194 / pi
    0x1_45F306DC_9C882A53_F84EAFA3_EA69BB81_B6C52B32_78872083 >> shift & 0xFFFFFFFF
    for shift in range(192, -1, -32)
)

# (sin r / r - 1) / r^2, of r^2; chosen near the fit so that no result is above 1
_SIN = _coefficients("-0x1.555554p-3 0x1.111122p-7 -0x1.a02358p-13 0x1.72c64ep-19 -0x1.b3dfb0p-26")

_DEFINITIONS: dict[str, Callable[[_Word], _Word]] = {
    "exp": _exp,
    "log": _log,
    "tanh": _tanh,
    "erf": _erf,
    "sigmoid": _sigmoid,
    "sin": _sin,
    "cos": _cos,
}


def _compile(name: str, formula: Callable[[_Word], _Word]) -> Function:
    """Number the nodes of a formula: operands first, each node and each distinct immediate once."""
    argument = _Word("argument")
    immediates: dict[int, int] = {}
    nodes: list[_Word] = []

    def visit(operand: _Word | float) -> None:
        if not isinstance(operand, _Word):
            immediates.setdefault(_immediate(operand), 2 + len(immediates))
        elif operand is not argument and operand not in nodes:
            for inner in operand.operands:
                visit(inner)
            nodes.append(operand)

    visit(formula(argument))
    first = 2 + len(immediates)
    numbers = {argument: 1} | {node: first + index for index, node in enumerate(nodes)}

    def reference(operand: _Word | float) -> int:
        return numbers[operand] if isinstance(operand, _Word) else immediates[_immediate(operand)]

    def instruction(node: _Word) -> tuple[int, int, int, int]:
        a, b, c = (*map(reference, node.operands), 0, 0)[:3]
        return BY_NAME[node.op].code, a, b, c

    return Function(name, tuple(immediates), tuple(map(instruction, nodes)))


def _immediate(value: float) -> int:
    if isinstance(value, int):
        return value
    (word,) = struct.unpack("<I", struct.pack("<f", value))
    return int(word)


FUNCTIONS: dict[str, Function] = {name: _compile(name, formula) for name, formula in _DEFINITIONS.items()}
