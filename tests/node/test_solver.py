"""A solver on a fake chain: what it earns, what it keeps, and what cannot stop it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from crowdtrain.chain import Phase, Reason, SegmentKey
from crowdtrain.cid import cid_of
from crowdtrain.game import DEFENDER_PHASES, attack
from crowdtrain.game.sabotage import parse
from crowdtrain.jobs import publish_job
from crowdtrain.plan import chain as chain_plan
from crowdtrain.runs import Speeds
from crowdtrain_engine import TensorType
from crowdtrain_engine.trace import Machine, Replay
from crowdtrain_node.decide import Policy
from market_days import HARDWARE, MONEY, Market, run_until
from small_jobs import INTERVAL, PAY, PRICE, SEGMENTS, STEPS


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path)
    yield market
    market.close()


def settled(market: Market) -> bool:
    return market.chain.job(market.job).settled == SEGMENTS


def names(market: Market) -> list[str]:
    return [event.name for event in market.chain.events(0, market.chain.head()[0])]


def test_an_honest_solver_does_the_whole_job_and_is_paid(market: Market) -> None:
    solver = market.solver("alice")
    account = market.account("alice")
    run_until(lambda: settled(market) and account.owed(account.address) == 0, [solver], market.chain)
    last = market.chain.segment(SegmentKey(market.job, SEGMENTS - 1))
    assert last.output_root == market.given.after(STEPS).root
    assert market.locked("alice") == 0
    assert market.worth("alice") == MONEY + SEGMENTS * PAY
    assert names(market).count("Claimed") == names(market).count("Committed") == SEGMENTS


def test_what_it_earned_and_does_stands_in_its_folder(market: Market) -> None:
    solver = market.solver("alice")
    run_until(lambda: settled(market) and solver.agent.ledger.earned > PRICE, [solver], market.chain)
    solver.turn()
    lines = [json.loads(line) for line in (market.folder / "alice" / "ledger.jsonl").read_text().splitlines()]
    assert [(line["amount"], line["cause"]) for line in lines] == [
        (PRICE, "price of segment 0 of job 1"),
        (PAY - PRICE, "fee of segment 0 of job 1"),
        (PRICE, "price of segment 1 of job 1"),
        (PAY - PRICE, "fee of segment 1 of job 1"),
    ]
    status = json.loads((market.folder / "alice" / "status.json").read_bytes())
    assert (status["earned"], status["lost"]) == (SEGMENTS * PRICE, SEGMENTS * (PRICE - PAY))
    assert status["record"]["settled"] == SEGMENTS
    assert status["work"]["segment"] == SEGMENTS - 1
    assert status["work"]["step"] == status["work"]["steps"]
    assert isinstance(status["work"]["loss"], float)
    assert list((market.folder / "alice" / "runs").iterdir()) == []


def test_what_moved_while_it_was_down_is_entered_when_it_is_back(market: Market) -> None:
    solver, verifier = market.solver("alice"), market.verifier("victor")
    run_until(lambda: len(market.committed()) == SEGMENTS, [solver], market.chain)
    solver.turn()
    solver.close()
    run_until(lambda: settled(market), [verifier], market.chain)
    for _ in range(30):
        market.chain.advance(1)
    again = market.solver("alice")
    again.turn()
    assert again.agent.ledger.earned == SEGMENTS * PRICE


@pytest.mark.parametrize("turns", [2, 4, 6, 9, 12, 16, 20])
def test_a_restart_at_any_moment_changes_nothing(market: Market, turns: int) -> None:
    first = market.solver("alice")
    for _ in range(turns):
        first.turn()
        market.pause(first)
    first.close()
    second = market.solver("alice")
    run_until(lambda: settled(market) and market.locked("alice") == 0, [second], market.chain)
    assert market.worth("alice") == MONEY + SEGMENTS * PAY
    assert names(market).count("Claimed") == names(market).count("Committed") == SEGMENTS


def test_work_goes_on_from_the_last_checkpoint(market: Market) -> None:
    first = market.solver("alice")
    work = market.folder / "alice" / "runs"
    run_until(lambda: bool(list(work.glob("*/1.safetensors"))), [first], market.chain)
    first.close()
    (kept,) = list(work.glob("1-0-*/1.safetensors"))
    before = kept.stat().st_mtime_ns
    second = market.solver("alice")
    run_until(lambda: names(market).count("Committed") == 1, [second], market.chain)
    assert kept.stat().st_mtime_ns == before
    assert market.committed()[0].output_root == market.given.after(market.given.plan.segments[0].steps).root


def test_a_damaged_checkpoint_is_computed_again(market: Market) -> None:
    first = market.solver("alice")
    work = market.folder / "alice" / "runs"
    run_until(lambda: bool(list(work.glob("*/1.safetensors"))), [first], market.chain)
    first.close()
    for kept in work.glob("*/1.safetensors"):
        kept.write_bytes(kept.read_bytes()[:-1] + b"\xff")
    second = market.solver("alice")
    run_until(lambda: settled(market), [second], market.chain)
    assert market.worth("alice") == MONEY + SEGMENTS * PAY


def test_it_defends_right_work_after_a_restart(market: Market) -> None:
    """An attacker who lies about a step loses the bond, though the solver is started anew after each move."""
    solver = market.solver("alice")
    run_until(lambda: len(market.committed()) == SEGMENTS, [solver], market.chain)
    given, stake = market.given, market.given.job.terms.stake
    liar = Machine(given.program, given.data, backend="reference", deviation=parse("gradient"))
    lie = Replay.run(liar, given.state, steps=given.plan.segments[0].steps, interval=INTERVAL)
    attacker = market.account("eve")
    attacker.deposit(stake)
    key = SegmentKey(market.job, 0)
    game, _ = attacker.challenge(key, given.plan.segments[0], attacker.segment(key).seal)
    while attacker.game(game).phase is not Phase.OVER:
        solver.close()
        solver = market.solver("alice")
        run_until(lambda: attacker.game(game).phase not in DEFENDER_PHASES, [solver], market.chain)
        move = attack(attacker.game(game), lie)
        if move is not None:
            move.send(attacker)
    assert attacker.game(game).reason is Reason.RIGHT_WORD
    run_until(lambda: settled(market), [solver], market.chain)
    assert market.worth("eve") == MONEY - stake
    assert market.worth("alice") == MONEY + SEGMENTS * PAY + stake // 2


def test_a_trace_that_is_lost_is_computed_again_to_be_paid(market: Market) -> None:
    """What a solver commits to, it can reveal, even if its folder's runs are gone."""
    solver = market.solver("alice")
    run_until(lambda: len(market.committed()) == SEGMENTS, [solver], market.chain)
    solver.close()
    shutil.rmtree(market.folder / "alice" / "runs")
    again = market.solver("alice")
    run_until(lambda: settled(market), [again], market.chain)
    assert market.worth("alice") == MONEY + SEGMENTS * PAY


