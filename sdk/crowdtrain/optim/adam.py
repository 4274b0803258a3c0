"""Adam and its family: a mean of gradients, scaled by a mean of their sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crowdtrain.lowering.expr import Expr, convert, exp, f32, fabs, fma, lt, maximum, select, sqrt
from crowdtrain.lowering.tensor import Tensor
from crowdtrain.optim.rule import Counting, Optimizer, Slot, Update, check, check_betas, decayed
from crowdtrain.optim.schedules import Schedule

__all__ = ["Adam", "AdamW", "Adamax", "NAdam", "RAdam"]


@dataclass(frozen=True)
class _Moments(Optimizer):
    """What the family shares: both moments, and how far they are from their full weight."""

    lr: float | Schedule = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check(self, "eps", "weight_decay")
        check_betas(self.betas)

    def slots(self, shape: tuple[int, ...]) -> dict[str, Slot]:
        return {"first_moment": Slot(shape), "second_moment": Slot(shape)}

    @property
    def counters(self) -> dict[str, float]:
        return {"bias_correction1": 0.0, "bias_correction2": 0.0}

    def _corrections(self, now: Counting) -> tuple[Tensor, Tensor]:
        """1 - betaᵗ, kept by c ← c · beta + (1 - beta): nothing cancels, so it stays exact to a few ulp."""
        beta1, beta2 = self.betas
        return (
            now.keep("bias_correction1", lambda c: fma(c, beta1, 1.0 - beta1)),
            now.keep("bias_correction2", lambda c: fma(c, beta2, 1.0 - beta2)),
        )

    def _shrinkage(self, now: Counting, decoupled: bool) -> Tensor:
        """What a parameter is multiplied with first."""
        decay = self.weight_decay if decoupled else 0.0
        return now.number("shrinkage", lambda lr: fma(lr, -decay, 1.0), now.lr)

    def _moments(self, now: Update, decay: float, maximize: bool) -> tuple[Tensor, Tensor]:
        beta1, beta2 = self.betas

        def first(m: Expr, p: Expr, g: Expr) -> Expr:
            return fma(decayed(decay, maximize, p, g) - m, 1.0 - beta1, m)

        def second(v: Expr, p: Expr, g: Expr) -> Expr:
            direction = decayed(decay, maximize, p, g)
            return fma(direction * direction, 1.0 - beta2, v * beta2)

        return (
            now.keep("first_moment", first, now.parameter, now.gradient, what="first moment"),
            now.keep("second_moment", second, now.parameter, now.gradient, what="second moment"),
        )


@dataclass(frozen=True)
class Adam(_Moments):
    """Adam as ``torch.optim.Adam``: weight decay is added to the gradient (:class:`AdamW` decouples it).

    Raises ValueError for values out of range.
    """

    amsgrad: bool = False
    maximize: bool = False

    def slots(self, shape: tuple[int, ...]) -> dict[str, Slot]:
        return {**super().slots(shape), **({"max_second_moment": Slot(shape)} if self.amsgrad else {})}

    def count(self, now: Counting) -> dict[str, Tensor]:
        first, second = self._corrections(now)
        return {
            "step_size": now.number("step size", lambda r, c: r / c, now.descent, first),
            "scale": now.number("scale of the second moment", lambda c: 1.0 / sqrt(c), second),
            "shrink": self._shrinkage(now, self._decouples),
        }

    def update(self, now: Update) -> None:
        m, v = self._moments(now, 0.0 if self._decouples else self.weight_decay, self.maximize)
        if self.amsgrad:
            v = now.keep("max_second_moment", maximum, v, what="greatest second moment")

        def move(p: Expr, m: Expr, v: Expr, step_size: Expr, scale: Expr, shrink: Expr) -> Expr:
            return fma(p, shrink, step_size * m / fma(sqrt(v), scale, self.eps))

        now.move(move, m, v, *(now.numbers[name] for name in ("step_size", "scale", "shrink")))

    @property
    def _decouples(self) -> bool:
        return False


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay, as ``torch.optim.AdamW``: p shrinks by lr · weight_decay first."""

    weight_decay: float = 1e-2

    @property
    def _decouples(self) -> bool:
        return True


@dataclass(frozen=True)
class Adamax(Optimizer):
    """Adam with the greatest decayed size in place of the second moment, as ``torch.optim.Adamax``.

    Raises ValueError for values out of range.
    """

    lr: float | Schedule = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    maximize: bool = False

    def __post_init__(self) -> None:
        check(self, "eps", "weight_decay")
        check_betas(self.betas)

    def slots(self, shape: tuple[int, ...]) -> dict[str, Slot]:
        return {"first_moment": Slot(shape), "infinity_norm": Slot(shape)}

    @property
    def counters(self) -> dict[str, float]:
        return {"bias_correction1": 0.0}

    def count(self, now: Counting) -> dict[str, Tensor]:
        beta = self.betas[0]
        correction = now.keep("bias_correction1", lambda c: fma(c, beta, 1.0 - beta))
        return {"step_size": now.number("step size", lambda r, c: r / c, now.descent, correction)}

    def update(self, now: Update) -> None:
        beta1, beta2 = self.betas

        def direction(p: Expr, g: Expr) -> Expr:
            return decayed(self.weight_decay, self.maximize, p, g)

        m = now.keep(
            "first_moment",
            lambda m, p, g: fma(direction(p, g) - m, 1.0 - beta1, m),
            now.parameter,
            now.gradient,
        )
        u = now.keep(
            "infinity_norm",
            lambda u, p, g: maximum(fabs(direction(p, g)) + self.eps, u * beta2),
            now.parameter,
            now.gradient,
        )
        now.move(lambda p, m, u, size: fma(m / u, size, p), m, u, now.numbers["step_size"])


