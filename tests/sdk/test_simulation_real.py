"""Forecasts beside plans that threads really carry out together, through a store with slow links.

Each machine computes every segment with the engine, at a pace of its own; every byte goes through a folder. Only who
gets a segment is decided in one place, instead of on a chain.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import safetensors.numpy
from crowdtrain import strategies
from crowdtrain.chain import INITIAL, Source
from crowdtrain.simulation import Fleet, Machine, Market, Network, Observed, Workload, compare, simulate
from crowdtrain.stores import LocalStore
from crowdtrain.strategies import Blueprint, Quantized, carry_out
from crowdtrain_engine import Executor, Program, State
from crowdtrain_engine.state import Array
from strategies_support import datasets, training

UP, DOWN, LATENCY, CHAIN = 4_000.0, 8_000.0, 0.03, 0.06
STEP, OTHER = 0.06, 0.2
"""seconds of a training step, and of a step of any other program, for a machine of speed 1"""


@dataclass
class Crowd:
    """Machines of these speeds, and what they did."""

    blueprint: Blueprint
    store: LocalStore
    speeds: list[float]
    observed: list[Observed] = field(default_factory=list)
    moved: float = 0.0

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.plan = Workload.of(self.blueprint)
        """who builds on whom"""
        self.committed: dict[int, int] = {}
        """the machine that did each segment"""
        self.claimed: set[int] = set()
        self.idle = set(range(len(self.speeds)))
        self.where: dict[Source, tuple[str, int]] = {}
        self.caches: list[dict[Source, list[Array]]] = [{} for _ in self.speeds]
        for i, group in enumerate(self.blueprint.initial.values()):
            self._put(Source(INITIAL, i), list(group.values()))

    def _put(self, source: Source, group: list[Array]) -> float:
        blob = safetensors.numpy.save({str(i): tensor for i, tensor in enumerate(group)})
        self.where[source] = (self.store.put(blob), len(group))
        return float(sum(tensor.nbytes for tensor in group))

    def _get(self, source: Source) -> list[Array]:
        cid, count = self.where[source]
        tensors = safetensors.numpy.load(self.store.get(cid, 2**30))
        return [tensors[str(i)] for i in range(count)]

    def run(self) -> None:
        """Carries the plan out."""
        self.start = time.perf_counter()
        with ThreadPoolExecutor(len(self.speeds)) as pool:
            going: set[Future[None]] = set()
            while len(self.committed) < len(self.plan.tasks):
                for machine, index in self._matches():
                    going.add(pool.submit(self._do, machine, index))
                done, going = wait(going, return_when="FIRST_COMPLETED")
                for future in done:
                    future.result()

    def _matches(self) -> list[tuple[int, int]]:
        """Open segments and idle machines: a worker's with its machine, others with the one that is done first."""
        found = []
        with self.lock:
            ready = [
                index for index, sources in enumerate(self.plan.sources)
                if index not in self.claimed and sources <= self.committed.keys()
            ]  # fmt: skip
            ready.sort(key=lambda index: (self._machine_of(index) not in self.idle, index))
            for index in ready:
                if not self.idle:
                    break
                own = self._machine_of(index)
                machine = (
                    own if own in self.idle else min(self.idle, key=lambda m: (self._takes(m, index), m))
                )
                self.idle.discard(machine)
                self.claimed.add(index)
                found.append((machine, index))
        return found

    def _machine_of(self, index: int) -> int:
        worker = self.plan.tasks[index].worker
        own = (i for i in self.committed if worker is not None and self.plan.tasks[i].worker == worker)
        last = max(own, default=-1)
        return self.committed.get(last, -1)

    def _takes(self, machine: int, index: int) -> float:
        """Seconds that a machine would be busy with a segment before it stores the output."""
        spec, cache = self.blueprint.plan.segments[index], self.caches[machine]
        sizes = {
            s: self.plan.sizes[g] for s, g in zip(spec.inputs, self.plan.tasks[index].inputs, strict=False)
        }
        fetching = sum(size for source, size in sizes.items() if source not in cache) / DOWN
        return fetching + spec.steps * seconds_of(self.blueprint.program(index)) / self.speeds[machine]

    def _do(self, machine: int, index: int) -> None:
        claimed, spec, program = (
            time.perf_counter(),
            self.blueprint.plan.segments[index],
            self.blueprint.program(index),
        )
        cache = self.caches[machine]
        time.sleep(CHAIN)
        missing = [source for source in dict.fromkeys(spec.inputs) if source not in cache]
        begun = time.perf_counter()
        fetched = 0.0
        for source in missing:
            cache[source] = self._get(source)
            fetched += sum(tensor.nbytes for tensor in cache[source])
        pace(begun, (LATENCY + fetched / DOWN) if missing else 0.0)
        begun = time.perf_counter()
        state = State.from_tensors(
            program, [tensor.copy() for source in spec.inputs for tensor in cache[source]]
        )
        executor = Executor(program, state, self.blueprint.dataset(index), backend="native", threads=1)
        executor.run(spec.steps)
        pace(begun, spec.steps * seconds_of(program) / self.speeds[machine])
        begun = time.perf_counter()
        stored = 0.0
        kept = {source for source in spec.inputs if self._is_unchanged(program, spec.inputs.index(source))}
        for number, group in enumerate(executor.state.values()):
            source = Source(index, number)
            cache[source] = list(group.values())
            if spec.inputs[number] in kept:
                self.where[source] = self.where[spec.inputs[number]]
            else:
                stored += self._put(source, cache[source])
        pace(begun, LATENCY + stored / UP)
        time.sleep(CHAIN)
        ended = time.perf_counter()
        with self.lock:
            self.moved += fetched + stored
            self.observed.append(Observed(index, claimed - self.start, ended - self.start))
            self.committed[index] = machine
            self.idle.add(machine)

    @staticmethod
    def _is_unchanged(program: Program, group: int) -> bool:
        return all(program.next[i] == i for i in range(program.bounds[group], program.bounds[group + 1]))


