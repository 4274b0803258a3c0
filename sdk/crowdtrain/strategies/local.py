"""Carrying out a plan on this machine, segment after segment, as the market's solvers would together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from crowdtrain_engine import Executor, State
from crowdtrain_engine.state import Array

from crowdtrain._errors import PlanError
from crowdtrain.chain import INITIAL, SegmentSpec, Source
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
    late: Collection[int] = (),
    lost: Collection[int] = (),
    absent: Mapping[int, int] | None = None,
    on_segment: Callable[[Done], None] = lambda done: None,
) -> Outcome:
    """Runs every segment of a plan, in order, and puts the result together.

    ``traffic`` counts what would travel between machines. Segments in ``late`` are not there yet when those of others
    begin that can do without them, but their own worker goes on from them. Those in ``lost`` are there for nobody who
    can do without them. Instead of both, ``absent`` says of each segment which optional inputs were not there when it
    was claimed, as ``Segment.absent`` does on chain. Raises PlanError if a quorum is missed, and what the engine's
    ``execute`` raises.
    """

    def missing(index: int) -> int:
        if absent is not None:
            return absent.get(index, 0)
        worker = blueprint.roles[index].worker

        def there(number: int) -> bool:
            return number not in lost and (number not in late or blueprint.roles[number].worker == worker)

        return blueprint.plan.segments[index].absent(there)

    chosen = [_sources(spec, index, missing(index)) for index, spec in enumerate(blueprint.plan.segments)]
    left = Counter(source for sources in chosen for source in sources)
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
        tensors = [tensor for source in chosen[index] for tensor in take(source, role)]
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


def _sources(spec: SegmentSpec, index: int, absent: int) -> tuple[Source, ...]:
    """Where the inputs of a segment come from."""
    if spec.present(absent) < spec.quorum:
        raise PlanError(
            f"segment {index} needs {spec.quorum} of {sum(spec.optional)} optional inputs, "
            f"{absent.bit_count()} are absent"
        )
    return spec.sources(absent)
