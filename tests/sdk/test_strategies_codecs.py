"""What codecs lose, and that every backend loses the same."""

from __future__ import annotations

import numpy as np
import pytest
from crowdtrain.strategies import Codec, Cosine, Exact, Quantized, TopK
from crowdtrain_engine.state import Array
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies_support import sent

CODECS = (
    Exact(), Quantized(8), Quantized(4), Quantized(2), Quantized(8, 4), TopK(), TopK(16, 3, Quantized(4)),
    TopK(4, 1), TopK(4096, 4), Cosine(Exact(), 8), Cosine(TopK(16, 4), 32),
)  # fmt: skip
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, max_side=19)
ANY = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)


@pytest.mark.parametrize("codec", CODECS, ids=str)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_native_gives_the_words_of_the_reference(codec: Codec, data: st.DataObject) -> None:
    tensor = data.draw(hnp.arrays(np.float32, SHAPES, elements=ANY))
    native, reference = sent(codec, tensor), sent(codec, tensor, "reference")
    assert native.tobytes() == reference.tobytes()


@pytest.mark.parametrize("width", [4, 8])
@settings(max_examples=30, deadline=None)
@given(tensor=hnp.arrays(np.float32, SHAPES, elements=st.floats(-1e6, 1e6, width=32)))
def test_whole_numbers_are_off_by_at_most_half_a_step(width: int, tensor: Array) -> None:
    codec = Quantized(width, 32)
    flat, got = tensor.reshape(-1), sent(codec, tensor).reshape(-1)
    for start in range(0, flat.size, 32):
        block = flat[start : start + 32]
        step = np.abs(block).max() / (2 ** (width - 1) - 1)
        assert np.abs(got[start : start + 32] - block).max() <= step * 0.5001 + 1e-30


def test_two_bits_are_four_levels_of_the_mean_size() -> None:
    tensor = np.array([0.1, -0.1, 2.0, -2.0, 0.9, -0.9, 1.1, -1.1] * 2, np.float32)
    mean = np.abs(tensor).mean()
    levels = np.where(np.abs(tensor) < mean, 0.5, 1.5) * np.sign(tensor) * mean
    np.testing.assert_allclose(sent(Quantized(2, 16), tensor), levels, rtol=1e-6)


@pytest.mark.parametrize("size", [16, 40, 41])
def test_the_mean_of_a_short_block_is_over_what_is_there(size: int) -> None:
    np.testing.assert_allclose(sent(Quantized(2, 16), np.ones(size, np.float32)), 1.5, rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    block=st.sampled_from([16, 64]),
    keep=st.integers(1, 4),
    numbers=st.lists(st.integers(-(2**15), 2**15), min_size=1, max_size=200, unique_by=abs),
)
def test_the_largest_of_each_block_are_kept(block: int, keep: int, numbers: list[int]) -> None:
    tensor = np.array(numbers, np.float32)
    got = sent(TopK(block, keep, Quantized(8, 4)), tensor)
    for start in range(0, tensor.size, block):
        part = tensor[start : start + block]
        largest = set(np.argsort(-np.abs(part))[:keep].tolist())
        kept = set(np.flatnonzero(got[start : start + block]).tolist())
        assert kept <= largest
        # what is kept and small beside the others of its scale may round to 0
        assert all(abs(part[i]) * 200 < np.abs(tensor).max() for i in largest - kept if part[i])


def test_a_cosine_transform_and_back_changes_little() -> None:
    tensor = np.random.default_rng(0).standard_normal((9, 50)).astype(np.float32)
    np.testing.assert_allclose(sent(Cosine(Exact(), 64), tensor), tensor, atol=2e-6)


def test_a_wave_is_one_number_of_its_spectrum() -> None:
    wave = np.cos(np.pi * (2 * np.arange(64) + 1) * 5 / 128).astype(np.float32)
    np.testing.assert_allclose(sent(Cosine(TopK(64, 1)), wave), wave, atol=1e-5)


@pytest.mark.parametrize(
    ("codec", "bits"),
    [
        (Exact(), 32), (Quantized(8), 8 + 32 / 256), (Quantized(4), 4 + 32 / 256),
        (TopK(64, 1), (32 / 5 + 8 + 32 / 256) / 64), (TopK(64, 2, Quantized(2)), (32 / 5 + 2 + 32 / 256) / 32),
    ],
    ids=str,
)  # fmt: skip
def test_bits_of_each_number(codec: Codec, bits: float) -> None:
    assert codec.bits((256, 256)) == pytest.approx(bits, rel=1e-2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantized(3), "width must be 2, 4 or 8"),
        (lambda: Quantized(8, 6), "block must be a multiple of 4"),
        (lambda: TopK(48), "power of two"),
        (lambda: TopK(64, 5), "keep must be 1 to 4"),
        (lambda: TopK(8, 3), "keep must be 1 to 2"),
        (lambda: Cosine(Exact(), 1), "chunk must be 2 to 256"),
    ],
)
def test_options_that_make_no_sense(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
