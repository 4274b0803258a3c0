"""The gateway over real HTTP: blobs, ranges, records, and requests of strangers."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from crowdtrain import cid as cids
from crowdtrain._errors import ChainUnavailable
from crowdtrain.chain import GroupProof, JobId, SegmentKey
from crowdtrain.fakes import FakeChain
from crowdtrain.gateway import Limits, _range, create_app
from crowdtrain.stores import LocalStore
from gateway_server import serving
from hypothesis import given
from hypothesis import strategies as st
from small_jobs import sample

BLOB = bytes(range(256)) * 4000
ABSENT = cids.cid_of(b"nobody stored this")
LIMITS = Limits(max_blob=2_000_000, reserve=0, idle=0.3)


@pytest.fixture(scope="module")
def chain() -> FakeChain:
    """A chain with one job, whose first segment is committed and disputed."""
    chain, given_ = FakeChain("0x" + "b0" * 20), sample()
    for account in ("b0", "11", "22"):
        other = chain.as_account("0x" + account * 20)
        other.mint(10**20)
        other.deposit(10**19)
    job, _ = chain.post(replace(given_.job.terms, stake=10**18), given_.manifest)
    key, spec = SegmentKey(job, 0), given_.plan.segments[0]
    from crowdtrain_engine import merkle

    tree = merkle.Tree(given_.state.group_roots)
    proofs = [GroupProof(root, tuple(tree.proof(i))) for i, root in enumerate(given_.state.group_roots)]
    solver = chain.as_account("0x" + "11" * 20)
    solver.claim(key, spec, given_.plan.proof(0), proofs)
    solver.commit(key, given_.state.root, given_.state.group_roots, bytes(32), given_.manifest)
    chain.as_account("0x" + "22" * 20).challenge(key, spec, bytes(32))
    return chain


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def url(store: LocalStore, chain: FakeChain) -> Iterator[str]:
    with serving(create_app(store, chain, LIMITS)) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url) as client:
        yield client


# ---------------------------------------------------------------- blobs


@pytest.mark.parametrize("size", [0, 1, cids.CHUNK, len(BLOB)])
def test_a_blob_comes_back(client: httpx.Client, size: int) -> None:
    blob, cid = BLOB[:size], cids.cid_of(BLOB[:size])
    assert client.put(f"/blobs/{cid}", content=blob).json() == {"cid": cid, "size": size}
    answer = client.get(f"/blobs/{cid}")
    assert answer.content == blob
    assert answer.headers["etag"] == f'"{cid}"'
    head = client.head(f"/blobs/{cid}")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")


def test_a_blob_without_a_name_is_named(client: httpx.Client) -> None:
    answer = client.post("/blobs", content=BLOB)
    assert (answer.status_code, answer.json()["cid"]) == (201, cids.cid_of(BLOB))


def test_nodes_of_a_tree_are_served(client: httpx.Client, store: LocalStore) -> None:
    cid = store.put(BLOB)
    assert cids.verify(cid, client.get(f"/nodes/{cid}").content)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", BLOB[:1]),
        ("bytes=5-9", BLOB[5:10]),
        ("bytes=1000000-", BLOB[1000000:]),
        ("bytes=-7", BLOB[-7:]),
        ("bytes=5-99999999999", BLOB[5:]),
    ],
)
def test_a_range_is_the_slice(client: httpx.Client, store: LocalStore, header: str, expected: bytes) -> None:
    answer = client.get(f"/blobs/{store.put(BLOB)}", headers={"Range": header})
    assert (answer.status_code, answer.content) == (206, expected)
    assert answer.headers["content-range"].endswith(f"/{len(BLOB)}")


@pytest.mark.parametrize("header", ["bytes=9999999-", "bytes=9-5", "bytes=-0"])
def test_a_range_beyond_the_blob_is_refused(client: httpx.Client, store: LocalStore, header: str) -> None:
    answer = client.get(f"/blobs/{store.put(BLOB)}", headers={"Range": header})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(BLOB)}")


@pytest.mark.parametrize(
    "header", ["bytes=", "bytes=-", "lines=1-2", "bytes=0-1,5-9", "bytes=a-b", "bytes=" + "9" * 99 + "-"]
)
def test_a_range_of_another_form_is_ignored(client: httpx.Client, store: LocalStore, header: str) -> None:
    answer = client.get(f"/blobs/{store.put(BLOB)}", headers={"Range": header})
    assert (answer.status_code, answer.content) == (200, BLOB)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 60))
def test_ranges_are_those_of_http(first: int, last: int, size: int) -> None:
    if first <= last and first < size:
        assert _range(f"bytes={first}-{last}", size) == (first, min(last + 1, size), True)
    assert _range(f"bytes=-{last + 1}", size) == (max(0, size - last - 1), size, True)


def test_bytes_that_are_not_what_was_named_are_not_kept(client: httpx.Client, store: LocalStore) -> None:
    answer = client.put(f"/blobs/{ABSENT}", content=b"something else")
    assert (answer.status_code, answer.json()["error"]) == (400, "Corrupt")
    assert not store.has(ABSENT)
    assert not store.has(cids.cid_of(b"something else"))


@pytest.mark.parametrize("declared", [True, False])
def test_a_blob_that_is_too_large_is_refused(client: httpx.Client, declared: bool) -> None:
    parts = [bytes(100_000)] * 21
    answer = client.post("/blobs", content=b"".join(parts) if declared else iter(parts))
    assert (answer.status_code, answer.json()["error"]) == (413, "Refused")


def test_an_upload_that_stalls_or_breaks_leaves_nothing(url: str, store: LocalStore) -> None:
    address = urlsplit(url)
    start = b"POST /blobs HTTP/1.1\r\nHost: gateway\r\nContent-Length: 1000\r\n\r\nsome"
    with socket.create_connection((address.hostname or "", address.port or 0)) as stalled:
        stalled.sendall(start)
        assert b"408" in stalled.recv(100)
    with socket.create_connection((address.hostname or "", address.port or 0)) as broken:
        broken.sendall(start)
    httpx.get(f"{url}/health")
    deadline = 100
    while any((store.folder / "parts").iterdir()) and deadline:
        deadline -= 1
        httpx.get(f"{url}/health")
    assert deadline


def test_an_upload_that_drips_is_given_up(url: str) -> None:
    def drip() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x"
            time.sleep(0.05)

    answer = httpx.post(f"{url}/blobs", content=drip())
    assert (answer.status_code, answer.json()["error"]) == (408, "Refused")


def test_a_full_disk_is_said(store: LocalStore, chain: FakeChain) -> None:
    with serving(create_app(store, chain, replace(LIMITS, reserve=2**80))) as url:
        answer = httpx.post(f"{url}/blobs", content=b"no room")
    assert (answer.status_code, answer.json()["message"]) == (507, "there is no room left")


def test_a_gateway_can_be_closed_to_uploads(store: LocalStore, chain: FakeChain) -> None:
    with serving(create_app(store, chain, replace(LIMITS, uploads=False))) as url:
        answer = httpx.post(f"{url}/blobs", content=b"closed")
    assert answer.status_code == 403


# ---------------------------------------------------------------- records


def test_jobs_and_segments_are_read_from_the_chain(client: httpx.Client, chain: FakeChain) -> None:
    job = chain.job(JobId(1))
    (record,) = client.get("/jobs").json()
    assert record == client.get("/jobs/1").json()
    assert record["terms"]["plan_root"] == f"0x{job.terms.plan_root.hex()}"
    assert record["terms"]["stake"] == str(10**18)
    assert (record["manifest"], record["buyer"]) == (job.manifest, job.buyer)
    audit = client.get("/jobs/1/segments/0/audit").json()
    assert (audit["outcome"], audit["rate"], audit["attestors"], audit["drawn"]) == (
        "open",
        10_000,
        [],
        False,
    )
    assert client.get("/jobs/1/segments/1/audit").json()["outcome"] == "none"
    account = client.get(f"/accounts/0x{'11' * 20}").json()
    assert (account["settled"], account["enrolled"]) == (0, "0")
    assert client.get("/accounts/0x11").status_code == 400
    segments = client.get("/jobs/1/segments").json()
    assert [segment["state"] for segment in segments] == ["committed", "open"]
    assert segments[0] == client.get("/jobs/1/segments/0").json()
    assert client.get("/jobs/1/segments", params={"first": 1, "limit": 1}).json() == segments[1:]


def test_disputes_are_read_from_the_chain(client: httpx.Client, chain: FakeChain) -> None:
    (record,) = client.get("/games").json()
    assert record == client.get("/games/1").json()
    assert (record["phase"], record["reason"], record["bond"]) == ("reveal_trace", "none", str(10**18))
    assert [event["name"] for event in record["history"]] == ["Challenged"]


def test_health_and_description(client: httpx.Client, chain: FakeChain) -> None:
    assert client.get("/health").json()["block"] == chain.head()[0]
    paths = client.get("/openapi.json").json()["paths"]
    operations = [
        operation for path in paths.values() for method, operation in path.items() if method != "parameters"
    ]
    assert {"/blobs/{cid}", "/jobs/{job}", "/jobs/{job}/segments", "/games/{game}"} <= set(paths)
    assert all(operation.get("description") for operation in operations)


def test_metrics_count_routes_not_paths(client: httpx.Client) -> None:
    for path in ("/jobs/1", "/stranger/one", "/stranger/two"):
        client.get(path)
    text = client.get("/metrics").text
    assert 'crowdtrain_requests_total{method="GET",route="/jobs/{job}",status="200"}' in text
    assert "stranger" not in text


def test_blobs_can_be_served_without_a_chain(store: LocalStore) -> None:
    with serving(create_app(store, None)) as url:
        assert httpx.get(f"{url}/health").json()["block"] is None
        assert httpx.get(f"{url}/jobs").status_code == 404


# ---------------------------------------------------------------- strangers


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        (f"/blobs/{ABSENT}", 404, "NotFound"),
        ("/blobs/nonsense", 400, "Corrupt"),
        ("/blobs/" + "b" * 100, 400, "InvalidRequest"),
        ("/blobs/..%2f..%2fetc%2fpasswd", 404, "Refused"),
        ("/nodes/%00", 400, "Corrupt"),
        (f"/nodes/{cids.from_bytes(bytes((1, 0x70, 0x12, 32)) + bytes(32))}", 404, "NotFound"),
        ("/jobs/-1", 400, "InvalidRequest"),
        ("/jobs/x", 400, "InvalidRequest"),
        ("/jobs/99999999999999999999", 400, "InvalidRequest"),
        ("/jobs?limit=101", 400, "InvalidRequest"),
        ("/jobs/1/segments/2", 404, "NotFound"),
        ("/nothing", 404, "Refused"),
    ],
)
def test_a_request_that_cannot_be_met_gets_a_typed_error(
    client: httpx.Client, path: str, status: int, error: str
) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["message"]


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "PUT"])
def test_nothing_else_is_allowed(client: httpx.Client, method: str) -> None:
    assert client.request(method, "/jobs/1").status_code == 405


class Broken(FakeChain):
    """A chain that does not answer."""

    def job(self, job: JobId) -> Any:
        raise ChainUnavailable("no node answers")

    def head(self) -> Any:
        raise ChainUnavailable("no node answers")


def test_a_chain_that_does_not_answer_is_said(store: LocalStore) -> None:
    with serving(create_app(store, Broken())) as url:
        for path in ("/jobs/1", "/jobs/1/segments", "/health"):
            answer = httpx.get(url + path)
            assert (answer.status_code, answer.json()["error"]) == (503, "ChainUnavailable")


def test_reads_of_the_chain_are_shared(store: LocalStore, chain: FakeChain) -> None:
    reads = 0

    class Counting(FakeChain):
        def job(self, job: JobId) -> Any:
            nonlocal reads
            reads += 1
            return chain.job(job)

    with serving(create_app(store, Counting())) as url, httpx.Client(base_url=url) as client:
        for _ in range(20):
            client.get("/jobs/1")
    assert reads < 20


def test_garbage_is_no_http(url: str) -> None:
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        connection.sendall(b"\x00\xff" * 50 + b"\r\n\r\n")
        assert b"400" in connection.recv(100)
    plain = http.client.HTTPConnection(address.hostname or "", address.port)
    plain.request("GET", "/health")
    assert plain.getresponse().status == 200
    plain.close()
