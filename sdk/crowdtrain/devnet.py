"""A chain of one's own: Foundry's anvil with the contracts deployed and accounts with money."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from importlib import resources
from pathlib import Path
from types import TracebackType

from eth_utils.address import to_canonical_address, to_checksum_address
from eth_utils.crypto import keccak

from crowdtrain import _abi
from crowdtrain._errors import ChainError, ChainUnavailable, ConfigError
from crowdtrain._eth import LocalAccount
from crowdtrain._rpc import Node, RpcError, TransactionReceipt
from crowdtrain._sender import account_of
from crowdtrain.chain import Address
from crowdtrain.deployment import SOLIDITY_NAMES, Deployment

__all__ = ["Devnet", "deploy", "find_anvil"]

CHAIN_ID = 31337
_START = 30.0
"""seconds that anvil may take to start"""
_ETHER = 10**18
# a kill that cannot be caught would leave anvil behind; on Linux the kernel passes it on
_DIE_WITH_PARENT = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
)


class Devnet:
    """An anvil that runs until :meth:`stop`, the end of a ``with`` block, or the death of this process.

    ``keys`` are the private keys of ``accounts`` accounts, the same each time, with 1,000 ether and
    ``tokens`` token units each. A block is made for each transaction and, if ``block_time`` is not None,
    after so many seconds. With a ``timestamp``, time begins there and goes on a second with each block, whatever
    the clock says, so that the same transactions make the same blocks. ``folder`` receives the deployment
    file, ``parameters`` are those of :func:`deploy`. Raises ConfigError if anvil is not installed,
    ChainUnavailable if it does not start. On Linux it dies with the thread that started it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        accounts: int = 8,
        tokens: int = 10**24,
        block_time: int | None = None,
        port: int | None = None,
        timestamp: int | None = None,
        parameters: Mapping[str, int] | None = None,
    ) -> None:
        self.keys = [_key(number) for number in range(accounts)]
        self._process, self.rpc = _start(find_anvil(), block_time, port, timestamp)
        try:
            self.node = Node(self.rpc)
            if timestamp is not None:
                self.node.request("anvil_setBlockTimestampInterval", 1)
            for account in map(account_of, [_DEPLOYER, *self.keys]):
                self.node.request("anvil_setBalance", account.address, hex(1000 * _ETHER))
            self.deployment = deploy(self.node, _DEPLOYER, parameters=parameters)
            self.deployment_path = folder / f"{CHAIN_ID}.json"
            self.deployment.save(self.deployment_path)
            for account in map(account_of, self.keys):
                self.mint(Address(account.address), tokens)
        except BaseException:
            self.stop()
            raise

    def mint(self, account: Address, amount: int) -> None:
        """Makes token units for an account."""
        data = _abi.contract("Money").encode("mint", (account, amount))
        _carry_out(self.node, account_of(_DEPLOYER), self.deployment.token, data)

    def fund(self, account: Address, tokens: int) -> None:
        """Gives an account 1,000 ether for gas, and token units."""
        self.node.request("anvil_setBalance", account, hex(1000 * _ETHER))
        self.mint(account, tokens)

    def advance(self, seconds: int) -> None:
        """Lets time pass, in a block of its own."""
        self.node.request("evm_setNextBlockTimestamp", hex(self.node.block().timestamp + seconds))
        self.node.request("evm_mine")

    def mine(self, blocks: int) -> None:
        """Makes empty blocks."""
        self.node.request("anvil_mine", hex(blocks))

    def stop(self) -> None:
        """Ends anvil; nothing of the chain stays."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Devnet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def deploy(
    node: Node, key: str, token: Address | None = None, parameters: Mapping[str, int] | None = None
) -> Deployment:
    """Deploys the contracts, and a token that anybody may mint unless ``token`` names one.

    ``parameters`` take the place of those in ``contracts.json``. Contracts name each other, so each is told where the
    others are going to be. Raises ChainError if one cannot be deployed.
    """
    account = account_of(key)
    first = node.transaction_count(account.address)
    block = node.block().number
    plan = json.loads((resources.files("crowdtrain") / "contracts.json").read_text())
    constructors: dict[str, list[str]] = plan["constructors"]
    numbers = {name: int(value) for name, value in plan["parameters"].items()} | dict(parameters or {})
    names = [name for name in constructors if token is None or name != "Money"]
    at = {name: _created(account.address, first + i) for i, name in enumerate(names)}
    at["Money"] = token or at["Money"]
    for name in names:
        arguments = [at[what] if what in at else numbers[what] for what in constructors[name]]
        code = bytes.fromhex(_abi.artifact(name)["bytecode"][2:]) + _words(arguments)
        _carry_out(node, account, None, code)
        if not node.code(at[name]):
            raise ChainError(f"{name} was deployed, but there is no contract at {at[name]}")
    fields = {name: SOLIDITY_NAMES.get(name, name.capitalize()) for name in Deployment.model_fields}
    addresses = {field: at[name] for field, name in fields.items() if name in at}
    return Deployment(chain_id=node.chain_id(), block=block, **addresses)


def _words(arguments: Iterable[int | Address]) -> bytes:
    """Numbers and addresses, as the ABI has them: a word each, alone or in a structure."""
    return b"".join(
        (value if isinstance(value, int) else int(value, 16)).to_bytes(32, "big") for value in arguments
    )


def _created(sender: str, nonce: int) -> Address:
    """Where the contract that ``sender`` creates with this nonce is put: a hash of both, in RLP."""
    number = nonce.to_bytes(8, "big").lstrip(b"\0")
    if nonce == 0 or nonce > 127:
        number = bytes([0x80 + len(number)]) + number
    pair = b"\x94" + to_canonical_address(sender) + number
    return Address(to_checksum_address(keccak(bytes([0xC0 + len(pair)]) + pair)[12:]))


def _carry_out(node: Node, account: LocalAccount, to: str | None, data: bytes) -> TransactionReceipt:
    """Sends a transaction to a chain whose blocks are made at once, and waits for it."""
    transaction = {
        "type": 2,
        "chainId": node.chain_id(),
        "nonce": node.transaction_count(account.address),
        "to": to or b"",
        "data": data,
        "value": 0,
        "gas": node.block().gas_limit // 2,
        "maxFeePerGas": 2 * node.block().base_fee + 10**9,
        "maxPriorityFeePerGas": 10**9,
    }
    signed = account.sign_transaction(transaction)  # type: ignore[arg-type]
    try:
        node.send(bytes(signed.raw_transaction))
    except RpcError as error:
        raise ChainError(f"a transaction of the deployment was not taken: {error}") from error
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        receipt = node.receipt(f"0x{bytes(signed.hash).hex()}")
        if receipt is not None and receipt.succeeded:
            return receipt
        if receipt is not None:
            raise ChainError(f"a transaction of the deployment was reverted: {receipt.transaction}")
        time.sleep(0.05)
    raise ChainUnavailable(f"a transaction of the deployment is in no block after {_START:.0f} s")


# ---------------------------------------------------------------- the process


def find_anvil() -> Path:
    """Foundry's anvil out of a ``node_modules`` folder here or above. Raises ConfigError if there is none."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            # npm's own script would only start this program, and leave it behind if it is killed
            for program in sorted(folder.glob("node_modules/@foundry-rs/anvil-*/bin/anvil")):
                return program
    raise ConfigError("anvil is not installed: run npm ci in the project's folder")


