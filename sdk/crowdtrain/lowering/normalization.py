"""Lowerings of batch and group normalization of ``[n, channels, *space]``, and of layer normalization."""

from __future__ import annotations

from collections.abc import Sequence

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import Expr, fma, sqrt
from crowdtrain.lowering.index import Index
from crowdtrain.lowering.reductions import Reduction, mean_of
from crowdtrain.lowering.table import lowers
from crowdtrain.lowering.tensor import Tensor, reshape

__all__: list[str] = []


def _channels(x: Tensor) -> Reduction:
    """All dimensions but the second are folded."""
    return Reduction(x.shape, [d for d in range(len(x.shape)) if d != 1])


def _across(b: Builder, x: Tensor, per_channel: Tensor) -> Tensor:
    """A tensor of one number per channel, to go with x."""
    return b.view(per_channel, (x.shape[1], *(1,) * (len(x.shape) - 2)), lambda *i: (i[0],))


def _inverse_deviation(b: Builder, variance: Tensor, eps: float) -> Tensor:
    return b.settle(b.pointwise(lambda v: 1.0 / sqrt(v + eps), variance, what="inverse deviation"))


def _normalized(
    b: Builder, x: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    scale = inverse if weight is None else b.pointwise(lambda r, w: r * w, inverse, weight, what="scale")
    shift = b.constant(0.0, shape=(x.shape[1],)) if bias is None else bias
    parts = [_across(b, x, b.settle(part)) for part in (mean, scale, shift)]
    return b.pointwise(lambda v, m, s, c: fma(v - m, s, c), x, *parts, what="forward")


def _statistics(b: Builder, x: Tensor, r: Reduction) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance, which is not yet stored."""
    mean = b.settle(mean_of(b, r, x, "mean"))

    def square(*i: Index) -> Expr:
        distance = x[r.at(*i)] - mean[i[: len(r.shape)]]
        return distance * distance

    total = b.sum(r.shape, r.over, square, "variance: sum")
    return mean, b.pointwise(lambda s: s * (1.0 / r.count), total, what="variance")


def _moved(b: Builder, running: Tensor, new: Tensor, momentum: float, factor: float, what: str) -> Tensor:
    """Running statistics: momentum of the new, times ``factor``, and the rest of the old."""
    return b.pointwise(
        lambda old, now: fma(now, momentum * factor, old * (1.0 - momentum)), running, new, what=what
    )


def _train(
    b: Builder, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, mean, inverse deviation, variance."""
    b.settle(x)
    mean, variance = _statistics(b, x, _channels(x))
    inverse = _inverse_deviation(b, b.settle(variance), eps)
    return _normalized(b, x, mean, inverse, weight, bias), mean, inverse, variance


@lowers("_native_batch_norm_legit.no_stats")
def _without_statistics(
    b: Builder,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return _train(b, x, weight, bias, eps)[:3]


@lowers("_native_batch_norm_legit_functional.default")
def _batch_norm(
    b: Builder,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor | None, ...]:
    """Output, saved mean and inverse deviation (none in eval mode), new running mean and variance."""
    if not training:
        inverse = _inverse_deviation(b, running_var, eps)
        return _normalized(b, x, running_mean, inverse, weight, bias), None, None, running_mean, running_var
    output, mean, inverse, variance = _train(b, x, weight, bias, eps)
    count = _channels(x).count
    unbiased = count / (count - 1) if count > 1 else float("nan")
    return (
        output,
        mean,
        inverse,
        _moved(b, running_mean, mean, momentum, 1.0, "running mean"),
        _moved(b, running_var, variance, momentum, unbiased, "running variance"),
    )


@lowers("native_batch_norm_backward.default")
def _batch_norm_backward(
    b: Builder,
    gradient: Tensor,
    x: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    saved_mean: Tensor | None,
    saved_inverse: Tensor | None,
    training: bool,
    eps: float,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor, Tensor]:
    """With g the gradient, h = x - mean and r the inverse deviation, of n elements in each channel:
    (g - sum(g) / n - h · r² · sum(g h) / n) · r · weight; in eval mode g · r · weight.
    """
    b.settle(gradient)
    b.settle(x)
    if training:
        mean, inverse = saved_mean, saved_inverse
    else:
        assert running_var is not None
        mean, inverse = running_mean, _inverse_deviation(b, running_var, eps)
    assert mean is not None
    assert inverse is not None
    r = _channels(x)
    total = b.sum(r.shape, r.over, lambda c, *i: gradient[r.at(c, *i)], "bias gradient")
    along = b.sum(
        r.shape,
        r.over,
        lambda c, *i: gradient[r.at(c, *i)] * (x[r.at(c, *i)] - mean[c]),
        "gradient along the output",
    )
    to_weight = b.pointwise(lambda s, i: s * i, along, inverse, what="weight gradient")
    scale = inverse if weight is None else b.pointwise(lambda i, w: i * w, inverse, weight, what="scale")
    to_input = None
    if wanted[0] and not training:
        to_input = b.pointwise(
            lambda g, s: g * s, gradient, _across(b, x, b.settle(scale)), what="input gradient"
        )
    elif wanted[0]:
        per_element = 1.0 / r.count
        share = b.pointwise(lambda s: s * per_element, total, what="mean gradient")
        slope = b.pointwise(
            lambda s, i: s * i * i * per_element, along, inverse, what="slope of the gradient"
        )
        parts = [_across(b, x, b.settle(part)) for part in (mean, share, slope, scale)]
        to_input = b.pointwise(
            lambda g, v, m, a, s, k: (g - a - (v - m) * s) * k, gradient, x, *parts, what="input gradient"
        )
    return to_input, to_weight, total


@lowers("native_layer_norm.default")
def _layer_norm(
    b: Builder, x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and mean and inverse deviation over the last dimensions, which are ``shape``."""
    b.settle(x)
    r = Reduction(x.shape, list(range(len(x.shape) - len(shape), len(x.shape))))
    mean, variance = _statistics(b, x, r)
    inverse = _inverse_deviation(b, variance, eps)
    mean, inverse = r.shaped(mean, True), r.shaped(inverse, True)
    result = b.pointwise(lambda v, m, s: (v - m) * s, x, mean, inverse, what="normalized")
    if weight is not None:
        result = b.pointwise(lambda v, w: v * w, result, weight, what="forward")
    if bias is not None:
        result = b.pointwise(lambda v, c: v + c, result, bias, what="forward")
    return result, mean, inverse


def _per_group(b: Builder, x: Tensor, of: Tensor) -> Tensor:
    """A tensor of one number for each sample and group, to go with x."""
    size = x.shape[1] // of.shape[1]
    shape = (*x.shape[:2], *(1,) * (len(x.shape) - 2))
    return b.view(of, shape, lambda n, c, *_: (n, c // size))


@lowers("native_group_norm.default")
def _group_norm(
    b: Builder,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: int,
    channels: int,
    space: int,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and mean and inverse deviation of each sample and group of channels."""
    b.settle(x)
    size = channels // groups
    grouped = b.view(x, (n, groups, size, *x.shape[2:]), lambda n, g, c, *i: (n, g * size + c, *i))
    mean, variance = _statistics(b, grouped, Reduction(grouped.shape, list(range(2, len(grouped.shape)))))
    inverse = _inverse_deviation(b, variance, eps)
    parts = [_per_group(b, x, part) for part in (mean, inverse)]
    result = b.pointwise(lambda v, m, r: (v - m) * r, x, *parts, what="forward")
    if weight is not None:
        result = b.pointwise(lambda v, w: v * w, result, _across(b, x, weight), what="forward")
    if bias is not None:
        result = b.pointwise(lambda v, c: v + c, result, _across(b, x, bias), what="forward")
    return result, mean, inverse


@lowers("native_group_norm_backward.default")
def _group_norm_backward(
    b: Builder,
    gradient: Tensor,
    x: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    n: int,
    channels: int,
    space: int,
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor, Tensor]:
    """With g the gradient, h = x - mean, r the inverse deviation and w the weight, over the m elements of a
    group: (g w - sum(g w) / m - h · r² · sum(g w h) / m) · r. Sums over space come first: all else is made
    of them.
    """
    for tensor in (gradient, x, mean, inverse):
        b.settle(tensor)
    size, shape, over = channels // groups, (n, channels), x.shape[2:]

    def along(n: Index, c: Index, *i: Index) -> Expr:
        return gradient[(n, c, *i)] * (x[(n, c, *i)] - mean[n, c // size])

    total = b.sum(shape, over, lambda n, c, *i: gradient[(n, c, *i)], "sum of the gradient")
    slope = b.sum(shape, over, along, "sum of the gradient along the output")
    to_bias = b.sum((channels,), (n,), lambda c, n: total[n, c], "bias gradient")
    to_weight = b.sum((channels,), (n,), lambda c, n: slope[n, c] * inverse[n, c // size], "weight gradient")
    if not wanted[0]:
        return None, to_weight, to_bias
    scale = b.constant(1.0, shape=(channels,)) if weight is None else weight
    per_element = 1.0 / (size * space)

    def mean_over_group(of: Tensor, what: str) -> Tensor:
        summed = b.sum(
            (n, groups), (size,), lambda n, g, c: of[n, g * size + c] * scale[g * size + c], f"{what}: sum"
        )
        return b.pointwise(lambda s: s * per_element, summed, what=what)

    share = b.settle(mean_over_group(total, "mean gradient"))
    steepness = b.settle(
        b.pointwise(
            lambda s, r: s * r * r, mean_over_group(slope, "slope"), inverse, what="slope of the gradient"
        )
    )
    parts = [_per_group(b, x, part) for part in (mean, share, steepness, inverse)]
    to_input = b.pointwise(
        lambda g, v, w, m, a, s, r: (g * w - a - (v - m) * s) * r,
        gradient,
        x,
        _across(b, x, scale),
        *parts,
        what="input gradient",
    )
    return to_input, to_weight, to_bias


@lowers("_weight_norm_interface_backward.default")
def _weight_norm_backward(
    b: Builder, gradient: Tensor, v: Tensor, g: Tensor, norms: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    """Of w = v · g / |v|, with norms over all dimensions but ``dim``: the gradients of v and g."""
    for tensor in (gradient, v, g, norms):
        b.settle(tensor)
    r = Reduction(v.shape, [d for d in range(len(v.shape)) if d != dim])
    along = b.sum(r.shape, r.over, lambda *i: gradient[r.at(*i)] * v[r.at(*i)], "direction gradient: sum")
    to_g = r.shaped(
        b.pointwise(lambda s, n: s / n, along, reshape(norms, r.shape), what="size gradient"), True
    )
    to_v = b.pointwise(
        lambda d, u, s, n, t: (d - u * t / n) * (s / n),
        gradient,
        v,
        g,
        norms,
        to_g,
        what="direction gradient",
    )
    return to_v, to_g
