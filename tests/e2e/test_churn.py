"""Solvers of speeds 1 : 2 : 4 on a real chain, of which those that have claimed a segment are often killed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from crowdtrain import strategies
from rich.console import Console
from strategies_support import datasets, training

from bench.churn import Setting, Trial, compared

SETTING = Setting(
    speeds=(1, 2, 4), share=0.1, rounds=2, steps=3000, window=4, lease_part=0.25, seed=8, calibration=4
)


@pytest.mark.slow
def test_who_is_killed_loses_its_lease_and_nobody_else_anything(tmp_path: Path) -> None:
    steps = SETTING.all_steps
    data = datasets(len(steps), SETTING.rounds * max(steps))
    blueprint = strategies.elastic_diloco(
        training(), data, rounds=SETTING.rounds, steps=steps, quorum=2, price=SETTING.price
    )
    with ExitStack() as stack:
        trial = Trial(SETTING, blueprint, tmp_path, Console(quiet=True), stack)
        happened = trial.play("churn", SETTING.abandons)
    assert happened.checks
    assert all(happened.checks.values()), happened.checks
    assert sum(happened.killed.values()) >= sum(happened.expired.values()) >= 1
    assert happened.forecast.is_complete
    assert happened.paid == SETTING.price
    assert 0.5 < happened.goodput <= 1
    assert "leases that ran out" in str(compared(SETTING, [happened]).rows)
