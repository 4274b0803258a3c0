"""``crowdtrain.lower_evaluation``: from a model and metrics to the program of one evaluation step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from crowdtrain_engine import DType, TensorType

from crowdtrain._training import LoweredProgram
from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.errors import InvalidOption
from crowdtrain.lowering.step import step_program
from crowdtrain.lowering.tensor import Tensor
from crowdtrain.lowering.trace import trace_evaluation

__all__ = ["lower_evaluation"]

TOTALS = "totals"


def lower_evaluation(
    model: torch.nn.Module,
    metrics: Mapping[str, Callable[[Any, Any], torch.Tensor]],
    *,
    example: tuple[Any, Any],
    keep_mode: bool = False,
    seed: int = 0,
) -> LoweredProgram:
    """The program that measures ``model`` on one batch: forward only, as after ``model.eval()``.

    Each of ``metrics`` is a function of output and targets that gives one number. With ``keep_mode`` every module stays
    in the mode in which it is. ``example``, ``seed`` and the data are those of :func:`lower`.

    State: groups ``parameters`` and ``buffers`` (if any) with the names and types that a training program of the same
    model has, so that they can come from its state; ``totals``, the sum of each metric over the steps so far;
    ``counters`` (``step``, so that a mean is total / step) and ``constants`` (if any). Logs: the metrics of each step.

    Raises InvalidOption for no metrics, and otherwise what :func:`lower` raises.
    """
    if not metrics or not all(callable(metric) for metric in metrics.values()):
        raise InvalidOption("metrics must be functions by their names, at least one")
    with _mode(model, keep=keep_mode):
        traced = partial(trace_evaluation, model, metrics)
        return step_program(model, example, traced, _Evaluation(metrics), seed)


@contextmanager
def _mode(model: torch.nn.Module, *, keep: bool) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    try:
        if not keep:
            model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Evaluation:
    """What an evaluation step is for: to log metrics, and to add them up."""

    def __init__(self, metrics: Mapping[str, object]) -> None:
        self._metrics = tuple(metrics)

    @property
    def counters(self) -> Mapping[str, float]:
        return {}

    def groups(
        self, moved: Mapping[str, tuple[int, ...]]
    ) -> Iterator[tuple[str, str, TensorType, float | None]]:
        for name in self._metrics:
            yield TOTALS, name, TensorType(DType.f32, ()), 0.0

    def build(
        self,
        b: Builder,
        state: Mapping[str, Mapping[str, Tensor]],
        results: Sequence[Tensor],
        gradients: Mapping[str, Tensor],
    ) -> None:
        for name, result in zip(self._metrics, [*map(b.number, results)], strict=True):
            total = state[TOTALS][name]
            with b.label("totals"):
                b.next(total, b.stored(b.pointwise(lambda t, r: t + r, total, result, what=name)))
            b.log(name, result)
