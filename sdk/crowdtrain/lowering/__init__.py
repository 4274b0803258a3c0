"""Lowering: from PyTorch models to programs. PyTorch is imported only once :func:`lower` is called for.

``index`` and ``expr`` say what positions and words are, ``tensor`` what a tensor is while a program is being
built, ``builder`` makes nests (``positions`` and ``emit`` bring them into form, ``assembly`` puts the program
together). ``trace`` turns a model into a graph of ATen operations, the modules of rows fill ``table``,
``step`` does the whole, for training with ``update``, for measuring with ``evaluation``.
"""

from __future__ import annotations

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
]


def __getattr__(name: str) -> Any:
    if name == "lower":
        from crowdtrain.lowering.step import lower

        return lower
    if name == "lower_evaluation":
        from crowdtrain.lowering.evaluation import lower_evaluation

        return lower_evaluation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
