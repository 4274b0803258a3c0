"""Plans: the contract's encoding, the rules, and chains."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from crowdtrain import plan as plans
from crowdtrain._errors import PlanError
from crowdtrain.chain import INITIAL, SegmentSpec, Source
from crowdtrain.plan import Plan
from crowdtrain_engine import merkle
from hypothesis import given
from hypothesis import strategies as st
from small_programs import perceptron

SPEC = SegmentSpec(b"\x01" * 32, b"\x02" * 32, 10, 4, 7, (Source(INITIAL, 0), Source(INITIAL, 1)))
PROGRAM = perceptron(4)


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def test_a_leaf_is_over_the_abi_encoding() -> None:
    # a dynamic tuple: its offset, static fields and offsets of the arrays, then the arrays: length, pairs
    fields = SPEC.program_root + SPEC.data_root + word(10) + word(4) + word(7) + word(8 * 32) + word(13 * 32)
    inputs = word(2) + word(INITIAL) + word(0) + word(INITIAL) + word(1)
    encoded = word(32) + fields + word(SPEC.quorum) + inputs + word(0)
    assert plans.leaf(SPEC) == sha256(b"\x00" + encoded).digest()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 300), st.integers(0, 2**128 - 1))
def test_a_chain_shares_out_its_steps(segments: int, extra: int, interval: int, price: int) -> None:
    steps = segments + extra
    interval = min(interval, 256)
    plan = plans.chain(PROGRAM, bytes(32), segments=segments, steps=steps, interval=interval, price=price)
    lengths = [spec.steps for spec in plan.segments]
    assert sum(lengths) == steps
    assert len(lengths) == segments
    assert max(lengths) - min(lengths) <= 1
    assert plan.price == price * segments
    assert plan.initial_groups == set(range(len(PROGRAM.groups)))
    for index, spec in enumerate(plan.segments):
        assert {source.segment for source in spec.inputs} == {index - 1 if index else INITIAL}
        assert [source.group for source in spec.inputs] == list(range(len(PROGRAM.groups)))
        assert merkle.verify(plan.root, plans.leaf(spec), index, plan.proof(index))


@pytest.mark.parametrize(("segments", "steps"), [(0, 5), (6, 5), (-1, 5), (2**16 + 1, 2**20)])
def test_steps_cannot_be_cut_into_any_number(segments: int, steps: int) -> None:
    with pytest.raises(PlanError, match="can be cut into"):
        plans.chain(PROGRAM, bytes(32), segments=segments, steps=steps, interval=1, price=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"program_root": b""}, "32 bytes"),
        ({"data_root": bytes(33)}, "32 bytes"),
        ({"steps": 0}, "steps"),
        ({"steps": 2**32}, "steps"),
        ({"interval": 0}, "interval"),
        ({"interval": 257}, "interval"),
        ({"steps": 257, "interval": 1}, "257 checkpoints"),
        ({"price": -1}, "price"),
        ({"price": 2**128}, "price"),
        ({"inputs": ()}, "groups"),
        ({"inputs": (Source(INITIAL, 0),) * 257}, "groups"),
        ({"inputs": (Source(INITIAL, 256),)}, "group 256"),
        ({"inputs": (Source(INITIAL, -1),)}, "group -1"),
        ({"inputs": (Source(1, 0),)}, "does not come before it"),
        ({"inputs": (Source(2, 0),)}, "does not come before it"),
        ({"inputs": (Source(0, 2),)}, "which has 2"),
    ],
)
def test_a_segment_that_breaks_a_rule_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan((SPEC, replace(SPEC, **change)))  # type: ignore[arg-type]


def test_a_plan_is_not_empty() -> None:
    with pytest.raises(PlanError, match="not 0"):
        Plan(())


def test_merges_and_forks_are_plans() -> None:
    worker = replace(SPEC, inputs=(Source(INITIAL, 0), Source(INITIAL, 1)))
    merge = replace(SPEC, inputs=(Source(0, 0), Source(1, 0), Source(INITIAL, 2)))
    following = replace(SPEC, inputs=(Source(2, 0), Source(0, 1)))
    plan = Plan((worker, worker, merge, following))
    assert plan.initial_groups == {0, 1, 2}
    assert len({plans.leaf(spec) for spec in plan.segments}) == 3
