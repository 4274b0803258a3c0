"""Lowering: from PyTorch models to programs. PyTorch is imported only once :func:`lower` is called for.

``index`` and ``expr`` say what positions and words are, ``tensor`` what a tensor is while a program is being
built, ``builder`` makes nests (``positions`` and ``emit`` bring them into form, ``assembly`` puts the program
together). ``trace`` turns a model into a graph of ATen operations, the modules of rows fill ``table``,
``step`` does the whole.
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
    from crowdtrain.lowering.step import lower

__all__ = [
    "Builder",
    "DataDependent",
    "InvalidOption",
    "LoweringError",
    "UnsupportedModel",
    "UnsupportedOperation",
    "lower",
]


def __getattr__(name: str) -> Any:
    if name == "lower":
        from crowdtrain.lowering.step import lower

        return lower
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
