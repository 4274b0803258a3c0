"""Optimizers as part of a program: plain descriptions with the update rule of each.

The rules, names and defaults are those of ``torch.optim``. A rule works on tensors of the program being
built; its moments are state (one group for each), its counters single numbers. Nothing here needs PyTorch.

"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import Expr, eq, fma, maximum, select, sqrt
from crowdtrain.lowering.tensor import Tensor

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]

Tensors = Mapping[str, Tensor]


class Optimizer(Protocol):
    """What lowering needs of an optimizer."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the groups that hold one tensor, initially 0, for each trained parameter."""

    @property
    def counters(self) -> tuple[str, ...]:
        """Names of single f32 numbers, initially 0, that all parameters share."""

    def count(self, b: Builder, counters: Tensors) -> dict[str, Tensor]:
        """What :meth:`update` needs in this step: the new counters, from those after the last step, and what
        follows from them. ``step`` (u32) is among them and stays: 0 in the first step.
        """

    def update(
        self, b: Builder, parameter: Tensor, gradient: Tensor, slots: Tensors, counters: Tensors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The next parameter and slots, with the counters of this step."""


def _check(value: float, name: str, low: float = 0.0, high: float = math.inf) -> None:
    if not low <= value < high:
        raise ValueError(f"{name} must be at least {low:g} and below {high:g}, it is {value}")


def _decayed(weight_decay: float, maximize: bool, p: Expr, g: Expr) -> Expr:
    """The gradient with weight decay as a penalty."""
    g = -g if maximize else g
    return fma(p, weight_decay, g) if weight_decay else g


@dataclass(frozen=True)
class SGD:
    """Gradient descent as ``torch.optim.SGD``, with its momentum, dampening and weight decay.

    Raises ValueError for values out of range, and for Nesterov's variant without momentum or with dampening.
    """

    lr: float = 1e-3
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False

    def __post_init__(self) -> None:
        _check(self.lr, "lr")
        _check(self.momentum, "momentum")
        _check(self.weight_decay, "weight_decay")
        _check(self.dampening, "dampening", -math.inf)
        if self.nesterov and (self.momentum <= 0 or self.dampening != 0):
            raise ValueError("nesterov needs a momentum above 0 and a dampening of 0")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    @property
    def counters(self) -> tuple[str, ...]:
        return ()

    def count(self, b: Builder, counters: Tensors) -> dict[str, Tensor]:
        return dict(counters)

    def update(
        self, b: Builder, parameter: Tensor, gradient: Tensor, slots: Tensors, counters: Tensors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.momentum:
            return b.pointwise(
                lambda p, g: fma(self._direction(p, g), -self.lr, p), parameter, gradient, what="update"
            ), {}

        def accumulate(m: Expr, p: Expr, g: Expr, step: Expr) -> Expr:
            direction = self._direction(p, g)
            moved = fma(m, self.momentum, direction * (1.0 - self.dampening))
            return select(eq(step, 0), direction, moved) if self.dampening else moved

        first = b.stored(
            b.pointwise(accumulate, slots["momentum"], parameter, gradient, counters["step"], what="momentum")
        )

        def move(p: Expr, m: Expr, g: Expr) -> Expr:
            direction = fma(m, self.momentum, self._direction(p, g)) if self.nesterov else m
            return fma(direction, -self.lr, p)

        return b.pointwise(move, parameter, first, gradient, what="update"), {"momentum": first}

    def _direction(self, p: Expr, g: Expr) -> Expr:
        return _decayed(self.weight_decay, self.maximize, p, g)


@dataclass(frozen=True)
class Adam:
    """Adam as ``torch.optim.Adam``: weight decay is added to the gradient (:class:`AdamW` decouples it).

    Raises ValueError for values out of range.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False
    maximize: bool = False

    def __post_init__(self) -> None:
        _check(self.lr, "lr")
        _check(self.eps, "eps")
        _check(self.weight_decay, "weight_decay")
        for k, beta in enumerate(self.betas):
            _check(beta, f"betas[{k}]", high=1.0)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("first_moment", "second_moment", *(("max_second_moment",) if self.amsgrad else ()))

    @property
    def counters(self) -> tuple[str, ...]:
        return ("bias_correction1", "bias_correction2")

    def count(self, b: Builder, counters: Tensors) -> dict[str, Tensor]:
        """1 - betaᵗ, kept by c ← c · beta + (1 - beta): nothing cancels, so it stays exact to a few ulp."""
        counted = dict(counters)
        for name, beta in zip(self.counters, self.betas, strict=True):
            counted[name] = b.stored(
                b.pointwise(lambda c, beta=beta: fma(c, beta, 1.0 - beta), counters[name], what=name)
            )
        first, second = (counted[name] for name in self.counters)
        counted["step_size"] = b.stored(b.pointwise(lambda c: self.lr / c, first, what="step size"))
        counted["scale"] = b.stored(
            b.pointwise(lambda c: 1.0 / sqrt(c), second, what="scale of the second moment")
        )
        return counted

    def update(
        self, b: Builder, parameter: Tensor, gradient: Tensor, slots: Tensors, counters: Tensors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        beta1, beta2 = self.betas

        def first(m: Expr, p: Expr, g: Expr) -> Expr:
            return fma(self._direction(p, g) - m, 1.0 - beta1, m)

        def second(v: Expr, p: Expr, g: Expr) -> Expr:
            direction = self._direction(p, g)
            return fma(direction * direction, 1.0 - beta2, v * beta2)

        def move(p: Expr, m: Expr, v: Expr, step_size: Expr, scale: Expr) -> Expr:
            return self._shrunk(p) - step_size * m / fma(sqrt(v), scale, self.eps)

        new = {
            "first_moment": b.stored(
                b.pointwise(first, slots["first_moment"], parameter, gradient, what="first moment")
            ),
            "second_moment": b.stored(
                b.pointwise(second, slots["second_moment"], parameter, gradient, what="second moment")
            ),
        }
        if self.amsgrad:
            new["max_second_moment"] = b.stored(
                b.pointwise(
                    maximum, slots["max_second_moment"], new["second_moment"], what="greatest second moment"
                )
            )
        moments = (new["first_moment"], new[self.slots[-1]])
        sizes = (counters["step_size"], counters["scale"])
        return b.pointwise(move, parameter, *moments, *sizes, what="update"), new

    def _direction(self, p: Expr, g: Expr) -> Expr:
        return _decayed(self.weight_decay, self.maximize, p, g)

    def _shrunk(self, p: Expr) -> Expr:
        return p


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay, as ``torch.optim.AdamW``: p shrinks by lr · weight_decay first."""

    weight_decay: float = 1e-2

    def _direction(self, p: Expr, g: Expr) -> Expr:
        return _decayed(0.0, self.maximize, p, g)

    def _shrunk(self, p: Expr) -> Expr:
        return p * (1.0 - self.lr * self.weight_decay) if self.weight_decay else p
