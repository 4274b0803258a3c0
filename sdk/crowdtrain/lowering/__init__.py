"""Lowering: from PyTorch models to programs. PyTorch is imported only once :func:`lower` is called for.

``index`` and ``expr`` say what positions and words are, ``tensor`` what a tensor is while a program is being
built, ``builder`` makes nests (``positions`` and ``emit`` bring them into form, ``assembly`` puts the program
together). ``trace`` turns a model into a graph of ATen operations, the modules of rows fill ``table``,
``step`` does the whole, for training with ``update``, for measuring with ``evaluation``, for gradients alone with
``gradients``, for the stages of a pipeline with ``stages``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.errors import (
    DataDependent,
    InvalidOption,
    LoweringError,
    UnsupportedModel,
    UnsupportedOperation,
)

if TYPE_CHECKING:
    from crowdtrain.lowering.evaluation import lower_evaluation
    from crowdtrain.lowering.gradients import lower_gradients
    from crowdtrain.lowering.stages import lower_stages
    from crowdtrain.lowering.step import lower

__all__ = [
    "Builder",
    "DataDependent",
    "InvalidOption",
    "LoweringError",
    "UnsupportedModel",
    "UnsupportedOperation",
    "lower",
    "lower_evaluation",
    "lower_gradients",
    "lower_stages",
]


_ENTRIES = {
    "lower": "step", "lower_evaluation": "evaluation", "lower_gradients": "gradients", "lower_stages": "stages",
}  # fmt: skip
"""Modules of the functions that need PyTorch."""


def __getattr__(name: str) -> Any:
    if name in _ENTRIES:
        return getattr(import_module(f"crowdtrain.lowering.{_ENTRIES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
