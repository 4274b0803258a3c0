"""Muon: momentum whose matrix is brought near to an orthogonal one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import fma, maximum, sqrt
from crowdtrain.lowering.tensor import Tensor
from crowdtrain.optim.rule import Counting, Optimizer, Slot, Update, check
from crowdtrain.optim.schedules import Schedule
from crowdtrain.optim.sums import sum_of_squares

__all__ = ["Muon"]


@dataclass(frozen=True)
class Muon(Optimizer):
    """Momentum made orthogonal by ``ns_steps`` iterations of Newton and Schulz, as ``torch.optim.Muon``.

    For parameters of two dimensions only; give the others to another optimizer. PyTorch iterates in bfloat16, this in
    float32. Raises ValueError for values out of range and parameters of other ranks.
    """

    lr: float | Schedule = 1e-3
    weight_decay: float = 0.1
    momentum: float = 0.95
    nesterov: bool = True
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315)
    eps: float = 1e-7
    ns_steps: int = 5
    adjust_lr_fn: str | None = None

    def __post_init__(self) -> None:
        check(self, "weight_decay", "momentum", "eps")
        if len(self.ns_coefficients) != 3 or not all(map(math.isfinite, self.ns_coefficients)):
            raise ValueError(f"ns_coefficients must be three finite numbers, they are {self.ns_coefficients}")
        if not isinstance(self.ns_steps, int) or not 0 <= self.ns_steps < 100:
            raise ValueError(f"ns_steps must be from 0 to 99, it is {self.ns_steps}")
        if self.adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(
                f"adjust_lr_fn must be 'original' or 'match_rms_adamw', it is {self.adjust_lr_fn!r}"
            )

    def slots(self, shape: tuple[int, ...]) -> dict[str, Slot]:
        if len(shape) != 2:
            raise ValueError(
                f"Muon is for parameters of two dimensions, not of shape {shape}; use AdamW for those"
            )
        return {"momentum": Slot(shape)}

    def count(self, now: Counting) -> dict[str, Tensor]:
        shrink = now.number("shrinkage", lambda lr: fma(lr, -self.weight_decay, 1.0), now.lr)
        return {"descent": now.descent, "shrink": shrink}

    def update(self, now: Update) -> None:
        b, g, mu = now.b, now.gradient, self.momentum
        momentum = now.keep("momentum", lambda m, g: fma(g - m, 1.0 - mu, m), g)
        aim = momentum
        if self.nesterov:
            aim = b.stored(b.pointwise(lambda g, m: fma(m - g, mu, g), g, momentum, what="direction"))
        rows, columns = now.parameter.shape
        ratio = math.sqrt(max(1, rows / columns))
        if self.adjust_lr_fn == "match_rms_adamw":
            ratio = 0.2 * math.sqrt(max(rows, columns))
        size = now.number("step size", lambda r: r * ratio, now.numbers["descent"])
        total = sum_of_squares(b, aim, "norm of the direction")
        scaled = b.stored(
            b.pointwise(lambda x, s: x / maximum(sqrt(s), self.eps), aim, total, what="scaled direction")
        )
        direction = self._orthogonal(b, scaled)
        now.move(lambda p, o, size, shrink: fma(p, shrink, size * o), direction, size, now.numbers["shrink"])

    def _orthogonal(self, b: Builder, x: Tensor) -> Tensor:
        """Same singular vectors as those of ``x``, whose norm is 1; singular values near 1."""
        n, m = x.shape
        if n > m:
            turned = b.view(x, (m, n), lambda i, j: (j, i))
            return b.view(self._orthogonal(b, turned), (n, m), lambda i, j: (j, i))
        for _ in range(self.ns_steps):
            x = self._iterate(b, x)
        return x

    def _iterate(self, b: Builder, x: Tensor) -> Tensor:
        """first · x + (second · xxᵀ + third · (xxᵀ)²) · x."""
        first, second, third = self.ns_coefficients
        n, m = x.shape
        gram = b.contract((n, n), (m,), lambda i, j, k: (x[i, k], x[j, k]), "gram matrix")
        square = b.contract(
            (n, n), (n,), lambda i, j, k: (gram[i, k], gram[k, j]), "square of the gram matrix"
        )
        mixed = b.stored(b.pointwise(lambda g, s: fma(s, third, g * second), gram, square, what="polynomial"))
        moved = b.contract((n, m), (n,), lambda i, j, k: (mixed[i, k], x[k, j]), "product")
        return b.stored(b.pointwise(lambda x, y: fma(x, first, y), x, moved, what="iterate"))
