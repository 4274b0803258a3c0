"""Elementary functions against float64: at most 2 ulp, special values, symmetries, limits of the encoding."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pytest
import scipy.special
from crowdtrain_engine.arithmetic import U32, evaluate
from crowdtrain_engine.elementary import FUNCTIONS
from crowdtrain_engine.ops import BY_CODE, FIRST_ELEMENTARY, NAN
from numpy.typing import NDArray

F64 = NDArray[np.float64]

TRUTH: dict[str, Callable[[F64], F64]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "erf": scipy.special.erf,
    "sigmoid": scipy.special.expit,
    "sin": np.sin,
    "cos": np.cos,
}
# What the exhaustive test finds, rounded up.
WORST_ULP = {"exp": 0.90, "log": 0.95, "tanh": 1.95, "erf": 1.75, "sigmoid": 2.0, "sin": 1.75, "cos": 1.95}
INF, SIGN, ONE = 0x7F800000, 0x80000000, 0x3F800000
LEAST_OVERFLOW = float.fromhex("0x1.ffffffp+127")  # from here on, f32 rounds to infinity


def words(*values: int) -> U32:
    return np.array(values, np.uint32)


def floats(word: U32) -> F64:
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return word.view(np.float32).astype(np.float64)


def ulps(got: U32, truth: F64) -> F64:
    """The distance from the truth, in f32's spacing there; infinite where NaN or infinity is wrong."""
    value = floats(got)
    right = np.where(np.isnan(truth), got == NAN, value == truth)
    right |= np.isinf(value) & (np.abs(truth) >= LEAST_OVERFLOW) & (np.sign(value) == np.sign(truth))
    with np.errstate(invalid="ignore"):
        exponent = np.maximum(np.frexp(truth)[1] - 1, -126)
        distance = np.abs(value - truth) / np.ldexp(1.0, exponent - 23)
    return np.where(right, 0.0, np.where(np.isnan(distance), np.inf, distance))


def worst(name: str, argument: U32) -> tuple[float, int]:
    """The largest error in ulp and the word where it is."""
    with np.errstate(all="ignore"):
        error = ulps(evaluate(name, argument), TRUTH[name](floats(argument)))
    at = int(error.argmax())
    return float(error[at]), int(argument[at])


def sample() -> U32:
    """Every 2,111th word; those next to each power of 2 and to the functions' limits; those around 1.

    For sine and cosine, the nearest ones to many multiples of pi / 2, and 16367173 * 2^72, which is nearer to such a
    multiple than any other f32 (Muller et al., Handbook of Floating-Point Arithmetic, 2nd ed., section 10.6).
    """
    limits = [88.72284, 87.33655, 103.97208, 104.0, 17.32868, 16.63554, 10.0, 9.01, 4.0, 3.92, 0.3465736]
    quarters = np.append(np.arange(1, 2000) * (np.pi / 2), 16367173 * 2.0**72)
    near = np.concatenate([limits, quarters]).astype(np.float32).view(np.uint32)
    middles = np.concatenate([np.arange(0x100) << 23, near])
    edges = (middles[:, None] + np.arange(-8, 9)).ravel()
    near_one = np.arange(0x3F7F8000, 0x3F808000)  # where the logarithm crosses 0
    magnitudes = np.concatenate([edges, near_one]) % 2**31
    return np.concatenate([np.arange(0, 2**32, 2111), magnitudes, magnitudes + 2**31]).astype(np.uint32)


@pytest.mark.parametrize("name", TRUTH)
def test_error_on_a_sample(name: str) -> None:
    error, word = worst(name, sample())
    assert error <= WORST_ULP[name], f"{name}(0x{word:08x}): {error} ulp"


BLOCK = 2**15


def worst_of_block(name: str, block: int) -> tuple[float, int]:
    return worst(name, np.arange(block * BLOCK, (block + 1) * BLOCK).astype(np.uint32))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", TRUTH)
