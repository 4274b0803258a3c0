"""A node's JSON-RPC, believed in nothing: every answer is bounded in size and time, and checked for its form.

This is where the exceptions of web3.py and of HTTP end: everything beyond raises ChainUnavailable,
BadAnswer, or :class:`RpcError` for an error that the node itself reports.
"""

from __future__ import annotations

import binascii
import re
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httpx
from pydantic_core import from_json

from crowdtrain._errors import BadAnswer, ChainUnavailable, ConfigError
from crowdtrain._eth import JSONBaseProvider, RPCEndpoint, RPCResponse, Web3, Web3Exception, Web3RPCError

__all__ = ["Block", "Log", "Node", "RpcError", "TransactionReceipt"]

MAX_ANSWER = 2**26
"""most bytes of an answer"""
MAX_LOGS = 2**17


class RpcError(Exception):
    """An error that the node reports: its code, its message, and the data that a contract reverted with."""

    def __init__(self, method: str, code: int, message: str, data: bytes | None) -> None:
        super().__init__(f"{method}: {message} ({code})")
        self.code = code
        self.message = message
        self.data = data

    @property
    def is_revert(self) -> bool:
        """Whether a contract refused, and not the node."""
        return self.data is not None or self.code == 3 or "revert" in self.message.lower()


class _Transport(JSONBaseProvider):
    """web3.py's provider over HTTP, with a bound on the size of an answer and on the time it may take."""

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__()
        self._url = url
        # the path of an address often holds a key, so messages name only the host
        self._name = httpx.URL(url).host
        self._timeout = timeout
        # no compression: a small answer could otherwise unpack to a large one
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._client = httpx.Client(timeout=timeout, headers=headers)
        weakref.finalize(self, self._client.close)

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """The answer, an object. Raises ChainUnavailable or BadAnswer."""
        body = self.encode_rpc_request(method, params)
        try:
            answer = from_json(self._post(body))
        except httpx.HTTPError as error:
            raise ChainUnavailable(f"no node answers at {self._name}: {error!r}") from error
        except ValueError as error:
            raise BadAnswer(f"{method}: the answer is not JSON") from error
        if not isinstance(answer, dict):
            raise BadAnswer(f"{method}: the answer is not an object")
        fields = {key: answer[key] for key in ("jsonrpc", "id", "result", "error") if key in answer}
        return cast(RPCResponse, fields)

    def _post(self, body: bytes) -> bytes:
        deadline = time.monotonic() + self._timeout
        answer = bytearray()
        with self._client.stream("POST", self._url, content=body) as response:
            if response.status_code == 429 or response.status_code >= 500:
                raise ChainUnavailable(f"the node at {self._name} answers {response.status_code}")
            for part in response.iter_raw():
                answer += part
                if len(answer) > MAX_ANSWER:
                    raise BadAnswer(f"the node at {self._name} answers with more than {MAX_ANSWER} bytes")
                if time.monotonic() > deadline:
                    raise ChainUnavailable(f"the node at {self._name} took more than {self._timeout} s")
        return bytes(answer)


@dataclass(frozen=True, slots=True)
class Block:
    """A block's head. Time in Unix seconds, fee in wei for each gas."""

    number: int
    hash: str
    timestamp: int
    base_fee: int
    gas_limit: int


