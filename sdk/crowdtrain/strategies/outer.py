"""Outer optimizers: how the model moves by the workers' mean change."""

from __future__ import annotations

from dataclasses import dataclass

from crowdtrain.lowering.expr import Expr, divide, eq, fma, select
from crowdtrain.lowering.tensor import Tensor
from crowdtrain.optim import SGD
from crowdtrain.optim.rule import Counting, Optimizer, Slot, Update, check
from crowdtrain.optim.schedules import Schedule

__all__ = ["DelayedNesterov", "outer_optimizer"]


@dataclass(frozen=True)
class DelayedNesterov(Optimizer):
    """Nesterov momentum that is brought up to date only at every ``every``-th merge, by the mean of the changes since.

    Between, the model moves by each change as it comes. For merges that take few workers at a time: with plain
    momentum each of them would push the model in its own direction for long. Liu and others, "Asynchronous Local-SGD
    training for language modeling", 2024 (arXiv 2401.09135), algorithm 3, with c = 0. Raises ValueError for values out
    of range.
    """

    lr: float | Schedule = 0.7
    momentum: float = 0.9
    every: int = 4

    def __post_init__(self) -> None:
        check(self, "momentum")
        if not 1 <= self.every < 2**31:
            raise ValueError(f"every must be at least 1, it is {self.every}")

    def slots(self, shape: tuple[int, ...]) -> dict[str, Slot]:
        return {"momentum": Slot(shape), "gathered": Slot(shape)}

    def count(self, now: Counting) -> dict[str, Tensor]:
        def last(step: Expr) -> Expr:
            following = step + 1
            return eq(divide(following, self.every) * self.every, following)

        turns = now.number("whether the momentum turns", last, now.step)
        return {"descent": now.descent, "turns": turns}

    def update(self, now: Update) -> None:
        share, turns, descent = 1.0 / self.every, now.numbers["turns"], now.numbers["descent"]
        gradient, gathered = now.gradient, now.state["gathered"]

        def turn(m: Expr, sum_: Expr, g: Expr, t: Expr) -> Expr:
            return select(t, fma(m, self.momentum, (sum_ + g) * share), m)

        def move(p: Expr, m: Expr, g: Expr, t: Expr, down: Expr) -> Expr:
            return fma(fma(m, select(t, self.momentum, 0.0), g * share), down, p)

        momentum = now.keep("momentum", turn, gathered, gradient, turns)
        now.keep("gathered", lambda sum_, g, t: select(t, 0.0, sum_ + g), gradient, turns)
        now.move(move, momentum, gradient, turns, descent)


def outer_optimizer(rounds: int) -> Optimizer:
    """The outer optimizer that DiLoCo uses for so many rounds.

    The paper's rate of 0.7 and Nesterov momentum of 0.9 need hundreds of rounds to get going; with few they leave the
    model behind that of one worker. Up to 125 rounds the whole change and a momentum of 0.5 kept more
    (``docs/STRATEGIES.md``); below 8 rounds the outer step is a plain mean.
    """
    return SGD(lr=1.0) if rounds < 8 else SGD(lr=1.0, momentum=0.5, nesterov=True)
