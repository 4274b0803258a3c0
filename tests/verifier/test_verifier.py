"""A verifier on a fake chain: cheats are overturned, nobody honest loses, and nothing is challenged blindly.

Every way to cheat is tried on a real chain in tests/e2e.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from crowdtrain.chain import GameId, GroupProof, Phase, Reason, SegmentKey, SegmentState
from crowdtrain.game.sabotage import parse
from crowdtrain.jobs import publish_job
from crowdtrain.plan import chain as chain_plan
from crowdtrain.runs import Hardware
from crowdtrain_engine import Dataset, Program, merkle
from crowdtrain_engine.trace import Machine, seal, trace_root
from crowdtrain_verifier.decide import Policy
from market_days import HARDWARE, MONEY, Market, run_until
from small_jobs import PAY, PRICE, SEGMENTS

DEAR, ENROLLED = 1000, 300
"""a price at which silence costs something; what auditors enroll with"""


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path)
    yield market
    market.close()


def settled(market: Market) -> bool:
    return market.chain.job(market.job).settled == SEGMENTS


def overturned(market: Market) -> int:
    return sum(event.name == "Overturned" for event in market.chain.events(0, market.chain.head()[0]))


@pytest.mark.parametrize("mode", ["gradient", "next-state", "trace-ends", "silent-page"])
def test_a_cheat_is_overturned_and_somebody_else_does_it_again(market: Market, mode: str) -> None:
    cheat, verifier = market.solver("mallory", sabotage=mode), market.verifier("victor")
    stake = market.given.job.terms.stake
    run_until(lambda: overturned(market) > 0, [cheat, verifier], market.chain)
    honest = market.solver("alice")
    run_until(lambda: settled(market), [cheat, verifier, honest], market.chain)
    assert market.worth("mallory") == MONEY - stake * overturned(market)
    assert market.worth("victor") == MONEY + stake // 2 * overturned(market)
    assert market.worth("alice") == MONEY + SEGMENTS * PAY
    assert verifier.agent.ledger.earned == stake // 2 * overturned(market)
    assert cheat.agent.ledger.lost == stake * overturned(market)


def test_right_work_is_not_challenged(market: Market) -> None:
    solver, verifier = market.solver("alice"), market.verifier("victor")
    run_until(lambda: settled(market), [solver, verifier], market.chain)
    assert market.chain.game_count() == 0
    assert verifier.agent.status["verdicts"] == {"right": SEGMENTS, "wrong": 0, "invalid": 0, "doubtful": 0}


def paid_for_audits(market: Market) -> dict[str, int]:
    """What each account was paid for attestations."""
    paid: dict[str, int] = {}
    for event in market.chain.events(0, market.chain.head()[0]):
        if event.name == "Audited":
            fields: dict[str, Any] = event.fields
            paid[fields["auditor"]] = paid.get(fields["auditor"], 0) + fields["amount"]
    return paid


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[Market]:
    """A market with a job that asks for four auditors, who share as much as the price."""
    terms = {"audit_rate": 40_000, "audit_share": 10_000, "escrow": 2 * SEGMENTS * DEAR, "window": 300}
    market = Market(tmp_path, price=DEAR, **terms)
    yield market
    market.close()


def test_the_drawn_replay_attest_and_are_paid(audited: Market) -> None:
    solver = audited.solver("alice")
    drawn, other = audited.verifier("vera", Policy(enroll=ENROLLED)), audited.verifier("walter")
    run_until(lambda: audited.chain.total_weight() == ENROLLED, [drawn], audited.chain)
    run_until(lambda: settled(audited), [solver, drawn, other], audited.chain)
    vera = audited.account("vera")
    assert paid_for_audits(audited) == {vera.address: SEGMENTS * DEAR}
    run_until(lambda: vera.owed(vera.address) == 0, [drawn], audited.chain)
    assert audited.worth("vera") == MONEY + SEGMENTS * DEAR
    assert vera.weight(vera.address) == ENROLLED
    assert vera.record(vera.address).attested == SEGMENTS
    status = drawn.agent.status
    assert (status["enrolled"], status["record"]["attested"]) == (ENROLLED, SEGMENTS)  # type: ignore[index]


def test_an_audit_survives_restarts(audited: Market) -> None:
    solver, verifier = audited.solver("alice"), audited.verifier("vera", Policy(enroll=ENROLLED))
    run_until(lambda: audited.chain.total_weight() == ENROLLED, [verifier], audited.chain)

    rng = random.Random(1)

    def restart_and_look() -> bool:
        nonlocal verifier
        verifier.close()
        verifier = audited.verifier("vera", Policy(enroll=ENROLLED))
        verifier.turn()
        for _ in range(rng.randrange(6)):  # it is ended in the middle of loading, replaying and attesting
            while verifier.agent.work.busy and not verifier.agent.work.done:
                time.sleep(0.005)
            verifier.turn()
        return settled(audited)

    run_until(restart_and_look, [solver], audited.chain)
    vera = audited.account("vera")
    assert paid_for_audits(audited) == {vera.address: SEGMENTS * DEAR}
    assert audited.account("vera").weight(vera.address) == ENROLLED


def test_who_is_drawn_and_silent_is_reported(audited: Market) -> None:
    silent, solver, verifier = audited.account("silent"), audited.solver("alice"), audited.verifier("walter")
    silent.deposit(ENROLLED)
    silent.enroll(ENROLLED)
    run_until(lambda: settled(audited), [solver], audited.chain)  # nobody draws: nothing can be said
    run_until(lambda: not verifier._ended and verifier._seen.block > 0, [verifier], audited.chain)
    assert silent.record(silent.address).silent == 0
    job = audited.post(audit_rate=40_000, audit_share=10_000, escrow=2 * SEGMENTS * DEAR, window=300)
    slow = [solver, verifier]
    run_until(
        lambda: audited.chain.segment(SegmentKey(job, 1)).state is SegmentState.COMMITTED, slow, audited.chain
    )
    audited.chain.mine(40)  # more than another verifier leaves to the drawn themselves
    run_until(lambda: silent.record(silent.address).silent > 0, slow, audited.chain)
    run_until(lambda: not verifier._ended and not verifier._faults, slow, audited.chain)
    penalties = silent.record(silent.address).silent * (DEAR // 50 // 10)
    assert silent.weight(silent.address) == ENROLLED - penalties
    assert audited.worth("walter") == MONEY + silent.record(silent.address).silent * (DEAR // 50 // 10 // 2)


def test_who_attests_wrong_is_reported(audited: Market) -> None:
    liar, solver, verifier = audited.account("liar"), audited.solver("alice"), audited.verifier("walter")
    liar.deposit(ENROLLED)
    liar.enroll(ENROLLED)
    run_until(lambda: bool(audited.committed()), [solver], audited.chain)
    audited.chain.mine(2)
    (committed, *_) = audited.committed()
    liar.attest(committed.key, 0, committed.seal, seal(bytes(32), bytes.fromhex(liar.address[2:])))
    run_until(lambda: liar.record(liar.address).misattested == 1, [solver, verifier], audited.chain)
    assert liar.address not in paid_for_audits(audited)


def test_nothing_but_audits_is_replayed_if_wanted(audited: Market) -> None:
    solver, verifier = audited.solver("alice"), audited.verifier("walter", Policy(drawn_only=True))
    run_until(lambda: settled(audited), [solver, verifier], audited.chain)
    assert verifier.agent.status["verdicts"] == {"right": 0, "wrong": 0, "invalid": 0, "doubtful": 0}


def test_two_verifiers_do_not_both_lose_time_and_money(market: Market) -> None:
    cheat = market.solver("mallory", sabotage="optimizer")
    first, second = market.verifier("victor"), market.verifier("walter")
    run_until(lambda: overturned(market) == 1, [cheat, first, second], market.chain)
    run_until(
        lambda: market.locked("victor") == market.locked("walter") == 0, [cheat, first, second], market.chain
    )
    stake = market.given.job.terms.stake
    worths = {market.worth("victor"), market.worth("walter")}
    assert max(worths) >= MONEY + stake // 2
    assert min(worths) >= MONEY


def test_what_cannot_be_fetched_is_not_challenged(market: Market) -> None:
    solver, verifier = market.solver("mallory", sabotage="gradient"), market.verifier("victor")
    blobs = market.given.store.blobs
    run_until(lambda: bool(market.committed()), [solver], market.chain)
    hidden = dict(blobs)
    blobs.clear()
    run_until(lambda: bool(verifier.agent.resting.keys), [verifier], market.chain)
    assert market.chain.game_count() == 0
    blobs.update(hidden)
    verifier.agent.resting.clear("job 1")
    run_until(lambda: market.chain.game_count() > 0, [verifier], market.chain)


class Faulty(Hardware):
    """A machine that computes wrong words from the third step on."""

    def machine(self, program: Program, data: Dataset, **options: Any) -> Machine:
        return super().machine(program, data, **{**options, "deviation": parse("garbage:3")})


def test_its_own_fault_costs_no_bond(market: Market) -> None:
    faulty = Faulty(**{field.name: getattr(HARDWARE, field.name) for field in fields(HARDWARE)})
    solver, verifier = market.solver("alice"), market.verifier("victor", hardware=faulty)
    run_until(lambda: bool(market.committed()), [solver], market.chain)

    def doubts() -> bool:
        verdicts = verifier.agent.status.get("verdicts")
        return isinstance(verdicts, dict) and verdicts["doubtful"] > 0

    run_until(doubts, [verifier], market.chain)
    assert market.chain.game_count() == 0


def test_an_accomplice_cannot_hold_the_verifier_off(market: Market) -> None:
    """What an accomplice disputes, to give in at the end, is challenged before the window ends."""
    cheat = market.solver("mallory", sabotage="gradient")
    run_until(lambda: bool(market.committed()), [cheat], market.chain)
    accomplice, key = market.account("accomplice"), SegmentKey(market.job, 0)
    accomplice.deposit(market.given.job.terms.stake)
    accomplice.challenge(key, market.given.plan.segments[0], accomplice.segment(key).seal)
    verifier = market.verifier("victor", Policy(max_stake=MONEY))
    run_until(lambda: market.chain.segment(key).games == 2, [cheat, verifier], market.chain)
    assert market.chain.now() <= market.chain.segment(key).until
    run_until(lambda: overturned(market) > 0, [cheat, verifier], market.chain)
    assert market.chain.barred(market.job, cheat.agent.account)


def test_a_result_of_an_invalid_program_is_overturned(market: Market) -> None:
    """Nobody can run it, but whoever commits a result for it is proved wrong by the program alone."""
    given = market.given
    program = replace(given.program, next=(given.program.next[1], *given.program.next[1:]))
    plan = chain_plan(program, given.data.root, segments=1, steps=2, interval=1, price=PRICE)
    manifest = publish_job(given.store, plan, [program], [given.data], given.state)
    terms = replace(given.job.terms, plan_root=plan.root, segments=1)
    job, _ = market.chain.post(terms, manifest)
    cheat, key = market.account("mallory"), SegmentKey(job, 0)
    roots = given.state.group_roots
    proofs = [GroupProof(root, tuple(merkle.Tree(roots).proof(i))) for i, root in enumerate(roots)]
    cheat.deposit(terms.stake)
    cheat.claim(key, plan.segments[0], plan.proof(0), proofs)
    trace = [given.state.root] * 3
    sealed = seal(trace_root(trace), bytes.fromhex(cheat.address[2:]))
    cheat.commit(key, given.state.root, roots, sealed, "nowhere")
    verifier = market.verifier("victor")
    run_until(lambda: market.chain.game_count() == 1, [verifier], market.chain)
    market.chain.advance(max(0, market.chain.game(GameId(1)).since - market.chain.now()))
    cheat.reveal_trace(GameId(1), market.chain.game(GameId(1)).position, trace)
    run_until(lambda: market.chain.game(GameId(1)).phase is Phase.OVER, [verifier], market.chain)
    assert market.chain.game(GameId(1)).reason is Reason.INVALID_PROGRAM
    assert market.worth("mallory") == MONEY - terms.stake
    assert market.worth("victor") == MONEY + terms.stake // 2


def test_an_absurd_replay_is_refused_aloud(market: Market) -> None:
    run_until(lambda: bool(market.committed()), [market.solver("alice")], market.chain)
    verifier = market.verifier("victor", hardware=replace(HARDWARE, speed=1.0))
    run_until(lambda: bool(verifier.agent.resting.keys), [verifier], market.chain)
    assert "its replay takes about" in str(verifier.agent.resting.reasons)


def test_a_verifier_goes_on_after_a_restart_in_the_middle_of_a_dispute(market: Market) -> None:
    cheat, verifier = market.solver("mallory", sabotage="gradient"), market.verifier("victor")
    run_until(lambda: market.chain.game_count() > 0, [cheat, verifier], market.chain)
    while not overturned(market):
        verifier.close()
        verifier = market.verifier("victor")
        position = market.chain.game(GameId(1)).position
        run_until(
            lambda: market.chain.game(GameId(1)).position != position,  # noqa: B023
            [cheat, verifier],
            market.chain,
        )
    assert market.worth("victor") == MONEY + market.given.job.terms.stake // 2 * overturned(market)