@dataclass(frozen=True, slots=True)
class Log:
    """What a contract logged."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes
    block: int
    index: int
    transaction: str


@dataclass(frozen=True, slots=True)
class TransactionReceipt:
    """What became of a transaction; ``fee`` in wei for each gas."""

    transaction: str
    block: int
    succeeded: bool
    gas: int
    fee: int
    logs: tuple[Log, ...]


class Node:
    """The calls that this package makes of a node at ``url``; each waits at most ``timeout`` seconds."""

    def __init__(self, url: str, timeout: float = 20.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError("the RPC address must begin with http:// or https://")
        self._web3 = Web3(_Transport(url, timeout), middleware=[])

    def request(self, method: str, *params: object) -> object:
        """The result of any call, unchecked."""
        try:
            return self._web3.manager.request_blocking(RPCEndpoint(method), list(params))
        except Web3RPCError as error:
            report = (error.rpc_response or {}).get("error")
            if not isinstance(report, dict):
                raise BadAnswer(f"{method}: {error}") from error
            data = _revert_data(report.get("data"))
            raise RpcError(method, int(report["code"]), str(report["message"])[:500], data) from error
        except Web3Exception as error:
            raise BadAnswer(f"{method}: {str(error)[:500]}") from error

    def chain_id(self) -> int:
        """Number of the chain."""
        return _quantity(self._ask("eth_chainId"), "chain id")

    def block(self, number: int | str = "latest") -> Block:
        """A block's head. Raises BadAnswer if there is none."""
        fields = _object(self._ask("eth_getBlockByNumber", _tag(number), False), f"block {number}")
        block = Block(
            number=_quantity(fields.get("number"), "block number"),
            hash=_hash(fields.get("hash"), "block hash"),
            timestamp=_quantity(fields.get("timestamp"), "block time"),
            base_fee=_quantity(fields.get("baseFeePerGas", "0x0"), "base fee", 128),
            gas_limit=_quantity(fields.get("gasLimit"), "gas limit"),
        )
        if isinstance(number, int) and block.number != number:
            raise BadAnswer(f"block {number} was asked for, {block.number} came")
        return block

    def call(self, to: str, data: bytes, sender: str | None = None, block: int | str = "latest") -> bytes:
        """What a call returns that changes nothing. Raises RpcError if it reverts."""
        call = {"to": to, "data": f"0x{data.hex()}"} | ({"from": sender} if sender else {})
        return _data(self.request("eth_call", call, _tag(block)), "call")

    def estimate_gas(self, sender: str, to: str, data: bytes) -> int:
        """Gas that a transaction needs. Raises RpcError if it reverts."""
        call = {"from": sender, "to": to, "data": f"0x{data.hex()}"}
        return _quantity(self.request("eth_estimateGas", call), "gas")

    def code(self, address: str, block: int | str = "latest") -> bytes:
        """Code of a contract; empty where there is none."""
        return _data(self._ask("eth_getCode", address, _tag(block)), "code")

    def balance(self, address: str) -> int:
        """Balance in wei."""
        return _quantity(self._ask("eth_getBalance", address, "latest"), "balance", 256)

    def transaction_count(self, address: str) -> int:
        """Transactions of an account in the chain: its next nonce."""
        return _quantity(self._ask("eth_getTransactionCount", address, "latest"), "nonce")

    def tip(self) -> int:
        """Priority fee that the node suggests, in wei for each gas; 1 gwei if it suggests none."""
        try:
            return _quantity(self.request("eth_maxPriorityFeePerGas"), "priority fee", 128)
        except RpcError:
            return 10**9

    def send(self, raw: bytes) -> None:
        """Hands over a signed transaction. Raises RpcError if the node does not take it."""
        self.request("eth_sendRawTransaction", f"0x{raw.hex()}")

    def receipt(self, transaction: str) -> TransactionReceipt | None:
        """What became of a transaction, or None while it is in no block."""
        answer = self._ask("eth_getTransactionReceipt", transaction)
        if answer is None:
            return None
        fields = _object(answer, "receipt")
        if _hash(fields.get("transactionHash"), "transaction") != transaction:
            raise BadAnswer(f"the receipt of {transaction} is that of another transaction")
        return TransactionReceipt(
            transaction=transaction,
            block=_quantity(fields.get("blockNumber"), "block number"),
            succeeded=_quantity(fields.get("status"), "status") == 1,
            gas=_quantity(fields.get("gasUsed"), "gas used"),
            fee=_quantity(fields.get("effectiveGasPrice", "0x0"), "gas price", 128),
            logs=_logs(fields.get("logs")),
        )

    def logs(
        self, addresses: Sequence[str], topics: Sequence[str | None], first: int, last: int
    ) -> tuple[Log, ...]:
        """Logs of these contracts in blocks ``first … last``, in order. Raises RpcError if they are too
        many.
        """
        wanted = {"address": list(addresses), "topics": list(topics)}
        answer = self.request("eth_getLogs", {**wanted, "fromBlock": hex(first), "toBlock": hex(last)})
        logs = _logs(answer)
        lower = {address.lower() for address in addresses}
        for log in logs:
            asked = zip(topics, log.topics, strict=False)
            if not first <= log.block <= last or log.address not in lower:
                raise BadAnswer(f"logs of blocks {first} to {last} were asked for, one of {log.block} came")
            if len(log.topics) < len(topics) or any(t is not None and t != f"0x{u.hex()}" for t, u in asked):
                raise BadAnswer("a log came whose topics were not asked for")
        if [(log.block, log.index) for log in logs] != sorted({(log.block, log.index) for log in logs}):
            raise BadAnswer("logs came twice or out of order")
        return logs

    def _ask(self, method: str, *params: object) -> object:
        """Like :meth:`request`, where an error that the node reports means that it cannot answer now."""
        try:
            return self.request(method, *params)
        except RpcError as error:
            raise ChainUnavailable(f"the node cannot answer: {error}") from error


