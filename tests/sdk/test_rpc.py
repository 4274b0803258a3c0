"""A node that lies, babbles or is silent gives typed errors, in bounded time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from crowdtrain import _rpc
from crowdtrain._abi import contract, decode_error
from crowdtrain._errors import BadAnswer, ChainError, ChainUnavailable, ConfigError, Refused
from crowdtrain._rpc import Node
from crowdtrain.chain import Address, GameId, JobId, SegmentKey
from crowdtrain.devnet import Devnet
from crowdtrain.web3_chain import Web3Chain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rpc_server import forward, result, serve

WORD = "0x" + "00" * 32
CALLS: list[Callable[[Node], object]] = [
    lambda node: node.chain_id(),
    lambda node: node.block(),
    lambda node: node.block(7),
    lambda node: node.call("0x" + "11" * 20, b"\x01"),
    lambda node: node.estimate_gas("0x" + "11" * 20, "0x" + "11" * 20, b""),
    lambda node: node.code("0x" + "11" * 20),
    lambda node: node.balance("0x" + "11" * 20),
    lambda node: node.transaction_count("0x" + "11" * 20),
    lambda node: node.receipt(WORD),
    lambda node: node.logs(["0x" + "11" * 20], [], 0, 10),
]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"[" * 100_000,
        b'{"jsonrpc":"2.0","id":1,"result":' + b"9" * 10_000 + b"}",
        b'{"jsonrpc":"1.0","id":1,"result":"0x1"}',
        b'{"jsonrpc":"2.0","id":{},"result":"0x1"}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"result":"0x1","error":{}}',
        b'{"jsonrpc":"2.0","id":1,"error":7}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":"x","message":"y"}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1}}',
        b'{"jsonrpc":"2.0","method":"eth_subscription","params":7}',
    ],
)
def test_what_is_no_answer_is_a_bad_answer(body: bytes) -> None:
    with serve(lambda request: body) as url:
        for call in CALLS:
            with pytest.raises(BadAnswer):
                call(Node(url))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=9)
    | st.sampled_from(["0x", "0x1", WORD, "0xzz"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["number", "hash", "timestamp", "logs", "topics", "data", "address", "status"]),
            inner,
        )
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40, deadline=None)
@given(JSON)
def test_any_result_is_taken_or_a_bad_answer(value: object) -> None:
    with serve(lambda request: result(request, value)) as url:
        node = Node(url)
        for call in CALLS:
            try:
                call(node)
            except (BadAnswer, ChainUnavailable):
                continue


@pytest.mark.parametrize("value", ["0x", "1", "0x" + "f" * 17, "0xg", "0x1_0", "0x-1", 1, None, True, "0x٣"])
def test_what_is_no_number_is_a_bad_answer(value: object) -> None:
    with serve(lambda request: result(request, value)) as url, pytest.raises(BadAnswer, match="chain id"):
        Node(url).chain_id()


def error(request: dict[str, Any], code: int, message: str, data: object = None) -> bytes:
    body = {"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message, "data": data}}
    return json.dumps(body).encode()


def test_an_error_of_the_node_is_unavailability() -> None:
    with serve(lambda request: error(request, -32603, "internal")) as url:
        for call in (CALLS[0], CALLS[1], CALLS[5], CALLS[8]):
            with pytest.raises(ChainUnavailable, match="internal"):
                call(Node(url))


@pytest.mark.parametrize("nested", [False, True])
def test_a_revert_carries_its_data(nested: bool) -> None:
    data = "0x08c379a0" + "00" * 31 + "20" + "00" * 31 + "02" + "6e6f" + "00" * 30
    reverted = {"data": data} if nested else data
    with (
        serve(lambda request: error(request, 3, "execution reverted", reverted)) as url,
        pytest.raises(_rpc.RpcError) as caught,
    ):
        Node(url).call("0x" + "11" * 20, b"")
    assert caught.value.is_revert
    assert decode_error(caught.value.data or b"") == ("Error", {"message": "no"})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ("Reverted", {})),
        (b"\x01\x02", ("Reverted", {"data": "0x0102"})),
        (bytes.fromhex("4e487b71") + bytes(31) + b"\x11", ("Panic", {"code": 0x11})),
        (bytes.fromhex("4e487b71") + b"short", ("Reverted", {"data": "0x4e487b7173686f7274"})),
        (bytes.fromhex("08c379a0") + b"\xff" * 64, ("Reverted", {"data": "0x08c379a0" + "ff" * 64})),
    ],
)
def test_errors_that_are_not_of_the_contracts(data: bytes, expected: tuple[str, dict[str, object]]) -> None:
    assert decode_error(data) == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_an_error_of_some_name(data: bytes) -> None:
    for selector in [b"", *contract("Market").errors]:
        name, values = decode_error(selector + data)
        assert name
        assert "0x" in str(values) or values == {} or name != "Reverted"


def test_an_answer_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rpc, "MAX_ANSWER", 10_000)
    with (
        serve(lambda request: result(request, "0x" + "0" * 20_000)) as url,
        pytest.raises(BadAnswer, match="more than 10000 bytes"),
    ):
        Node(url).chain_id()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_node_that_is_busy_is_unavailable(status: int) -> None:
    with serve(lambda request: b"busy", status) as url, pytest.raises(ChainUnavailable, match=str(status)):
        Node(url).chain_id()


def test_a_node_that_hangs_up_is_unavailable() -> None:
    with serve(lambda request: None) as url, pytest.raises(ChainUnavailable, match="no node answers"):
        Node(url).chain_id()


def test_nobody_there_is_unavailable() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ChainUnavailable):
        Node(f"http://127.0.0.1:{port}").chain_id()


@pytest.mark.parametrize("url", ["", "localhost:8545", "ws://localhost", "file:///etc/passwd"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="must begin with"):
        Node(url)


@pytest.fixture
def dripping() -> Iterator[str]:
    """A node that sends a byte every twentieth of a second, and never ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            for _ in range(200):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return
                time.sleep(0.05)

        def log_message(self, format: str, *values: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_node_that_drips_is_given_up(dripping: str) -> None:
    with pytest.raises(ChainUnavailable, match=r"took more than 0\.3 s"):
        Node(dripping, timeout=0.3).chain_id()


def test_imports_leave_the_recursion_limit_alone() -> None:
    command = [sys.executable, "-c", "import sys, crowdtrain.web3_chain; print(sys.getrecursionlimit())"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert int(done.stdout) <= 1000


def test_the_key_in_an_address_is_not_shown() -> None:
    with pytest.raises(ChainUnavailable) as caught:
        Node("http://127.0.0.1:1/v3/secret-key").chain_id()
    assert "secret-key" not in str(caught.value)


# ---------------------------------------------------------------- a node that lies in one call


LIES: list[tuple[str, object]] = [
    ("eth_call", "0x"),
    ("eth_call", "0x" + "ff" * 31),
    ("eth_call", "0x" + "ff" * 4096),
    ("eth_call", "0x" + "00" * 4096),
    ("eth_getLogs", []),
    ("eth_getLogs", [{}]),
    ("eth_getLogs", [{"address": WORD, "topics": [], "data": "0x"}]),
    ("eth_getBlockByNumber", None),
    ("eth_getBlockByNumber", {"number": "0x1"}),
]


@pytest.mark.parametrize(("method", "lie"), LIES, ids=range(len(LIES)))
def test_a_lie_in_one_call_is_noticed_or_harmless(devnet: Devnet, method: str, lie: object) -> None:
    lying = False

    def answer(request: dict[str, Any]) -> bytes:
        if lying and request["method"] == method:
            return result(request, lie)
        return forward(devnet.rpc, request)

    with serve(answer) as url:
        chain = Web3Chain(url, devnet.deployment)
        lying = True
        someone = Address(devnet.deployment.market)
        reads: list[Callable[[], object]] = [
            chain.now,
            chain.head,
            chain.job_count,
            chain.game_count,
            lambda: chain.job(JobId(1)),
            lambda: chain.segment(SegmentKey(JobId(1), 0)),
            lambda: chain.game(GameId(1)),
            lambda: chain.events(0, 10**4),
            lambda: chain.stake(someone),
            lambda: chain.owed(someone),
            lambda: chain.tokens(someone),
            lambda: chain.barred(JobId(1), someone),
        ]
        for read in reads:
            try:
                read()
            except (BadAnswer, ChainUnavailable, Refused):
                continue


def test_another_chain_is_noticed(devnet: Devnet) -> None:
    def answer(request: dict[str, Any]) -> bytes:
        return result(request, "0x1") if request["method"] == "eth_chainId" else forward(devnet.rpc, request)

    with serve(answer) as url, pytest.raises(BadAnswer, match="on chain 1,"):
        Web3Chain(url, devnet.deployment)


def test_too_many_logs_are_asked_for_in_parts(devnet: Devnet) -> None:
    spans = []

    def answer(request: dict[str, Any]) -> bytes:
        if request["method"] == "eth_getLogs":
            fields = request["params"][0]
            first, last = int(fields["fromBlock"], 16), int(fields["toBlock"], 16)
            if last - first >= 4:
                return error(request, -32005, "query returned more than 10000 results")
            spans.append((first, last))
        return forward(devnet.rpc, request)

    with serve(answer) as url:
        expected = Web3Chain(devnet.rpc, devnet.deployment).events(0, 15)
        assert Web3Chain(url, devnet.deployment).events(0, 15) == expected
    assert spans == [(0, 3), (4, 7), (8, 11), (12, 15)]


@pytest.mark.parametrize(
    ("change", "value"),
    [("blockNumber", "0xffff"), ("address", "0x" + "11" * 20), ("logIndex", "0x0"), ("topics", [])],
)
def test_logs_that_were_not_asked_for_are_noticed(devnet: Devnet, change: str, value: object) -> None:
    chain = Web3Chain(devnet.rpc, devnet.deployment, devnet.keys[0])
    chain.deposit(1)
    block = chain.deposit(1).block

    def answer(request: dict[str, Any]) -> bytes:
        body = forward(devnet.rpc, request)
        if request["method"] == "eth_getLogs":
            fields = json.loads(body)
            fields["result"] = [{**log, change: value} for log in fields["result"]] * 2
            return json.dumps(fields).encode()
        return body

    with serve(answer) as url, pytest.raises(ChainError):
        Web3Chain(url, devnet.deployment).events(block, block)
