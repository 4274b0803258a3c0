"""``crowdtrain.lower_gradients``: from a model and a loss to the program of one step's gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from crowdtrain_engine import DType, TensorType

from crowdtrain._training import LoweredProgram
from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.step import step_program
from crowdtrain.lowering.tensor import Tensor
from crowdtrain.lowering.trace import trace
from crowdtrain.lowering.update import GRADIENTS, keep_loss

__all__ = ["lower_gradients"]


def lower_gradients(
    model: torch.nn.Module,
    loss: Callable[[Any, Any], torch.Tensor],
    *,
    example: tuple[Any, Any],
    seed: int = 0,
) -> LoweredProgram:
    """The program that computes the gradients of one batch, for somebody else to update the parameters with.

    Arguments and errors are those of :func:`lower`. State: groups ``parameters`` (which stay as they are), ``buffers``
    (if any), ``gradients`` (of the last step), ``counters`` and ``constants`` (if any). Log: ``loss``.
    """
    return step_program(model, example, partial(trace, model, loss), _Gradients(), seed)


class _Gradients:
    """What a step is for that only computes gradients: to log the loss, and to keep them."""

    @property
    def counters(self) -> Mapping[str, float]:
        return {"loss": 0.0}

    def groups(
        self, moved: Mapping[str, tuple[int, ...]]
    ) -> Iterator[tuple[str, str, TensorType, float | None]]:
        for name, shape in moved.items():
            yield GRADIENTS, name, TensorType(DType.f32, shape), 0.0

    def build(
        self,
        b: Builder,
        state: Mapping[str, Mapping[str, Tensor]],
        results: Sequence[Tensor],
        gradients: Mapping[str, Tensor],
    ) -> None:
        keep_loss(b, state, results[0])
        for name, tensor in state[GRADIENTS].items():
            with b.label(f"gradient: {name}"):
                b.next(tensor, b.stored(gradients[name]))
