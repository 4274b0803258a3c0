"""Learning rates that change while a program runs, computed inside it from the number of updates made before.

Formulas and names are those of ``torch.optim.lr_scheduler`` in closed form, with the optimizer's rate as the first
argument: ``AdamW(lr=StepLR(1e-3, step_size=30))``. Raises ValueError for values that make no schedule.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from crowdtrain.lowering.expr import (
    Expr,
    const,
    convert,
    divide,
    exp,
    f32,
    fma,
    lt,
    minimum,
    select,
    sin,
)

__all__ = [
    "ConstantLR",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "Schedule",
    "SequentialLR",
    "StepLR",
    "warmup_cosine",
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


def _between(first: float, last: float, left: Expr) -> Expr:
    """From ``first`` to ``last``, on the falling half of a cosine of which the part ``left`` is still to come."""
    half = sin(left * (math.pi / 2))  # (1 - cos 2x) / 2, without cancellation
    return fma(half * half, first - last, last)


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
class CosineAnnealingLR(Schedule):
    """From ``lr`` to ``eta_min`` in ``T_max`` updates on half a cosine, which then goes on upward and back."""

    lr: float
    T_max: int
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        _check_rate(self.lr)
        _check_count(self.T_max, "T_max")
        _check_rate(self.eta_min, "eta_min")

    def at(self, step: Expr) -> Expr:
        return _between(self.lr, self.eta_min, (float(self.T_max) - convert(step, f32)) / float(self.T_max))


@dataclass(frozen=True)
class OneCycleLR(Schedule):
    """Up from ``max_lr / div_factor`` to ``max_lr``, and down to ``max_lr / div_factor / final_div_factor``.

    With ``three_phase`` the way down is first a mirror of the way up. Only the learning rate moves (as with
    ``cycle_momentum=False``); after ``total_steps`` updates it stays where it is.
    Smith and Topin, "Super-convergence", 2017 (arXiv 1708.07120).
    """

    max_lr: float
    total_steps: int
    pct_start: float = 0.3
    anneal_strategy: str = "cos"
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    three_phase: bool = False

    def __post_init__(self) -> None:
        _check_rate(self.max_lr, "max_lr")
        _check_count(self.total_steps, "total_steps")
        if not 0 <= self.pct_start <= 1:
            raise ValueError(f"pct_start must be from 0 to 1, it is {self.pct_start}")
        if self.anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be 'cos' or 'linear', it is {self.anneal_strategy!r}")
        for name in ("div_factor", "final_div_factor"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and below inf, it is {getattr(self, name)}")

    def _phases(self) -> list[tuple[float, float, float, float]]:
        """First and last update, first and last rate of each phase."""
        first, top = self.max_lr / self.div_factor, self.max_lr
        least, end = first / self.final_div_factor, self.total_steps - 1.0
        turn = self.pct_start * self.total_steps
        ways = [(turn - 1, first, top), (end, top, least)]
        if self.three_phase:
            ways = [(turn - 1, first, top), (2 * turn - 2, top, first), (end, first, least)]
        starts = [0.0, *(way[0] for way in ways)]
        return [(start, *way) for start, way in zip(starts, ways, strict=False) if way[0] > start]

    def at(self, step: Expr) -> Expr:
        now = convert(minimum(step, self.total_steps - 1), f32)
        rate: Expr = const(self.max_lr)
        for k, (start, end, first, last) in reversed(list(enumerate(phases := self._phases()))):
            left = (end - now) * (1.0 / (end - start))
            moved = (
                _between(first, last, left)
                if self.anneal_strategy == "cos"
                else fma(left, first - last, last)
            )
            rate = moved if k == len(phases) - 1 else select(lt(end, now), rate, moved)
        return rate


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


def warmup_cosine(
    lr: float, *, warmup: int, total: int, start_factor: float = 0.0, eta_min: float = 0.0
) -> SequentialLR:
    """From ``lr · start_factor`` up to ``lr`` in ``warmup`` updates, then down to ``eta_min`` at update ``total``,
    on half a cosine; it stays there.
    """
    _check_count(warmup, "warmup")
    if not warmup < total:
        raise ValueError(f"total must be above warmup, it is {total} and warmup is {warmup}")
    up = LinearLR(lr, start_factor, total_iters=warmup)
    down = CosineAnnealingLR(lr, total - warmup, eta_min)
    return SequentialLR((up, down, ConstantLR(eta_min, 1.0)), (warmup, total))
