"""Carrying out a plan on this machine, segment after segment, as the market's solvers would together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from crowdtrain_engine import Executor, State
from crowdtrain_engine.state import Array

from crowdtrain.chain import INITIAL, Source
from crowdtrain.strategies.blueprint import Blueprint, Role
from crowdtrain.strategies.traffic import Traffic

__all__ = ["Done", "Outcome", "carry_out"]


@dataclass(frozen=True)
class Done:
    """A segment that was carried out: its number, what it was for, and what it logged in each of its steps."""

    index: int
    role: Role
    logs: Mapping[str, Array]


@dataclass(frozen=True)
class Outcome:
    """What came out of a plan: the trained model's state, for ``load_into``, and how it came about."""

    state: State
    done: tuple[Done, ...]

    def losses(self, worker: int = 0) -> list[float]:
        """The losses that a worker logged, step after step."""
        mine = (done for done in self.done if done.role.worker == worker and "loss" in done.logs)
        return [float(loss) for done in mine for loss in done.logs["loss"]]


def carry_out(
    blueprint: Blueprint,
    *,
    backend: str = "native",
    threads: int | None = None,
    isa: str | None = None,
    traffic: Traffic | None = None,
    on_segment: Callable[[Done], None] = lambda done: None,
) -> Outcome:
    """Runs every segment of a plan, in order, and puts the result together.

    A group is forgotten once no later segment needs it. ``traffic`` counts what would travel between machines. Raises
    what the engine's ``execute`` raises.
    """
    left = Counter(source for spec in blueprint.plan.segments for source in spec.inputs)
    left.update(piece.source for piece in blueprint.result)
    held: dict[Source, Sequence[Array]] = {
        Source(INITIAL, i): list(group.values()) for i, group in enumerate(blueprint.initial.values())
    }
    executors: dict[tuple[bytes, bytes], Executor] = {}
    finished = []

    def take(source: Source, role: Role | None = None) -> Sequence[Array]:
        group = held[source]
        if traffic is not None and role is not None:
            traffic.needed(role, source, group)
        left[source] -= 1
        if not left[source]:
            del held[source]
        return group

    for index, spec in enumerate(blueprint.plan.segments):
        program, role = blueprint.program(index), blueprint.roles[index]
        tensors = [tensor for source in spec.inputs for tensor in take(source, role)]
        state = State.from_tensors(program, tensors)
        key = (spec.program_root, spec.data_root)
        if key in executors:
            executors[key].state = state
        else:
            executors[key] = Executor(
                program, state, blueprint.dataset(index), backend=backend, threads=threads, isa=isa
            )
        logs = executors[key].run(spec.steps)
        for number, group in enumerate(executors[key].state.values()):
            if left[Source(index, number)]:
                held[Source(index, number)] = list(group.values())
            if traffic is not None:
                traffic.made(role, Source(index, number))
        finished.append(Done(index, role, logs))
        on_segment(finished[-1])
    return Outcome(blueprint.assemble(take), tuple(finished))