def pace(begun: float, seconds: float) -> None:
    """Waits until so many seconds have passed."""
    time.sleep(max(0.0, begun + seconds - time.perf_counter()))


def seconds_of(program: Program) -> float:
    """Of a step, on a machine of speed 1."""
    return STEP if program.data else OTHER


@pytest.mark.parametrize(
    ("make", "speeds"),
    [
        (lambda: strategies.diloco(training(), datasets(3, 40), rounds=4, steps=10), [1.0, 1.0, 1.0]),
        (
            lambda: strategies.diloco(
                training(), datasets(3, 20), rounds=2, steps=10, codec=Quantized(4), broadcast=Quantized(8)
            ),
            [1.0, 2.0, 4.0],
        ),
    ],
    ids=["equal machines", "unequal machines"],
)
def test_time_and_bytes_are_forecast_within_a_fifth(
    make: Callable[[], Blueprint], speeds: list[float], tmp_path: Path
) -> None:
    blueprint = make()
    crowd = Crowd(blueprint, LocalStore(tmp_path), speeds)
    crowd.run()
    assert blueprint.assemble(crowd._get).root == carry_out(blueprint).state.root
    plan = Workload.of(blueprint, seconds_of)
    data = {task.inputs[-1] for task in plan.tasks if task.what == "train"}  # every thread has them already
    sizes = tuple(0.0 if group in data else size for group, size in enumerate(plan.sizes))
    fleet = Fleet(tuple(Machine(speed) for speed in speeds))
    network = Network(UP, DOWN, LATENCY, chain=CHAIN)
    forecast = simulate(Workload(sizes, plan.tasks, plan.result), fleet, network, Market(lease=600))
    comparison = compare(forecast, crowd.observed, crowd.moved)
    assert comparison.within(0.2), comparison