def _start(
    anvil: Path, block_time: int | None, port: int | None, timestamp: int | None
) -> tuple[subprocess.Popen[bytes], str]:
    if port is not None and not _is_free(port):
        raise ChainUnavailable(f"port {port} is taken")
    for number in [port] if port is not None else _free_ports(3):
        command = [
            str(anvil),
            "--silent",
            "--accounts",
            "1",
            "--port",
            str(number),
            "--chain-id",
            str(CHAIN_ID),
        ]
        if block_time is not None:
            command += ["--block-time", str(block_time), "--mixed-mining"]
        if timestamp is not None:
            command += ["--timestamp", str(timestamp)]
        if sys.platform == "linux":
            command = [sys.executable, "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        rpc = f"http://127.0.0.1:{number}"
        if _answers(process, Node(rpc, timeout=5)):
            return process, rpc
        process.kill()
        process.wait()
    raise ChainUnavailable(f"{anvil} does not start")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> Iterator[int]:
    for _ in range(count):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        yield port


def _answers(process: subprocess.Popen[bytes], node: Node) -> bool:
    deadline = time.monotonic() + _START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return node.chain_id() == CHAIN_ID
        except ChainUnavailable:
            time.sleep(0.05)
    return False


def _key(number: int | str) -> str:
    return "0x" + sha256(f"crowdtrain devnet account {number}".encode()).hexdigest()


_DEPLOYER = _key("deployer")