def test_error_over_all_words(name: str) -> None:
    with ProcessPoolExecutor(2) as pool:
        error, word = max(pool.map(partial(worst_of_block, name), range(2**32 // BLOCK), chunksize=512))
    print(f"{name}: at most {error:.4f} ulp, at 0x{word:08x}")
    assert error <= WORST_ULP[name], f"{name}(0x{word:08x})"


SPECIAL = {
    "exp": {0: ONE, SIGN: ONE, INF: INF, INF | SIGN: 0, 0x42B17217: 0x7F7FFF84, 0x42B17218: INF, 1: ONE},
    "log": {
        0: INF | SIGN,
        SIGN: INF | SIGN,
        INF: INF,
        INF | SIGN: NAN,
        ONE: 0,
        0xBF800000: NAN,
        SIGN | 1: NAN,
    },
    "tanh": {
        0: 0,
        SIGN: SIGN,
        INF: ONE,
        INF | SIGN: ONE | SIGN,
        1: 1,
        SIGN | 1: SIGN | 1,
        0x7FFFFF: 0x7FFFFF,
    },
    "erf": {0: 0, SIGN: SIGN, INF: ONE, INF | SIGN: ONE | SIGN, 1: 1, SIGN | 1: SIGN | 1},
    "sin": {0: 0, SIGN: SIGN, INF: NAN, INF | SIGN: NAN, 1: 1, SIGN | 1: SIGN | 1, 0x7FFFFF: 0x7FFFFF},
    "cos": {0: ONE, SIGN: ONE, INF: NAN, INF | SIGN: NAN, 1: ONE, 0x40490FDB: ONE | SIGN},
    "sigmoid": {0: 0x3F000000, SIGN: 0x3F000000, INF: ONE, INF | SIGN: 0, 0xC2CFF1B4: 1, 0xC2D00000: 0},
}


@pytest.mark.parametrize("name", TRUTH)
def test_special_values(name: str) -> None:
    for argument, want in SPECIAL[name].items():
        assert int(evaluate(name, words(argument))[0]) == want, f"0x{argument:08x}"
    nans = words(NAN, NAN | SIGN, 0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF)
    assert set(evaluate(name, nans).tolist()) == {NAN}


@pytest.mark.parametrize("name", ["tanh", "erf", "sin"])
def test_odd_functions_are_odd_to_the_bit(name: str) -> None:
    argument = sample()
    found = evaluate(name, argument)
    opposite = np.where(found == NAN, NAN, found ^ np.uint32(SIGN))
    np.testing.assert_array_equal(evaluate(name, argument ^ np.uint32(SIGN)), opposite)


def test_cosine_is_even_to_the_bit() -> None:
    argument = sample()
    np.testing.assert_array_equal(evaluate("cos", argument ^ np.uint32(SIGN)), evaluate("cos", argument))


@pytest.mark.parametrize("name", ["tanh", "erf", "sin", "cos"])
def test_nothing_is_beyond_one(name: str) -> None:
    found = floats(evaluate(name, sample()))
    assert np.nanmax(np.abs(found)) == 1


def test_sigmoids_of_opposites_sum_to_one() -> None:
    argument = sample()
    argument = argument[~np.isnan(floats(argument))]
    total = floats(evaluate("sigmoid", argument)) + floats(evaluate("sigmoid", argument ^ np.uint32(SIGN)))
    assert np.abs(total - 1).max() <= 2.0**-24


@pytest.mark.parametrize("name", [name for name in TRUTH if name not in ("sin", "cos")])
def test_monotone_between_distant_arguments(name: str) -> None:
    low = 0.0 if name == "log" else -12.0
    argument = np.linspace(low, 12.0, 10_001, dtype=np.float32).view(np.uint32)
    assert (np.diff(floats(evaluate(name, argument))) >= 0).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bodies_fit_in_a_nest(name: str) -> None:
    function = FUNCTIONS[name]
    assert len(function.immediates) <= 64
    assert len(set(function.immediates)) == len(function.immediates)
    assert 1 <= len(function.body) <= 128
    read: set[int] = set()
    for number, (code, *references) in enumerate(function.body, start=2 + len(function.immediates)):
        arity = BY_CODE[code].arity
        assert code < FIRST_ELEMENTARY
        assert all(1 <= reference < number for reference in references[:arity])
        assert references[arity:] == [0] * (3 - arity)
        read.update(references[:arity])
    assert read == set(range(1, number)), "every word but the result is used"


def test_ulps_measures_right() -> None:
    got = words(ONE, ONE, 0x3F7FFFFF, 1, 0, NAN, NAN | SIGN, INF, INF, 0x7F7FFFFF, INF, SIGN | INF, NAN)
    truth = np.array(
        [1, 1 + 2.0**-23, 1, 2.0**-149, 2.0**-150, np.nan, np.nan, np.inf, 1e39, 1e39, 1, 1e39, 1]
    )
    want = [0, 1, 0.5, 0, 0.5, 0, np.inf, 0, 0, np.inf, np.inf, np.inf, np.inf]
    measured = ulps(got, truth)
    assert measured[9] > 2
    measured[9] = np.inf
    assert measured.tolist() == want