def test_a_trace_root_is_revealed_when_its_segment_cannot_be_settled_yet(market: Market) -> None:
    """A dispute that outlasts window and clock does not make work forfeit."""
    solver = market.solver("alice")
    run_until(lambda: len(market.committed()) == SEGMENTS, [solver], market.chain)
    key, given = SegmentKey(market.job, 0), market.given
    attacker = market.account("eve")
    attacker.deposit(given.job.terms.stake)
    attacker.challenge(key, given.plan.segments[0], attacker.segment(key).seal)
    terms = given.job.terms
    run_until(lambda: attacker.now() > attacker.segment(key).until + terms.clock, [solver], market.chain)
    for index in range(SEGMENTS):
        assert market.chain.round(SegmentKey(market.job, index), 0).trace_root != bytes(32)
    run_until(lambda: settled(market), [solver], market.chain)
    assert "Forfeited" not in names(market)
    assert market.worth("alice") == MONEY + SEGMENTS * PAY + terms.stake // 2


def test_who_does_not_reveal_is_forfeited_and_another_does_the_work(market: Market) -> None:
    vanished, other = market.solver("vanished"), market.solver("alice")
    run_until(lambda: len(market.committed()) == 1, [vanished], market.chain)
    vanished.close()
    run_until(lambda: settled(market), [other], market.chain)
    stake = market.given.job.terms.stake
    assert names(market).count("Forfeited") >= 1
    assert market.worth("vanished") == MONEY - stake
    assert market.worth("alice") == MONEY + SEGMENTS * PAY
    assert market.chain.record(market.account("vanished").address).forfeited == 1
    again = market.solver("vanished")
    again.turn()
    assert again.agent.ledger.lost == stake


def test_it_says_what_a_segment_paid_or_why_not(market: Market) -> None:
    solver = market.solver("alice")
    run_until(lambda: settled(market), [solver], market.chain)
    solver.turn()
    lines = [json.loads(line) for line in (market.folder / "alice" / "log.jsonl").read_text().splitlines()]
    paid = [
        (line["about"], line["price"], line["fee"], line["pay"]) for line in lines if line["event"] == "paid"
    ]
    assert paid == [(f"segment {i} of job 1", PRICE, PRICE - PAY, PAY) for i in range(SEGMENTS)]


