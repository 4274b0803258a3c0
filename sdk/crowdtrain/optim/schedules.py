"""Learning rates that change while a program runs, computed inside it from the number of updates made before.

Formulas and names are those of ``torch.optim.lr_scheduler`` in closed form, with the optimizer's rate as the first
argument: ``AdamW(lr=StepLR(1e-3, step_size=30))``. Raises ValueError for values that make no schedule.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from crowdtrain.lowering.expr import Expr, const, convert, divide, exp, f32, fma, lt, minimum, select

__all__ = [
    "ConstantLR",
    "ExponentialLR",
    "LinearLR",
    "MultiStepLR",
    "Schedule",
    "SequentialLR",
    "StepLR",
]

MILESTONES = 24
"""Most milestones of one schedule: it must fit into one nest."""


class Schedule(ABC):
    """A learning rate for each update."""

    @abstractmethod
    def at(self, step: Expr) -> Expr:
        """The rate of update number ``step`` (u32, the first is 0; below 2^31), as f32."""


def _check_rate(value: float, name: str = "lr") -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be at least 0 and below inf, it is {value}")


def _check_count(value: int, name: str) -> None:
    if not isinstance(value, int) or not 0 < value < 2**31:
        raise ValueError(f"{name} must be a whole number from 1 to 2^31 - 1, it is {value}")


def _check_gamma(gamma: float) -> None:
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma must be above 0 and below inf, it is {gamma}")


def _check_milestones(milestones: Sequence[int]) -> None:
    for milestone in milestones:
        _check_count(milestone, "a milestone")
    if list(milestones) != sorted(set(milestones)) or not 0 < len(milestones) <= MILESTONES:
        raise ValueError(
            f"milestones must be 1 to {MILESTONES} ascending numbers, they are {tuple(milestones)}"
        )


def _power(gamma: float, count: Expr) -> Expr:
    """gamma to a whole number."""
    return exp(convert(count, f32) * math.log(gamma))


@dataclass(frozen=True)
class ConstantLR(Schedule):
    """``lr · factor`` for ``total_iters`` updates, then ``lr``."""

    lr: float
    factor: float = 1 / 3
    total_iters: int = 5

    def __post_init__(self) -> None:
        _check_rate(self.lr)
        _check_rate(self.factor, "factor")
        _check_count(self.total_iters, "total_iters")

    def at(self, step: Expr) -> Expr:
        return select(lt(step, self.total_iters), self.lr * self.factor, const(self.lr))


@dataclass(frozen=True)
class LinearLR(Schedule):
    """From ``lr · start_factor`` to ``lr · end_factor`` in ``total_iters`` updates, on a line."""

    lr: float
    start_factor: float = 1 / 3
    end_factor: float = 1.0
    total_iters: int = 5

    def __post_init__(self) -> None:
        _check_rate(self.lr)
        _check_rate(self.start_factor, "start_factor")
        _check_rate(self.end_factor, "end_factor")
        _check_count(self.total_iters, "total_iters")

    def at(self, step: Expr) -> Expr:
        done = convert(minimum(step, self.total_iters), f32)
        slope = self.lr * (self.end_factor - self.start_factor) / self.total_iters
        return fma(done, slope, self.lr * self.start_factor)


@dataclass(frozen=True)
class StepLR(Schedule):
    """Multiplied by ``gamma`` every ``step_size`` updates."""

    lr: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _check_rate(self.lr)
        _check_count(self.step_size, "step_size")
        _check_gamma(self.gamma)

    def at(self, step: Expr) -> Expr:
        return _power(self.gamma, divide(step, self.step_size)) * self.lr


@dataclass(frozen=True)
class MultiStepLR(Schedule):
    """Multiplied by ``gamma`` at each of ``milestones``, ascending numbers of updates."""

    lr: float
    milestones: tuple[int, ...]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _check_rate(self.lr)
        _check_milestones(self.milestones)
        _check_gamma(self.gamma)

    def at(self, step: Expr) -> Expr:
        rate: Expr = const(self.lr * self.gamma ** len(self.milestones))
        for k, milestone in reversed(list(enumerate(self.milestones))):
            rate = select(lt(step, milestone), self.lr * self.gamma**k, rate)
        return rate


@dataclass(frozen=True)
class ExponentialLR(Schedule):
    """Multiplied by ``gamma`` after every update."""

    lr: float
    gamma: float

    def __post_init__(self) -> None:
        _check_rate(self.lr)
        _check_gamma(self.gamma)

    def at(self, step: Expr) -> Expr:
        return _power(self.gamma, step) * self.lr


@dataclass(frozen=True)
class SequentialLR(Schedule):
    """``schedules`` one after another: the next begins, from its own start, at each of ``milestones``."""

    schedules: tuple[Schedule, ...]
    milestones: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_milestones(self.milestones)
        if len(self.schedules) != len(self.milestones) + 1:
            raise ValueError(
                f"{len(self.schedules)} schedules need {len(self.schedules) - 1} milestones, "
                f"there are {len(self.milestones)}"
            )

    def at(self, step: Expr) -> Expr:
        starts = (0, *self.milestones)
        rate = self.schedules[-1].at(step - starts[-1])
        for k in reversed(range(len(self.milestones))):
            rate = select(lt(step, self.milestones[k]), self.schedules[k].at(step - starts[k]), rate)
        return rate
