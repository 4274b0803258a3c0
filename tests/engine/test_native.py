"""The native backend gives the words of the reference, on every instruction set and thread count."""

from __future__ import annotations

import numpy as np
import pytest
from crowdtrain_engine import DType, Nest, Program, TensorType, _native, isas, reference
from engine.strategies import (
    WHICH,
    Case,
    cases,
    contractions,
    convolution,
    convolutions,
    deep_products,
    matrix_product,
)
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

Words = NDArray[np.uint32]

thorough = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def plan(case: Case, isa: str, threads: int) -> _native.Plan:
    header, _, *nests = case.program.leaves
    return _native.Plan(header, list(nests), isa, threads)


def assert_same(got: Words, expected: Words, what: str) -> None:
    if not np.array_equal(got, expected):
        at = int(np.flatnonzero(got != expected)[0])
        raise AssertionError(f"{what}: word {at} is {got[at]:08x}, the reference has {expected[at]:08x}")


def check(case: Case, steps: int) -> None:
    """One step with all its values, then ``steps`` in a row, on every ISA and with one and two threads."""
    case.program.validate()
    every = [reference.run_step(case.program, [*case.state, *case.data])]
    for _ in range(steps):
        state = [every[-1][following] for following in case.program.next]
        if len(every) < steps:
            every.append(reference.run_step(case.program, [*state, *case.data]))
    for isa in isas():
        for threads in (1, 2):
            native = plan(case, isa, threads)
            got = native.values(list(case.state), list(case.data))
            for value, (mine, theirs) in enumerate(zip(got, every[0], strict=True)):
                assert_same(mine, theirs, f"{isa}, value {value}")
            after = [tensor.copy() for tensor in case.state]
            logs = native.run(after, list(case.data), steps)
            for number, (mine, theirs) in enumerate(zip(after, state, strict=True)):
                assert_same(mine, theirs, f"{isa}, state {number} after {steps} steps")
            for log, value in zip(logs, case.program.logs, strict=True):
                assert_same(
                    log.reshape(-1), np.concatenate([values[value] for values in every]), f"{isa}, {value}"
                )


@given(case=cases())
@thorough
def test_any_program(case: Case) -> None:
    check(case, steps=3)


@given(case=cases(contractions() | deep_products()))
@thorough
def test_matrix_products(case: Case) -> None:
    check(case, steps=1)


@given(case=cases(convolutions()))
@thorough
def test_convolutions(case: Case) -> None:
    check(case, steps=1)


@pytest.mark.parametrize("isa", isas())
def test_the_kernels_that_run_say_who_they_are(isa: str) -> None:
    nest = Nest(DType.f32, (), (), (), 1, immediates=(7,))
    program = Program((1,), (TensorType(DType.f32, ()),), (), (nest,), (1,))
    header, _, *nests = program.leaves
    assert _native.Plan(header, list(nests), isa, 1).isa == isa


def kinds(program: Program) -> list[str]:
    header, _, *nests = program.leaves
    return _native.Plan(header, list(nests), isas()[0], 1).kinds()


@pytest.mark.parametrize("program", [matrix_product(64, 48, 32), matrix_product(700, 10, 300)])
def test_matrix_products_have_kernels_of_their_own(program: Program) -> None:
    assert kinds(program) == ["contraction"]


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_are_matrix_products(which: str, stride: int) -> None:
    assert kinds(convolution(which, 4, 3, 8, (9, 9), 3, stride=stride, padding=1)) == ["contraction"]
