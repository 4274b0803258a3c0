"""Solvers and verifiers as processes, on anvil, with a store behind HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from crowdtrain.chain import SegmentState
from crowdtrain_engine import execute
from town import LEASE, MONEY, PAY, PRICE, STAKE, WINDOW, Town


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with Town(tmp_path_factory.mktemp("town")) as town:
        yield town


def test_honest_work_is_done_checked_and_paid(town: Town) -> None:
    job = town.post(segments=3, steps=12)
    town.start("solver", "ada", job=job)
    town.start("verifier", "vera", job=job)

    def checked() -> int:
        verdicts = town.status("vera").get("verdicts", {})
        return verdicts["right"] if isinstance(verdicts, dict) and verdicts else 0

    town.wait(lambda: checked() == 3, 120, "the check of three segments")
    town.devnet.advance(WINDOW + 1)
    town.wait(lambda: town.buyer.job(job).settled == 3, 60, "the end of the job")
    town.wait(lambda: town.buyer.owed(town.address("ada")) == 0, 60, "the withdrawal of the pay")
    right, _ = execute(town.program, town.state, town.data, steps=12, backend="reference")
    assert town.segment(job, 2).output_root == right.root
    assert town.worth("ada") == MONEY + 3 * PAY
    assert town.worth("vera") == MONEY
    assert not town.events("Challenged", job=job)
    assert town.stop("ada") == town.stop("vera") == 0
    lines = (town.folder / "ada" / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["amount"] for line in lines] == [PRICE, PAY - PRICE] * 3


def test_a_lease_that_runs_out_is_taken_over(town: Town) -> None:
    job = town.post(steps=60)
    town.start("solver", "slow", job=job)
    town.wait(lambda: bool(town.events("Claimed", job=job)), 60, "a claim")
    town.kill("slow")
    town.devnet.advance(LEASE + 1)
    town.start("solver", "bob", job=job)
    town.wait(lambda: town.segment(job).state is SegmentState.COMMITTED, 90, "the work of another")
    assert town.segment(job).solver == town.address("bob")
    assert len(town.events("Expired", job=job)) == 1
    assert town.buyer.stake(town.address("slow")) == (STAKE, 0)
    assert town.worth("slow") == MONEY
    town.stop("bob")


def test_what_is_built_on_a_cheat_is_voided_and_done_again(town: Town) -> None:
    job = town.post(segments=2, steps=8)
    town.start("solver", "mallory", "--sabotage", "gradient:3", "--max-stake", str(STAKE), job=job)
    town.wait(lambda: town.segment(job, 0).state is SegmentState.COMMITTED, 60, "the cheat's commitment")
    town.start("solver", "carl", job=job)
    town.wait(lambda: town.segment(job, 1).state is SegmentState.COMMITTED, 60, "what is built on it")
    town.start("verifier", "victor", job=job)
    town.wait(lambda: bool(town.events("Challenged", job=job)), 60, "the challenge")
    town.devnet.advance(WINDOW // 2)
    town.wait(lambda: bool(town.events("Overturned", job=job)), 120, "the end of the cheat")
    town.devnet.advance(LEASE // 10 + 1)  # the winner's own time to claim
    town.wait(
        lambda: all(town.segment(job, i).state is SegmentState.COMMITTED for i in range(2)), 120, "both again"
    )
    town.devnet.advance(WINDOW + 1)
    town.wait(lambda: town.buyer.job(job).settled == 2, 60, "the end of the job")
    assert len(town.events("Voided", job=job)) == 1
    assert town.worth("mallory") == MONEY - STAKE
    assert town.worth("carl") == MONEY + 2 * PAY
    assert town.worth("victor") == MONEY + STAKE // 2
    right, _ = execute(town.program, town.state, town.data, steps=8, backend="reference")
    assert town.segment(job, 1).output_root == right.root
