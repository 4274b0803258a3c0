"""The IPFS store against a real daemon: the same CIDs, the same bytes, the same refusals."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from crowdtrain import cid as cids
from crowdtrain._errors import Corrupt, NotFound, StoreUnavailable
from crowdtrain.stores import FakeStore, IpfsStore
from sdk.ipfs.daemon import daemon

pytestmark = [
    pytest.mark.ipfs,
    # ipfshttpclient is older than urllib3 2
    pytest.mark.filterwarnings("ignore:The 'strict' parameter:FutureWarning"),
]
CHUNK, GROUP = cids.CHUNK, cids.CHUNK * 174
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 17, GROUP, GROUP + 1, GROUP + CHUNK]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IpfsStore]:
    with daemon(tmp_path_factory.mktemp("ipfs")) as address:
        yield IpfsStore(address, timeout=30)


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_a_blob_has_one_cid_everywhere(store: IpfsStore, tmp_path: Path, size: int) -> None:
    blob = pattern(size)
    cid = store.put(blob)
    assert cid == FakeStore().put(blob)
    assert store.has(cid)
    assert store.get(cid, size) == blob
    assert store.get_range(cid, size // 2, 5000) == blob[size // 2 : size // 2 + 5000]
    store.fetch(cid, tmp_path / "copy", size)
    assert (tmp_path / "copy").read_bytes() == blob


def test_a_file_is_stored_as_its_bytes(store: IpfsStore, tmp_path: Path) -> None:
    blob = os.urandom(CHUNK + 99)
    (tmp_path / "blob").write_bytes(blob)
    assert store.put(tmp_path / "blob") == cids.cid_of(blob)


def test_blobs_are_pinned(store: IpfsStore) -> None:
    cid = store.put(os.urandom(CHUNK + 5))
    (pin,) = store._client.pin.ls(cid, type="recursive")["Keys"].values()
    assert pin["Type"] == "recursive"


def test_an_absent_blob_is_not_there(store: IpfsStore) -> None:
    hasty = IpfsStore(store._address, timeout=2)
    for absent in (os.urandom(10), os.urandom(CHUNK + 1)):
        cid = cids.cid_of(absent)
        assert not hasty.has(cid)
        # a daemon goes on looking for it elsewhere, so that it is not there is known only when patience ends
        with pytest.raises((NotFound, StoreUnavailable)):
            hasty.get(cid, CHUNK + 1)


def test_a_blob_over_the_limit_is_refused(store: IpfsStore) -> None:
    with pytest.raises(Corrupt, match="at most"):
        store.get(store.put(pattern(CHUNK + 1)), CHUNK)


@pytest.mark.parametrize("cid", ["", "../x", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"])
def test_what_is_no_cid_is_refused(store: IpfsStore, cid: str) -> None:
    with pytest.raises(Corrupt, match="is not a CID"):
        store.get(cid, 10)


def test_a_daemon_that_is_not_there_is_unavailable() -> None:
    nobody = IpfsStore("/ip4/127.0.0.1/tcp/1/http", timeout=1)
    with pytest.raises(StoreUnavailable):
        nobody.put(b"x")
    with pytest.raises(StoreUnavailable):
        nobody.get(cids.cid_of(b"x"), 1)
