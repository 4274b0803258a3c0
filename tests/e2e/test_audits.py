"""Audits with real processes on anvil: who replays is paid, who is silent or hides a trace root pays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crowdtrain.chain import JobId, SegmentState
from crowdtrain.statement import statement
from town import CLOCK, MONEY, STAKE, WINDOW, Town

DEAR, ENROLLED = 10_000, 5_000
"""a price at which silence costs something; what auditors enroll with"""
FEE, PENALTY = DEAR // 50, DEAR // 50 // 10


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with Town(tmp_path_factory.mktemp("town")) as town:
        yield town


def post(town: Town) -> JobId:
    """A job whose auditors share as much as the price; all that are enrolled are drawn."""
    return town.post(price=DEAR, audit_rate=40_000, audit_share=10_000)


def explained(town: Town, *names: str) -> None:
    """What everybody has follows from the chain's events."""
    for name in names:
        statement(town.buyer, town.address(name)).check()


def test_an_auditor_replays_and_is_paid(town: Town) -> None:
    town.start("verifier", "vera", "--enroll", str(ENROLLED), "--drawn-only")
    town.wait(lambda: town.buyer.total_weight() == ENROLLED, 60, "the enrolment")
    job = post(town)
    town.start("solver", "ada", job=job)
    town.wait(lambda: bool(town.events("Attested", job=job)), 120, "the attestation")
    town.devnet.advance(WINDOW + 1)
    town.wait(lambda: town.segment(job).state is SegmentState.SETTLED, 60, "the pay")
    town.wait(lambda: town.buyer.owed(town.address("vera")) == 0, 60, "the withdrawal of the audit's pay")
    town.stop("ada")
    town.stop("vera")
    assert town.worth("vera") == MONEY + DEAR
    assert town.worth("ada") == MONEY + DEAR - FEE
    assert town.buyer.record(town.address("vera")).attested == 1
    explained(town, "buyer", "ada", "vera")
    vera = town.account("vera")
    vera.leave(ENROLLED)
    vera.release()


def test_a_drawn_auditor_who_is_silent_pays(town: Town) -> None:
    silent = town.account("silent")
    silent.deposit(ENROLLED)
    silent.enroll(ENROLLED)
    job = post(town)
    town.start("verifier", "walter", job=job)
    town.start("solver", "bob", job=job)
    town.wait(lambda: town.segment(job).state is SegmentState.COMMITTED, 120, "the work")
    town.devnet.mine(40)  # as long as others leave the drawn to draw
    town.wait(lambda: bool(town.events("Drawn", job=job)), 60, "the draw")
    town.devnet.advance(WINDOW + 1)
    town.wait(lambda: bool(town.events("Silent", job=job)), 60, "the report")
    town.stop("walter")
    town.stop("bob")
    assert town.worth("silent") == MONEY - PENALTY
    assert town.worth("walter") == MONEY + PENALTY // 2
    assert town.worth("bob") == MONEY + DEAR - FEE
    silent.leave(ENROLLED - PENALTY)
    explained(town, "buyer", "silent", "walter", "bob")


def test_a_solver_that_hides_its_trace_root_is_forfeited_and_the_segment_done_again(town: Town) -> None:
    job = post(town)
    town.start("solver", "gone", job=job)
    town.wait(lambda: town.segment(job).state is SegmentState.COMMITTED, 120, "the work")
    town.kill("gone")
    town.devnet.advance(WINDOW + CLOCK + 10)
    town.start("solver", "carl", job=job)
    town.wait(lambda: bool(town.events("Forfeited", job=job)), 120, "the forfeit")
    town.wait(lambda: town.segment(job).state is SegmentState.COMMITTED, 120, "the work of another")
    town.devnet.advance(WINDOW + 1)
    town.wait(lambda: town.segment(job).state is SegmentState.SETTLED, 60, "the pay")
    town.stop("carl")
    assert town.worth("gone") == MONEY - STAKE
    assert town.worth("carl") == MONEY + DEAR - FEE
    assert town.buyer.stake(town.address("buyer"))[0] == STAKE // 2
    assert town.buyer.record(town.address("gone")).forfeited == 1
    explained(town, "buyer", "gone", "carl")
