"""Every strategy's plan, done by two solvers in turn: the result has the words that one machine computes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import crowdtrain as ct
import pytest
from crowdtrain import runs, strategies
from crowdtrain.chain import Segment, SegmentKey, SegmentState
from crowdtrain.client import Client, JobHandle
from crowdtrain.stores import FakeStore
from crowdtrain.strategies import Blueprint, Quantized, TopK, carry_out
from crowdtrain_node.decide import Policy
from crowdtrain_node.solver import Solver
from market_days import HARDWARE, Place
from strategies_support import RATE, datasets, example, gradients, network, training
from torch import nn

ROUNDS, STEPS, PRICE = 2, 2, 5000
OFTEN = {"rounds": ROUNDS, "steps": STEPS, "price": PRICE}
"""for strategies that merge after several steps"""
EACH = {"steps": ROUNDS, "price": PRICE}
"""for those that merge after each"""
ADAMW = ct.optim.AdamW(lr=RATE)
TRUNK, HEAD = ("0.*", "1.*"), "3.*"
NATIVE = replace(HARDWARE, backend="native", threads=1)


def data(workers: int = 2) -> list[ct.Dataset]:
    return datasets(workers, ROUNDS * STEPS)


def dipaco() -> Blueprint:
    """Two paths with one trunk, each with a head of its own."""
    modules: list[Mapping[str, str | tuple[str, ...]]] = [
        {"trunk": TRUNK, f"head {k}": HEAD} for k in range(2)
    ]
    paths = [strategies.Path(training(), own, of) for own, of in zip(data(), modules, strict=True)]
    return strategies.dipaco(paths, codec=Quantized(8), **OFTEN)


def swarm() -> Blueprint:
    """A pipeline of three stages, with two micro-batches in a step."""
    stages = list(network().children())
    pipeline = ct.lower_stages(
        [nn.Sequential(*stages[:2]), nn.Sequential(stages[2]), stages[3]],
        nn.functional.mse_loss, optimizer=ADAMW, example=example(), micro_batches=2,
    )  # fmt: skip
    return strategies.swarm(pipeline, data(1), **EACH)


MAKERS: Mapping[str, Callable[[], Blueprint]] = {
    "data parallel": lambda: strategies.data_parallel(gradients(), data(), optimizer=ADAMW, **EACH),
    "ZeRO": lambda: strategies.zero(gradients(), data(), optimizer=ADAMW, shards=2, **EACH),
    "DeMo": lambda: strategies.demo(gradients(), data(), **EACH),
    "local SGD": lambda: strategies.local_sgd(training(), data(), **OFTEN),
    "lo-fi": lambda: strategies.lo_fi(training(), data(), steps=ROUNDS * STEPS, price=PRICE),
    "DiLoCo": lambda: strategies.diloco(
        training(), data(), codec=Quantized(4), broadcast=Quantized(8), **OFTEN
    ),
    "streaming DiLoCo": lambda: strategies.streaming_diloco(
        training(), data(), fragments=2, codec=Quantized(4), **OFTEN
    ),
    "elastic DiLoCo": lambda: strategies.elastic_diloco(training(), data(3), quorum=2, **OFTEN),
    "SparseLoCo": lambda: strategies.sparse_loco(training(), data(), codec=TopK(16, 1), **OFTEN),
    "DiPaCo": dipaco,
    "mixture": lambda: strategies.mixture(training(), data(), experts=HEAD, **OFTEN),
    "SWARM": swarm,
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(runs, "TRIAL", 0.0)  # all programs are fast enough
    monkeypatch.setattr(
        os, "fsync", lambda file: None
    )  # no power fails here, and syncing is most of the time
    place = Place(tmp_path, FakeStore())
    yield place
    place.close()


def post(place: Place, blueprint: Blueprint) -> JobHandle:
    client = Client(place.chain, place.store)
    return client.post(client.quote_plan(blueprint, stake=50, lease=60, window=30, clock=120, audits=0.0))


def two(place: Place) -> tuple[Solver, Solver]:
    """Solvers that have nothing in common, not even the backend."""
    eager = Policy(courtesy=0)
    return place.solver("alice", policy=eager), place.solver("bob", policy=eager, hardware=NATIVE)


def segments(place: Place, handle: JobHandle) -> list[Segment]:
    return [place.chain.segment(SegmentKey(handle.id, i)) for i in range(handle.job.terms.segments)]


def done_by(place: Place, handle: JobHandle, solver: str) -> list[int]:
    """What a solver has committed."""
    who, held = place.account(solver).address, (SegmentState.COMMITTED, SegmentState.SETTLED)
    return [s.key.index for s in segments(place, handle) if s.solver == who and s.state in held]


def work_until(done: Callable[[], bool], place: Place, *solvers: Solver) -> None:
    """Lets solvers take turns, each of which lasts until what it began is done."""
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end, "not done"
        before = place.chain.head()
        for solver in solvers:
            solver.agent.wake.clear()
            solver.turn()
            if solver.agent.work.busy:
                assert solver.agent.wake.wait(60)
        if place.chain.head() == before:
            place.chain.advance(15)
            time.sleep(0.01)  # what was refused is left alone for a second or more


def do_one(place: Place, handle: JobHandle, name: str, solver: Solver) -> None:
    """Lets a solver, alone, do a segment of its choice."""
    before = len(done_by(place, handle, name))
    work_until(lambda: len(done_by(place, handle, name)) > before, place, solver)


def is_settled(handle: JobHandle) -> bool:
    return handle.job.settled == handle.job.terms.segments


@pytest.mark.parametrize("name", MAKERS)
def test_two_solvers_do_what_one_machine_does(name: str, place: Place) -> None:
    blueprint = MAKERS[name]()
    handle = post(place, blueprint)
    alice, bob = two(place)
    for index in range(len(blueprint.plan.segments)):
        do_one(place, handle, *(("bob", bob) if index % 2 else ("alice", alice)))
    work_until(partial(is_settled, handle), place, alice, bob)
    done = segments(place, handle)
    assert len(done_by(place, handle, "alice")) - len(done_by(place, handle, "bob")) == len(done) % 2
    absent = {index: segment.absent for index, segment in enumerate(done)}
    assert handle.result().root == carry_out(blueprint, absent=absent).state.root


def test_another_goes_on_with_the_stage_of_one_who_vanished(place: Place) -> None:
    blueprint = swarm()
    stage = {i for i, role in enumerate(blueprint.roles) if (role.what, role.worker) == ("forward", 1)}
    handle = post(place, blueprint)
    alice, bob = two(place)
    who = place.account("alice").address

    def held() -> set[int]:
        """What alice has claimed of the stage in the middle."""
        return {
            segment.key.index
            for segment in segments(place, handle)
            if segment.solver == who and segment.state is SegmentState.CLAIMED and segment.key.index in stage
        }

    work_until(lambda: bool(held()), place, alice)
    (left,) = held()
    alice.close()
    work_until(partial(is_settled, handle), place, bob)
    events = place.chain.events(0, place.chain.head()[0])
    expired = [event.fields["segment"] for event in events if event.name == "Expired"]
    assert expired == [left]
    assert {segment.solver for segment in segments(place, handle)} == {place.account("bob").address}
    assert handle.result().root == carry_out(blueprint).state.root
