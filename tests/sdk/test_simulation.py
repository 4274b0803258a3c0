"""The simulation keeps its books, agrees with what can be worked out by hand, and survives what strangers ask of it."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections import Counter
from itertools import pairwise
from typing import Any

import crowdtrain as ct
import pytest
from crowdtrain._errors import PlanError
from crowdtrain.simulation import (
    Fleet,
    Forecast,
    Machine,
    Market,
    Model,
    Network,
    Recipe,
    Task,
    Workload,
    outline,
    simulate,
)
from crowdtrain.simulation.link import SharedLink
from crowdtrain.strategies import Quantized
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

DATA_PARALLEL = Recipe("data parallel", 1, gradients=True, outer_slots=2)
INSTANT = Network(math.inf, math.inf, latency=0.0, chain=0.0)
SHARED = Market(uploads="shared")


def chain_of(count: int, operations: float = 100.0, size: float = 0.0) -> Workload:
    """Segments one after another, each handing on a group."""
    tasks = tuple(Task(operations, (i,), (i + 1,), worker=0) for i in range(count))
    return Workload((size,) * (count + 1), tasks, frozenset({count}))


def side_by_side(works: list[float], size: float = 0.0) -> Workload:
    """Segments that need nothing of one another."""
    tasks = tuple(Task(work, (), (i,), worker=i) for i, work in enumerate(works))
    return Workload((size,) * len(works), tasks)


# ------------------------------------------------------------------ the textbook's example


GIGABIT = 1e9 / 8
BILLION = Model(1e9, operations=1e12, word=2, slots=2)
"""1B parameters in half precision"""
SERVER = Machine(1e10, "server", up=math.inf, down=math.inf)
"""merges at once, and is too slow to train"""


def textbook(recipe: Recipe, rounds: int, down: float) -> Forecast:
    """Eight machines at 1 Gbit/s, each doing a step in a second, and a server that merges."""
    fleet = Fleet((*Fleet.of(8, Machine(1e12)).machines, SERVER))
    merging = outline(BILLION, recipe, workers=8, rounds=rounds)
    free = tuple(
        task if task.what == "train" else dataclasses.replace(task, operations=0.0) for task in merging.tasks
    )
    plan = dataclasses.replace(merging, tasks=free)
    lease = 100.0 if recipe.steps == 1 else 2000.0 * recipe.steps / 500
    network = Network(up=GIGABIT, down=down, latency=0.0, chain=0.0)
    return simulate(plan, fleet, network, Market(lease=lease, uploads="shared"))


def test_data_parallel_spends_16_seconds_a_step_on_sending_2_gb_over_a_gigabit() -> None:
    forecasts = [textbook(DATA_PARALLEL, rounds, math.inf) for rounds in (5, 6)]
    step = forecasts[1].seconds - forecasts[0].seconds
    assert step == pytest.approx(1.0 + 16.0)
    assert forecasts[0].up == pytest.approx(5 * 8 * 2e9 + 5 * 2e9 * 3)  # gradients; parameters and moments


def test_receiving_over_the_same_link_takes_as_long_again() -> None:
    forecasts = [textbook(DATA_PARALLEL, rounds, GIGABIT) for rounds in (5, 6)]
    assert forecasts[1].seconds - forecasts[0].seconds == pytest.approx(1.0 + 32.0)


def test_diloco_with_500_steps_makes_a_thirtieth_of_a_second_of_it() -> None:
    forecasts = [textbook(Recipe("DiLoCo", 500), rounds, math.inf) for rounds in (2, 3)]
    per_step = (forecasts[1].seconds - forecasts[0].seconds) / 500
    assert per_step == pytest.approx(1.0 + 16.0 / 500)
    assert per_step < 1.04


# ------------------------------------------------------------------ by hand


def test_a_chain_takes_the_sum_of_its_parts() -> None:
    network = Network(up=10.0, down=20.0, latency=0.5, chain=2.0)
    forecast = simulate(chain_of(3, 100.0, 40.0), Fleet.of(1, Machine(10.0)), network, Market(lease=1000))
    # each: claim 2, compute 10, send 0.5 + 4, commit 2; the first receives 0.5 + 2
    assert forecast.seconds == pytest.approx(3 * 18.5 + 2.5)
    assert (forecast.up, forecast.down) == (120.0, 40.0)
    assert forecast.settled == pytest.approx(forecast.seconds + 600 + 2)
    assert forecast.utilisation == pytest.approx(30 / 58)
    assert forecast.is_complete
    assert forecast.goodput == 1.0


def test_a_successor_starts_on_what_is_committed_not_settled() -> None:
    market = Market(lease=1000, window=10_000)
    forecast = simulate(chain_of(4), Fleet.of(2, Machine(10.0)), INSTANT, market)
    assert forecast.seconds == pytest.approx(40.0)
    assert forecast.settled == pytest.approx(10_040.0)


def test_machines_of_unequal_speed_share_the_work_by_speed() -> None:
    fleet = Fleet(tuple(Machine(speed) for speed in (1.0, 2.0, 4.0)))
    forecast = simulate(side_by_side([1.0] * 700), fleet, INSTANT, Market(lease=10))
    done = Counter(attempt.machine for attempt in forecast.attempts)
    assert [done[m] for m in range(3)] == [100, 200, 400]
    assert forecast.seconds == pytest.approx(100.0)


def test_slow_machines_take_the_small_segments() -> None:
    fleet = Fleet((Machine(1.0, "slow"), Machine(10.0, "fast")))
    forecast = simulate(side_by_side([5.0, 50.0, 5.0, 50.0]), fleet, INSTANT, Market(lease=20))
    assert {a.segment for a in forecast.attempts if a.machine == 0} <= {0, 2}
    assert {1, 3} <= {a.segment for a in forecast.attempts if a.machine == 1}


def test_a_segment_that_nobody_can_do_is_said_before() -> None:
    with pytest.raises(PlanError, match=r"no machine can do segment 1 \(train\)"):
        simulate(side_by_side([1.0, 100.0]), Fleet.of(3, Machine(1.0)), INSTANT, Market(lease=20))
    heavy = Workload((), (Task(1.0, (), (), memory=100.0),))
    with pytest.raises(PlanError, match="100 bytes of memory"):
        simulate(heavy, Fleet.of(3, Machine(1.0, memory=99.0)), INSTANT)


def test_a_worker_stays_with_its_machine_and_fetches_only_what_it_lacks() -> None:
    plan = outline(Model(1e6, 1e9), Recipe("DiLoCo", 10), workers=4, rounds=5)
    forecast = simulate(plan, Fleet.of(4, Machine(1e9)))
    where: dict[int | None, set[int]] = {}
    for attempt in forecast.attempts:
        where.setdefault(plan.tasks[attempt.segment].worker, set()).add(attempt.machine)
    assert all(len(where[worker]) == 1 for worker in range(4))


def test_the_store_is_shared_evenly() -> None:
    network = Network(up=10.0, down=10.0, latency=0.0, store_in=20.0, chain=0.0)
    forecast = simulate(side_by_side([0.0] * 4, 100.0), Fleet.of(4, Machine(1.0)), network, Market(lease=100))
    assert forecast.seconds == pytest.approx(20.0)
    assert forecast.peak == pytest.approx(20.0)
    wide = dataclasses.replace(network, store_in=40.0)
    again = simulate(side_by_side([0.0] * 4, 100.0), Fleet.of(4, Machine(1.0)), wide, Market(lease=100))
    assert again.seconds == pytest.approx(10.0)


def test_a_shared_link_serves_all_transfers_at_one_rate() -> None:
    link = SharedLink(10.0)
    link.add(0.0, (0, 0), 100.0)
    link.add(5.0, (1, 0), 100.0)  # 50 are left of the first, which now takes 10 s
    assert link.next() == pytest.approx(15.0)
    assert link.pop(15.0) == (0, 0)
    assert link.next() == pytest.approx(20.0)
    link.add(15.0, (2, 0), 1000.0)
    link.cancel(17.0, (2, 0))  # 10 were lost to it
    assert link.next() == pytest.approx(21.0)
    assert link.pop(21.0) == (1, 0)
    assert link.next() is None


def test_only_what_others_need_is_stored_if_so_agreed() -> None:
    plan = outline(BILLION, Recipe("DiLoCo", 500), workers=4, rounds=3)
    fleet = Fleet.of(4, Machine(1e12))
    everything, shared = simulate(plan, fleet), simulate(plan, fleet, market=SHARED)
    assert everything.up - shared.up == pytest.approx(3 * 4 * 2 * 2e9)  # the moments


def test_compressed_changes_move_fewer_bytes() -> None:
    def round_moves(recipe: Recipe) -> float:
        plans = [outline(BILLION, recipe, workers=8, rounds=rounds) for rounds in (3, 4)]
        fewer, more = (simulate(plan, Fleet.of(8, Machine(1e12)), market=SHARED).down for plan in plans)
        return more - fewer

    exact = round_moves(Recipe("exact", 100))
    coded = round_moves(Recipe("coded", 100, codec=Quantized(4), broadcast=Quantized(4)))
    # a change is sent by each of the eight and the merged one by one; the machine that merges has its own
    assert exact == pytest.approx(7 * 2e9 * 2, rel=0.2)
    assert coded < exact / 3


def test_many_workers_are_merged_in_a_tree() -> None:
    plan = outline(Model(10, 10), Recipe("DiLoCo", 2), workers=1000, rounds=1, fan_in=64)
    assert max(len(task.inputs) for task in plan.tasks) <= 66
    assert sum(task.what == "mean" for task in plan.tasks) == 16
    assert simulate(plan, Fleet.of(1000, Machine(1e6))).is_complete


# ------------------------------------------------------------------ elastic plans


def test_a_straggler_does_not_block_a_round_that_takes_a_quorum() -> None:
    fleet = Fleet((*Fleet.of(3, Machine(1e9)).machines, Machine(2e7), Machine(1e8)))
    market, rounds = Market(lease=10_000), 6
    whole, elastic = (
        simulate(outline(Model(1e3, 1e9), Recipe("", 10, quorum=q), workers=4, rounds=rounds), fleet, INSTANT, market)
        for q in (1.0, 0.75)
    )  # fmt: skip
    assert whole.is_complete
    assert elastic.is_complete
    assert elastic.ready < whole.ready / 2


def test_what_is_late_is_replaced_when_a_segment_is_claimed() -> None:
    """Two workers, of which the second takes long; the merge needs one of them."""
    fast, slow, late = Task(10, (0,), (1,), worker=0), Task(100, (0,), (2,), worker=1), Task(1, (2,), (4,))
    merge = Task(10, (1, 2), (3,), fallbacks=(0, 0), quorum=1)
    plan = Workload((1.0,) * 5, (fast, slow, merge, late), frozenset({3}))
    forecast = simulate(plan, Fleet.of(2, Machine(1.0)), INSTANT, Market(lease=1000, window=7))
    ended = {attempt.segment: attempt.ended for attempt in forecast.attempts}
    assert (ended[0], ended[1], ended[2], ended[3]) == (10, 100, 20, 101)
    assert (forecast.ready, forecast.seconds, forecast.settled) == (20, 101, 108)
    both = dataclasses.replace(merge, quorum=2)
    waiting = simulate(
        dataclasses.replace(plan, tasks=(fast, slow, both, late)), Fleet.of(2, Machine(1.0)), INSTANT
    )
    assert waiting.ready == pytest.approx(110)


# ------------------------------------------------------------------ money


def test_a_fixed_price_is_paid_once_and_refused_by_those_it_does_not_feed() -> None:
    plan = Workload((), tuple(Task(3600.0, (), (), price=5.0) for _ in range(6)))
    fleet = Fleet((Machine(1.0, price=4.0), Machine(1.0, price=6.0), Machine(2.0, price=9.0)))
    forecast = simulate(plan, fleet, INSTANT, Market(lease=10_000))
    assert forecast.cost == pytest.approx(30.0)
    assert {attempt.machine for attempt in forecast.attempts} == {0, 2}
    assert forecast.expenses == pytest.approx(2 * 4.0 + 4 * 4.5)


def test_without_prices_machines_are_paid_for_their_time() -> None:
    forecast = simulate(side_by_side([3600.0] * 2), Fleet.of(2, Machine(1.0, price=4.0)), INSTANT)
    assert forecast.cost == forecast.expenses == pytest.approx(8.0)


# ------------------------------------------------------------------ failures


def test_a_machine_that_leaves_costs_its_lease_and_no_more() -> None:
    fleet = Fleet((Machine(10.0, present=((0.0, 5.0),)), Machine(1.0, present=((4.0, math.inf),))))
    forecast = simulate(chain_of(1, 100.0), fleet, INSTANT, Market(lease=300, patience=20))
    assert forecast.expired == 1
    # three of its sixteen checkpoints would have been of use to it, and to nobody else
    assert forecast.seconds == pytest.approx(300 + 20 + 100)
    assert forecast.wasted == pytest.approx(50.0)
    assert forecast.goodput == pytest.approx(100 / 150)


def test_a_machine_that_comes_back_goes_on_from_its_last_checkpoint() -> None:
    fleet = Fleet((Machine(10.0, present=((0.0, 5.0), (20.0, math.inf))),))
    forecast = simulate(chain_of(1, 100.0), fleet, INSTANT, Market(lease=300, checkpoints=4))
    assert forecast.expired == 0
    assert forecast.seconds == pytest.approx(20 + 5)  # half was kept
    ragged = simulate(chain_of(1, 100.0), fleet, INSTANT, Market(lease=300, checkpoints=3))
    assert ragged.seconds == pytest.approx(20 + 10 * 2 / 3)
    assert ragged.wasted == pytest.approx(100 * (1 / 2 - 1 / 3))


def test_a_quarter_of_claims_abandoned_and_unequal_machines_still_complete() -> None:
    fleet = Fleet(tuple(Machine(speed * 1e9, abandons=0.25) for speed in (1, 1, 2, 2, 4, 4)))
    plan = outline(Model(1e6, 1e9), Recipe("DiLoCo", 20), workers=6, rounds=20)
    forecast = simulate(plan, fleet)
    assert forecast.is_complete
    assert 0.15 < forecast.expired / forecast.claims < 0.35
    assert 0.7 < forecast.goodput < 0.97


def test_checkpoints_are_written_at_the_speed_of_the_machine() -> None:
    plan = Workload((1000.0,), (Task(10.0, (), (0,), checkpoints=4),))
    forecast = simulate(plan, Fleet.of(1, Machine(1.0, writes=400.0)), INSTANT)
    assert forecast.seconds == pytest.approx(10 + 4 * 1000 / 400)


def test_who_gives_up_is_gone_for_a_while_and_may_not_have_the_segment_at_once() -> None:
    plan = side_by_side([100.0] * 2)
    market, machine, seed = Market(lease=300, patience=20), Machine(1.0, abandons=0.5, away=50.0), 10
    # numbers of the first attempts at both segments, and of the second attempt at the first
    fates = {(s, a): machine.fate(seed, s, a)[1] for s, a in ((0, 0), (1, 0), (0, 1))}
    assert fates[0, 0] < 1 < min(fates[1, 0], fates[0, 1]) == math.inf
    forecast = simulate(plan, Fleet((machine,)), INSTANT, market, seed=seed)
    lost, other, again = forecast.attempts
    assert (lost.segment, other.segment, again.segment) == (0, 1, 0)
    assert lost.ended == pytest.approx(100 * fates[0, 0])
    assert other.claimed == pytest.approx(lost.ended + 50)
    # it is there when the lease ends, but holds nothing any more; then it waits for one more lease
    assert again.claimed == pytest.approx(300 + 20 + 300)
    assert forecast.utilisation == pytest.approx((200 + lost.ended) / (forecast.seconds - 50))


def test_jitter_makes_slow_attempts_miss_their_lease() -> None:
    fleet = Fleet.of(4, Machine(1.0, jitter=1.0))
    forecast = simulate(side_by_side([100.0] * 200), fleet, INSTANT, Market(lease=200))
    assert forecast.is_complete
    assert forecast.expired > 0


def test_what_left_with_its_machine_is_said_to_be_missing() -> None:
    plan = Workload((1.0,) * 3, (Task(10, (0,), (1,), worker=0), Task(10, (1,), (2,), worker=0)))
    fleet = Fleet((Machine(10.0, present=((0.0, 1.5),)), Machine(1.0)))
    market = Market(lease=100, uploads="shared")
    forecast = simulate(plan, fleet, INSTANT, market)
    assert (forecast.done, forecast.reason) == (1, "nobody is left who can go on")
    assert simulate(plan, fleet, INSTANT, Market(lease=100)).is_complete


def test_a_run_that_cannot_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    never = Fleet.of(1, Machine(1.0, abandons=1.0))
    forecast = simulate(chain_of(1), never, INSTANT, Market(lease=1000))
    assert forecast.reason == "segment 0 failed 1000 times"
    late = simulate(chain_of(1), never, INSTANT, Market(lease=1000, deadline=5000))
    assert late.reason
    assert late.claims <= 6
    monkeypatch.setattr("crowdtrain.simulation.run.MAX_EVENTS", 1000)
    flickering = Fleet.of(5, Machine(1.0, mean_up=1e-9, mean_down=1e-9))
    assert "gave up" in simulate(chain_of(3), flickering, INSTANT, Market(lease=1000)).reason


def test_machines_that_join_later_help() -> None:
    early = Machine(1.0)
    late = Machine(1.0, present=((50.0, math.inf),))
    plan, market = side_by_side([10.0] * 20), Market(lease=100)
    alone = simulate(plan, Fleet((early,)), INSTANT, market)
    joined = simulate(plan, Fleet((early, late)), INSTANT, market)
    assert alone.seconds == pytest.approx(200.0)
    assert joined.seconds == pytest.approx(130.0)


# ------------------------------------------------------------------ laws


@st.composite
def workloads(draw: st.DrawFn, elastic: bool = False) -> Workload:
    """Small plans of any shape."""
    count = draw(st.integers(1, 12))
    sizes: list[float] = [draw(st.integers(0, 100)) for _ in range(2)]
    tasks = []
    for _ in range(count):
        inputs = draw(st.lists(st.integers(0, len(sizes) - 1), max_size=4, unique=True))
        made = draw(st.integers(0, 3))
        outputs = tuple(range(len(sizes), len(sizes) + made))
        sizes += [draw(st.integers(0, 100)) for _ in range(made)]
        worker = draw(st.none() | st.integers(0, 3))
        task = Task(draw(st.integers(0, 200)), tuple(inputs), outputs, worker=worker)
        if elastic and inputs:
            fallbacks = tuple(draw(st.sampled_from((group, 0, 1))) for group in inputs)
            optional = sum(group != other for group, other in zip(inputs, fallbacks, strict=True))
            task = dataclasses.replace(task, fallbacks=fallbacks, quorum=draw(st.integers(0, optional)))
        tasks.append(task)
    return Workload(tuple(sizes), tuple(tasks))


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """Small fleets, one machine of which always stays and keeps its word."""
    machines = [Machine(draw(st.integers(5, 20)), up=draw(st.none() | st.integers(20, 90)))]
    for _ in range(draw(st.integers(0, 4))):
        fails = draw(st.sampled_from((math.inf, 30.0, 300.0)))
        start = draw(st.sampled_from((0.0, 20.0)))
        machines.append(
            Machine(
                draw(st.integers(1, 40)), mean_up=fails, mean_down=draw(st.sampled_from((0.0, 20.0))),
                present=((start, draw(st.sampled_from((40.0, math.inf)))),),
                jitter=0.0, abandons=draw(st.sampled_from((0.0, 0.3))),
            )
        )  # fmt: skip
    return Fleet(tuple(machines))


LAWS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NETWORKS = st.builds(
    Network, up=st.integers(20, 100), down=st.integers(20, 100), latency=st.sampled_from((0.0, 0.1)),
    store_in=st.sampled_from((math.inf, 150.0)), store_out=st.sampled_from((math.inf, 150.0)),
    chain=st.sampled_from((0.0, 1.0)),
)  # fmt: skip
MARKETS = st.builds(Market, lease=st.just(400.0), checkpoints=st.sampled_from((1, 16)))


@LAWS
@given(workloads(elastic=True), fleets(), NETWORKS, MARKETS, st.integers(0, 3))
def test_work_and_bytes_are_conserved(
    plan: Workload, fleet: Fleet, network: Network, market: Market, seed: int
) -> None:
    forecast = simulate(plan, fleet, network, market, seed=seed)
    assert forecast.is_complete, forecast.reason
    computed = math.fsum(b * m.speed for b, m in zip(forecast.machines_busy, fleet.machines, strict=True))
    assert computed == pytest.approx(plan.operations + forecast.wasted, abs=1e-6)
    stored = math.fsum(plan.bytes(task.outputs) for task in plan.tasks)
    assert forecast.up == pytest.approx(stored + forecast.wasted_up, abs=1e-6)
    done = [attempt for attempt in forecast.attempts if attempt.committed]
    assert sorted(attempt.segment for attempt in done) == list(range(len(plan.tasks)))
    assert forecast.claims == len(forecast.attempts)


@LAWS
@given(workloads(), fleets(), NETWORKS, st.sampled_from(("all", "shared")))
def test_what_is_received_was_stored_before_and_once(
    plan: Workload, fleet: Fleet, network: Network, uploads: str
) -> None:
    """Followed by hand from the log of claims: each machine fetches each group once, after it was committed."""
    always: dict[str, Any] = {"mean_up": math.inf, "abandons": 0.0, "present": ((0.0, math.inf),)}
    steady = Fleet(tuple(dataclasses.replace(machine, **always) for machine in fleet.machines))
    market = Market(lease=400.0, uploads="all" if uploads == "all" else "shared")
    forecast = simulate(plan, steady, network, market)
    if uploads == "all":
        assert forecast.is_complete
    kept = plan.private if uploads == "shared" else frozenset()
    committed = {a.segment: a for a in forecast.attempts}
    fetched = 0.0
    for machine in range(len(steady)):
        has: set[int] = set()
        for attempt in sorted(
            (a for a in forecast.attempts if a.machine == machine), key=lambda a: a.claimed
        ):
            for group in set(plan.tasks[attempt.segment].inputs) - has:
                maker = plan.makers[group]
                assert group not in kept
                assert maker < 0 or committed[maker].ended <= attempt.claimed
                fetched += plan.sizes[group]
            has |= {*plan.tasks[attempt.segment].inputs, *plan.tasks[attempt.segment].outputs}
    assert forecast.down == pytest.approx(fetched)


@LAWS
@given(workloads(), fleets(), NETWORKS, MARKETS)
def test_a_machine_does_one_thing_at_a_time_and_keeps_to_the_order_of_the_plan(
    plan: Workload, fleet: Fleet, network: Network, market: Market
) -> None:
    forecast = simulate(plan, fleet, network, market)
    ended = {a.segment: a.ended for a in forecast.attempts if a.committed}
    for attempt in forecast.attempts:
        assert all(ended[source] <= attempt.claimed for source in plan.sources[attempt.segment])
        if attempt.committed:
            assert attempt.claimed <= attempt.fetched <= attempt.computed <= attempt.ended
            assert attempt.ended - attempt.claimed <= 400.0 + network.chain + 1e-9
    for machine in range(len(fleet)):
        mine = sorted((a.claimed, a.ended) for a in forecast.attempts if a.machine == machine)
        assert all(late[0] >= early[1] for early, late in pairwise(mine))


@LAWS
@given(workloads(elastic=True), fleets(), NETWORKS, MARKETS, st.integers(0, 5))
def test_the_same_question_has_the_same_answer(
    plan: Workload, fleet: Fleet, network: Network, market: Market, seed: int
) -> None:
    first, second = (simulate(plan, fleet, network, market, seed=seed) for _ in range(2))
    assert first.to_json(machines=True, attempts=True) == second.to_json(machines=True, attempts=True)


@LAWS
@given(workloads(), NETWORKS, st.floats(1.0, 10.0), st.integers(1, 30))
def test_on_one_machine_faster_is_never_slower(
    plan: Workload, network: Network, gain: float, speed: int
) -> None:
    """With several machines it can be: a segment then falls to another of them (Graham's anomalies)."""
    fleet, market = Fleet.of(1, Machine(speed)), Market(lease=1e6)
    slow = simulate(plan, fleet, network, market).seconds
    faster = dataclasses.replace(network, up=network.up * gain, down=network.down * gain)
    assert simulate(plan, fleet, faster, market).seconds <= slow + 1e-6
    assert simulate(plan, Fleet.of(1, Machine(speed * gain)), network, market).seconds <= slow + 1e-6


@LAWS
@given(st.integers(1, 6), st.integers(1, 4), NETWORKS, st.floats(1.0, 10.0))
def test_a_faster_network_never_slows_equal_machines_with_a_worker_each(
    workers: int, rounds: int, network: Network, gain: float
) -> None:
    plan = outline(Model(20, 50, slots=1), Recipe("DiLoCo", 4), workers=workers, rounds=rounds)
    fleet, market = Fleet.of(workers, Machine(10.0)), Market(lease=1e6)
    faster = dataclasses.replace(
        network, up=network.up * gain, down=network.down * gain, store_in=network.store_in * gain,
        store_out=network.store_out * gain,
    )  # fmt: skip
    slow, fast = (simulate(plan, fleet, n, market).seconds for n in (network, faster))
    assert fast <= slow + 1e-6


def test_no_schedule_beats_the_longest_path_or_the_whole_fleet() -> None:
    plan = outline(Model(1e6, 1e9), Recipe("DiLoCo", 10), workers=5, rounds=3)
    fleet = Fleet.mixed(5, Machine(1e9), seed=1)
    forecast = simulate(plan, fleet)
    assert forecast.seconds >= plan.operations / sum(machine.speed for machine in fleet.machines)
    fastest = max(machine.speed for machine in fleet.machines)
    longest: list[float] = []
    for index, task in enumerate(plan.tasks):
        before = max((longest[source] for source in plan.sources[index]), default=0.0)
        longest.append(before + task.operations / fastest)
    assert forecast.seconds >= max(longest)


# ------------------------------------------------------------------ hostile and large


@pytest.mark.parametrize(
    "make",
    [
        lambda: Machine(-1.0),
        lambda: Machine(0.0),
        lambda: Machine(math.nan),
        lambda: Machine(math.inf),
        lambda: Machine(1.0, memory=-1.0),
        lambda: Machine(1.0, up=0.0),
        lambda: Machine(1.0, price=-1.0),
        lambda: Machine(1.0, jitter=math.inf),
        lambda: Machine(1.0, abandons=1.5),
        lambda: Machine(1.0, mean_down=math.inf),
        lambda: Machine(1.0, present=((5.0, 1.0),)),
        lambda: Machine(1.0, present=((0.0, 2.0), (1.0, 3.0))),
        lambda: Machine("fast"),  # type: ignore[arg-type]
        lambda: Fleet(()),
        lambda: Fleet.of(10**9, Machine(1.0)),
        lambda: Fleet.of(-1, Machine(1.0)),
        lambda: Network(up=0.0),
        lambda: Network(latency=-1.0),
        lambda: Network(chain=math.inf),
        lambda: Market(lease=0.0),
        lambda: Market(lease_part=1.1),
        lambda: Market(window=math.nan),
        lambda: Market(checkpoints=0),
        lambda: Market(uploads="some"),  # type: ignore[arg-type]
        lambda: Workload((), ()),
        lambda: Workload((-1.0,), (Task(1, (0,), ()),)),
        lambda: Workload((1.0,), (Task(math.nan, (0,), ()),)),
        lambda: Workload((1.0,), (Task(1, (1,), ()),)),
        lambda: Workload((1.0,), (Task(1, (0,), (0,)),)),
        lambda: Workload((1.0, 1.0), (Task(1, (0,), ()), Task(1, (), (0,)))),
        lambda: Workload((1.0,), (Task(1, (), (0,)), Task(1, (), (0,)))),
        lambda: Workload((1.0,), (Task(1, (), ()),), frozenset({7})),
        lambda: Workload((1.0,), (Task(1, (0,), (), fallbacks=(0, 0)),)),
        lambda: Workload((1.0,), (Task(1, (0,), (), fallbacks=(0,), quorum=1),)),
        lambda: Workload((1.0, 1.0), (Task(1, (0,), (1,), fallbacks=(1,)),)),
        lambda: Model(0, 1),
        lambda: Model(1e308, 1, slots=100),
        lambda: Recipe("", 0),
        lambda: Recipe("", 10, fragments=3),
        lambda: Recipe("", 10, quorum=0.0),
        lambda: Recipe("", 10, quorum=0.5, fragments=2),
        lambda: outline(BILLION, Recipe("", 1), workers=10**6, rounds=10**6),
        lambda: outline(BILLION, Recipe("", 1), workers=0, rounds=1),
        lambda: outline(BILLION, Recipe("", 1), workers=2, rounds=1, shares=[1.0, -1.0]),
    ],
)  # fmt: skip
def test_nonsense_is_refused(make: object) -> None:
    with pytest.raises(PlanError):
        make()  # type: ignore[operator]


def test_long_chains_of_nothing_do_not_overflow() -> None:
    assert simulate(chain_of(20_000, 0.0), Fleet.of(1, Machine(1.0)), INSTANT).seconds == 0.0


def test_ten_thousand_machines_are_simulated_in_seconds() -> None:
    fleet = Fleet.mixed(10_000, Machine(2e12, mean_up=36_000, mean_down=3600))
    plan = outline(BILLION, Recipe("DiLoCo", 500), workers=9_000, rounds=1)
    forecast = simulate(plan, fleet)
    assert forecast.is_complete
    assert forecast.used > 8_000


# ------------------------------------------------------------------ what people see


def test_a_forecast_is_shown_as_table_timeline_and_json() -> None:
    fleet = Fleet.of(3, Machine(1e9, name="[red]box", abandons=0.3))
    forecast = simulate(outline(Model(1e6, 1e9), Recipe("DiLoCo", 10), workers=3, rounds=3), fleet)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(forecast)
    console.print(forecast.timeline(60))
    shown = console.export_text()
    assert "goodput" in shown
    assert "[red]box 0 " in shown
    lines = [line for line in shown.splitlines() if "box" in line]
    assert len(lines) == 3
    assert {"T", "M", "x", "<", ">"} <= set("".join(lines).replace("box", ""))
    parsed = json.loads(forecast.to_json(machines=True, attempts=True))
    assert parsed["done"] == parsed["segments"] == len(forecast.workload.tasks)
    assert len(parsed["machines"]) == 3
    assert len(parsed["attempts"]) == forecast.claims


def test_it_is_public() -> None:
    assert ct.simulate is simulate
    assert ct.simulation.Fleet is Fleet
