"""The HTTP store against the gateway, and against servers that lie."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from crowdtrain import cid as cids
from crowdtrain._errors import Corrupt, NotFound, StoreUnavailable
from crowdtrain.gateway import Limits, create_app
from crowdtrain.stores import FakeStore, HttpStore, LocalStore, http
from gateway_server import serving

BLOB = bytes(range(256)) * 4000
SIZES = [0, 1, cids.CHUNK, cids.CHUNK + 1, len(BLOB)]


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def store(behind: LocalStore) -> Iterator[HttpStore]:
    with serving(create_app(behind, None, Limits(reserve=0, max_blob=2_000_000))) as url:
        yield HttpStore(url, timeout=5)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_put_comes_back(store: HttpStore, behind: LocalStore, tmp_path: Path, size: int) -> None:
    blob = BLOB[:size]
    cid = store.put(blob)
    assert cid == cids.cid_of(blob) == behind.put(blob)
    assert store.has(cid)
    assert store.get(cid, size) == blob
    assert store.get_range(cid, size // 2, 1000) == blob[size // 2 : size // 2 + 1000]
    store.fetch(cid, tmp_path / "copy", size)
    assert (tmp_path / "copy").read_bytes() == blob


def test_a_file_is_sent_as_its_bytes(store: HttpStore, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(BLOB[5:])
    assert store.put(tmp_path / "blob") == cids.cid_of(BLOB[5:])
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        store.put(tmp_path / "absent")


def test_what_is_there_is_not_sent_again(behind: LocalStore) -> None:
    cid = behind.put(BLOB)
    with serving(create_app(behind, None, Limits(uploads=False))) as url:
        assert HttpStore(url).put(BLOB) == cid


def test_an_absent_blob_is_not_found(store: HttpStore) -> None:
    absent = cids.cid_of(b"nobody stored this")
    assert not store.has(absent)
    with pytest.raises(NotFound, match=absent):
        store.get(absent, 10)


def test_a_gateway_that_refuses_is_unavailable(store: HttpStore) -> None:
    with pytest.raises(StoreUnavailable, match="413"):
        store.put(bytes(2_000_001))


def test_nobody_there_is_unavailable() -> None:
    nobody, cid = HttpStore("http://127.0.0.1:1", timeout=1), cids.cid_of(b"x")
    calls: list[Callable[[], object]] = [
        lambda: nobody.get(cid, 1),
        lambda: nobody.put(b"x"),
        lambda: nobody.has(cid),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="does not answer"):
            call()


# ---------------------------------------------------------------- servers that lie

Reply = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def lying(reply: Reply) -> Iterator[HttpStore]:
    """A store whose gateway answers every request with ``reply``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                reply(self)
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *values: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield HttpStore(f"http://127.0.0.1:{server.server_port}", timeout=0.5)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reply(body: bytes, status: int = 206, length: int | None = None, **headers: str) -> Reply:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


CHUNK_CID = cids.cid_of(b"the blob")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(b"another blob"), Corrupt),
        (reply(b""), Corrupt),
        (reply(b"the blob", status=200), Corrupt),
        (reply(bytes(cids.CHUNK + 1)), Corrupt),
        (reply(b"the blob", length=100), StoreUnavailable),
        (reply(b"", status=500), StoreUnavailable),
        (reply(b"", status=302, Location="http://169.254.169.254/"), StoreUnavailable),
        (reply(b"the blob", Content_Encoding="gzip"), None),
        (reply(b"", status=404), NotFound),
    ],
    ids=range(9),
)
def test_a_lie_is_noticed(answer: Reply, error: type[Exception] | None) -> None:
    with lying(answer) as store:
        if error is None:
            assert store.get(CHUNK_CID, 100) == b"the blob"
        else:
            with pytest.raises(error):
                store.get(CHUNK_CID, 100)


@pytest.mark.parametrize("node", [b"", b"\x12" * 100, bytes(20_000), json.dumps({"a": 1}).encode()])
def test_a_false_tree_is_noticed(node: bytes) -> None:
    cid = FakeStore().put(BLOB)
    with lying(reply(node)) as store, pytest.raises(Corrupt):
        store.get(cid, len(BLOB))


def test_a_gateway_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_SLOWEST", 2**30)

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(206)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(100_000):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.02)

    with lying(drip) as store, pytest.raises((StoreUnavailable, Corrupt)):
        store.get(CHUNK_CID, 100)


def test_a_gateway_that_is_silent_is_given_up() -> None:
    with (
        lying(lambda handler: time.sleep(3)) as store,
        pytest.raises(StoreUnavailable, match="does not answer"),
    ):
        store.get(CHUNK_CID, 100)
