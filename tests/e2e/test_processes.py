"""Solvers and verifiers as processes, on anvil, with a store behind HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from crowdtrain_engine import execute
from town import MONEY, PRICE, Town


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with Town(tmp_path_factory.mktemp("town"), people=12) as town:
        yield town


def test_honest_work_is_done_checked_and_paid(town: Town) -> None:
    job = town.post(segments=3, steps=12, window=20)
    town.start("solver", "ada", job=job)
    town.start("verifier", "vera", job=job)
    town.wait(lambda: town.buyer.job(job).settled == 3, 120, "the end of the job")
    town.wait(lambda: town.buyer.owed(town.address("ada")) == 0, 30, "the withdrawal of the pay")
    right, _ = execute(town.program, town.state, town.data, steps=12, backend="reference")
    assert town.segment(job, 2).output_root == right.root
    assert town.worth("ada") == MONEY + 3 * PRICE
    assert town.worth("vera") == MONEY
    assert not town.events("Challenged", job=job)
    status = json.loads((town.folder / "vera" / "status.json").read_bytes())
    assert status["verdicts"]["right"] == 3
    assert town.stop("ada") == 0
    assert town.stop("vera") == 0