def test_who_lets_a_lease_run_out_loses_the_work_but_no_stake(market: Market) -> None:
    slow, other = market.solver("slow"), market.solver("alice")
    run_until(lambda: "Claimed" in names(market), [slow], market.chain)
    slow.close()
    run_until(lambda: settled(market), [other], market.chain)
    assert names(market).count("Expired") == 1
    assert market.worth("slow") == MONEY
    assert market.locked("slow") == 0
    assert market.worth("alice") == MONEY + SEGMENTS * PAY


def test_what_is_built_on_an_overturned_segment_is_voided_without_loss(market: Market) -> None:
    cheat, honest, verifier = (
        market.solver("mallory", "gradient"),
        market.solver("alice"),
        market.verifier("victor"),
    )
    run_until(lambda: len(market.committed()) == 1, [cheat], market.chain)
    cheat_done = market.committed()[0].solver
    run_until(lambda: len(market.committed()) == SEGMENTS, [honest], market.chain)
    assert {segment.solver for segment in market.committed()} == {cheat_done, honest.agent.account}
    run_until(lambda: settled(market), [cheat, honest, verifier], market.chain)
    assert names(market).count("Voided") == 1
    assert market.worth("mallory") == MONEY - market.given.job.terms.stake
    assert market.worth("alice") == MONEY + SEGMENTS * PAY


# ------------------------------------------------------------------ hostile jobs


def post(market: Market, manifest: str, **changes: object) -> None:
    terms = replace(market.given.job.terms, **changes)  # type: ignore[arg-type]
    market.chain.post(terms, manifest)


def test_a_job_without_files_does_not_stop_it(market: Market) -> None:
    post(market, cid_of(b"what nobody has"))
    post(market, "no cid at all")
    post(market, market.given.manifest, plan_root=bytes(32))
    solver = market.solver("alice")
    run_until(lambda: settled(market), [solver], market.chain)
    assert {"job 2", "job 3", "job 4"} <= set(solver.agent.resting.reasons)


def test_what_this_machine_cannot_afford_is_not_claimed(market: Market) -> None:
    def refused(**limits: int) -> str:
        solver = market.solver(f"poor {limits}", hardware=replace(HARDWARE, **limits))  # type: ignore[arg-type]
        run_until(lambda: bool(solver.agent.resting.reasons), [solver], market.chain)
        return str(solver.agent.resting.reasons)

    assert "bytes of memory" in refused(memory=1000)
    assert "bytes of disk" in refused(disk=1000)
    assert "Claimed" not in names(market)


def test_work_that_takes_longer_than_the_lease_is_not_claimed(market: Market) -> None:
    solver = market.solver("slow", hardware=replace(HARDWARE, speed=1.0))
    for _ in range(200):
        solver.turn()
        market.pause(solver)
    assert "Claimed" not in names(market)


def test_a_program_that_is_still_open_is_refused(market: Market) -> None:
    given = market.given
    kinds = tuple(TensorType(kind.dtype, (0, *kind.shape[1:])) for kind in given.program.data)
    program = replace(given.program, data=kinds)
    plan = chain_plan(program, given.data.root, segments=1, steps=2, interval=1, price=PRICE)
    manifest = publish_job(given.store, plan, [program], [given.data], given.state)
    post(market, manifest, plan_root=plan.root, segments=1)
    solver = market.solver("alice")
    run_until(lambda: settled(market), [solver], market.chain)
    assert "segment 0 of job 2" in solver.agent.resting.reasons


def test_a_job_of_too_many_segments_is_left_alone(market: Market) -> None:
    post(market, market.given.manifest, segments=5000)
    solver = market.solver("alice")
    run_until(lambda: settled(market), [solver], market.chain)
    log = (market.folder / "alice" / "log.jsonl").read_text()
    assert "it has 5000 segments" in log


def test_a_cheap_job_is_left_alone(market: Market) -> None:
    solver = market.solver("alice", policy=Policy(min_price=PAY + 1))
    for _ in range(100):
        solver.turn()
        market.pause(solver)
    assert "Claimed" not in names(market)


def test_a_store_that_is_down_for_a_while_costs_nothing(market: Market) -> None:
    solver = market.solver("alice")
    run_until(lambda: "Claimed" in names(market), [solver], market.chain)
    market.given.store.available = False
    run_until(lambda: bool(solver.agent.resting.keys), [solver], market.chain)
    market.given.store.available = True
    run_until(lambda: settled(market), [solver], market.chain)
    assert market.worth("alice") == MONEY + SEGMENTS * PAY


def test_what_was_too_slow_in_a_busy_moment_is_tried_again(market: Market) -> None:
    solver = market.solver("alice")
    root = market.given.program.root
    solver._speeds.learn(root, 1e6)
    for _ in range(20):
        solver.turn()
        market.pause(solver)
    assert "Claimed" not in names(market)
    solver._speeds._known[root] = 1e6, time.time() - Speeds.LASTS
    run_until(lambda: settled(market), [solver], market.chain)
