"""Programs that were lowered from a model, and the way back into the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from crowdtrain_engine import DataError, Program, State
from crowdtrain_engine.state import Array

if TYPE_CHECKING:
    import torch

__all__ = [
    "ACTIVATIONS", "INPUTS", "INPUT_GRADIENTS", "OUTPUT_GRADIENTS", "SQUARES", "LoweredPipeline", "LoweredProgram",
    "LoweredStage", "load_into",
]  # fmt: skip


INPUTS, ACTIVATIONS = "inputs", "activations"
INPUT_GRADIENTS, OUTPUT_GRADIENTS = "input gradients", "output gradients"
SQUARES = "squares"
"""Groups of the programs of a stage."""


@dataclass(frozen=True)
class LoweredProgram(Program):
    """A program made by :func:`crowdtrain.lower`, with the state in which training begins."""

    initial: Mapping[str, Mapping[str, Array]] = field(default_factory=dict, repr=False, compare=False)
    draws: int = field(default=0, repr=False, compare=False)
    """how often a step draws random numbers: see :class:`crowdtrain.random.Draws`"""

    def initial_state(self, weights: State | None = None) -> State:
        """The state before the first step: the model's weights and buffers as they were, moments 0.

        Parameters and buffers come from ``weights`` instead, if it is given: the state of a program of the same
        model, after training. Raises DataError if its groups have other names, shapes or types.
        """
        state = State(self.initial)
        if weights is not None:
            taken = {group: weights[group] for group in ("parameters", "buffers") if group in weights}
            for group, tensors in taken.items():
                if group in state and set(tensors) == set(
                    state[group]
                ):  # a plan may list them in another order
                    taken[group] = {name: tensors[name] for name in state[group]}
            state = State({**state, **taken})
            state.check(self)
        return state


@dataclass(frozen=True)
class LoweredStage:
    """The programs of one stage of a pipeline: see :func:`crowdtrain.lower_stages`."""

    forward: LoweredProgram | None
    """None for the last stage, whose way down is part of ``backward``"""
    backward: LoweredProgram | None
    """None if nothing is trained in this stage and those before"""
    update: LoweredProgram | None
    """None if nothing is trained in this stage"""

    @property
    def first(self) -> LoweredProgram:
        """The program that a micro-batch comes to first."""
        program = self.forward or self.backward
        assert program is not None
        return program


@dataclass(frozen=True)
class LoweredPipeline:
    """Programs made by :func:`crowdtrain.lower_stages`."""

    stages: tuple[LoweredStage, ...]
    micro_batches: int
    """of an update"""
    clip_grad_value: float | None = None


def load_into(model: torch.nn.Module, state: State, *, parameters: str = "parameters") -> None:
    """Copies the groups ``parameters`` and ``buffers`` of ``state`` into ``model``, in place.

    ``parameters`` names a group that goes before the parameters of the same names: ``"average"``, for one.
    Raises DataError, and changes nothing, unless names, shapes and types are those of the model (buffers of
    64-bit integers or booleans come back from 32-bit ones).
    """
    import torch

    for group in ("parameters", parameters):
        if group not in state:
            raise DataError(f"the state has no group {group!r}, it has {', '.join(state)}")
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    for group, own, given in (
        ("parameters", dict(model.named_parameters()), {**state["parameters"], **state[parameters]}),
        ("buffers", dict(model.named_buffers()), state.get("buffers", {})),
    ):
        if set(given) != set(own):
            missing, unknown = sorted(set(own) - set(given)), sorted(set(given) - set(own))
            raise DataError(
                f"{group} of the state and the model differ: missing {missing}, unknown {unknown}"
            )
        for name, tensor in own.items():
            pairs.append((tensor, _as_tensor(f"{group}/{name}", given[name], tensor)))
    with torch.no_grad():
        for tensor, values in pairs:
            tensor.copy_(values)


def _as_tensor(name: str, array: Array, like: torch.Tensor) -> torch.Tensor:
    import torch

    kinds = {
        torch.float32: np.float32, torch.int32: np.int32, torch.int64: np.int32, torch.bool: np.uint32,
    }  # fmt: skip
    kind = kinds.get(like.dtype)
    if kind is None or array.dtype != kind or array.shape != tuple(like.shape):
        raise DataError(
            f"{name}: {array.dtype} {array.shape} in the state, {like.dtype} {tuple(like.shape)} in the model"
        )
    return torch.from_numpy(array.astype(np.int64) if array.dtype == np.uint32 else array.copy()).to(
        like.dtype
    )