@dataclass(frozen=True)
class NAdam(_Moments):
    """Adam with Nesterov momentum, as ``torch.optim.NAdam``. Raises ValueError for values out of range."""

    lr: float | Schedule = 2e-3
    momentum_decay: float = 4e-3
    decoupled_weight_decay: bool = False
    maximize: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "momentum_decay")

    @property
    def counters(self) -> dict[str, float]:
        return {**super().counters, "momentum_product": 1.0}

    def count(self, now: Counting) -> dict[str, Tensor]:
        _, second = self._corrections(now)
        rate = self.momentum_decay * math.log(0.96)

        def momentum(after: int) -> Tensor:
            def at(step: Expr) -> Expr:
                return (1.0 - 0.5 * exp(convert(step + after, f32) * rate)) * self.betas[0]

            return now.number("momentum", at, now.step)

        mu, following = momentum(1), momentum(2)
        product = now.keep("momentum_product", lambda p, mu: p * mu, mu)
        of_gradient = now.number(
            "step size of the gradient", lambda r, mu, p: r * (1.0 - mu) / (1.0 - p), now.descent, mu, product
        )
        of_moment = now.number(
            "step size of the moment",
            lambda r, mu, p: r * mu / (1.0 - p * mu),
            now.descent,
            following,
            product,
        )
        return {
            "gradient_size": of_gradient,
            "moment_size": of_moment,
            "scale": now.number("scale of the second moment", lambda c: 1.0 / sqrt(c), second),
            "shrink": self._shrinkage(now, self.decoupled_weight_decay),
        }

    def update(self, now: Update) -> None:
        decay = 0.0 if self.decoupled_weight_decay else self.weight_decay
        m, v = self._moments(now, decay, self.maximize)
        numbers = [now.numbers[name] for name in ("gradient_size", "moment_size", "scale", "shrink")]

        def move(
            p: Expr, g: Expr, m: Expr, v: Expr, size_g: Expr, size_m: Expr, scale: Expr, shrink: Expr
        ) -> Expr:
            direction = fma(size_m, m, size_g * decayed(decay, self.maximize, p, g))
            return fma(p, shrink, direction / fma(sqrt(v), scale, self.eps))

        now.move(move, now.gradient, m, v, *numbers)


@dataclass(frozen=True)
class RAdam(_Moments):
    """Adam whose first steps have a rectified variance, as ``torch.optim.RAdam``.

    Raises ValueError for values out of range.
    """

    decoupled_weight_decay: bool = False
    maximize: bool = False

    @property
    def counters(self) -> dict[str, float]:
        return {**super().counters, "weight_sum": 0.0, "age_sum": 0.0}

    def count(self, now: Counting) -> dict[str, Tensor]:
        """The length of the approximated average is 2 · mean age of a gradient - 1, which is never subtracted
        from its limit: the sum of weights 1 + beta2 + …, and that of their ages, are counters.
        """
        first, second = self._corrections(now)
        beta2 = self.betas[1]
        limit = 2.0 / (1.0 - beta2) - 1.0
        weights = now.keep("weight_sum", lambda w: fma(w, beta2, 1.0))
        ages = now.keep("age_sum", lambda a, w: fma(a, beta2, w), weights)
        length = now.number("length of the average", lambda a, w: fma(a / w, 2.0, -1.0), ages, weights)

        share = (
            limit / ((limit - 4.0) * (limit - 2.0)) if limit > 5 else 0.0
        )  # the average stays below its limit

        def rectify(rho: Expr) -> Expr:
            return sqrt((rho - 4.0) * (rho - 2.0) / rho * share)

        adapts = now.number("whether it adapts", lambda rho: lt(5.0, rho), length)
        adaptive = now.number(
            "rectified scale",
            lambda rho, c: select(lt(5.0, rho), rectify(rho) * sqrt(c), 1.0),
            length,
            second,
        )
        return {
            "step_size": now.number("step size", lambda r, c, a: r / c * a, now.descent, first, adaptive),
            "scale": now.number("scale of the second moment", lambda a: select(a, 1.0, 0.0), adapts),
            "rest": now.number("what is added to it", lambda a: select(a, self.eps, 1.0), adapts),
            "shrink": self._shrinkage(now, self.decoupled_weight_decay),
        }

    def update(self, now: Update) -> None:
        decay = 0.0 if self.decoupled_weight_decay else self.weight_decay
        m, v = self._moments(now, decay, self.maximize)

        def move(p: Expr, m: Expr, v: Expr, step_size: Expr, scale: Expr, rest: Expr, shrink: Expr) -> Expr:
            return fma(p, shrink, step_size * m / fma(sqrt(v), scale, rest))

        now.move(move, m, v, *(now.numbers[name] for name in ("step_size", "scale", "rest", "shrink")))
