"""Pipelines: the stages of a model on different machines, which hand activations down and gradients up.

SWARM parallelism (Ryabinin and others, 2023, arXiv 2301.11913) lets micro-batches find their way through whoever
serves a stage. Here each passage of a micro-batch through a stage is a segment. Its role names who should do it, which
keeps a stage where its parameters are; when that machine fails the lease runs out, and anybody takes the segment up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crowdtrain_engine import Dataset, Program, State
from crowdtrain_engine.state import Array

from crowdtrain._errors import PlanError
from crowdtrain._training import (
    ACTIVATIONS,
    INPUT_GRADIENTS,
    INPUTS,
    OUTPUT_GRADIENTS,
    SQUARES,
    LoweredPipeline,
    LoweredProgram,
)
from crowdtrain.lowering.assembly import CONSTANTS
from crowdtrain.lowering.update import GRADIENTS
from crowdtrain.strategies.blueprint import Blueprint, Draft, Piece, Ref, Role, no_data
from crowdtrain.strategies.crew import BUFFERS, COUNTERS, FROZEN, PARAMETERS, drawing_apart, positive
from crowdtrain.strategies.programs import Written, collect, regroup

__all__ = ["swarm"]


def swarm(
    pipeline: LoweredPipeline,
    data: Sequence[Dataset],
    *,
    steps: int,
    state: State | None = None,
    price: int = 0,
) -> Blueprint:
    """Pipeline parallelism: a step takes several micro-batches down and up the stages, then updates each stage.

    ``pipeline`` is made by :func:`crowdtrain.lower_stages`. Each of ``data`` feeds a copy of the pipeline with an
    ``order`` of micro-batches; gradients and buffers of the copies are averaged before an update. Stage k of copy r is
    worker ``r * stages + k``, and draws random numbers of its own. ``state`` is where training begins instead of the
    model's own weights; its names, and those of the result, are those of ``torch.nn.Sequential(*stages)``. ``price`` is
    what the plan costs, in token units. Raises PlanError for numbers or data of which no plan can be made.
    """
    positive(steps=steps)
    if not data:
        raise PlanError("a plan needs the data of at least one pipeline")
    draft = Draft()
    stages = [_Stage(draft, k, pipeline, data, steps, state) for k in range(len(pipeline.stages))]
    for step in range(steps):
        for _ in range(pipeline.micro_batches):
            for copy in range(len(data)):
                _pass([stage.lanes[copy] for stage in stages], step)
        collected = [stage.collect(step) for stage in stages]
        squares = {
            f"{SQUARES}.{k}": groups[SQUARES] for k, groups in enumerate(collected) if SQUARES in groups
        }
        for stage, groups in zip(stages, collected, strict=True):
            stage.update(step, groups | squares)
    return draft.finish([piece for stage in stages for piece in stage.result()], price=price)


def _pass(lanes: Sequence[_Lane], step: int) -> None:
    """One micro-batch: down all stages, and up again as far as there is something to train.

    In this order of segments, who does the first that is open to them goes down and up in turn.
    """
    passing: Ref | None = None
    for lane in lanes:
        passing = lane.down(step, passing)
    for lane in reversed(lanes):
        passing = lane.up(step, passing)


@dataclass(frozen=True)
class _Passage:
    """A program that takes micro-batches through a stage, and what groups of its own begin as."""

    program: Program
    starts: Mapping[str, Ref]
    counts: bool
    """whether it matters which micro-batch it is"""


class _Stage:
    """One stage: its programs, its parameters, and what its update remembers."""

    def __init__(
        self,
        draft: Draft,
        number: int,
        pipeline: LoweredPipeline,
        data: Sequence[Dataset],
        steps: int,
        state: State | None,
    ) -> None:
        lowered = pipeline.stages[number]
        self.draft, self.number = draft, number
        self._update = lowered.update
        updated = lowered.update.initial if lowered.update is not None else {}
        parameters, buffers = (
            self._weights(group, lowered.first.initial.get(group, {}), state)
            for group in (PARAMETERS, BUFFERS)
        )
        moved = list(updated.get(PARAMETERS, ()))
        frozen = [name for name in parameters if name not in moved]
        self._names = {group: names for group, names in ((PARAMETERS, moved), (FROZEN, frozen)) if names}
        self.own = {
            group: self._begin(group, {name: parameters[name] for name in names})
            for group, names in self._names.items()
        }
        """the parameters, as they were updated last"""
        norms = [group for group in updated if group.startswith(SQUARES)]
        self._memory = {
            group: self._begin(f"{group} of updates", tensors)
            for group, tensors in updated.items()
            if group not in (PARAMETERS, GRADIENTS, *norms)
        }
        self.forward = self._passage("forward", lowered.forward)
        self.backward = self._passage("backward", lowered.backward)
        buffered = self._begin(BUFFERS, buffers) if buffers else None
        zeros = draft.zeros(lowered.backward, GRADIENTS) if lowered.backward and moved else None
        self._collect: Written | None = None
        if norms or (len(data) > 1 and (moved or buffers)):
            self._collect = collect(
                dict(zip(moved, zeros.types, strict=True)) if zeros else {},
                len(data),
                buffers=dict(zip(buffers, buffered.types, strict=True)) if buffered else {},
                norm=bool(norms),
                bound=pipeline.clip_grad_value,
            )
        self._buffers = list(buffers)
        self.lanes = []
        """this stage in each copy of the pipeline"""
        for k, dataset in enumerate(data):
            shift = k * len(pipeline.stages)
            counters = self._counters(lowered.first, shift)
            lane = _Lane(self, shift + number, dataset, counters, buffered, zeros)
            lane.check(steps * pipeline.micro_batches)
            self.lanes.append(lane)

    def _begin(self, what: str, tensors: Mapping[str, Array]) -> Ref:
        return self.draft.begin(f"{what}, stage {self.number}", tensors)

    def _weights(self, group: str, tensors: Mapping[str, Array], state: State | None) -> Mapping[str, Array]:
        """The tensors to begin with."""
        if state is None:
            return tensors
        given = state.get(group, {})
        missing = [name for name in tensors if f"{self.number}.{name}" not in given]
        if missing:
            raise PlanError(f"the state to begin with has no {self.number}.{missing[0]} among its {group}")
        return {name: given[f"{self.number}.{name}"] for name in tensors}

    def _passage(self, what: str, program: LoweredProgram | None) -> _Passage | None:
        """A program, with the parameters that do not change in a group of their own."""
        if program is None:
            return None
        groups = {group: [(PARAMETERS, name) for name in names] for group, names in self._names.items()}
        for group, tensors in program.initial.items():
            if group != PARAMETERS:
                groups[group] = [(group, name) for name in tensors]
        starts = {
            group: self.draft.zeros(program, group)
            for group in (ACTIVATIONS, INPUT_GRADIENTS)
            if group in groups
        }
        if CONSTANTS in groups:
            starts[CONSTANTS] = self._begin(f"{CONSTANTS} of {what}", program.initial[CONSTANTS])
        split = regroup(program, groups) if FROZEN in groups else program
        return _Passage(split, starts, bool(program.data or program.draws))

    def _counters(self, program: LoweredProgram, shift: int) -> Ref:
        """The counters to begin with: each copy of the pipeline draws numbers of its own."""
        return self._begin(COUNTERS, drawing_apart(program.initial[COUNTERS], shift))

    def collect(self, step: int) -> dict[str, Ref]:
        """What updates need of the copies: their mean gradients, and the squared norm of these."""
        lanes = self.lanes
        several = len(lanes) > 1
        inputs: dict[str, Ref | None] = {BUFFERS: lanes[0].buffers} if several else {}
        for k, lane in enumerate(lanes):
            which = f".{k}" if several else ""
            inputs[f"{GRADIENTS}{which}"] = lane.gradients
            if several:
                inputs[f"{BUFFERS}{which}"] = lane.buffers
        given = {group: ref for group, ref in inputs.items() if ref is not None}
        if self._collect is None:
            return given
        out = self.draft.apply(self._collect, given, Role("merge", step, self.number))
        for lane in lanes:
            lane.buffers = out.get(BUFFERS, lane.buffers)
        return out

    def update(self, step: int, collected: Mapping[str, Ref]) -> None:
        """Moves the parameters by the gradients, which are then added up anew."""
        if self._update is None:
            return
        given = {PARAMETERS: self.own[PARAMETERS], **collected, **self._memory}
        inputs = {group: given[group] for group in self._update.labels.groups}
        out = self.draft.add(self._update, no_data(), inputs, role=Role("update", step, self.number))
        self.own[PARAMETERS] = out[PARAMETERS]
        self._memory = {group: out[group] for group in self._memory}
        for lane in self.lanes:
            lane.restart()

    def result(self) -> list[Piece]:
        """The stage as it was updated last."""
        pieces = [(PARAMETERS, self._names[group], ref) for group, ref in self.own.items()]
        if self.lanes[0].buffers is not None:
            pieces.append((BUFFERS, self._buffers, self.lanes[0].buffers))
        return [
            Piece(group, tuple(f"{self.number}.{name}" for name in names), ref.source)
            for group, names, ref in pieces
        ]


class _Lane:
    """A stage in one copy of the pipeline: what it keeps from one micro-batch to the next."""

    def __init__(
        self,
        stage: _Stage,
        worker: int,
        data: Dataset,
        counters: Ref,
        buffers: Ref | None,
        zeros: Ref | None,
    ) -> None:
        self.buffers = buffers
        self.gradients = zeros
        """of the parameters, as they have added up so far"""
        self._stage, self._worker = stage, worker
        self._forward, self._backward = (
            (passage, _read_by(passage.program, data)) if passage is not None else None
            for passage in (stage.forward, stage.backward)
        )
        self._counters, self._zeros = counters, zeros
        self._given: dict[str, Ref | None] = {}

    def check(self, micro_batches: int) -> None:
        """Raises PlanError unless the data name the samples of so many micro-batches."""
        for way in (self._forward, self._backward):
            order = way[1].tensors.get("order") if way else None
            if order is not None and len(order) < micro_batches:
                raise PlanError(
                    f"{micro_batches} micro-batches are needed, the order of worker {self._worker} has {len(order)}"
                )

    def restart(self) -> None:
        """Begins to add up gradients anew."""
        self.gradients = self._zeros

    def down(self, step: int, activations: Ref | None) -> Ref | None:
        """The segment that takes a micro-batch down, and what it hands on; the last stage does all on the way up."""
        self._given = {INPUTS: activations, BUFFERS: self.buffers, COUNTERS: self._counters}
        if self._forward is None:
            return None
        out = self._go(self._forward, Role("forward", step, self._worker), {})
        self._advance(self._forward[0], out)
        return out[ACTIVATIONS]

    def up(self, step: int, gradients: Ref | None) -> Ref | None:
        """The segment that takes it up, from what it was given on its way down, and what it hands on."""
        if self._backward is None:
            return None
        own = {OUTPUT_GRADIENTS: gradients, GRADIENTS: self.gradients}
        out = self._go(self._backward, Role("backward", step, self._worker), own)
        if self._forward is None:
            self._advance(self._backward[0], out)
        self.gradients = out.get(GRADIENTS)
        return out.get(INPUT_GRADIENTS)

    def _go(self, way: tuple[_Passage, Dataset], role: Role, own: Mapping[str, Ref | None]) -> dict[str, Ref]:
        passage, data = way
        known = {**passage.starts, **self._stage.own, **self._given, **own}
        inputs = {group: ref for group in passage.program.labels.groups if (ref := known[group])}
        return self._stage.draft.add(passage.program, data, inputs, role=role)

    def _advance(self, passage: _Passage, out: Mapping[str, Ref]) -> None:
        self.buffers = out.get(BUFFERS)
        if passage.counts:
            self._counters = out[COUNTERS]


def _read_by(program: Program, data: Dataset) -> Dataset:
    """The part of the data that a program reads."""
    missing = [name for name in program.labels.data if name not in data.tensors]
    if missing:
        raise PlanError(f"the data have no {missing[0]}, they have {', '.join(data.tensors)}")
    return Dataset.from_tensors({name: data.tensors[name] for name in program.labels.data})
