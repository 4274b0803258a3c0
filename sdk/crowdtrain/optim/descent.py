"""Gradient descent and its relative by signs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crowdtrain.lowering.expr import Expr, eq, fma, lt, select
from crowdtrain.lowering.tensor import Tensor
from crowdtrain.optim.rule import Counting, Optimizer, Slot, Update, check, check_betas, decayed
from crowdtrain.optim.schedules import Schedule

__all__ = ["SGD", "Lion"]


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent as ``torch.optim.SGD``, with its momentum, dampening and weight decay.

    Raises ValueError for values out of range, and for Nesterov's variant without momentum or with dampening.
    """

    lr: float | Schedule = 1e-3
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False

    def __post_init__(self) -> None:
        check(self, "momentum", "weight_decay")
        if not math.isfinite(self.dampening):
            raise ValueError(f"dampening must be finite, it is {self.dampening}")
        if self.nesterov and (self.momentum <= 0 or self.dampening != 0):
            raise ValueError("nesterov needs a momentum above 0 and a dampening of 0")

    def slots(self, shape: tuple[int, ...]) -> dict[str, Slot]:
        return {"momentum": Slot(shape)} if self.momentum else {}

    def count(self, now: Counting) -> dict[str, Tensor]:
        first = now.number("whether it is the first", lambda step: eq(step, 0), now.step)
        return {"descent": now.descent, "first": first}

    def update(self, now: Update) -> None:
        descent = now.numbers["descent"]

        def direction(p: Expr, g: Expr) -> Expr:
            return decayed(self.weight_decay, self.maximize, p, g)

        if not self.momentum:
            now.move(lambda p, g, r: fma(direction(p, g), r, p), now.gradient, descent)
            return

        def gather(m: Expr, p: Expr, g: Expr, first: Expr) -> Expr:
            moved = fma(m, self.momentum, direction(p, g) * (1.0 - self.dampening))
            return select(first, direction(p, g), moved) if self.dampening else moved

        def move(p: Expr, m: Expr, g: Expr, r: Expr) -> Expr:
            return fma(fma(m, self.momentum, direction(p, g)) if self.nesterov else m, r, p)

        gathered = now.keep("momentum", gather, now.parameter, now.gradient, now.numbers["first"])
        now.move(move, gathered, now.gradient, descent)


@dataclass(frozen=True)
class Lion(Optimizer):
    """Steps of equal size by the sign of an interpolated momentum, with decoupled weight decay.

    Chen and others, "Symbolic discovery of optimization algorithms", 2023 (arXiv 2302.06675). Raises ValueError for
    values out of range.
    """

    lr: float | Schedule = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    maximize: bool = False

    def __post_init__(self) -> None:
        check(self, "weight_decay")
        check_betas(self.betas)

    def slots(self, shape: tuple[int, ...]) -> dict[str, Slot]:
        return {"momentum": Slot(shape)}

    def count(self, now: Counting) -> dict[str, Tensor]:
        shrink = now.number("shrinkage", lambda lr: fma(lr, -self.weight_decay, 1.0), now.lr)
        return {"descent": now.descent, "shrink": shrink}

    def update(self, now: Update) -> None:
        beta1, beta2 = self.betas

        def toward(m: Expr, g: Expr, beta: float) -> Expr:
            return fma((-g if self.maximize else g) - m, 1.0 - beta, m)

        def move(p: Expr, m: Expr, g: Expr, lr: Expr, descent: Expr, shrink: Expr) -> Expr:
            c = toward(m, g, beta1)
            return fma(p, shrink, select(lt(c, 0), lr, select(lt(0, c), descent, c)))

        numbers = now.lr, now.numbers["descent"], now.numbers["shrink"]
        now.move(move, now.state["momentum"], now.gradient, *numbers)
        now.keep("momentum", lambda m, g: toward(m, g, beta2), now.gradient)
