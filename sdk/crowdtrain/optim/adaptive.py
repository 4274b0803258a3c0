"""Rules that scale each gradient by the sizes of those before it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import Expr, convert, exp, f32, fma, log, maximum, minimum, sqrt
from crowdtrain.lowering.index import Index
from crowdtrain.lowering.tensor import Tensor
from crowdtrain.optim.rule import Counting, Optimizer, Slot, Update, check, decayed
from crowdtrain.optim.schedules import Schedule
from crowdtrain.optim.sums import sum_of_squares

__all__ = ["Adadelta", "Adafactor", "Adagrad", "RMSprop"]

EPS = 2.0**-23
"""Distance from 1 to the next f32."""


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """A decaying mean of squares, as ``torch.optim.RMSprop``. Raises ValueError for values out of range."""

    lr: float | Schedule = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = False
    maximize: bool = False

    def __post_init__(self) -> None:
        check(self, "alpha", "eps", "weight_decay", "momentum")

    def slots(self, shape: tuple[int, ...]) -> dict[str, Slot]:
        names = (
            "square_average",
            *("gradient_average",) * self.centered,
            *("momentum",) * (self.momentum > 0),
        )
        return {name: Slot(shape) for name in names}

    def count(self, now: Counting) -> dict[str, Tensor]:
        return {"descent": now.descent}

    def update(self, now: Update) -> None:
        def direction(p: Expr, g: Expr) -> Expr:
            return decayed(self.weight_decay, self.maximize, p, g)

        def square(s: Expr, p: Expr, g: Expr) -> Expr:
            g = direction(p, g)
            return fma(g * g, 1.0 - self.alpha, s * self.alpha)

        p, g, rest = now.parameter, now.gradient, 1.0 - self.alpha
        averages = [now.keep("square_average", square, p, g)]
        if self.centered:
            averages.append(
                now.keep("gradient_average", lambda a, p, g: fma(direction(p, g) - a, rest, a), p, g)
            )

        def scaled(p: Expr, g: Expr, s: Expr, *mean: Expr) -> Expr:
            variance = fma(-mean[0], mean[0], s) if mean else s
            return direction(p, g) / (sqrt(variance) + self.eps)

        if not self.momentum:
            now.move(lambda p, g, r, *a: fma(scaled(p, g, *a), r, p), g, now.numbers["descent"], *averages)
            return
        moved = now.keep("momentum", lambda m, *v: fma(m, self.momentum, scaled(*v)), p, g, *averages)
        now.move(lambda p, m, r: fma(m, r, p), moved, now.numbers["descent"])


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """A sum of squares, as ``torch.optim.Adagrad``. Raises ValueError for values out of range."""

    lr: float | Schedule = 1e-2
    lr_decay: float = 0.0
    weight_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    eps: float = 1e-10
    maximize: bool = False

    def __post_init__(self) -> None:
        check(self, "lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    def slots(self, shape: tuple[int, ...]) -> dict[str, Slot]:
        return {"square_sum": Slot(shape, self.initial_accumulator_value)}

    def count(self, now: Counting) -> dict[str, Tensor]:
        if not self.lr_decay:
            return {"step_size": now.descent}

        def size(descent: Expr, step: Expr) -> Expr:
            return descent / fma(convert(step, f32), self.lr_decay, 1.0)

        return {"step_size": now.number("step size", size, now.descent, now.step)}

    def update(self, now: Update) -> None:
        def direction(p: Expr, g: Expr) -> Expr:
            return decayed(self.weight_decay, self.maximize, p, g)

        def add(s: Expr, p: Expr, g: Expr) -> Expr:
            g = direction(p, g)
            return fma(g, g, s)

        def move(p: Expr, g: Expr, s: Expr, size: Expr) -> Expr:
            return fma(direction(p, g) / (sqrt(s) + self.eps), size, p)

        total = now.keep("square_sum", add, now.parameter, now.gradient)
        now.move(move, now.gradient, total, now.numbers["step_size"])


@dataclass(frozen=True)
class Adadelta(Optimizer):
    """Means of squares of gradients and of moves, as ``torch.optim.Adadelta``.

    Raises ValueError for values out of range.
    """

    lr: float | Schedule = 1.0
    rho: float = 0.9
    eps: float = 1e-6
    weight_decay: float = 0.0
    maximize: bool = False

    def __post_init__(self) -> None:
        check(self, "rho", "eps", "weight_decay")
        if self.rho > 1:
            raise ValueError(f"rho must be at most 1, it is {self.rho}")

    def slots(self, shape: tuple[int, ...]) -> dict[str, Slot]:
        return {"square_average": Slot(shape), "move_average": Slot(shape)}

    def count(self, now: Counting) -> dict[str, Tensor]:
        return {"descent": now.descent}

    def update(self, now: Update) -> None:
        def direction(p: Expr, g: Expr) -> Expr:
            return decayed(self.weight_decay, self.maximize, p, g)

        def mean(average: Expr, value: Expr) -> Expr:
            return fma(value * value, 1.0 - self.rho, average * self.rho)

        def step(p: Expr, g: Expr, s: Expr, moves: Expr) -> Expr:
            return sqrt(moves + self.eps) / sqrt(s + self.eps) * direction(p, g)

        p, g = now.parameter, now.gradient
        squares = now.keep("square_average", lambda s, p, g: mean(s, direction(p, g)), p, g)
        delta = now.b.stored(now.b.pointwise(step, p, g, squares, now.state["move_average"], what="move"))
        now.keep("move_average", mean, delta)
        now.move(lambda p, d, r: fma(d, r, p), delta, now.numbers["descent"])


@dataclass(frozen=True)
class Adafactor(Optimizer):
    """Second moments of matrices as products of a row and a column, as ``torch.optim.Adafactor``.

    ``lr`` is the greatest relative step. A parameter of more than two dimensions is a stack of matrices; one of
    fewer keeps a whole second moment. Raises ValueError for values out of range.
    """

    lr: float | Schedule = 1e-2
    beta2_decay: float = -0.8
    eps: tuple[float | None, float] = (None, 1e-3)
    d: float = 1.0
    weight_decay: float = 0.0
    maximize: bool = False

    def __post_init__(self) -> None:
        check(self, "weight_decay")
        if not -math.inf < self.beta2_decay <= 0:
            raise ValueError(f"beta2_decay must be at most 0 and finite, it is {self.beta2_decay}")
        for k, value in enumerate(self.eps):
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"eps[{k}] must be at least 0 and below inf, it is {value}")
        if not 1 <= self.d < math.inf:
            raise ValueError(f"d must be at least 1 and below inf, it is {self.d}")

    def slots(self, shape: tuple[int, ...]) -> dict[str, Slot]:
        if len(shape) < 2:
            return {"variance": Slot(shape)}
        return {
            "row_variance": Slot((*shape[:-1], 1)),
            "column_variance": Slot((*shape[:-2], 1, shape[-1])),
        }

    def count(self, now: Counting) -> dict[str, Tensor]:
        def weight(step: Expr) -> Expr:
            return exp(log(convert(step + 1, f32)) * self.beta2_decay)

        return {
            "weight": now.number("weight of the new", weight, now.step),
            "relative": now.number(
                "relative step",
                lambda lr, step: -minimum(lr, 1.0 / sqrt(convert(step + 1, f32))),
                now.lr,
                now.step,
            ),
            "shrink": now.number("shrinkage", lambda lr: fma(lr, -self.weight_decay, 1.0), now.lr),
        }

    def update(self, now: Update) -> None:
        b, p, g = now.b, now.parameter, now.gradient
        least = EPS if self.eps[0] is None else self.eps[0]
        root = math.sqrt(p.size)
        variance = self._factored(now, least) if len(p.shape) > 1 else self._whole(now)

        def scale(g: Expr, *v: Expr) -> Expr:
            estimate = v[0] * v[1] if len(v) == 2 else v[0]
            g = -g if self.maximize else g
            return g / sqrt(maximum(estimate, least * least))

        direction = b.stored(b.pointwise(scale, g, *variance, what="direction"))

        def size(parameter: Expr, moved: Expr, relative: Expr) -> Expr:
            alpha = maximum(sqrt(parameter) * (1.0 / root), self.eps[1]) * relative
            return alpha / maximum(sqrt(moved) * (1.0 / (root * self.d)), 1.0)

        sizes = (
            sum_of_squares(b, p, "size of the parameter"),
            sum_of_squares(b, direction, "size of the move"),
        )
        step = now.number("step size", size, *sizes, now.numbers["relative"])
        now.move(lambda p, u, a, shrink: fma(p, shrink, a * u), direction, step, now.numbers["shrink"])

    def _whole(self, now: Update) -> tuple[Tensor, ...]:
        def mean(v: Expr, g: Expr, weight: Expr) -> Expr:
            return fma(g * g - v, weight, v)

        return (now.keep("variance", mean, now.gradient, now.numbers["weight"]),)

    def _factored(self, now: Update, least: float) -> tuple[Tensor, ...]:
        """Rows, divided by their mean (at least ``least``), and columns: their product is the second moment."""
        g, weight = now.gradient, now.numbers["weight"]
        rows, columns = now.state["row_variance"].shape, now.state["column_variance"].shape

        def mean(v: Expr, total: Expr, weight: Expr, *, count: int) -> Expr:
            return fma(total * (1.0 / count) - v, weight, v)

        def square_sum(shape: tuple[int, ...], over: int, what: str) -> Tensor:
            def square(*i: Index) -> tuple[Expr, Expr]:
                *at, r = i
                at[over] = r
                return g[tuple(at)], g[tuple(at)]

            return now.b.contract(shape, (g.shape[over],), square, f"{what}: sum of squares")

        row = now.keep(
            "row_variance", lambda *v: mean(*v, count=g.shape[-1]), square_sum(rows, -1, "rows"), weight
        )
        column = now.keep(
            "column_variance",
            lambda *v: mean(*v, count=g.shape[-2]),
            square_sum(columns, -2, "columns"),
            weight,
        )
        mean_row = _mean_row(now.b, row, least)
        share = now.b.stored(now.b.pointwise(lambda r, m: r / m, row, mean_row, what="shares of the rows"))
        return share, column


def _mean_row(b: Builder, row: Tensor, least: float) -> Tensor:
    """Mean over the last dimension but one, at least ``least``."""
    count = row.shape[-2]
    total = b.sum(
        (*row.shape[:-2], 1, 1), (count,), lambda *i: row[(*i[:-3], i[-1], i[-2])], "sum of the rows"
    )
    return b.settle(b.pointwise(lambda s: maximum(s * (1.0 / count), least), total, what="mean of the rows"))
