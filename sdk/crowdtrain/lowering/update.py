"""What a training step does with its gradients: accumulation, clipping, optimizers, averaging."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from crowdtrain_engine import DType, TensorType

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.errors import InvalidOption
from crowdtrain.lowering.expr import Expr, divide, eq, fma, maximum, minimum, select, sqrt
from crowdtrain.lowering.tensor import Tensor
from crowdtrain.optim.averaging import EMA
from crowdtrain.optim.rule import Counting, Optimizer, Slot, Update
from crowdtrain.optim.schedules import Schedule
from crowdtrain.optim.sums import sum_of_squares

if TYPE_CHECKING:
    import torch

__all__ = [
    "GRADIENTS", "Optimizers", "Rule", "Selector", "Training", "TrainingOptions", "accumulated",
    "assigned", "clipped", "keep_loss", "total_squares",
]  # fmt: skip

Selector = str | Callable[[str, Any], bool]
"""Which parameters: a name with wildcards, or a predicate of name and parameter."""

Rule = tuple[Selector | Sequence[Selector], Optimizer]
Optimizers = Optimizer | Sequence[Rule]
"""One for all parameters, or several, each after what selects its parameters: the first that does takes one."""

GRADIENTS, AVERAGE = "gradients", "average"
_SUM = 12
"""Numbers that are added in one nest."""


@dataclass(frozen=True)
class TrainingOptions:
    """Arguments of ``lower`` that concern the update; raises InvalidOption for values that make no sense."""

    optimizer: Optimizers
    clip_grad_norm: float | None = None
    clip_grad_value: float | None = None
    accumulate: int = 1
    average: EMA | None = None

    def __post_init__(self) -> None:
        for name in ("clip_grad_norm", "clip_grad_value"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 < value < math.inf):
                raise InvalidOption(f"{name} must be a number above 0 and below inf, it is {value!r}")
        if not isinstance(self.accumulate, int) or not 1 <= self.accumulate < 2**31:
            raise InvalidOption(
                f"accumulate must be a whole number of steps, 1 or more, it is {self.accumulate!r}"
            )
        if self.average is not None and not isinstance(self.average, EMA):
            raise InvalidOption(f"average must be an optim.EMA, it is {self.average!r}")


_WANTED = "optimizer must be an optimizer or a list of (selector, optimizer)"
Parameters = Mapping[str, "torch.nn.Parameter"]


def assigned(optimizers: Optimizers, trained: Parameters) -> list[tuple[Optimizer, list[str]]]:
    """Each optimizer with the names of the parameters that it takes, out of those that are trained.

    Raises InvalidOption if a parameter is taken by none, or a selector or an optimizer takes nothing.
    """
    if isinstance(optimizers, Optimizer):
        return [(optimizers, list(trained))]
    if not isinstance(optimizers, list | tuple):
        raise InvalidOption(f"{_WANTED}, it is {optimizers!r}")
    if not trained:
        return []
    left = dict(trained)
    taken: list[tuple[Optimizer, list[str]]] = []
    for rule in optimizers:
        selectors, optimizer = _checked_rule(rule)
        chosen: set[str] = set()
        for selector in selectors:
            matching = {name for name, tensor in trained.items() if _selects(selector, name, tensor)}
            if not matching:
                raise InvalidOption(
                    f"{_shown(selector)} selects no trainable parameter; they are {_list(trained)}"
                )
            chosen |= matching
        names = [name for name in left if name in chosen]
        if not names:
            raise InvalidOption(
                f"optimizers before it take all that {', '.join(map(_shown, selectors))} selects; leave it out"
            )
        taken.append((optimizer, names))
        left = {name: tensor for name, tensor in left.items() if name not in chosen}
    if left:
        raise InvalidOption(f'no optimizer takes {_list(left)}; end the list with ("*", optimizer)')
    return taken


def _checked_rule(rule: Any) -> tuple[list[Selector], Optimizer]:
    if not isinstance(rule, tuple) or len(rule) != 2 or not isinstance(rule[1], Optimizer):
        raise InvalidOption(f"{_WANTED}; {rule!r} is in the list")
    selectors = list(rule[0]) if isinstance(rule[0], list | tuple) else [rule[0]]
    if not selectors or not all(isinstance(s, str) or callable(s) for s in selectors):
        raise InvalidOption(f"a selector is a name with wildcards or a function, not {rule[0]!r}")
    return selectors, rule[1]


def _selects(selector: Selector, name: str, tensor: torch.nn.Parameter) -> bool:
    return fnmatchcase(name, selector) if isinstance(selector, str) else bool(selector(name, tensor))


def _shown(selector: Selector) -> str:
    return repr(selector) if isinstance(selector, str) else getattr(selector, "__name__", repr(selector))


def _list(names: Mapping[str, object], most: int = 5) -> str:
    shown = list(names)[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


Tensors = Mapping[str, Tensor]
State = Mapping[str, Tensors]


class Training:
    """What a training step is for: to log the loss, and to bring parameters and optimizers up to date."""

    def __init__(self, options: TrainingOptions, trained: Parameters) -> None:
        """``trained`` are the parameters that require a gradient.

        Raises InvalidOption if the optimizers are not for these parameters.
        """
        self._options = options
        self._rules = assigned(options.optimizer, trained)
        self._slots: dict[str, dict[str, Slot]] = {}
        """slots of each parameter"""
        for optimizer, names in self._rules:
            for name in names:
                try:
                    self._slots[name] = optimizer.slots(tuple(trained[name].shape))
                except ValueError as error:
                    raise InvalidOption(f"parameter {name}: {error}") from error

    def groups(
        self, moved: Mapping[str, tuple[int, ...]]
    ) -> Iterator[tuple[str, str, TensorType, float | None]]:
        """Group, name and type of each state tensor besides the counters; the number that fills it at first, None
        for the parameter's own values. ``moved``: the parameters that have a gradient, with their shapes.
        """
        for kind in dict.fromkeys(slot for slots in self._slots.values() for slot in slots):
            for name in moved:
                slot = self._slots[name].get(kind)
                if slot is not None:
                    yield kind, name, TensorType(DType.f32, slot.shape), slot.initial
        for name, shape in moved.items() if self._options.accumulate > 1 else ():
            yield GRADIENTS, name, TensorType(DType.f32, shape), 0.0
        for name, shape in moved.items() if self._options.average else ():
            yield AVERAGE, name, TensorType(DType.f32, shape), None

    @property
    def counters(self) -> dict[str, float]:
        """The loss of the last step, and the optimizers' own."""
        return {"loss": 0.0, **self.own_counters}

    @property
    def own_counters(self) -> dict[str, float]:
        """The optimizers' own."""
        return {
            self._counter(k, name): initial
            for k, (optimizer, _) in enumerate(self._rules)
            for name, initial in optimizer.counters.items()
        }

    def _counter(self, number: int, name: str) -> str:
        return name if len(self._rules) == 1 else f"{name}.{number}"

    def build(self, b: Builder, state: State, results: Sequence[Tensor], gradients: Tensors) -> None:
        """The nests that keep the loss, and update."""
        keep_loss(b, state, results[0])
        self.update(b, state, gradients)

    def update(
        self, b: Builder, state: State, gradients: Tensors, squares: Sequence[Tensor] | None = None
    ) -> None:
        """The nests that bring parameters, slots, counters and averages up to date.

        What concerns one parameter is elementwise and comes together, so that it can be done in one pass. ``squares``
        add up to the squared norm of all gradients, if there are more than these.
        """
        counters = state["counters"]
        step, chosen = self._updates(b, counters["step"])
        gradients = {name: b.settle(gradient) for name, gradient in gradients.items()}
        prepare = self._preparation(b, state.get(GRADIENTS, {}), gradients, chosen, squares)
        average = self._averaging(b, state.get(AVERAGE, {}), step)
        rates: dict[Schedule, Tensor] = {}
        for number, (optimizer, names) in enumerate(self._rules):
            with b.label("optimizer"):
                rate = _rate(b, optimizer.lr, step, rates)
                mine = {name: counters[self._counter(number, name)] for name in optimizer.counters}
                counting = Counting(b, mine, chosen, step, rate)
                numbers = optimizer.count(counting)
            for name, tensor in counting.new.items():
                b.next(mine[name], tensor)
            for name in (name for name in names if name in gradients):
                slots = {slot: state[slot][name] for slot in self._slots[name]}
                with b.label(f"optimizer: {name}"):
                    update = Update(counting, state["parameters"][name], prepare(name), slots, numbers)
                    optimizer.update(update)
                    average(name, update)
                for slot, tensor in update.new.items():
                    b.next(update.state[slot], tensor)

    def _updates(self, b: Builder, step: Tensor) -> tuple[Tensor, Tensor | None]:
        """Number of updates made before, and whether there is one in this step (None: in every step)."""
        every = self._options.accumulate
        if every == 1:
            return step, None
        with b.label("counters"):
            updates = b.settle(b.pointwise(lambda s: divide(s, every), step, what="updates"))
            chosen = b.pointwise(
                lambda s, u: eq(s + 1, (u + 1) * every), step, updates, what="whether to update"
            )
            return updates, b.settle(chosen)

    def _preparation(
        self,
        b: Builder,
        sums: Tensors,
        gradients: Tensors,
        chosen: Tensor | None,
        squares: Sequence[Tensor] | None,
    ) -> Callable[[str], Tensor]:
        """From a parameter's name to its gradient, accumulated and clipped. What all gradients decide comes first."""
        bound, most = self._options.clip_grad_value, self._options.clip_grad_norm

        def total(name: str) -> Tensor:
            gradient = gradients[name]
            if chosen is not None:
                gradient = self._accumulated(b, sums[name], gradient, chosen)
            return clipped(b, gradient, bound)

        if most is None:
            return total
        totals = {}
        for name in gradients:
            with b.label(f"gradient: {name}"):
                totals[name] = total(name)
        with b.label("clipping"):
            scale = _norm_scale(b, total_squares(b, totals) if squares is None else _total(b, squares), most)
        return lambda name: b.stored(
            b.pointwise(lambda g, s: g * s, totals[name], scale, what="clipped gradient")
        )

    def _accumulated(self, b: Builder, before: Tensor, gradient: Tensor, chosen: Tensor) -> Tensor:
        total = accumulated(b, before, gradient, self._options.accumulate)
        following = b.pointwise(lambda t, c: select(c, 0.0, t), total, chosen, what="next sum")
        b.next(before, b.stored(following))
        return total

    def _averaging(self, b: Builder, averages: Tensors, step: Tensor) -> Callable[[str, Update], None]:
        """What keeps the average of a parameter whose update is done."""
        average = self._options.average
        if average is None:
            return lambda name, update: None
        rest = 1.0 - average.decay
        with b.label("average"):
            weight = b.settle(
                b.pointwise(lambda s: select(eq(s, 0), 1.0, rest), step, what="weight of the parameters")
            )

        def move(name: str, update: Update) -> None:
            mean, parameter = averages[name], update.new["parameter"]
            b.next(
                mean, update.kept(mean, lambda a, p, w: fma(p - a, w, a), parameter, weight, what="average")
            )

        return move


