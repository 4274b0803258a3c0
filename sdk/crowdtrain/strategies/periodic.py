"""Strategies in which workers train on their own for many steps between two merges.

``program`` is that of a training step. ``data`` holds one dataset for each worker, with an ``order`` for all its steps;
``price`` is what the whole plan costs, in token units. All raise PlanError for numbers of which no plan can be made.
"""

from __future__ import annotations

from collections.abc import Sequence

from crowdtrain_engine import Dataset, State

from crowdtrain._errors import PlanError
from crowdtrain._training import LoweredProgram
from crowdtrain.optim import SGD
from crowdtrain.optim.rule import Optimizer
from crowdtrain.strategies.blueprint import Blueprint, Draft, Ref, Role
from crowdtrain.strategies.codecs import Codec, Quantized, TopK
from crowdtrain.strategies.crew import BUFFERS, PARAMETERS, Crew, balanced, positive
from crowdtrain.strategies.merging import Merging
from crowdtrain.strategies.outer import outer_optimizer
from crowdtrain.strategies.programs import mix

__all__ = ["diloco", "lo_fi", "local_sgd", "sparse_loco", "streaming_diloco"]

SPARSE = TopK(16, 4, Quantized(2))


def local_sgd(
    program: LoweredProgram,
    data: Sequence[Dataset],
    *,
    rounds: int,
    steps: int,
    state: State | None = None,
    price: int = 0,
) -> Blueprint:
    """Local SGD, or FedAvg with all workers in each round: every ``steps`` steps the parameters become their mean.

    McMahan and others, 2016, arXiv 1602.05629; Stich, 2018, arXiv 1805.09767.
    """
    return diloco(program, data, rounds=rounds, steps=steps, outer=SGD(lr=1.0), state=state, price=price)


def lo_fi(
    program: LoweredProgram,
    data: Sequence[Dataset],
    *,
    steps: int,
    state: State | None = None,
    price: int = 0,
) -> Blueprint:
    """Independent fine-tuning, and one mean at the end (lo-fi, Wortsman and others, 2022, arXiv 2210.11948).

    For models that are trained already: give ``state``, or a program that was lowered from such a model.
    """
    return local_sgd(program, data, rounds=1, steps=steps, state=state, price=price)


def diloco(
    program: LoweredProgram,
    data: Sequence[Dataset],
    *,
    rounds: int,
    steps: int,
    outer: Optimizer | None = None,
    codec: Codec | None = None,
    broadcast: Codec | None = None,
    decay: float = 1.0,
    state: State | None = None,
    price: int = 0,
) -> Blueprint:
    """DiLoCo: workers take ``steps`` steps of their own, then an outer optimizer moves the model by their mean change.

    Douillard and others, 2023, arXiv 2311.08105. ``outer`` is :func:`outer_optimizer` of ``rounds`` if it is not given.
    ``codec`` is how the workers' changes travel, ``broadcast`` how the merged one does; both keep what they lose for
    the next round, times ``decay``. Without them the parameters themselves travel.
    """
    positive(rounds=rounds, steps=steps)
    draft = Draft()
    crew = Crew(draft, program, data, state=state)
    merging = Merging(
        crew, PARAMETERS, outer or outer_optimizer(rounds), codec=codec, broadcast=broadcast, decay=decay
    )
    for round_ in range(rounds):
        for worker in range(crew.workers):
            merging.gather(worker, round_, crew.train(worker, round_, steps, merging.start(worker)))
        merging.merge(round_)
    return draft.finish(crew.result(), price=price)


def sparse_loco(
    program: LoweredProgram,
    data: Sequence[Dataset],
    *,
    rounds: int,
    steps: int,
    outer: Optimizer | None = None,
    decay: float = 0.95,
    codec: Codec = SPARSE,
    state: State | None = None,
    price: int = 0,
) -> Blueprint:
    """DiLoCo whose changes are sparse and 2-bit; what codes lose is kept for the next round.

    After SparseLoCo (Sarfi and others, 2025, arXiv 2508.15706), which sends less (4 of 64) and takes a plain mean: give
    ``codec`` and ``outer`` for that. Where it was measured that kept half of what these defaults keep.
    """
    return diloco(
        program, data, rounds=rounds, steps=steps, outer=outer, codec=codec, broadcast=codec, decay=decay,
        state=state, price=price,
    )  # fmt: skip


def streaming_diloco(
    program: LoweredProgram,
    data: Sequence[Dataset],
    *,
    rounds: int,
    steps: int,
    fragments: int = 4,
    overlap: bool = True,
    keep: float = 0.5,
    outer: Optimizer | None = None,
    codec: Codec | None = None,
    broadcast: Codec | None = None,
    state: State | None = None,
    price: int = 0,
) -> Blueprint:
    """DiLoCo in which a fragment of the model is merged at a time, while training goes on.

    ``steps`` is a round, in which each of the ``fragments`` is merged once; with ``overlap`` what was merged arrives
    one fragment's time later, and workers mix it with ``keep`` of what they have by then. The peak of the traffic is
    that of DiLoCo divided by ``fragments``; codecs are those of :func:`diloco`. Douillard and others, 2025, arXiv
    2501.18512. Raises PlanError unless a round can be cut into so many parts.
    """
    positive(rounds=rounds, steps=steps, fragments=fragments)
    if steps % fragments:
        raise PlanError(f"a round of {steps} steps cannot be cut into {fragments} equal parts")
    parts = balanced(program, fragments, strided=True)
    draft = Draft()
    crew = Crew(draft, program, data, parts=parts, state=state)
    optimizer = outer or outer_optimizer(rounds)
    merges = [Merging(crew, part, optimizer, codec=codec, broadcast=broadcast) for part in parts]
    local = [
        {name: crew.shared[name] for name in (*parts, *((BUFFERS,) if crew.buffers else ()))} for _ in data
    ]
    arriving: Merging | None = None
    for slot in range(rounds * fragments):
        merging = merges[slot % fragments]
        for worker in range(crew.workers):
            out = crew.train(worker, slot, steps // fragments, local[worker])
            local[worker] = {name: out[name] for name in local[worker]}
        if arriving is not None:
            _arrive(arriving, slot, local, keep)
        for worker, mine in enumerate(local):
            merging.gather(worker, slot, mine)
        merging.merge(slot)
        if overlap:
            arriving = merging
        else:
            _arrive(merging, slot, local, 0.0)
    return draft.finish(crew.result(), price=price)


def _arrive(merging: Merging, slot: int, local: list[dict[str, Ref]], keep: float) -> None:
    """What was merged reaches the workers, who keep a share of what they have."""
    crew, part = merging.crew, merging.part
    written = mix(crew.types[part], keep) if keep else None
    for worker, mine in enumerate(local):
        if written is None:
            mine[part] = merging.bases[worker]
        else:
            inputs = {"merged": merging.bases[worker], "local": mine[part]}
            mine[part] = crew.apply(written, inputs, Role("mix", slot, worker))["local"]
        if merging.buffers:
            mine[BUFFERS] = crew.shared[BUFFERS]
