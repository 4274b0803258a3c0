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
from crowdtrain.strategies.periodic import diloco, streaming_diloco

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
    if recipe.shards > 1 or (recipe.broadcast is not None and recipe.quorum < 1):
        raise PlanError(f"{recipe.name} cannot be planned: merges of shards, or a broadcast with a quorum")
    rounds = steps // (workers * recipe.steps)
    if rounds < 1:
        raise PlanError(
            f"{steps} steps are less than a round, {recipe.steps} for each of {workers} workers: take fewer of either"
        )
    own = {field.name: getattr(program, field.name) for field in fields(Program)}
    lowered = LoweredProgram(**own, initial=dict(state))
    parts = dealt_out(data, workers, rounds * recipe.steps)
    common: _Size = {"rounds": rounds, "steps": recipe.steps, "price": price}
    codec, broadcast = recipe.codec, recipe.broadcast
    if recipe.quorum < 1:
        quorum = ceil(recipe.quorum * workers)
        return elastic_diloco(
            lowered, parts, quorum=quorum, outer=recipe.outer, codec=codec or Exact(), **common
        )
    if recipe.fragments > 1:
        return streaming_diloco(
            lowered, parts, fragments=recipe.fragments, overlap=recipe.overlap, outer=recipe.outer,
            codec=codec, broadcast=broadcast, **common,
        )  # fmt: skip
    return diloco(
        lowered, parts, outer=recipe.outer, codec=codec, broadcast=broadcast, decay=recipe.decay, **common
    )


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
