"""The plan of a strategy that was chosen by its numbers, for a job's program, data and state."""

from __future__ import annotations

from dataclasses import fields
from math import ceil
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from crowdtrain_engine import Dataset, Program, State

from crowdtrain._errors import PlanError
from crowdtrain._training import LoweredProgram
from crowdtrain.strategies.blueprint import Blueprint
from crowdtrain.strategies.codecs import Exact
from crowdtrain.strategies.elastic import elastic_diloco
from crowdtrain.strategies.periodic import diloco, local_sgd, sparse_loco, streaming_diloco

if TYPE_CHECKING:
    from crowdtrain.simulation import Recipe

__all__ = ["dealt_out", "planned"]


class _Size(TypedDict):
    rounds: int
    steps: int
    price: int


def planned(
    recipe: Recipe, program: Program, data: Dataset, state: State, *, workers: int, steps: int, price: int
) -> Blueprint:
    """A strategy's plan for ``steps`` steps in all, which ``workers`` share; ``data`` has the order of all of them.

    Rounds are whole, so that a few steps may be left out. Raises PlanError if there is not one round, or the strategy
    needs more than a training step's program.
    """
    if recipe.gradients:
        raise PlanError(f"{recipe.name} needs the program of a step's gradients; post it from Python")
    rounds = steps // (workers * recipe.steps)
    if rounds < 1:
        raise PlanError(f"{steps} steps are less than a round: {recipe.steps} for each of {workers} workers")
    own = {field.name: getattr(program, field.name) for field in fields(Program)}
    lowered = LoweredProgram(**own, initial=dict(state))
    parts = dealt_out(data, workers, rounds * recipe.steps)
    common: _Size = {"rounds": rounds, "steps": recipe.steps, "price": price}
    if recipe.quorum < 1:
        quorum = ceil(recipe.quorum * workers)
        return elastic_diloco(lowered, parts, quorum=quorum, codec=recipe.codec or Exact(), **common)
    if recipe.fragments > 1:
        return streaming_diloco(lowered, parts, fragments=recipe.fragments, codec=recipe.codec, **common)
    if recipe.outer_slots:
        return diloco(lowered, parts, codec=recipe.codec, broadcast=recipe.broadcast, **common)
    if recipe.codec is None:
        return local_sgd(lowered, parts, **common)
    return sparse_loco(lowered, parts, codec=recipe.codec, **common)


def dealt_out(data: Dataset, workers: int, steps: int) -> list[Dataset]:
    """The data of each worker: the rows of ``order`` are dealt out in turn. Those that are not its own follow, so that
    one program fits all. Raises PlanError if there are too few rows."""
    order = data.tensors.get("order")
    if order is None or len(order) < workers * steps:
        rows = 0 if order is None else len(order)
        raise PlanError(f"order has rows for {rows} steps, {workers} workers take {workers * steps}")
    found = []
    for worker in range(workers):
        rest = np.delete(order, slice(worker, None, workers), axis=0)
        mine = np.concatenate([order[worker::workers], rest])
        found.append(Dataset.from_tensors({**data.tensors, "order": mine}))
    return found
