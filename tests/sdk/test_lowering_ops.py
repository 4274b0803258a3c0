"""Each row of the table against PyTorch: results and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lowering_support import check, check_module, floats, integers

Op = Callable[..., torch.Tensor]

UNARY: dict[str, tuple[Op, float, float]] = {
    "relu": (F.relu, -2, 2),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.1), -2, 2),
    "gelu": (F.gelu, -3, 3),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), -3, 3),
    "elu": (F.elu, -3, 3),
    "silu": (F.silu, -3, 3),
    "softplus": (F.softplus, -3, 3),
    "sigmoid": (torch.sigmoid, -5, 5),
    "tanh": (torch.tanh, -3, 3),
    "exp": (torch.exp, -3, 3),
    "log": (torch.log, 0.1, 4),
    "log1p": (torch.log1p, -0.5, 1e-3),
    "expm1": (torch.expm1, -2, 2),
    "sqrt": (torch.sqrt, 0.1, 4),
    "rsqrt": (torch.rsqrt, 0.1, 4),
    "reciprocal": (torch.reciprocal, 0.2, 4),
    "erf": (torch.erf, -3, 3),
    "sin": (torch.sin, -30, 30),
    "cos": (torch.cos, -30, 30),
    "neg": (torch.neg, -2, 2),
    "abs": (torch.abs, -2, 2),
    "square": (torch.square, -2, 2),
    "cube": (lambda x: x**3, -2, 2),
    "power": (lambda x: x**2.7, 0.1, 2),
    "three_halves": (lambda x: x**1.5, 0.1, 2),
    "inverse_square": (lambda x: x**-2, 0.3, 2),
    "exponential_of_base": (lambda x: 3.0**x, -2, 2),
    "power_of_itself": (lambda x: x**x, 0.3, 2),
    "clamp": (lambda x: x.clamp(-0.5, 0.7), -2, 2),
    "hardtanh": (F.hardtanh, -2, 2),
    "relu6": (lambda x: F.relu6(x * 5), -2, 2),
    "in_place": (lambda x: (x * 1).add_(1).mul_(2).sigmoid_(), -2, 2),
}


@pytest.mark.parametrize("name", UNARY)
def test_elementwise(name: str) -> None:
    op, low, high = UNARY[name]
    check(op, floats(3, 7, low=low, high=high))


BINARY: dict[str, Op] = {
    "add": lambda x, y: x + y,
    "add_alpha": lambda x, y: torch.add(x, y, alpha=0.3),
    "sub": lambda x, y: x - y,
    "sub_from_number": lambda x, y: 2 - x * y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / (y + 4),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "where": lambda x, y: torch.where(x > y, x * 2, y),
    "masked_fill": lambda x, y: (x * y).masked_fill(x < 0, -3.0),
    "comparisons": lambda x, y: ((x <= y) & ~(x == 0) | (x > 1.5)).float() * y,
    "mask_arithmetic": lambda x, y: (x > 0) * y + (x != y).to(torch.int64),
    "addcmul": lambda x, y: torch.addcmul(x, x, y, value=0.5),
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((2, 3, 4), (4,)), ((3, 1), (1, 4))], ids=str)
def test_binary_with_broadcasting(name: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    check(BINARY[name], floats(*shapes[0], seed=1), floats(*shapes[1], seed=2))


def test_integers_and_booleans() -> None:
    counts = integers(3, 4, below=5)
    check(lambda x, n: x * (n * 3 - 2).clamp(0, 7), floats(3, 4), counts)
    check(lambda x, n: x * n.sum(0) + (n > 2).sum(), floats(3, 4), counts)
    check(lambda x, n: x * torch.arange(4) + torch.arange(0, 2, 0.5), floats(3, 4), counts)


VIEWS: dict[str, Op] = {
    "reshape": lambda x: x.reshape(6, 20) * 2,
    "reshape_that_cuts_across": lambda x: x.reshape(8, 15).reshape(5, 24) * 2,
    "flatten": lambda x: x.flatten(1).exp(),
    "transpose_and_reshape": lambda x: x.transpose(1, 2).reshape(2, 60) + 1,
    "permute": lambda x: x.permute(2, 0, 3, 1).exp(),
    "squeeze": lambda x: x[:, :1].squeeze(1).unsqueeze(-1) * 3,
    "expand": lambda x: x[:, :1].expand(2, 6, 4, 5) * 2,
    "repeat": lambda x: x.repeat(2, 1, 3, 1) * 2,
    "slice": lambda x: x[:, 1:, ::2, -3:] * 2,
    "select": lambda x: x[:, 1, -1] * 2,
    "flip": lambda x: x.flip(1, 3) * 2,
    "roll": lambda x: x.roll(1, 3) * 2,
    "cat": lambda x: torch.cat([x, x[:, :1] * 2, x[:, 1:].exp()], 1),
    "cat_many": lambda x: torch.cat([x[..., k % 5] * k for k in range(11)], 2),
    "stack": lambda x: torch.stack([x[0], x[1] * 2], -1),
    "chunk": lambda x: x.chunk(2, 2)[1] * x.chunk(2, 2)[0],
    "unbind": lambda x: x.unbind(1)[2] * x.unbind(1)[0],
    "pad": lambda x: F.pad(x, (1, 2, 0, 1), value=0.5) * 2,
    "crop": lambda x: F.pad(x, (-1, 2, 1, -1)) * 2,
    "assign_slice": lambda x: _assigned(x),
    "triangle": lambda x: x.tril() + x.triu(1),
    "scalar": lambda x: x[0, 0, 0, 0] * 2,
}


def _assigned(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[:, 1] = x[:, 0].exp()
    y[..., 0] *= 3
    return y


@pytest.mark.parametrize("name", VIEWS)
def test_views(name: str) -> None:
    check(VIEWS[name], floats(2, 3, 4, 5))


REDUCTIONS: dict[str, Op] = {
    "sum": lambda x: x.sum(),
    "sum_dims": lambda x: x.sum((0, -1)),
    "sum_keepdim": lambda x: x.sum(1, keepdim=True) * x,
    "mean": lambda x: x.mean((1, 2)),
    "var": lambda x: x.var(1),
    "var_biased": lambda x: x.var((1, 2), unbiased=False, keepdim=True),
    "std": lambda x: x.std(-1),
    "amax": lambda x: x.amax(1),
    "amin": lambda x: x.amin((0, 2)),
    "max": lambda x: x.max(),
    "min_dim": lambda x: x.min(1).values,
    "softmax": lambda x: F.softmax(x * 3, 1),
    "log_softmax": lambda x: F.log_softmax(x * 3, -1),
    "logsumexp": lambda x: x.logsumexp(1),
    "norm": lambda x: F.normalize(x, dim=2),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    check(REDUCTIONS[name], floats(3, 4, 5))


def test_positions_of_extremes_and_truth() -> None:
    x = floats(3, 4, 5)
    check(lambda x: x * 0 + x.argmax(1, keepdim=True) - x.argmin(2, keepdim=True) + x.argmax(), x)
    check(lambda x: x * (x > 1.9).any() + (x < 1).all(1, keepdim=True), x)


SORTINGS: dict[str, Op] = {
    "topk": lambda x: x.topk(2, 1).values * 3,
    "topk_smallest": lambda x: x.topk(3, 0, largest=False).values * 3,
    "positions": lambda x: x * 0 + x.topk(5, 2).indices,
    "sort": lambda x: x.sort(1, descending=True).values * torch.arange(4)[:, None],
    "argsort": lambda x: x * 0 + x.argsort(-1),
    "stable": lambda x: x * (x > 0).int().sort(dim=1, stable=True).indices,
    "both_zeros": lambda x: x * (x * 0).sort(dim=2, stable=True).indices,
}


@pytest.mark.parametrize("name", SORTINGS)
def test_sorting(name: str) -> None:
    check(SORTINGS[name], floats(3, 4, 5))


@pytest.mark.parametrize("count", [1025, 2003, 5000])
def test_a_long_sum_is_split_and_stays_accurate(count: int) -> None:
    program = check(lambda x: (x * x).sum(), floats(count), tolerance=1e-6)
    assert max(nest.fold_length for nest in program.nests) < 400


PRODUCTS: dict[str, tuple[Op, list[tuple[int, ...]]]] = {
    "mm": (lambda x, y: x @ y, [(3, 5), (5, 4)]),
    "transposed": (lambda x, y: x.T @ y.T, [(5, 3), (4, 5)]),
    "batched": (lambda x, y: x @ y, [(2, 3, 5), (2, 5, 4)]),
    "batched_by_one": (lambda x, y: x @ y, [(2, 2, 3, 5), (5, 4)]),
    "einsum": (lambda x, y: torch.einsum("bij,kj->bik", x, y), [(2, 3, 5), (4, 5)]),
    "vector": (lambda x, y: x @ y, [(3, 5), (5,)]),
    "dot": (torch.dot, [(5,), (5,)]),
    "linear": (F.linear, [(2, 3, 5), (4, 5), (4,)]),
    "addmm": (lambda b, x, y: torch.addmm(b, x, y, beta=0.5, alpha=2.0), [(4,), (3, 5), (5, 4)]),
    "after_flatten": (lambda x, w: F.linear(F.relu(x).flatten(1), w), [(2, 3, 2, 2), (4, 12)]),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    op, shapes = PRODUCTS[name]
    check(op, *(floats(*shape, seed=i) for i, shape in enumerate(shapes)))


CONVOLUTIONS = {
    "plain": ((2, 3, 6, 5), (4, 3, 3, 2), {}),
    "padded": ((2, 3, 5, 5), (4, 3, 3, 3), {"padding": 1}),
    "strided": ((2, 3, 7, 6), (4, 3, 3, 3), {"stride": 2, "padding": 1}),
    "uneven": ((2, 3, 7, 6), (4, 3, 3, 2), {"stride": (2, 3), "padding": (0, 1), "dilation": (2, 1)}),
    "grouped": ((2, 4, 5, 5), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 3, 5, 5), (3, 1, 3, 3), {"groups": 3, "padding": 1, "stride": 2}),
    "one": ((2, 4, 3, 3), (5, 4, 1, 1), {}),
    "one_pixel": ((2, 2, 1, 1), (3, 2, 3, 3), {"padding": 1}),
    "line": ((2, 3, 8), (4, 3, 3), {"padding": 1}),
    "volume": ((1, 2, 3, 4, 3), (2, 2, 2, 3, 2), {"padding": (0, 1, 0)}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    x, w, options = CONVOLUTIONS[name]
    function = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(x)]
    check(lambda x, w, b: function(x, w, b, **options), floats(*x), floats(*w, seed=1), floats(w[0], seed=2))


TRANSPOSED = {
    "plain": ((2, 3, 4, 4), (3, 2, 3, 3), {}),
    "strided": ((2, 3, 4, 3), (3, 2, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "grouped": ((2, 4, 3, 3), (4, 3, 2, 2), {"stride": 2, "groups": 2}),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions(name: str) -> None:
    x, w, options = TRANSPOSED[name]
    bias = w[1] * options.get("groups", 1)
    check(
        lambda x, w, b: F.conv_transpose2d(x, w, b, **options),
        floats(*x),
        floats(*w, seed=1),
        floats(bias, seed=2),
    )


def test_a_convolution_after_views_and_grouped_convolutions() -> None:
    def chain(x: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        images = x.view(2, 4, 5, 4).transpose(2, 3)
        return F.conv2d(F.conv2d(images, w, padding=1, groups=2), v, padding=1)

    check(chain, floats(2, 80), floats(4, 2, 3, 3, seed=1), floats(2, 4, 3, 3, seed=2))


POOLS: dict[str, Op] = {
    "max": lambda x: F.max_pool2d(x, 2),
    "max_overlapping": lambda x: F.max_pool2d(x, 3, stride=2, padding=1),
    "max_dilated": lambda x: F.max_pool2d(x, 2, stride=1, dilation=2),
    "max_ceil": lambda x: F.max_pool2d(x, 2, stride=2, ceil_mode=True),
    "max_line": lambda x: F.max_pool1d(x.flatten(2), 3, stride=2),
    "average": lambda x: F.avg_pool2d(x, 2),
    "average_padded": lambda x: F.avg_pool2d(x, 3, stride=2, padding=1),
    "average_inside": lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False),
    "average_ceil": lambda x: F.avg_pool2d(x, 2, stride=2, ceil_mode=True),
    "average_by": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "average_line": lambda x: F.avg_pool1d(x.flatten(2), 3, stride=2),
    "adaptive_one": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x[..., :4], (7, 2)),
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling(name: str) -> None:
    check(POOLS[name], floats(2, 3, 7, 5))


def resized(mode: str, **options: object) -> Op:
    return lambda x: F.interpolate(x, mode=mode, **options)  # type: ignore[arg-type]


RESAMPLINGS: dict[str, Op] = {
    "nearest_twice": resized("nearest", scale_factor=2),
    "nearest_uneven": resized("nearest", size=(5, 13)),
    "nearest_down": resized("nearest", size=(3, 2)),
    "nearest_exact": resized("nearest-exact", size=(5, 13)),
    "bilinear_twice": resized("bilinear", scale_factor=2),
    "bilinear_by_three": resized("bilinear", scale_factor=3),
    "bilinear_corners": resized("bilinear", scale_factor=2, align_corners=True),
    "bilinear_down": resized("bilinear", size=(4, 3)),
    "bilinear_scale": resized("bilinear", scale_factor=1.7),
    "bicubic": resized("bicubic", size=(9, 12)),
    "bicubic_corners": resized("bicubic", size=(9, 4), align_corners=True),
    "linear": lambda x: F.interpolate(x.flatten(2), size=50, mode="linear"),
    "nearest_line": lambda x: F.interpolate(x.flatten(2), size=50, mode="nearest"),
    "trilinear": lambda x: F.interpolate(
        x[:, :, None].repeat(1, 1, 2, 1, 1), scale_factor=2, mode="trilinear"
    ),
    "adaptive_uneven": lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive_up": lambda x: F.adaptive_avg_pool2d(x, (9, 4)),
    "adaptive_line": lambda x: F.adaptive_avg_pool1d(x.flatten(2), 6),
    "adaptive_volume": lambda x: F.adaptive_avg_pool3d(x, (2, 3, 2)),
}


@pytest.mark.parametrize("name", RESAMPLINGS)
def test_resampling(name: str) -> None:
    check(RESAMPLINGS[name], floats(2, 3, 7, 5))


@given(st.integers(1, 12), st.integers(1, 12), st.booleans())
@settings(max_examples=25, deadline=None)
def test_linear_resampling_of_any_sizes(before: int, after: int, align_corners: bool) -> None:
    check(lambda x: F.interpolate(x, after, mode="linear", align_corners=align_corners), floats(1, 2, before))


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_in_training(shape: tuple[int, ...], affine: bool) -> None:
    if affine:
        check(
            lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
            floats(*shape), floats(3, seed=1), floats(3, seed=2), tolerance=2e-5,
        )  # fmt: skip
    else:
        check(lambda x: F.batch_norm(x, None, None, training=True), floats(*shape), tolerance=2e-5)


@pytest.mark.parametrize("shape", [(3, 6), (2, 6, 5), (2, 6, 3, 4)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(shape: tuple[int, ...], groups: int) -> None:
    tensors = (floats(*shape), floats(6, seed=1), floats(6, seed=2))
    if shape[2:] or groups < 6:
        check(lambda x, w, b: F.group_norm(x, groups, w, b), *tensors, tolerance=2e-5)
        check(lambda x: F.group_norm(x, groups), tensors[0], tolerance=2e-5)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.4])
def test_batch_norm_with_running_statistics(train: bool, momentum: float) -> None:
    torch.manual_seed(0)
    module = torch.nn.BatchNorm2d(3, momentum=momentum).train(train)
    module.running_mean.uniform_(-1, 1)
    module.running_var.uniform_(0.5, 2)
    check_module(module, floats(4, 3, 2, 5))


CLASSES: dict[str, Op] = {
    "mean": lambda x, y: F.cross_entropy(x, y),
    "sum": lambda x, y: F.cross_entropy(x, y, reduction="sum"),
    "none": lambda x, y: F.cross_entropy(x, y, reduction="none"),
    "weighted": lambda x, y: F.cross_entropy(x, y, weight=torch.tensor([0.5, 1.0, 2.0, 0.1])),
    "ignored": lambda x, y: F.cross_entropy(x, y, ignore_index=1),
    "smoothed": lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1),
    "nll": lambda x, y: F.nll_loss(F.log_softmax(x, 1), y),
}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("space", [(), (3, 2)], ids=str)
def test_losses_of_classes(name: str, space: tuple[int, ...]) -> None:
    check(CLASSES[name], floats(5, 4, *space), integers(5, *space, below=4))


VALUES: dict[str, Op] = {
    "mse": F.mse_loss,
    "mse_sum": lambda x, y: F.mse_loss(x, y, reduction="sum"),
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
    "huber": F.huber_loss,
    "bce_logits": lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid()),
    "kl": lambda x, y: F.kl_div(F.log_softmax(x, 1), F.softmax(y, 1), reduction="batchmean"),
    "cosine": lambda x, y: F.cosine_embedding_loss(x, y, torch.ones(4)),
}


@pytest.mark.parametrize("name", VALUES)
def test_losses_of_values(name: str) -> None:
    check(VALUES[name], floats(4, 5, seed=1), floats(4, 5, seed=2))


def test_dropout_without_effect() -> None:
    check(lambda x: F.dropout(x, 0.5, training=False) + F.dropout(x, 0.0), floats(3, 4))


INDEXED: dict[str, Op] = {
    "embedding": lambda x, n: F.embedding(n, x) * 2,
    "gather": lambda x, n: x.gather(1, n[:, :4]) * 2,
    "index_select": lambda x, n: x.index_select(1, n[0]) * 2,
    "rows": lambda x, n: x[n] * 2,
    "columns": lambda x, n: x[:, n[0] - 5] * 2,
    "pairs": lambda x, n: x[n, n.flip(1)] * 2,
    "put": lambda x, n: (x * 1).index_put((n[0],), x[:3] * 3),
    "scatter": lambda x, n: (x * 1).scatter(1, n[:, :2], x[:2, :2] * 3),
    "scatter_add": lambda x, n: (x * 1).scatter_add(0, n, x[:2, :3] * 3),
    "scatter_number": lambda x, n: (x * 1).scatter(0, n, 7.0),
    "one_hot": lambda x, n: F.one_hot(n, 5).float() @ x,
    "remainders": lambda x, n: x[(n * 7 - 12) % 5] * ((n * 7 - 12) // 5 + torch.fmod(n - 2, 2))[..., None],
}


@pytest.mark.parametrize("name", INDEXED)
def test_indexing(name: str) -> None:
    check(INDEXED[name], floats(5, 5), torch.tensor([[4, 0, 2], [1, 3, 2]]))
