"""Lowerings of the negative log likelihood: ``[n, classes, *space]`` with classes ``[n, *space]``."""

from __future__ import annotations

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import Expr, Word, convert, eq, f32, i32, logical_and, ne, select, word_of
from crowdtrain.lowering.index import Index
from crowdtrain.lowering.table import lowers
from crowdtrain.lowering.tensor import Tensor

__all__: list[str] = []

_NONE, _MEAN = 0, 1
"""PyTorch's numbers for kinds of reduction; 2 is the sum."""


def _class_weight(b: Builder, targets: Tensor, weight: Tensor | None, ignored: int) -> Tensor:
    """What each sample counts: its class's weight, and 0 for the ignored class."""
    b.settle(targets)
    if weight is None:
        return b.pointwise(lambda t: convert(ne(t, ignored), f32), targets, what="counted")
    weights = b.stored(weight)

    def counted(*i: Index) -> Expr:
        target = targets[i]
        return select(eq(target, ignored), 0.0, weights[Index.of(Word(target))])

    return b.tensor(f32, targets.shape, counted, "class weights")


@lowers("nll_loss_forward.default", "nll_loss2d_forward.default")
def _nll(
    b: Builder, x: Tensor, targets: Tensor, weight: Tensor | None, reduction: int, ignored: int
) -> tuple[Tensor, Tensor]:
    """The loss, and the total weight of the samples."""
    classes = len(x.shape) - len(targets.shape[1:]) - 1
    scores, counts = b.bordered(x, (classes,)), _class_weight(b, targets, weight, ignored)

    def loss(*i: Index) -> Expr:
        at = (*i[:classes], Index.of(Word(targets[i])), *i[classes:])
        return select(eq(targets[i], ignored), 0.0, -scores[at] * counts[i])

    if reduction == _NONE:
        return b.tensor(f32, targets.shape, loss, "negative log likelihood"), b.constant(0.0)
    total = b.sum((), targets.shape, loss, "negative log likelihood: sum")
    count = b.sum((), targets.shape, lambda *i: counts[i], "total weight")
    if reduction == _MEAN:
        total = b.pointwise(lambda s, n: s / n, total, count, what="negative log likelihood")
    return total, count


@lowers("nll_loss_backward.default", "nll_loss2d_backward.default")
def _nll_backward(
    b: Builder,
    gradient: Tensor,
    x: Tensor,
    targets: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignored: int,
    count: Tensor,
) -> Tensor:
    classes = len(x.shape) - len(targets.shape[1:]) - 1
    counts = _class_weight(b, targets, weight, ignored)
    if reduction == _MEAN:
        gradient = b.settle(b.pointwise(lambda g, n: g / n, gradient, count, what="share of each sample"))

    def element(*i: Index) -> Expr:
        sample = (*i[:classes], *i[classes + 1 :])
        target = targets[sample]
        own = logical_and(eq(target, word_of(i[classes], i32)), ne(target, ignored))
        share = gradient[sample] if gradient.shape else gradient[()]
        return select(own, -share * counts[sample], 0.0)

    return b.tensor(f32, x.shape, element, "negative log likelihood gradient")
