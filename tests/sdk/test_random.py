"""Random numbers of programs: Philox's words, distributions, independence, and the same draws as crowdtrain.random."""

from __future__ import annotations

import math
from collections.abc import Callable

import crowdtrain.optim
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from crowdtrain import InvalidOption, LoweredProgram, lower
from crowdtrain.random import Draws, philox
from crowdtrain_engine import State, execute
from crowdtrain_engine.state import Array
from lowering_support import DrawnByProgram, Op, nothing, weighted

SEED = 2**32 - 3


def words(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        (0, (0, 0), (0xFF1DAE59, 0x6CD10DF2)),
        (0xFFFFFFFF, (0xFFFFFFFF, 0xFFFFFFFF), (0x2C3F628B, 0xAB4FD7AD)),
        (0x13198A2E, (0x243F6A88, 0x85A308D3), (0xDD7CE038, 0xF62A4C12)),
    ],
)
def test_the_known_answers_of_philox(key: int, counter: tuple[int, int], expected: tuple[int, int]) -> None:
    """Those that come with its authors' library, Random123."""
    left, right = philox(key, words(counter[0]), words(counter[1]))
    assert (int(left[0]), int(right[0])) == expected


# ------------------------------------------------------------------ programs


class Keeping(torch.nn.Module):
    """A model that multiplies a weight by what ``op`` draws, and keeps the product."""

    def __init__(self, op: Op, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.op = op
        self.weight = torch.nn.Parameter(torch.ones(shape))
        self.register_buffer("kept", torch.zeros(shape))

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        result = self.op(self.weight)
        self.kept.copy_(result.detach())
        return result


def program_of(model: torch.nn.Module, seed: int = SEED) -> LoweredProgram:
    sgd = crowdtrain.optim.SGD(lr=1.0)
    return lower(model, weighted, optimizer=sgd, example=(torch.zeros(1, 1), ()), seed=seed)


def run(program: LoweredProgram, steps: int, backend: str = "reference") -> State:
    state, _ = execute(program, program.initial_state(), nothing(steps), steps=steps, backend=backend)
    return state


OPERATIONS: dict[str, Op] = {
    "dropout": lambda x: F.dropout(x, 0.3),
    "dropout_in_place": lambda x: F.dropout(x * 1, 0.3, inplace=True),
    "dropout_of_all": lambda x: F.dropout(x, 1.0),
    "dropout1d": lambda x: F.dropout1d(x, 0.3),
    "dropout2d": lambda x: F.dropout2d(x.reshape(2, 3, 4, 5), 0.3).reshape(6, 4, 5),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.3, training=True),
    "feature_alpha_dropout": lambda x: F.feature_alpha_dropout(x, 0.3, training=True),
    "two_dropouts": lambda x: F.dropout(F.dropout(x, 0.3), 0.3),
    "rand": lambda x: x * torch.rand(6, 4, 5),
    "rand_broadcast": lambda x: x * torch.rand(4, 1),
    "rand_like": lambda x: x * torch.rand_like(x),
    "uniform_": lambda x: x * torch.empty(6, 4, 5).uniform_(-2, 3),
    "randn": lambda x: x * torch.randn(6, 4, 5),
    "randn_like": lambda x: x * torch.randn_like(x),
    "normal_": lambda x: x * torch.empty(6, 4, 5).normal_(1, 2),
    "normal_of_means": lambda x: x * torch.normal(x.detach() * 2, 0.5),
    "normal_of_deviations": lambda x: x * torch.normal(1.5, x.detach().abs()),
    "normal_of_both": lambda x: x * torch.normal(x.detach() * 2, x.detach().abs()),
    "normal_of_shape": lambda x: x * torch.normal(1.0, 2.0, (6, 4, 5)),
    "randint": lambda x: x * torch.randint(-3, 9, (6, 4, 5)),
    "randint_below": lambda x: x * torch.randint(9, (6, 4, 5)),
    "randint_like": lambda x: x * torch.randint_like(x, 9),
    "bernoulli": lambda x: x * torch.bernoulli(torch.full((6, 4, 5), 0.3)),
    "bernoulli_of_each": lambda x: x * torch.empty(6, 4, 5).bernoulli_(torch.full((6, 4, 5), 0.3)),
    "exponential_": lambda x: x * torch.empty(6, 4, 5).exponential_(2.0),
    "gumbel": lambda x: F.gumbel_softmax(x, dim=-1),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.3),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_programs_draw_what_the_module_says(name: str) -> None:
    """Eager PyTorch with the numbers of crowdtrain.random: the same result and gradient, step after step."""
    model = Keeping(OPERATIONS[name], (6, 4, 5))
    program = program_of(model)
    first, second = run(program, 1), run(program, 2)
    eager = torch.optim.SGD(model.parameters(), lr=1.0)
    for step, after in enumerate((first, second)):
        eager.zero_grad()
        with DrawnByProgram(Draws(SEED, step, program.draws)):
            weighted(model(torch.zeros(1, 1)), ()).backward()
        eager.step()
        np.testing.assert_allclose(after["buffers"]["kept"], model.kept.numpy(), rtol=1e-5, atol=1e-6)
        ours = after["parameters"]["weight"]
        np.testing.assert_allclose(ours, model.weight.detach().numpy(), rtol=1e-5, atol=1e-5)
    if name != "dropout_of_all":
        assert not np.array_equal(first["buffers"]["kept"], second["buffers"]["kept"])