def _rate(b: Builder, lr: float | Schedule, step: Tensor, known: dict[Schedule, Tensor]) -> Tensor:
    """The learning rate of this update, stored if it is not always the same."""
    if not isinstance(lr, Schedule):
        return b.constant(lr)
    if lr not in known:
        known[lr] = b.settle(b.pointwise(lr.at, step, what="learning rate"))
    return known[lr]


def keep_loss(b: Builder, state: State, loss: Tensor) -> None:
    """The nests that log the loss, and keep it in the state."""
    loss = b.number(loss)
    b.next(state["counters"]["loss"], loss)
    b.log("loss", loss)


def accumulated(b: Builder, before: Tensor, gradient: Tensor, parts: int) -> Tensor:
    """A sum of gradients with one more of so many, each divided by their number."""
    share = 1.0 / parts
    return b.stored(b.pointwise(lambda a, g: fma(g, share, a), before, gradient, what="sum"))


def clipped(b: Builder, gradient: Tensor, bound: float | None) -> Tensor:
    """A gradient whose elements are within ``bound``."""
    if bound is None:
        return gradient
    return b.stored(
        b.pointwise(lambda g: maximum(minimum(g, bound), -bound), gradient, what="clipped gradient")
    )


def total_squares(b: Builder, gradients: Tensors) -> Tensor:
    """The squared norm of all gradients together."""
    return _total(b, [sum_of_squares(b, g, f"norm of {name}") for name, g in gradients.items()])


def _total(b: Builder, sums: Sequence[Tensor]) -> Tensor:
    while len(sums) > 1:
        parts = [sums[i : i + _SUM] for i in range(0, len(sums), _SUM)]
        sums = [b.stored(b.pointwise(_added, *part, what="sum of squares")) for part in parts]
    return sums[0]


def _norm_scale(b: Builder, squares: Tensor, most: float) -> Tensor:
    """What every gradient is multiplied with, so that their common norm is at most ``most``."""

    def scale(total: Expr) -> Expr:
        return minimum(most / (sqrt(total) + 1e-6), 1.0)

    return b.stored(b.pointwise(scale, squares, what="scale"))


def _added(*terms: Expr) -> Expr:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
