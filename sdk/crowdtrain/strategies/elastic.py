"""DiLoCo that waits for nobody: a merge takes the workers that are there when it is claimed."""

from __future__ import annotations

from collections.abc import Sequence

from crowdtrain_engine import Dataset, State

from crowdtrain._errors import PlanError
from crowdtrain._training import LoweredProgram
from crowdtrain.optim.rule import Optimizer
from crowdtrain.strategies.blueprint import Blueprint, Draft
from crowdtrain.strategies.codecs import Codec, Exact
from crowdtrain.strategies.crew import PARAMETERS, Crew, positive
from crowdtrain.strategies.merging import ElasticMerging
from crowdtrain.strategies.outer import outer_optimizer

__all__ = ["elastic_diloco"]

EXACT = Exact()


def elastic_diloco(
    program: LoweredProgram,
    data: Sequence[Dataset],
    *,
    rounds: int,
    steps: int | Sequence[int],
    quorum: int,
    outer: Optimizer | None = None,
    codec: Codec = EXACT,
    state: State | None = None,
    price: int = 0,
) -> Blueprint:
    """DiLoCo whose merges take any ``quorum`` of the round's workers, or more if more are there when one is claimed.

    Who is taken is fixed on chain by the claim. Who comes late adds the change to that of the next round; a worker that
    has lost a round goes on with its moments of the round before, and with the step, and so the learning rate and the
    data, of everybody else. Changes count by the steps that they took: ``steps`` may differ between workers. ``outer``
    may be a :class:`~crowdtrain.strategies.outer.DelayedNesterov` where quorums are small (arXiv 2401.09135). Raises
    PlanError for a quorum that cannot be.
    """
    counts = [steps] * len(data) if isinstance(steps, int) else list(steps)
    positive(rounds=rounds, quorum=quorum, **{f"steps[{k}]": count for k, count in enumerate(counts)})
    if len(counts) != len(data) or quorum > len(data):
        raise PlanError(f"{len(data)} workers, but steps of {len(counts)} and a quorum of {quorum}")
    draft = Draft()
    crew = Crew(draft, program, data, state=state, clocked=True)
    merging = ElasticMerging(
        crew, PARAMETERS, outer or outer_optimizer(rounds), quorum=quorum, steps=counts, codec=codec
    )
    for round_ in range(rounds):
        for worker, count in enumerate(counts):
            merging.gather(worker, round_, crew.train(worker, round_, count, merging.start(worker)))
        merging.merge(round_)
    return draft.finish(crew.result(), price=price)
