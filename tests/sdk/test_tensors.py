"""State and dataset files: what was saved comes back, everything else is refused with what differs."""

from __future__ import annotations

import json
import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy
from crowdtrain import cid as cids
from crowdtrain import tensors
from crowdtrain._errors import Corrupt, NotFound
from crowdtrain.stores import FakeStore
from crowdtrain_engine import Dataset, State
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from small_programs import perceptron, perceptron_data, perceptron_state

ROWS = 3
PROGRAM, DATA, STATE = perceptron(ROWS), perceptron_data(ROWS), perceptron_state()
TYPES = tensors.group_types(PROGRAM)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def test_a_state_comes_back(store: FakeStore) -> None:
    cid = tensors.save_state(store, STATE)
    state = tensors.load_state(store, cid, PROGRAM, STATE.group_roots)
    state.check(PROGRAM)
    assert state.root == STATE.root
    assert tensors.save_state(store, state) == cid


def test_a_dataset_comes_back(store: FakeStore) -> None:
    cid = tensors.save_dataset(store, DATA)
    data = tensors.load_dataset(store, cid, PROGRAM, DATA.root)
    data.check(PROGRAM)
    assert data.root == DATA.root


def test_some_groups_can_be_loaded_alone(store: FakeStore) -> None:
    cid = tensors.save_state(store, STATE)
    groups = tensors.load_groups(store, cid, TYPES, STATE.group_roots, {1})
    assert set(groups) == {1}
    assert [tensor.shape for tensor in groups[1]] == [kind.shape for kind in TYPES[1]]


def altered_state(group: str, name: str, value: ArrayLike) -> State:
    groups: dict[str, dict[str, ArrayLike]] = {g: dict(tensors) for g, tensors in STATE.items()}
    groups[group][name] = value
    return State(groups)


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        ("parameters", "weight2", np.ones(16, np.float32), "group 0 has root"),
        ("counters", "step", np.uint32(1), "group 2 has root"),
        ("counters", "step", np.int32(0), "group 2: tensor 0 is I32"),
        ("momentum", "weight2", np.zeros(17, np.float32), "at most|group 1: tensor 1 is F32"),
        ("momentum", "weight2", np.zeros((16, 1), np.float32), "group 1: tensor 1 is F32"),
        ("momentum", "weight1", np.zeros((16, 20), np.float32), "group 1: tensor 0 is F32"),
    ],
)
def test_a_state_that_differs_is_refused(
    store: FakeStore, group: str, name: str, value: ArrayLike, message: str
) -> None:
    cid = tensors.save_state(store, altered_state(group, name, value))
    with pytest.raises(Corrupt, match=message):
        tensors.load_state(store, cid, PROGRAM, STATE.group_roots)


def test_a_state_with_other_groups_is_refused(store: FakeStore) -> None:
    fewer = State({name: STATE[name] for name in ("parameters", "momentum")})
    cid = tensors.save_state(store, fewer)
    with pytest.raises(Corrupt, match="lists 72 bytes of CIDs, 3 groups"):
        tensors.load_state(store, cid, PROGRAM, STATE.group_roots)
    with pytest.raises(Corrupt, match="2 groups are committed"):
        tensors.load_state(store, cid, PROGRAM, fewer.group_roots)


def test_a_dataset_that_differs_is_refused(store: FakeStore) -> None:
    other = perceptron_data(ROWS, seed=1)
    with pytest.raises(Corrupt, match="planned is"):
        tensors.load_dataset(store, tensors.save_dataset(store, other), PROGRAM, DATA.root)
    longer = tensors.save_dataset(store, perceptron_data(ROWS + 1))
    with pytest.raises(Corrupt, match="tensor 2"):
        tensors.load_dataset(store, longer, PROGRAM, DATA.root)


def test_a_huge_file_is_refused_before_it_is_fetched(store: FakeStore) -> None:
    huge = Dataset(np.zeros((10**6, 20), np.float32), np.zeros(10**6, np.float32), order=[[0]])
    cid = tensors.save_dataset(store, huge)
    store.blobs[cid] = b"nobody reads this"
    with pytest.raises(Corrupt, match="at most"):
        tensors.load_dataset(store, cid, PROGRAM, DATA.root)


def test_an_absent_file_is_not_found(store: FakeStore) -> None:
    with pytest.raises(NotFound):
        tensors.load_state(store, FakeStore().put(b"elsewhere"), PROGRAM, STATE.group_roots)


GOOD = FakeStore()
GOOD_CID = tensors.save_state(GOOD, STATE)
GOOD_LIST = GOOD.blobs[GOOD_CID]
FIRST = cids.from_bytes(GOOD_LIST[:36])
GOOD_BYTES = GOOD.blobs[FIRST]


def with_first(blob: bytes) -> tuple[FakeStore, str]:
    """A store with the good state, but for the file of its first group."""
    store = FakeStore()
    for good in GOOD.blobs.values():
        store.put(good)
    return store, store.put(cids.to_bytes(store.put(blob)) + GOOD_LIST[36:])


def header(fields: object, data: bytes = b"") -> bytes:
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 2**63) + b"{}",
        header([]),
        header({"0": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        header({"0": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)),
        header({"0": "F32"}),
        pickle.dumps(perceptron_state().root),
        GOOD_BYTES[:-1],
        GOOD_BYTES + b"\x00",
        safetensors.numpy.save({"0": np.zeros(3, np.float64)}),
    ],
    ids=range(11),
)
def test_what_is_no_state_is_refused(store: FakeStore, blob: bytes) -> None:
    with pytest.raises(Corrupt):
        tensors.load_state(store, store.put(blob), PROGRAM, STATE.group_roots)
    store, cid = with_first(blob)
    with pytest.raises(Corrupt):
        tensors.load_state(store, cid, PROGRAM, STATE.group_roots)


def test_a_list_of_what_is_no_cid_is_refused(store: FakeStore) -> None:
    with pytest.raises(Corrupt, match="is not a CID"):
        tensors.load_state(store, store.put(bytes(108)), PROGRAM, STATE.group_roots)


def test_a_group_that_stays_as_it_was_is_not_stored_again(store: FakeStore) -> None:
    tensors.save_state(store, STATE)
    before = set(store.blobs)
    tensors.save_state(store, altered_state("counters", "step", np.uint32(1)))
    assert len(set(store.blobs) - before) == 2  # the counters, and the list


@given(st.data())
def test_any_altered_file_is_refused_or_the_same_state(data: st.DataObject) -> None:
    blob = bytearray(GOOD_BYTES)
    blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    store, cid = with_first(bytes(blob))
    try:
        state = tensors.load_state(store, cid, PROGRAM, STATE.group_roots)
    except Corrupt:
        return
    assert state.root == STATE.root
