"""Mathematical functions, running sums, diagonals, reducing scatters, distances and further losses against PyTorch.

Each check is of a family of functions: their results one after another.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lowering_support import check, floats

Op = Callable[..., torch.Tensor]


def joined(*functions: Op) -> Op:
    """The results of all functions of the same arguments as one vector."""
    return lambda *x: torch.cat([function(*x).reshape(-1).float() for function in functions])


def differing(function: Op) -> Op:
    """A function without a gradient of its own, made to have one."""
    return lambda x: x * function(x)


UNARY: dict[str, tuple[Op, float, float]] = {
    "rounding": (joined(*map(differing, (torch.floor, torch.ceil, torch.round, torch.trunc)), torch.frac), -4, 4),
    "rounding_by_tenths": (differing(lambda x: x.round(decimals=1)), -4, 4),
    "halves": (differing(lambda x: (x * 2).round() * 0.5 + ((x * 2).round() * 0.5).round()), -9, 9),
    "trigonometry": (joined(torch.tan, torch.asin, torch.acos, torch.atanh), -0.9, 0.9),
    "hyperbolic": (joined(torch.atan, torch.sinh, torch.cosh, torch.asinh), -5, 5),
    "small": (joined(torch.atan, torch.sinh, torch.asinh, torch.asin, torch.atanh, torch.tan), -1e-3, 1e-3),
    "above_one": (joined(torch.acosh, torch.log2, torch.log10, torch.exp2), 1.1, 5),
    "activations": (
        joined(F.silu, F.mish, F.hardswish, F.hardsigmoid, F.celu, F.selu, F.softsign, F.logsigmoid), -4, 4,
    ),
    "shrinks": (joined(F.tanhshrink, F.softshrink, F.hardshrink, lambda x: F.threshold(x, 0.1, 0.2)), -2, 2),
    "norms": (
        joined(*(lambda x, p=p: x.norm(p, dim=1) for p in (1, 2, 3, float("inf"))), lambda x: torch.dist(x, x * 2)),
        -2, 2,
    ),
    "norms_of_low_orders": (joined(lambda x: x.norm(0.5, dim=1), lambda x: x.norm(0, dim=1) * x.sum(1)), 0.1, 2),
    "products": (joined(lambda x: x.prod(), lambda x: x.prod(1), lambda x: x.prod(0, keepdim=True)), -1.5, 1.5),
    "tests": (joined(*map(differing, (torch.isinf, torch.isfinite, torch.signbit, torch.sgn, torch.erfc))), -2, 2),
    "searches": (
        joined(
            differing(lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0]))),
            differing(lambda x: torch.searchsorted(torch.tensor([[-1.0, 0.5]] * 3), x, right=True)),
        ), -2, 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_number(name: str) -> None:
    function, low, high = UNARY[name]
    check(function, floats(3, 7, low=low, high=high), tolerance=2e-5)


BINARY: dict[str, Op] = {
    "remainders": joined(
        lambda x, y: x * torch.remainder(x, 0.7),
        lambda x, y: x * torch.fmod(x, -0.7),
        lambda x, y: torch.remainder(x * 9, y.abs() + 0.1) + torch.fmod(x * 9, y.abs() + 0.1),
        lambda x, y: x * torch.div(x * 9, y, rounding_mode="floor"),
        lambda x, y: x * torch.div(x * 9, y, rounding_mode="trunc"),
    ),
    "signs": joined(torch.copysign, torch.fmax, torch.fmin, torch.hypot, torch.atan2),
    "logarithms": joined(torch.logaddexp, torch.logaddexp2, lambda x, y: torch.xlogy(x, y.abs() + 0.1)),
    "powers": lambda x, y: (x.abs() + 0.1) ** y,
    "distances": joined(
        torch.cdist, lambda x, y: torch.cdist(x, y, p=1), F.pairwise_distance,
        lambda x, y: F.cosine_similarity(x, y), lambda x, y: torch.cdist(x, x),
    ),
    "products": joined(
        lambda x, y: F.bilinear(x, y, y.T[:, :, None] * x[:1].T[:, None] * torch.ones(5, 5, 5)),
        lambda x, y: torch.addmv(x[:, 0], x, y[0], beta=2, alpha=0.5),
        lambda x, y: torch.einsum("ij,kj->ik", x, y),
        lambda x, y: torch.baddbmm(x[None], (x @ y.T)[None], y[None]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_numbers(name: str) -> None:
    shape = (5, 5) if name == "products" else (4, 5)
    check(BINARY[name], floats(*shape, seed=1), floats(*shape, seed=2), tolerance=5e-5)


def test_special_angles() -> None:
    edges = torch.tensor([[0.0, -0.0, 1.0, -1.0, 30.0, -30.0]])
    check(joined(torch.atan, torch.asinh, differing(torch.signbit)), edges)
    pairs = torch.tensor([[0.0, 0.0, 1.0, -1.0, -0.0], [1.0, -1.0, 0.0, 0.0, -1.0]])
    check(lambda x, _: x * 0 + torch.atan2(x[0], x[1]).detach(), pairs, torch.tensor(1))


@given(
    st.lists(
        st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1)), min_size=1, max_size=8
    )
)
@settings(max_examples=25, deadline=None)
def test_integers_are_divided_exactly(pairs: list[tuple[int, int]]) -> None:
    usable = [(a, b) for a, b in pairs if b and not (a == -(2**31) or b == -(2**31))] or [(7, -2)]
    dividends, divisors = (torch.tensor(column) for column in zip(*usable, strict=True))

    def divide(x: torch.Tensor, n: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        quotients = torch.div(n, d, rounding_mode="floor"), torch.div(n, d, rounding_mode="trunc")
        rests = torch.remainder(n, d), torch.fmod(n, d), n % 7
        whole = torch.stack([*quotients, *rests])
        return x * ((whole // 65536).float() + (whole % 65536).float() / 65536)

    check(divide, torch.ones(len(usable)), dividends, divisors)


RUNNING: dict[str, Op] = {
    "sum": lambda x: x.cumsum(1) * x,
    "sum_of_last": lambda x: x.cumsum(-1) * x,
    "product": lambda x: (1 + 0.1 * x).cumprod(1),
    "log_sum_exp": lambda x: x.logcumsumexp(1),
    "maximum": lambda x: x.cummax(1).values * x,
    "minimum": lambda x: x.cummin(-1).values + x * x.cummin(-1).indices,
    "count": lambda x: x * (x > 0).cumsum(1),
}


@pytest.mark.parametrize("length", [5, 150])
@pytest.mark.parametrize("name", RUNNING)
def test_running_results(name: str, length: int) -> None:
    check(RUNNING[name], floats(2, length, 3), tolerance=5e-5)


ORDERED: dict[str, Op] = {
    "median": lambda x: x.median(1).values * 2,
    "median_of_all": lambda x: x.median() * x,
    "second": lambda x: x.kthvalue(2, 2, keepdim=True).values * x,
    "quantile": lambda x: x.quantile(0.3, dim=1),
}


@pytest.mark.parametrize("name", ORDERED)
def test_values_by_rank(name: str) -> None:
    check(ORDERED[name], floats(3, 4, 5))


MOVED: dict[str, Op] = {
    "diagonals": joined(
        lambda x: x.diagonal(1, 2, 3) * 2, lambda x: x.diagonal(-2, 3, 1) * 3, lambda x: x[0, 0].trace(),
        lambda x: torch.diag_embed(x[0, 0], offset=-1) * 2, lambda x: torch.diag(x[0, 0, 0]),
        lambda x: (x * 1).diagonal_scatter(x[:, :, :, 0] * 2, 0, 2, 3),
    ),
    "windows": joined(
        lambda x: x.unfold(3, 3, 1) * 2, lambda x: x.unfold(2, 2, 2) * 3, lambda x: F.unfold(x, 2, padding=1),
        lambda x: F.fold(x.reshape(2, 12, 5)[..., :4], (3, 3), 2),
    ),
    "paddings": joined(
        *(lambda x, mode=mode: F.pad(x, (1, 2, 2, 1), mode=mode) * 2 for mode in ("reflect", "replicate", "circular")),
        lambda x: F.pad(x[0], (2, 1), mode="replicate") * 3,
        lambda x: F.pad(x[None], (1, 2, 3, 1, 0, 2), mode="replicate") * 3,
    ),
    "shuffles": joined(
        lambda x: F.pixel_shuffle(x.reshape(2, 12, 1, 5), 2) * 2, lambda x: F.pixel_unshuffle(x[..., :4], 2) * 2,
        lambda x: x.rot90(1, (2, 3)) * 2, lambda x: x.repeat_interleave(2, 1) * 2, lambda x: x.roll((1, 2), (2, 3)),
    ),
    "triangles": joined(
        lambda x: x[0, 0][tuple(torch.triu_indices(4, 5, 1))] * 2, lambda x: x[..., :4] * torch.eye(4),
        lambda x: x[0, 0][tuple(torch.tril_indices(4, 5))] * 2, lambda x: torch.outer(x[0, 0, 0], x[0, 0, 1]),
    ),
    "adaptive_maxima": joined(
        lambda x: F.adaptive_max_pool2d(x, 2), lambda x: F.adaptive_max_pool2d(x, (3, 7)),
        lambda x: F.adaptive_max_pool1d(x[0], 3), lambda x: F.adaptive_max_pool2d(x, 1),
    ),
    "weight_norm": lambda x: torch._weight_norm(x[0, 0], x[0, 0, :, :1].abs() + 0.5, 0),
    "constants_in_double_precision": lambda x: (
        x * torch.logspace(0, 1, 5) + torch.fft.rfft(torch.arange(8, dtype=torch.float64)).abs().float()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVED)
def test_moved_elements(name: str) -> None:
    check(MOVED[name], floats(2, 3, 4, 5))


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "mean", "amax", "amin", "prod"])
def test_scatters_that_reduce(reduce: str, include_self: bool) -> None:
    places = torch.tensor([[0, 0, 2, 4, 0], [1, 3, 1, 1, 2]])

    def scatter(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return (x[:3] * 1).scatter_reduce(1, n, x[3:] * 2 + 0.3, reduce, include_self=include_self)

    check(scatter, floats(5, 5), places)


def test_scatters_along_several_dimensions() -> None:
    rows = torch.tensor([2, 0])
    check(
        joined(
            lambda x, n: (x * 1).index_add(1, n, x[:, :2], alpha=2),
            lambda x, n: (x * 1).index_copy(1, n, x[:, :2] * 3),
            lambda x, n: (x * 1).index_fill(0, n, 3.0), lambda x, n: x.take(n * 3) * 2,
            lambda x, n: (x * 1).put(n + 1, x[0, :2] * 3, accumulate=True),
        ),
        floats(3, 4), rows,
    )  # fmt: skip


def test_an_embedding_with_a_row_of_padding() -> None:
    tokens = torch.tensor([[4, 1, 2], [1, 3, 1]])
    check(lambda w, n: F.embedding(n, w, padding_idx=1) * 2, floats(5, 3), tokens)


LOSSES: dict[str, Op] = {
    "binary": joined(
        lambda x, y: F.binary_cross_entropy(x.sigmoid(), y.sigmoid()),
        lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid(), pos_weight=torch.tensor(2.0)),
        lambda x, y: F.soft_margin_loss(x, y.detach().sign()),
        lambda x, y: F.multilabel_soft_margin_loss(x, (y.detach() > 0).float()),
    ),
    "triplet": joined(
        lambda x, y: F.triplet_margin_loss(x, y, x.flip(0)),
        lambda x, y: F.triplet_margin_loss(x, y, x.flip(0), swap=True, p=1),
        lambda x, y: F.triplet_margin_with_distance_loss(x, y, x.flip(0)),
    ),
    "embeddings": joined(
        lambda x, y: F.cosine_embedding_loss(x, y, torch.tensor([1.0, -1, 1, -1]), margin=0.1),
        lambda x, y: F.hinge_embedding_loss(x, y.detach().sign()),
        lambda x, y: F.margin_ranking_loss(x, y, torch.ones(4, 5), margin=0.2),
    ),
    "distributions": joined(
        lambda x, y: F.kl_div(F.log_softmax(x, 1), F.log_softmax(y, 1), log_target=True, reduction="batchmean"),
        lambda x, y: F.cross_entropy(x, y.softmax(1), label_smoothing=0.1),
        lambda x, y: F.poisson_nll_loss(x, y.detach().exp()),
        lambda x, y: F.cross_entropy(
            x, torch.tensor([0, 1, 4, 2]), weight=torch.arange(1.0, 6), label_smoothing=0.1, ignore_index=1
        ),
    ),
    "regressions": joined(
        lambda x, y: F.huber_loss(x, y, delta=0.3), lambda x, y: F.smooth_l1_loss(x, y, beta=0.3),
        lambda x, y: F.mse_loss(x, y, reduction="none"), lambda x, y: F.l1_loss(x, y, reduction="sum"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_further_losses(name: str) -> None:
    check(LOSSES[name], floats(4, 5, seed=1), floats(4, 5, seed=2))