def _tag(block: int | str) -> str:
    return hex(block) if isinstance(block, int) else block


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadAnswer(f"{what}: an object was expected, {_brief(value)} came")
    return value


def _quantity(value: object, what: str, bits: int = 64) -> int:
    if isinstance(value, str) and len(value) <= 2 + bits // 4 and re.fullmatch("0x[0-9a-f]+", value):
        return int(value, 16)
    raise BadAnswer(f"{what}: a number of {bits} bits was expected, {_brief(value)} came")


def _data(value: object, what: str) -> bytes:
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return binascii.unhexlify(value[2:])
        except ValueError:
            pass
    raise BadAnswer(f"{what}: bytes were expected, {_brief(value)} came")


def _hash(value: object, what: str) -> str:
    data = _data(value, what)
    if len(data) != 32:
        raise BadAnswer(f"{what}: 32 bytes were expected, {len(data)} came")
    return f"0x{data.hex()}"


def _logs(value: object) -> tuple[Log, ...]:
    if not isinstance(value, list) or len(value) > MAX_LOGS:
        raise BadAnswer(f"logs: a list of at most {MAX_LOGS} was expected, {_brief(value)} came")
    fields = [_object(item, "log") for item in value]
    return tuple(_log(item) for item in fields if item.get("removed") is not True)


def _log(fields: Mapping[str, Any]) -> Log:
    topics, address = fields.get("topics"), _data(fields.get("address"), "log's address")
    if not isinstance(topics, list) or len(topics) > 4 or len(address) != 20:
        raise BadAnswer(f"a log has topics {_brief(topics)} and an address of {len(address)} bytes")
    return Log(
        address=f"0x{address.hex()}",
        topics=tuple(bytes.fromhex(_hash(topic, "topic")[2:]) for topic in topics),
        data=_data(fields.get("data"), "log's data"),
        block=_quantity(fields.get("blockNumber"), "log's block"),
        index=_quantity(fields.get("logIndex"), "log's index"),
        transaction=_hash(fields.get("transactionHash"), "log's transaction"),
    )


def _revert_data(value: object) -> bytes | None:
    """Bytes that a contract reverted with, which nodes put in different places; None if there are none."""
    if isinstance(value, dict):
        value = value.get("data") or value.get("result")
    try:
        return _data(value, "revert")
    except BadAnswer:
        return None


def _brief(value: object) -> str:
    text = repr(value) if not isinstance(value, (list, dict)) else f"{type(value).__name__} of {len(value)}"
    return text[:80]
