"""Plans of several workers through the market: quoted, posted, claimed, and put together from what was committed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import pytest
from crowdtrain._errors import PlanError, Refused
from crowdtrain.chain import Reason, Segment, SegmentKey
from crowdtrain.client import Client, JobHandle, NotReadyError
from crowdtrain.fakes import FakeChain
from crowdtrain.game.sabotage import WrongWord
from crowdtrain.jobs import load_job
from crowdtrain.simulation import Fleet
from crowdtrain.simulation import Machine as Computer
from crowdtrain.stores import FakeStore
from crowdtrain.strategies import Blueprint, Quantized, TopK, carry_out, diloco, elastic_diloco, mixture
from crowdtrain.tensors import save_state
from crowdtrain_engine.trace import Deviation, Machine, Replay, seal, trace_root
from sdk.arena import Arena, fake_arena, overturned
from sdk.arena import Segment as Disputed
from strategies_support import datasets, training

WORKERS, ROUNDS, STEPS, PRICE = 3, 2, 2, 10**6
WINDOW = 30
STAKE = PRICE // 10
SOLVER, CHALLENGER = "0x" + "11" * 20, "0x" + "22" * 20


def market() -> tuple[Client, FakeChain]:
    """A buyer on a chain in memory, where a solver and a challenger have stakes."""
    chain = FakeChain("0x" + "b0" * 20)
    chain.mint(100 * PRICE)
    for address in (SOLVER, CHALLENGER):
        account = chain.as_account(address)
        account.mint(100 * PRICE)
        account.deposit(50 * PRICE)
    return Client(chain, FakeStore()), chain


def post(client: Client, blueprint: Blueprint) -> JobHandle:
    offer = client.quote_plan(blueprint, stake=STAKE, lease=600, window=WINDOW, clock=120, audits=0.0)
    return client.post(offer)


def segment_of(handle: JobHandle, index: int) -> Segment:
    return handle.client.chain.segment(SegmentKey(handle.id, index))


def ran(handle: JobHandle, index: int, deviation: Deviation | None = None) -> Replay:
    """A segment's work, done rightly or not."""
    files = load_job(handle.client.chain, handle.client.store, handle.id)
    spec, machine = (
        files.spec(index),
        Machine(files.program(index), files.dataset(index), deviation=deviation),
    )
    start = files.load_input(index, partial(segment_of, handle))
    return Replay.run(machine, start, steps=spec.steps, interval=spec.interval)


def do(
    handle: JobHandle, chain: FakeChain, index: int, done: Replay | None = None, address: str = SOLVER
) -> Callable[[], object]:
    """Claims, runs and commits a segment; how to settle it."""
    solver, key = chain.as_account(address), SegmentKey(handle.id, index)
    files = load_job(chain, handle.client.store, handle.id)
    spec = files.spec(index)
    solver.claim(key, spec, files.plan.proof(index), files.input_proofs(index, partial(segment_of, handle)))
    done = done or ran(handle, index)
    output, root = done.state_at(len(done.trace) - 1), trace_root(done.trace)
    cid = save_state(handle.client.store, output)
    solver.commit(key, done.trace[0], output.group_roots, seal(root, bytes.fromhex(address[2:])), cid)
    return lambda: solver.settle(key, spec, root)


def carry_out_there(
    handle: JobHandle, chain: FakeChain, blueprint: Blueprint, late: Collection[int] = ()
) -> None:
    """Does all segments but those that are ``late``, which come last; then everything is settled."""
    segments = range(len(blueprint.plan.segments))
    order = [*(i for i in segments if i not in late), *sorted(late)]
    ends = {index: do(handle, chain, index) for index in order}
    with pytest.raises(NotReadyError):
        handle.result()
    chain.advance(WINDOW + 1)
    for index in segments:
        ends[index]()


def test_a_plan_is_quoted_posted_done_and_put_together() -> None:
    client, chain = market()
    blueprint = diloco(
        training(), datasets(2, ROUNDS * STEPS), rounds=ROUNDS, steps=STEPS, codec=Quantized(4), price=PRICE
    )
    handle = post(client, blueprint)
    carry_out_there(handle, chain, blueprint)
    assert handle.result().root == carry_out(blueprint).state.root


@pytest.mark.parametrize("strategy", [elastic_diloco, partial(mixture, experts="3.*")])
def test_who_is_late_is_left_out_of_a_merge_and_joins_the_next(strategy: Callable[..., Blueprint]) -> None:
    client, chain = market()
    blueprint = strategy(
        training(), datasets(WORKERS, ROUNDS * STEPS), rounds=ROUNDS, steps=STEPS, quorum=2, price=PRICE
    )
    first = {(role.what, role.worker): i for i, role in reversed([*enumerate(blueprint.roles)])}
    merges = [i for i, role in enumerate(blueprint.roles) if role.what == "merge"]
    handle = post(client, blueprint)
    late = [first["train", 1], first["encode", 1]]
    ends: dict[int, Callable[[], object]] = {}
    for index in range(merges[0] + 1):
        if index not in late:
            ends[index] = do(handle, chain, index)
    assert chain.segment(SegmentKey(handle.id, merges[0])).absent
    for index in [*late, *range(merges[0] + 1, len(blueprint.plan.segments))]:
        ends[index] = do(handle, chain, index)
    assert not chain.segment(SegmentKey(handle.id, merges[1])).absent
    chain.advance(WINDOW + 1)
    for index in sorted(ends):
        ends[index]()
    on_time = carry_out(blueprint).state.root
    assert handle.result().root not in (on_time, blueprint.initial.root)
    absent = {index: chain.segment(SegmentKey(handle.id, index)).absent for index in ends}
    assert handle.result().root == carry_out(blueprint, absent=absent).state.root


