"""How long the nests of a program take, and the memory that is planned for their outputs."""

from __future__ import annotations

import time

import pytest
from crowdtrain_engine import DataError, Executor, execute
from small_programs import NESTS, perceptron, perceptron_data, perceptron_state

BACKENDS = ["reference", "native"]
STEPS = 3


def executor(backend: str) -> Executor:
    return Executor(perceptron(STEPS), perceptron_state(), perceptron_data(STEPS), backend=backend, threads=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_nest_is_timed_once_and_the_state_moves_on(backend: str) -> None:
    timed = executor(backend)
    start = time.perf_counter()
    groups = timed.profile(STEPS)
    elapsed = time.perf_counter() - start
    assert sorted(nest for group in groups for nest in group.nests) == list(range(len(NESTS)))
    assert [group.nests[0] for group in groups] == sorted(group.nests[0] for group in groups)
    assert all(group.seconds > 0 for group in groups)
    assert sum(group.seconds for group in groups) <= elapsed
    state, _ = execute(perceptron(STEPS), perceptron_state(), perceptron_data(STEPS), steps=STEPS)
    assert timed.state.root == state.root


def test_kinds() -> None:
    assert {group.kind for group in executor("reference").profile(1)} == {"reference"}
    for group in executor("native").profile(1):
        assert (group.kind == "rows") == (len(group.nests) > 1), group
        if NESTS.index("hidden") in group.nests:
            assert group.kind == "contraction"


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_steps_take_no_time_and_fewer_are_refused(backend: str) -> None:
    assert all(group.seconds == 0 for group in executor(backend).profile(0))
    with pytest.raises(DataError, match="steps must not be negative, it is -1"):
        executor(backend).profile(-1)


def test_a_plan_needs_no_more_memory_than_all_values() -> None:
    planned, all_values = executor("native").memory, executor("reference").memory
    assert all_values == 4 * sum(nest.type.size for nest in perceptron(STEPS).nests)
    assert 0 < planned < all_values
