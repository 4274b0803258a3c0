"""What an optimizer is to lowering: slots, counters, and rules that write their next values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import Expr, fma, select
from crowdtrain.lowering.tensor import Tensor
from crowdtrain.optim.schedules import Schedule

__all__ = ["Counting", "Optimizer", "Slot", "Update", "check", "check_betas", "decayed"]

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Slot:
    """A state tensor that belongs to one parameter: its shape, and the number that fills it at first."""

    shape: tuple[int, ...]
    initial: float = 0.0


class Counting:
    """State being brought up to date: the numbers that all parameters of an optimizer share.

    ``step`` (u32) is the number of updates made before, ``lr`` the learning rate of this one.
    """

    def __init__(self, b: Builder, state: Tensors, chosen: Tensor | None, step: Tensor, lr: Tensor) -> None:
        self.b = b
        self.state = state
        """as it was before the step"""
        self.new: dict[str, Tensor] = {}
        """as it is afterwards, so far"""
        self.step = step
        self.lr = lr
        self._chosen = chosen

    def keep(self, name: str, function: Callable[..., Expr], *others: Tensor, what: str = "") -> Tensor:
        """The next value of ``state[name]``: ``function`` of its elements and those of ``others``, stored.

        In a step without an update it stays as it was, and what is computed from it is not kept either.
        """
        self.new[name] = self.kept(self.state[name], function, *others, what=what or name)
        return self.new[name]

    def kept(self, old: Tensor, function: Callable[..., Expr], *others: Tensor, what: str) -> Tensor:
        """As :meth:`keep`, for state that is none of the optimizer's own."""
        if self._chosen is None:
            return self.b.stored(self.b.pointwise(function, old, *others, what=what))

        def chosen(before: Expr, now: Expr, *rest: Expr) -> Expr:
            return select(now, function(before, *rest), before)

        return self.b.stored(self.b.pointwise(chosen, old, self._chosen, *others, what=what))

    @property
    def descent(self) -> Tensor:
        """-lr: what a direction is multiplied with, and added to the parameter in one rounding."""
        return self.number("descent", lambda lr: -lr, self.lr)

    def number(self, what: str, function: Callable[..., Expr], *others: Tensor) -> Tensor:
        """``function`` of single numbers: a constant if they are, stored otherwise."""
        return self.b.settle(self.b.pointwise(function, *others, what=what))


class Update(Counting):
    """One parameter and its slots being brought up to date.

    ``numbers`` are those of :meth:`Optimizer.count`. ``state`` holds the slots and, as ``"parameter"``, the
    parameter.
    """

    def __init__(
        self, counting: Counting, parameter: Tensor, gradient: Tensor, slots: Tensors, numbers: Tensors
    ) -> None:
        state = {"parameter": parameter, **slots}
        super().__init__(counting.b, state, counting._chosen, counting.step, counting.lr)
        self.parameter = parameter
        self.gradient = gradient
        self.numbers = numbers

    def move(self, function: Callable[..., Expr], *others: Tensor) -> None:
        """The next parameter: ``function`` of its elements and those of ``others``."""
        self.keep("parameter", function, *others, what="update")


class Optimizer(ABC):
    """A rule that moves parameters against their gradients.

    ``lr`` is a number or a schedule.
    """

    lr: float | Schedule

    def slots(self, shape: tuple[int, ...]) -> dict[str, Slot]:
        """State tensors for a parameter of this shape, by name; each name is a group of the program's state.

        Raises ValueError if the rule is not for parameters of this shape.
        """
        return {}

    @property
    def counters(self) -> dict[str, float]:
        """Single f32 numbers that all parameters share, and their first values."""
        return {}

    def count(self, now: Counting) -> dict[str, Tensor]:
        """Brings the counters up to date; what :meth:`update` needs for every parameter."""
        return {}

    @abstractmethod
    def update(self, now: Update) -> None:
        """Brings one parameter and its slots up to date."""


def check(optimizer: Optimizer, *names: str) -> None:
    """Raises ValueError unless ``lr`` and these options are finite numbers of at least 0."""
    for name in ("lr", *names):
        value = getattr(optimizer, name)
        if not isinstance(value, Schedule) and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be at least 0 and below inf, it is {value}")


def check_betas(betas: tuple[float, float]) -> None:
    """Raises ValueError unless both lie from 0 to below 1."""
    for k, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"betas[{k}] must be at least 0 and below 1, it is {beta}")


def decayed(weight_decay: float, maximize: bool, p: Expr, g: Expr) -> Expr:
    """The gradient with weight decay as a penalty."""
    g = -g if maximize else g
    return fma(p, weight_decay, g) if weight_decay else g
