"""Options of long-running processes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from crowdtrain.economics import LEAST_TIME
from crowdtrain.launch import least_clock


@pytest.mark.parametrize(
    ("given", "chain_id", "least"),
    [(None, 1, LEAST_TIME), (None, 31337, 0), (5, 1, 5), (0, 1, 0), (9, 31337, 9)],
)
def test_who_has_minutes_to_answer_is_asked_for_where_blocks_take_seconds(
    given: int | None, chain_id: int, least: int
) -> None:
    chain: Any = SimpleNamespace(deployment=SimpleNamespace(chain_id=chain_id))
    assert least_clock(given, chain) == least
