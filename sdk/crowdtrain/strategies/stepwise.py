"""Strategies that merge gradients in every step.

``gradients`` is a program made by :func:`crowdtrain.lower_gradients`. ``data`` holds one dataset for each worker, with
an ``order`` for all its steps; ``price`` is what the whole plan costs, in token units. All raise PlanError for numbers
of which no plan can be made.
"""

from __future__ import annotations

from collections.abc import Sequence

from crowdtrain_engine import Dataset, State

from crowdtrain._errors import PlanError
from crowdtrain._training import LoweredProgram
from crowdtrain.lowering.update import GRADIENTS
from crowdtrain.optim import SGD
from crowdtrain.optim.rule import Optimizer
from crowdtrain.optim.schedules import Schedule
from crowdtrain.strategies.blueprint import Blueprint, Draft
from crowdtrain.strategies.codecs import Codec, Cosine, Exact, TopK
from crowdtrain.strategies.crew import PARAMETERS, Crew, balanced, positive
from crowdtrain.strategies.merging import Merging

__all__ = ["data_parallel", "demo", "zero"]

EXACT = Exact()
SPARSE_SPECTRUM = Cosine(TopK(64, 2))


def data_parallel(
    gradients: LoweredProgram,
    data: Sequence[Dataset],
    *,
    steps: int,
    optimizer: Optimizer,
    codec: Codec = EXACT,
    state: State | None = None,
    price: int = 0,
) -> Blueprint:
    """Synchronous data parallelism: in every step, ``optimizer`` moves the parameters by the mean of all gradients.

    ``gradients`` is made by :func:`crowdtrain.lower_gradients`. What travels is twice the model in every step: this is
    the baseline that the other strategies are measured against.
    """
    return _by_gradients(gradients, data, steps, optimizer, codec, state, price)


def demo(
    gradients: LoweredProgram,
    data: Sequence[Dataset],
    *,
    steps: int,
    lr: float | Schedule = 1e-3,
    weight_decay: float = 0.0,
    decay: float = 0.999,
    codec: Codec = SPARSE_SPECTRUM,
    state: State | None = None,
    price: int = 0,
) -> Blueprint:
    """Decoupled momentum: each worker sends the fast-moving part of its momentum, and keeps the rest.

    Every parameter moves by ``lr`` against the sign of what all workers sent, so that ``lr`` should be a schedule that
    ends near 0: a sign does not grow smaller. DeMo (Peng and others, 2024, arXiv 2411.19870), of which DisTrO is the
    family.
    """
    optimizer = SGD(lr=lr, weight_decay=weight_decay)
    return _by_gradients(gradients, data, steps, optimizer, codec, state, price, sign=True, decay=decay)


def _by_gradients(
    gradients: LoweredProgram,
    data: Sequence[Dataset],
    steps: int,
    optimizer: Optimizer,
    codec: Codec,
    state: State | None,
    price: int,
    *,
    sign: bool = False,
    decay: float = 1.0,
) -> Blueprint:
    _check_gradients(gradients)
    positive(steps=steps)
    draft = Draft()
    crew = Crew(draft, gradients, data, state=state)
    merging = Merging(crew, PARAMETERS, optimizer, codec=codec, gradients=GRADIENTS, sign=sign, decay=decay)
    _take_steps(crew, [merging], steps)
    return draft.finish(crew.result(), price=price)


def zero(
    gradients: LoweredProgram,
    data: Sequence[Dataset],
    *,
    steps: int,
    optimizer: Optimizer,
    shards: int,
    state: State | None = None,
    price: int = 0,
) -> Blueprint:
    """Data parallelism whose merge is split into ``shards``, each with its part of the optimizer's state.

    No machine needs to hold more than the parameters, and one shard of the moments. ZeRO stage 2 (Rajbhandari and
    others, 2019, arXiv 1910.02054).
    """
    _check_gradients(gradients)
    positive(steps=steps, shards=shards)
    parts = balanced(gradients, shards)
    draft = Draft()
    crew = Crew(draft, gradients, data, parts=parts, state=state)
    merges = [
        Merging(crew, part, optimizer, codec=EXACT, gradients=crew.gradients_of(part)) for part in parts
    ]
    _take_steps(crew, merges, steps)
    return draft.finish(crew.result(), price=price)


def _take_steps(crew: Crew, merges: Sequence[Merging], steps: int) -> None:
    """Steps in which all workers take gradients, which are then merged."""
    for step in range(steps):
        outs = [crew.train(worker, step, 1, what="gradients") for worker in range(crew.workers)]
        for merging in merges:
            for worker, out in enumerate(outs):
                merging.gather(worker, step, out)
            merging.merge(step)


def _check_gradients(program: LoweredProgram) -> None:
    if GRADIENTS not in program.initial or any(program.next[i] != i for i in range(program.bounds[1])):
        raise PlanError("this strategy needs a program of gradients: lower the model with lower_gradients")
