"""Models of the zoo as programs, ready to run."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import crowdtrain.optim
from crowdtrain.lowering import lower
from crowdtrain_engine import Dataset, Program, State
from lowering_support import arrays_of, rng, rows_of

from zoo.table import ZOO

__all__ = ["STEPS", "Lowered", "lowered"]

STEPS = 4
"""steps for which there are batches"""


class Lowered(NamedTuple):
    """What an ``Executor`` takes: a bound program, its initial state, and data for ``STEPS`` steps."""

    program: Program
    state: State
    data: Dataset


@cache
def lowered(name: str) -> Lowered:
    """The model of this name, to be trained by AdamW on batches that differ from step to step."""
    entry = ZOO[name]
    count = 3 * entry.batch
    inputs, targets = entry.samples(count)
    some = slice(entry.batch)
    example = rows_of(inputs, some), rows_of(targets, some)
    program = lower(entry.make(), entry.loss, optimizer=crowdtrain.optim.AdamW(lr=1e-3), example=example)
    order = [rng(step).permutation(count)[some] for step in range(STEPS)]
    data = Dataset(arrays_of(inputs), arrays_of(targets), order=order)
    return Lowered(program.bind(data.rows), program.initial_state(), data)