DRAWN: dict[str, tuple[Op, Callable[[Draws, tuple[int, ...]], Array]]] = {
    "uniform": (lambda x: torch.rand(x.shape), Draws.uniform),
    "uniform_": (torch.Tensor.uniform_, Draws.uniform),
    "between": (lambda x: x.uniform_(-2, 3), lambda d, s: d.uniform(s, -2, 3)),
    "normal": (torch.randn_like, Draws.normal),
    "normal_": (lambda x: x.normal_(3, 0.1), lambda d, s: d.normal(s, 3, 0.1)),
    "bernoulli": (lambda x: x.bernoulli_(0.7), lambda d, s: d.bernoulli(s, 0.7)),
    "exponential": (lambda x: x.exponential_(3), lambda d, s: d.exponential(s, 3)),
    "integers": (lambda x: torch.randint(-(2**30), 2**30, x.shape), lambda d, s: d.integers(s, -(2**30), 2**30)),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_draws_are_the_same_to_the_bit(name: str) -> None:
    draw, expected = DRAWN[name]
    shape = (3, 70, 5)

    def product(x: torch.Tensor) -> torch.Tensor:
        return x * draw(torch.empty(shape))

    program = program_of(Keeping(product, shape))
    for backend in ("reference", "native"):
        kept = run(program, 1, backend)["buffers"]["kept"]
        np.testing.assert_array_equal(kept, expected(Draws(SEED, 0, 1), shape).astype(np.float32))


def test_the_seed_is_a_word_of_the_state() -> None:
    model = Keeping(OPERATIONS["dropout"], (6, 4, 5))
    one, other = program_of(model, 1), program_of(model, 2)
    assert one.root == other.root
    assert one.initial_state()["counters"]["seed"] == 1
    assert run(one, 3)["counters"]["seed"] == 1
    assert run(one, 3).root != run(other, 3).root
    kept = [run(program, 1)["buffers"]["kept"] for program in (one, other)]
    assert not np.array_equal(*kept)


def test_without_random_numbers_there_is_no_seed() -> None:
    program = program_of(Keeping(lambda x: F.dropout(x, 0.5, training=False), (6, 4, 5)))
    assert program.draws == 0
    assert set(program.initial_state()["counters"]) == {"step", "loss"}


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5])
def test_a_seed_that_is_no_word_is_refused(seed: int) -> None:
    with pytest.raises(InvalidOption, match="seed"):
        program_of(Keeping(OPERATIONS["dropout"], (6, 4, 5)), seed)


