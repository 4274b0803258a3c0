"""The native backend gives the words of the reference, on every instruction set and thread count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

from crowdtrain_engine import _native, isas, reference
from engine.strategies import Case, cases, contractions, convolutions

Words = NDArray[np.uint32]

thorough = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def plan(case: Case, isa: str, threads: int) -> _native.Plan:
    header, _, *nests = case.program.leaves
    return _native.Plan(header, list(nests), isa, threads)


def assert_same(got: Words, expected: Words, what: str) -> None:
    if not np.array_equal(got, expected):
        at = int(np.flatnonzero(got != expected)[0])
        raise AssertionError(f"{what}: word {at} is {got[at]:08x}, the reference has {expected[at]:08x}")


def check(case: Case) -> None:
    """One step with all its values, then three steps in a row, on every ISA."""
    case.program.validate()
    expected = reference.run_step(case.program, [*case.state, *case.data])
    state: list[Words] = list(case.state)
    rows = []
    for _ in range(3):
        values = reference.run_step(case.program, [*state, *case.data])
        rows.append([values[log] for log in case.program.logs])
        state = [values[following] for following in case.program.next]
    for isa in isas():
        for threads in (1, 2):
            native = plan(case, isa, threads)
            got = native.values(list(case.state), list(case.data))
            for value, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
                assert_same(mine, theirs, f"{isa}, value {value}")
            after = [tensor.copy() for tensor in case.state]
            logs = native.run(after, list(case.data), 3)
            for number, (mine, theirs) in enumerate(zip(after, state, strict=True)):
                assert_same(mine, theirs, f"{isa}, state {number} after three steps")
            for number, log in enumerate(logs):
                assert_same(log.reshape(-1), np.concatenate([row[number] for row in rows]), f"{isa}, log {number}")


@given(case=cases())
@thorough
def test_any_program(case: Case) -> None:
    check(case)


@given(case=cases(contractions()))
@thorough
def test_matrix_products(case: Case) -> None:
    check(case)


@given(case=cases(convolutions()))
@thorough
def test_convolutions(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("isa", isas())
def test_the_kernels_that_run_say_who_they_are(isa: str) -> None:
    from crowdtrain_engine import DType, Nest, Program, TensorType

    nest = Nest(DType.f32, (), (), (), 1, immediates=(7,))
    program = Program((1,), (TensorType(DType.f32, ()),), (), (nest,), (1,))
    header, _, *nests = program.leaves
    assert _native.Plan(header, list(nests), isa, 1).isa == isa