def test_a_quorum_is_waited_for() -> None:
    client, chain = market()
    blueprint = elastic_diloco(training(), datasets(2, STEPS), rounds=1, steps=STEPS, quorum=2, price=PRICE)
    handle = post(client, blueprint)
    merge = [role.what for role in blueprint.roles].index("merge")
    with pytest.raises(PlanError, match="too few of the inputs"):
        do(handle, chain, merge)
    spec = blueprint.plan.segments[merge]
    with pytest.raises(Refused, match="QuorumMissed"):
        chain.as_account(SOLVER).claim(SegmentKey(handle.id, merge), spec, blueprint.plan.proof(merge), ())


def test_a_quote_says_what_a_fleet_takes() -> None:
    client, _ = market()
    blueprint = diloco(training(), datasets(WORKERS, STEPS), rounds=1, steps=STEPS, price=PRICE)
    fast, slow = (
        client.quote_plan(blueprint, fleet=Fleet.of(WORKERS, Computer(speed))) for speed in (1e6, 1e5)
    )
    assert fast.machines == WORKERS
    assert fast.seconds < slow.seconds
    assert fast.lease < slow.lease
    assert fast.plan.price == PRICE
    assert fast.moved > 0
    with pytest.raises(PlanError, match="give the state to the strategy"):
        client.post(fast, blueprint.initial)


# ------------------------------------------------------------------ lies in what only serves the strategy


CODECS: dict[str, dict[str, Any]] = {
    "quantized": {"codec": Quantized(4), "broadcast": Quantized(8)},
    "sparse": {"codec": TopK(16, 1)},
}


def coded(codec: str) -> Blueprint:
    data = datasets(2, ROUNDS * STEPS)
    return diloco(training(), data, rounds=ROUNDS, steps=STEPS, price=PRICE, **CODECS[codec])


def last(blueprint: Blueprint, what: str) -> int:
    """The last segment of a kind: its memory (moments, what was lost) is not zero."""
    return max(i for i, role in enumerate(blueprint.roles) if role.what == what)


@pytest.mark.parametrize("what", ["encode", "merge", "receive"])
def test_a_lie_in_it_is_overturned_and_the_plan_goes_on(what: str) -> None:
    client, chain = market()
    blueprint = coded("quantized")
    handle, index = post(client, blueprint), last(blueprint, what)
    ends = [do(handle, chain, earlier) for earlier in range(index)]
    number = len(blueprint.program(index).nests) // 2
    lie = WrongWord(0, lambda program: number)
    wrong, honest = ran(handle, index, lie), ran(handle, index)
    do(handle, chain, index, wrong)
    solver, challenger = chain.as_account(SOLVER), chain.as_account(CHALLENGER)
    arena, key = Arena(chain, solver, challenger, chain.advance), SegmentKey(handle.id, index)
    disputed = Disputed(arena, key, blueprint.plan.segments[index], wrong, honest, lie)
    assert disputed.worth
    before = [sum(account.stake(account.address)) for account in (solver, challenger)]
    game = disputed.dispute()
    assert overturned(game)
    assert (game.reason, game.value) == (Reason.WRONG_WORD, honest.program.first_nest + number)
    after = [sum(account.stake(account.address)) for account in (solver, challenger)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [-STAKE, STAKE // 2]
    rest = range(index, len(blueprint.plan.segments))
    ends += [do(handle, chain, later, address=CHALLENGER) for later in rest]
    chain.advance(WINDOW + 1)
    for settle in ends:
        settle()
    assert handle.result().root == carry_out(blueprint).state.root


@pytest.mark.parametrize("codec", CODECS)
def test_a_lie_in_any_of_their_values_is_overturned(codec: str) -> None:
    """Each nest of each program in turn has a wrong word, which the judge computes."""
    client, chain = market()
    blueprint = coded(codec)
    handle = post(client, blueprint)
    for index in range(len(blueprint.plan.segments)):
        do(handle, chain, index)
    serving = {role.what for role in blueprint.roles} - {"train"}
    assert serving >= {"encode", "merge"}
    for index in (last(blueprint, what) for what in serving):
        program, start = blueprint.program(index), ran(handle, index).state_at(0)
        judged = 0
        for number in range(len(program.nests)):
            lie = WrongWord(0, lambda program, number=number: number)  # type: ignore[misc]
            data = blueprint.dataset(index)
            disputed = Disputed.commit(fake_arena(), program, start, data, sabotage=lie, backend="native")
            if not disputed.worth:
                continue  # a word on which nothing depends here, so that all that is committed is right
            game = disputed.dispute()
            assert overturned(game)
            assert (game.reason, game.value) == (Reason.WRONG_WORD, program.first_nest + number)
            judged += 1
        assert judged > 0.8 * len(program.nests)
