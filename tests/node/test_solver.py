"""A solver on a fake chain: what it earns, what it keeps, and what cannot stop it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crowdtrain.chain import SegmentKey, SegmentState
from market_days import MONEY, Market, run_until
from small_jobs import PRICE, SEGMENTS, STEPS


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path)
    yield market
    market.close()


def settled(market: Market) -> bool:
    return market.chain.job(market.job).settled == SEGMENTS


def test_an_honest_solver_does_the_whole_job_and_is_paid(market: Market) -> None:
    solver = market.solver("alice")
    account = market.account("alice")
    run_until(lambda: settled(market) and account.owed(account.address) == 0, [solver], market.chain)
    last = market.chain.segment(SegmentKey(market.job, SEGMENTS - 1))
    assert last.state is SegmentState.SETTLED
    assert last.output_root == market.given.after(STEPS).root
    free, locked = account.stake(account.address)
    assert locked == 0
    assert account.tokens(account.address) + free == MONEY + SEGMENTS * PRICE
    assert solver.agent.ledger.earned == SEGMENTS * PRICE