def test_a_step_draws_no_more_than_it_says() -> None:
    draws = Draws(0, 0, 1)
    draws.uniform((2,))
    with pytest.raises(IndexError):
        draws.uniform((2,))


# ------------------------------------------------------------------ distributions

COUNT = 1 << 20


def normal_cdf(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


CDFS: dict[str, tuple[Callable[[Draws], Array], Callable[[float], float], float, float]] = {
    "uniform": (lambda d: d.uniform((COUNT,)), lambda x: x, 1 / 2, 1 / 12),
    "normal": (lambda d: d.normal((COUNT,)), normal_cdf, 0, 1),
    "exponential": (lambda d: d.exponential((COUNT,)), lambda x: 1 - math.exp(-x), 1, 1),
}


@pytest.mark.parametrize("name", CDFS)
@pytest.mark.parametrize("seed", [0, 12345])
def test_distributions(name: str, seed: int) -> None:
    """Moments, and Kolmogorov's distance from the distribution, whose 0.1 % quantile is 1.95 / sqrt(n)."""
    draw, cdf, mean, variance = CDFS[name]
    x = np.sort(draw(Draws(seed, 7, 3)).astype(np.float64))
    exact = np.array([cdf(v) for v in x])
    steps = np.arange(COUNT + 1) / COUNT
    distance = max(np.abs(exact - steps[1:]).max(), np.abs(exact - steps[:-1]).max())
    assert distance < 1.95 / math.sqrt(COUNT)
    assert abs(x.mean() - mean) < 4 * math.sqrt(variance / COUNT)
    assert abs(x.var() / variance - 1) < 4 * math.sqrt(8 / COUNT)


def test_tails_of_the_normal_distribution() -> None:
    """Beyond 4: two-sided 6.3e-5 of all; beyond 5: 5.7e-7. The smallest uniform number gives the largest, 6.77."""
    x = np.abs(np.concatenate([Draws(1, step, 1).normal((COUNT,)) for step in range(8)]))
    for bound in (3, 4):
        expected = 2 * (1 - normal_cdf(bound)) * len(x)
        assert abs((x > bound).sum() - expected) < 5 * math.sqrt(expected)
    assert 5 < x.max() < 6.77


@pytest.mark.parametrize("p", [0.0, 1e-4, 0.1, 0.5, 0.9, 1.0])
def test_bernoulli_numbers(p: float) -> None:
    x = Draws(3, 0, 1).bernoulli((COUNT,), p)
    assert set(np.unique(x)) <= {0.0, 1.0}
    assert abs(x.mean(dtype=np.float64) - p) <= 4 * math.sqrt(p * (1 - p) / COUNT)


def test_integers_are_equally_likely() -> None:
    counts = np.bincount(Draws(3, 0, 1).integers((COUNT,), -2, 5) + 2, minlength=7)
    assert len(counts) == 7
    expected = COUNT / 7
    assert (
        (counts - expected) ** 2 / expected
    ).sum() < 22.5  # the 0.1 % quantile of chi squared with 6 degrees


def correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(a, b)[0, 1]) * math.sqrt(len(a))


def test_draws_are_independent() -> None:
    """Of neighbouring elements, steps, operations and seeds: correlations of numbers and of squares."""
    x = Draws(5, 10, 4).normal((COUNT,))
    following = Draws(5, 10, 4)
    following.words(1)
    others = {
        "element": np.roll(x, 1),
        "row": np.roll(x, 256),
        "step": Draws(5, 11, 4).normal((COUNT,)),
        "operation": following.normal((COUNT,)),
        "seed": Draws(6, 10, 4).normal((COUNT,)),
    }
    for name, other in others.items():
        assert abs(correlation(x, other)) < 4, name
        assert abs(correlation(x * x, other * other)) < 4, name


def test_no_two_draws_of_training_are_the_same() -> None:
    counters = [Draws(0, step, 3) for step in range(4)]
    rows = [draws.words(64)[0].tobytes() for draws in counters for _ in range(3)]
    assert len(set(rows)) == 12
