"""Manifests: one form, strict, and whatever a stranger writes gives a PlanError or a plan that is valid."""

from __future__ import annotations

import json
from typing import Any

import pytest
from crowdtrain import cid
from crowdtrain._errors import PlanError
from crowdtrain.chain import INITIAL, SegmentSpec, Source
from crowdtrain.manifest import MAX_MANIFEST, Manifest
from crowdtrain.plan import Plan
from hypothesis import given
from hypothesis import strategies as st
from small_jobs import sample

SAMPLE = sample()
BYTES = SAMPLE.store.get(SAMPLE.manifest, MAX_MANIFEST)

ROOTS = st.binary(min_size=32, max_size=32)
CIDS = st.binary(max_size=8).map(cid.cid_of)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    specs: list[SegmentSpec] = []
    for index in range(draw(st.integers(1, 5))):
        inputs = []
        for _ in range(draw(st.integers(1, 4))):
            earlier = draw(st.sampled_from([INITIAL, *range(index)]))
            most = 3 if earlier == INITIAL else len(specs[earlier].inputs) - 1
            inputs.append(Source(earlier, draw(st.integers(0, most))))
        interval = draw(st.integers(1, 256))
        steps = draw(st.integers(1, 256 * interval))
        price = draw(st.integers(0, 2**128 - 1))
        specs.append(SegmentSpec(draw(ROOTS), draw(ROOTS), steps, interval, price, tuple(inputs)))
    return Plan(tuple(specs))


@given(plans(), ROOTS, CIDS)
def test_a_plan_comes_back_from_its_manifest(plan: Plan, group: bytes, where: str) -> None:
    manifest = Manifest.of(
        plan,
        programs={spec.program_root: where for spec in plan.segments},
        datasets={spec.data_root: where for spec in plan.segments},
        initial=((group,), where),
    )
    again = Manifest.decode(manifest.encode())
    assert again == manifest
    assert again.plan() == plan
    assert again.plan().root == plan.root
    assert again.initial.group_roots == (group,)


def test_a_program_that_was_not_given_is_missed() -> None:
    with pytest.raises(PlanError, match="was not given"):
        Manifest.of(SAMPLE.plan, programs={}, datasets={}, initial=((bytes(32),), SAMPLE.manifest))


def altered(path: tuple[str | int, ...], value: object) -> bytes:
    fields = json.loads(BYTES)
    place: Any = fields
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), 2, "version"),
        (("version",), "1", "version"),
        (("extra",), 1, "extra"),
        (("programs",), [], "programs"),
        (("programs", 0, "root"), "0x" + "AB" * 32, "programs.0.root"),
        (("programs", 0, "root"), "0x" + "ab" * 32 + "\n", "programs.0.root"),
        (("programs", 0, "cid"), "../secret", "programs.0.cid"),
        (("initial", "groups"), [], "initial.groups"),
        (("initial", "groups"), ["0x" + "ab" * 32] * 257, "initial.groups"),
        (("segments", 0, "program"), 1, "uses program 1"),
        (("segments", 0, "dataset"), 7, "uses dataset 7"),
        (("segments", 0, "steps"), 0, "steps"),
        (("segments", 0, "steps"), 2**32, "segments.0.steps"),
        (("segments", 0, "steps"), 1.5, "segments.0.steps"),
        (("segments", 0, "steps"), True, "segments.0.steps"),
        (("segments", 0, "price"), 7, "segments.0.price"),
        (("segments", 0, "price"), "-7", "segments.0.price"),
        (("segments", 0, "price"), "007", "segments.0.price"),
        (("segments", 0, "price"), "9" * 39, "price"),
        (("segments", 0, "price"), "9" * 10**6, "segments.0.price"),
        (("segments", 0, "inputs", 0), [INITIAL, 0], "written as null"),
        (("segments", 0, "inputs", 0), [0, 0], "does not come before it"),
        (("segments", 0, "inputs", 0), [None], "segments.0.inputs.0"),
        (("segments", 1, "inputs", 0), [0, 3], "which has 3"),
    ],
)
def test_a_field_that_is_wrong_is_named(path: tuple[str | int, ...], value: object, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Manifest.decode(altered(path, value)).plan()


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 10**6, b'{"version":' + b"9" * 10**6 + b"}", BYTES[:-1]],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(PlanError, match="manifest"):
        Manifest.decode(data)


def test_a_manifest_over_the_limit_is_refused() -> None:
    with pytest.raises(PlanError, match=f"at most {MAX_MANIFEST} bytes"):
        Manifest.decode(BYTES + b" " * MAX_MANIFEST)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_any_altered_manifest_is_refused_or_valid(data: st.DataObject) -> None:
    fields = json.loads(BYTES)
    place: Any = fields
    while isinstance(place, (dict, list)) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    try:
        plan = Manifest.decode(json.dumps(fields).encode()).plan()
    except PlanError:
        return
    assert len(plan.root) == 32
