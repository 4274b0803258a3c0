"""DiLoCo that waits for nobody: a merge takes the workers that are there when it is claimed."""

from __future__ import annotations

from collections.abc import Sequence

from crowdtrain_engine import Dataset, State

from crowdtrain._errors import PlanError
from crowdtrain._training import LoweredProgram
from crowdtrain.optim.rule import Optimizer
from crowdtrain.strategies.blueprint import Blueprint, Draft, Either, Ref, Role
from crowdtrain.strategies.codecs import Codec, Exact
from crowdtrain.strategies.crew import BUFFERS, CLOCK, PARAMETERS, Crew, positive
from crowdtrain.strategies.outer import outer_optimizer
from crowdtrain.strategies.programs import Written, encode, merge

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
    types = crew.types[PARAMETERS]
    merging = merge(
        types, crew.workers, outer or outer_optimizer(rounds),
        codec=codec, weights=list(map(float, counts)), buffers=crew.buffers or None, clocks=sorted(set(counts)),
    )  # fmt: skip
    encodings = {
        count: encode(types, codec, weight=float(count), buffers=crew.buffers or None)
        for count in set(counts)
    }
    workers = [_Worker(crew, k, count, encodings[count]) for k, count in enumerate(counts)]
    memory: dict[str, Ref] = {}
    clocks = dict.fromkeys(counts, draft.begin(CLOCK, crew.layouts[0].tensors[CLOCK]))
    for round_ in range(rounds):
        inputs: dict[str, Ref | Either] = {PARAMETERS: crew.shared[PARAMETERS], **memory}
        inputs |= {f"{CLOCK}.{count}": clock for count, clock in clocks.items()}
        groups = 2
        if crew.buffers:
            inputs[BUFFERS] = crew.shared[BUFFERS]
            groups = 3
        for worker in workers:
            inputs |= worker.go(round_, clocks[worker.steps])
        out = crew.apply(merging, inputs, Role("merge", round_), quorum=quorum * groups)
        memory = {
            name: ref for name, ref in out.items() if "." not in name and name not in (PARAMETERS, BUFFERS)
        }
        crew.shared |= {name: out[name] for name in crew.shared if name in out}
        clocks = {count: out[f"{CLOCK}.{count}"] for count in clocks}
        for worker in workers:
            worker.merged.append(out[f"weight.{worker.number}"])
    return draft.finish(crew.result(), price=price)


class _Worker:
    """What a worker has, and had a round before: what it goes on from if the last round is not there yet."""

    def __init__(self, crew: Crew, number: int, steps: int, encoding: Written) -> None:
        self.crew, self.number, self.steps, self._encoding = crew, number, steps, encoding
        self._nothing = {
            name: crew.zeros(encoding.program, name) for name in ("code", "lost", "weight", "fresh")
        }
        self._kept = self._before = self._nothing
        self._own_before = crew.own[number]
        self.merged: list[Ref] = []
        """the weights that the merges took from it"""

    def go(self, round_: int, clock: Ref) -> dict[str, Ref | Either]:
        """Trains and encodes; what the merge may take."""
        crew, k = self.crew, self.number
        own = crew.own[k]
        start = {name: Either(ref, self._own_before[name]) for name, ref in own.items()}
        self._own_before = own
        base = crew.shared[PARAMETERS]
        out = crew.train(k, round_, self.steps, {**start, CLOCK: clock})
        inputs: dict[str, Ref | Either] = {"base": base, "local": out[PARAMETERS]}
        if crew.buffers:
            inputs[BUFFERS] = out[BUFFERS]
        before = {**self._before, "fresh": self._nothing["fresh"]}
        inputs |= {name: Either(ref, before[name]) for name, ref in self._kept.items()}
        inputs |= dict(zip(("merged", "earlier"), reversed(self.merged[-2:]), strict=False))
        sent = crew.apply(self._encoding, inputs, Role("encode", round_, k))
        self._before, self._kept = self._kept, {name: sent[name] for name in self._nothing}
        offered: dict[str, Ref | Either] = {
            f"change.{k}": Either(sent["code"], self._nothing["code"]),
            f"weight.{k}": Either(sent["weight"], self._nothing["weight"]),
        }
        if crew.buffers:
            offered[f"{BUFFERS}.{k}"] = Either(sent[BUFFERS], crew.shared[BUFFERS])
        return offered
