"""What the Referee is given: a nest's operands and the pages that a stretch of its fold reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from crowdtrain_engine import Nest, merkle, reference
from numpy.typing import NDArray

__all__ = ["Words", "arguments"]

Words = NDArray[np.uint32]


def arguments(
    nest: Nest, values: Sequence[Words], output: int, start: int, stop: int, accumulator: int
) -> tuple[Any, ...]:
    """Arguments of Referee.evaluate: every page that iterations ``start … stop - 1`` read, and no other."""
    iterations = np.arange(start, stop)
    found = reference.reads(nest, values, np.full_like(iterations, output), iterations)
    needed: dict[int, set[int]] = {read.value: set() for read in nest.reads}
    for operand, (_, positions) in zip(nest.operands, found, strict=True):
        if operand in nest.reads:
            needed[operand.value] |= {int(position) // 256 for position in positions if position >= 0}
    operands, pages = [], []
    for number, value in enumerate(sorted(needed)):
        tree = merkle.tensor_tree(values[value])
        operands.append((value, tree.root))
        for page in sorted(needed[value]):
            pages.append((number, page, merkle.page(values[value], page), tree.proof(page)))
    return nest.encode(), operands, pages, output, start, stop, accumulator
