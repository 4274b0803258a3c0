"""Every store keeps every blob under the same CID, and believes nothing that does not hash to it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from crowdtrain import cid as cids
from crowdtrain._errors import Corrupt, NotFound, StoreUnavailable
from crowdtrain.stores import BlobStore, Cached, FakeStore, LocalStore, Metered, open_store
from crowdtrain.stores._blobs import pieces
from hypothesis import given
from hypothesis import strategies as st

SIZES = [0, 1, cids.CHUNK, cids.CHUNK + 1, 3 * cids.CHUNK + 17]
BIG = bytes(range(256)) * (3 * 1024) + b"the end"
ABSENT = cids.cid_of(b"nobody stored this")


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return FakeStore() if request.param == "memory" else LocalStore(tmp_path / "store")


@pytest.mark.parametrize("size", SIZES)
def test_what_is_put_comes_back(store: BlobStore, tmp_path: Path, size: int) -> None:
    blob = BIG[: size // 2] + os.urandom(size - size // 2)
    cid = store.put(blob)
    assert cid == cids.cid_of(blob)
    assert store.has(cid)
    assert store.get(cid, size) == blob
    assert store.size(cid) == size
    store.fetch(cid, tmp_path / "copy", size)
    assert (tmp_path / "copy").read_bytes() == blob


def test_a_file_is_stored_as_its_bytes(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(BIG)
    assert store.put(tmp_path / "blob") == cids.cid_of(BIG)
    assert store.get(cids.cid_of(BIG), len(BIG)) == BIG


def test_putting_twice_changes_nothing(store: BlobStore) -> None:
    assert store.put(BIG) == store.put(BIG)
    assert store.get(cids.cid_of(BIG), len(BIG)) == BIG


SHARED = FakeStore()
SHARED_BIG = SHARED.put(BIG)


@given(st.integers(0, len(BIG) + 10), st.integers(0, len(BIG) + 10))
def test_any_range_is_the_slice(start: int, length: int) -> None:
    assert SHARED.get_range(SHARED_BIG, start, length) == BIG[start : start + length]


@pytest.mark.parametrize(("start", "length"), [(-1, 3), (0, -1)])
def test_negative_ranges_are_refused(store: BlobStore, start: int, length: int) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        store.get_range(store.put(BIG), start, length)


@pytest.mark.parametrize("size", [1, cids.CHUNK, len(BIG)])
def test_a_blob_over_the_limit_is_refused(store: BlobStore, tmp_path: Path, size: int) -> None:
    cid = store.put(BIG[:size])
    with pytest.raises(Corrupt, match=f"at most {size - 1} are allowed"):
        store.get(cid, size - 1)
    with pytest.raises(Corrupt):
        store.fetch(cid, tmp_path / "copy", size - 1)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_an_absent_blob_is_not_found(store: BlobStore) -> None:
    assert not store.has(ABSENT)
    with pytest.raises(NotFound, match=ABSENT):
        store.get(ABSENT, 10)
    with pytest.raises(NotFound):
        store.node(cids.from_bytes(b"\x01\x70\x12\x20" + bytes(32)))


@pytest.mark.parametrize("cid", ["", "../../etc/passwd", "b" + "a" * 58, ABSENT.upper(), "x" * 10**6])
def test_what_is_no_cid_is_refused(store: BlobStore, cid: str) -> None:
    with pytest.raises(Corrupt, match="is not a CID"):
        store.get(cid, 10)


@pytest.mark.parametrize("at", [0, cids.CHUNK, len(BIG) - 1])
def test_an_altered_blob_is_refused_where_it_was_altered(tmp_path: Path, at: int) -> None:
    store = FakeStore()
    cid = store.put(BIG)
    store.blobs[cid] = BIG[:at] + bytes([BIG[at] ^ 1]) + BIG[at + 1 :]
    with pytest.raises(Corrupt):
        store.get(cid, len(BIG))
    with pytest.raises(Corrupt):
        store.fetch(cid, tmp_path / "copy", len(BIG))
    assert not (tmp_path / "copy").exists()
    other = 0 if at >= cids.CHUNK else 2 * cids.CHUNK
    assert store.get_range(cid, other, 10) == BIG[other : other + 10]


@pytest.mark.parametrize("lie", [BIG[:-1], BIG + b"x", b"", BIG[: cids.CHUNK]])
def test_a_shorter_or_longer_blob_is_refused(lie: bytes) -> None:
    store = FakeStore()
    cid = store.put(BIG)
    store.blobs[cid] = lie
    if lie.startswith(BIG):
        assert store.get(cid, len(BIG)) == BIG
    else:
        with pytest.raises(Corrupt):
            store.get(cid, len(BIG))


def test_an_altered_node_is_refused() -> None:
    store = FakeStore()
    cid = store.put(BIG)
    other = store.put(BIG + BIG)
    store.nodes[cid] = store.nodes[other]
    with pytest.raises(Corrupt):
        store.get(cid, 10**7)


def test_a_store_that_is_switched_off_is_unavailable() -> None:
    store = FakeStore()
    cid = store.put(BIG)
    store.available = False
    for call in (lambda: store.get(cid, 10**7), lambda: store.has(cid), lambda: store.put(b"")):
        with pytest.raises(StoreUnavailable):
            call()


def test_an_upload_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    with LocalStore(tmp_path).writer() as writer:
        writer.write(BIG)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_old_parts_of_killed_processes_are_removed(tmp_path: Path) -> None:
    LocalStore(tmp_path)
    old, fresh = tmp_path / "parts" / "old", tmp_path / "parts" / "fresh"
    old.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(old, (0, 0))
    LocalStore(tmp_path)
    assert (old.exists(), fresh.exists()) == (False, True)


def test_many_writers_of_one_blob_agree(tmp_path: Path) -> None:
    stores = [LocalStore(tmp_path) for _ in range(8)]
    threads = [threading.Thread(target=store.put, args=(BIG,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stores[0].get(cids.cid_of(BIG), len(BIG)) == BIG


def test_a_folder_that_cannot_be_used_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="file"):
        LocalStore(tmp_path / "file")
    with pytest.raises(StoreUnavailable):
        LocalStore(tmp_path / "store").put(tmp_path / "absent")


@given(st.lists(st.binary(max_size=40)), st.integers(1, 50))
def test_pieces_are_the_same_bytes(parts: list[bytes], size: int) -> None:
    cut = list(pieces(iter(parts), size))
    assert b"".join(cut) == b"".join(parts)
    assert all(len(piece) == size for piece in cut[:-1])
    assert all(0 < len(piece) <= size for piece in cut)


def test_an_address_names_its_kind_of_store(tmp_path: Path) -> None:
    kinds = [
        type(open_store(where)).__name__ for where in (str(tmp_path), "http://h:1", "/ip4/127.0.0.1/tcp/1")
    ]
    assert kinds == ["LocalStore", "HttpStore", "IpfsStore"]


def test_what_moves_is_counted(tmp_path: Path) -> None:
    store = Metered(FakeStore())
    (tmp_path / "blob").write_bytes(BIG)
    cid = store.put(tmp_path / "blob")
    assert store.put(BIG) == cid
    assert (store.sent, store.received) == (len(BIG), 0)
    store.get(cid, len(BIG))
    store.get_range(cid, 5, 7)
    store.fetch(cid, tmp_path / "copy", len(BIG))
    assert (store.sent, store.received) == (len(BIG), 2 * len(BIG) + 7)
    assert store.has(cid)


def test_nothing_is_fetched_twice(tmp_path: Path) -> None:
    counted = Metered(FakeStore())
    cids_ = [counted.put(part) for part in (BIG, b"small")]
    for _ in range(2):  # the second one is the same process, started again
        store = Cached(counted, tmp_path / "cache", 2 * len(BIG))
        assert store.get(cids_[1], 5) == b"small"
        for _ in range(2):
            store.fetch(cids_[0], tmp_path / "copy", len(BIG))
            assert (tmp_path / "copy").read_bytes() == BIG
    assert counted.received == len(BIG) + 5
    own = store.put(b"own")
    assert store.get(own, 3) == b"own"
    assert counted.received == len(BIG) + 5


def test_a_cache_believes_no_file_and_keeps_to_its_limits(tmp_path: Path) -> None:
    counted = Metered(FakeStore())
    store = Cached(counted, tmp_path, 250)
    blobs = [bytes([number]) * 100 for number in range(3)]
    names = [store.put(blob) for blob in blobs]
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])
    assert store.get(names[1], 100) == blobs[1]
    store.put(b"x" * 100)
    assert {path.name for path in tmp_path.iterdir()} == {names[1], cids.cid_of(b"x" * 100)}
    (tmp_path / names[1]).write_bytes(b"y" * 100)
    store.fetch(names[1], tmp_path / "copy", 100)
    assert (tmp_path / "copy").read_bytes() == blobs[1]
    with pytest.raises(Corrupt):
        store.get(names[1], 99)
    store.put(BIG)
    assert store.get(cids.cid_of(BIG), len(BIG)) == BIG


def test_a_cache_reads_nothing_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Cached(FakeStore(), tmp_path, 2 * len(BIG))
    cid = store.put(BIG)
    monkeypatch.setattr("crowdtrain.stores.cached._parts", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(Corrupt):
        store.get(cid, 10)
