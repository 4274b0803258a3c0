"""Whatever is killed, lost, replaced or reorganised: one call, one transaction."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crowdtrain._errors import BadAnswer, ChainUnavailable, ConfigError, Refused
from crowdtrain._sender import account_of
from crowdtrain.devnet import Devnet
from crowdtrain.journal import Fate
from crowdtrain.web3_chain import Web3Chain
from rpc_server import forward, result, serve


@pytest.fixture
def key(devnet: Devnet, request: pytest.FixtureRequest) -> str:
    """A key of its own for each test, with money and an allowance."""
    key: str = "0x" + request.node.name.encode().hex().rjust(64, "0")[-64:]
    chain = Web3Chain(devnet.rpc, devnet.deployment, key)
    devnet.fund(chain.address, 10**6)
    chain.approve(devnet.deployment.stake, 10**9)
    return key


@pytest.fixture
def paused(devnet: Devnet, key: str) -> Iterator[Devnet]:
    """The chain, making blocks only when told to."""
    devnet.node.request("evm_setAutomine", False)
    yield devnet
    devnet.node.request("evm_setAutomine", True)
    devnet.node.request("evm_mine")


def connect(devnet: Devnet, key: str, journal: Path | None = None, url: str = "") -> Web3Chain:
    return Web3Chain(url or devnet.rpc, devnet.deployment, key, journal, patience=0.5)


# ---------------------------------------------------------------- kills


def run_until_killed(devnet: Devnet, key: str, journal: Path, *, sent: bool) -> None:
    """Lets a process deposit 7, and kills it when it hands over its transaction, which the node gets or
    not.
    """
    process: subprocess.Popen[str]

    def answer(request: dict[str, Any]) -> bytes | None:
        if request["method"] != "eth_sendRawTransaction":
            return forward(devnet.rpc, request)
        if sent:
            forward(devnet.rpc, request)
        os.kill(process.pid, signal.SIGKILL)
        return None

    with serve(answer) as url:
        script = Path(__file__).with_name("sender_process.py")
        command = [sys.executable, str(script), url, str(devnet.deployment_path), key, str(journal), "7"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("sent", [False, True], ids=["before it is sent", "after it is sent"])
def test_a_kill_makes_no_second_transaction(devnet: Devnet, key: str, tmp_path: Path, sent: bool) -> None:
    address = account_of(key).address
    count = devnet.node.transaction_count(address)
    run_until_killed(devnet, key, tmp_path / "journal", sent=sent)
    assert devnet.node.transaction_count(address) == count + sent

    chain = connect(devnet, key, tmp_path / "journal")
    assert devnet.node.transaction_count(address) == count + 1
    assert chain.stake(chain.address) == (7, 0)
    (entry,) = chain._journal.all()
    assert entry.fate is Fate.MINED
    receipt = devnet.node.receipt(entry.hash)
    assert receipt is not None
    assert receipt.succeeded
    chain.release()
    again = connect(devnet, key, tmp_path / "journal")
    assert devnet.node.transaction_count(address) == count + 1
    assert again.stake(again.address) == (7, 0)


# ---------------------------------------------------------------- lost answers


def test_a_call_that_was_cut_short_is_answered_when_it_is_made_again(paused: Devnet, key: str) -> None:
    chain = connect(paused, key)
    with pytest.raises(ChainUnavailable, match="is in no block"):
        chain.deposit(5)
    (entry,) = chain._journal.all()
    paused.node.request("evm_mine")
    assert chain.deposit(5).transaction == entry.hash
    assert chain.stake(chain.address) == (5, 0)
    assert len(chain._journal.all()) == 1


def test_another_call_waits_for_the_one_before(paused: Devnet, key: str) -> None:
    chain = connect(paused, key)
    for amount in (5, 6):
        with pytest.raises(ChainUnavailable, match="deposit: 0x"):
            chain.deposit(amount)
    assert len(chain._journal.all()) == 1
    paused.node.request("evm_setAutomine", True)
    paused.node.request("evm_mine")
    chain.deposit(6)
    assert chain.stake(chain.address) == (11, 0)


def test_a_chain_that_cannot_be_resumed_leaves_its_journal_to_others(
    paused: Devnet, key: str, tmp_path: Path
) -> None:
    chain = connect(paused, key, tmp_path / "journal")
    with pytest.raises(ChainUnavailable):
        chain.deposit(5)
    chain.release()
    for _ in range(2):
        with pytest.raises(ChainUnavailable, match="deposit: 0x") as kept:
            connect(paused, key, tmp_path / "journal")
        assert kept.value.__traceback__ is not None
    paused.node.request("evm_mine")
    again = connect(paused, key, tmp_path / "journal")
    assert again.stake(again.address) == (5, 0)


def test_a_node_that_loses_transactions_is_given_them_again(devnet: Devnet, key: str) -> None:
    losses = 1

    def answer(request: dict[str, Any]) -> bytes:
        nonlocal losses
        if request["method"] == "eth_sendRawTransaction" and losses:
            losses -= 1
            return result(request, "0x" + "00" * 32)
        return forward(devnet.rpc, request)

    with serve(answer) as url:
        chain = connect(devnet, key, url=url)
        with pytest.raises(ChainUnavailable):
            chain.deposit(5)
        chain.deposit(5)
        assert chain.stake(chain.address) == (5, 0)
    assert len(chain._journal.all()) == 1


def test_a_transaction_that_became_too_cheap_is_made_dearer(paused: Devnet, key: str) -> None:
    chain = connect(paused, key)
    with pytest.raises(ChainUnavailable):
        chain.deposit(5)
    (cheap,) = chain._journal.all()
    paused.node.request("anvil_setNextBlockBaseFeePerGas", hex(4 * cheap.max_fee))
    paused.node.request("evm_mine")
    with pytest.raises(ChainUnavailable):
        chain.deposit(5)
    _, dearer = chain._journal.all()
    assert dearer.nonce == cheap.nonce
    assert dearer.max_fee > 4 * cheap.max_fee
    paused.node.request("evm_mine")
    assert chain.deposit(5).transaction == dearer.hash
    assert chain.stake(chain.address) == (5, 0)
    assert [entry.fate for entry in chain._journal.all()] == [Fate.DROPPED, Fate.MINED]


def test_a_nonce_that_somebody_else_took_is_noticed(paused: Devnet, key: str) -> None:
    chain, other = connect(paused, key), connect(paused, key)
    with pytest.raises(ChainUnavailable):
        chain.deposit(5)
    (lost,) = chain._journal.all()
    paused.node.request("anvil_dropTransaction", lost.hash)
    with pytest.raises(ChainUnavailable):
        other.deposit(9)
    paused.node.request("evm_mine")
    with pytest.raises(ChainUnavailable, match=f"another transaction took nonce {lost.nonce}"):
        Web3Chain.deposit(_patient(chain), 5)
    paused.node.request("evm_setAutomine", True)
    chain.deposit(5)
    assert chain.stake(chain.address) == (14, 0)


def _patient(chain: Web3Chain) -> Web3Chain:
    chain._mover._patience = 10
    return chain


def test_a_reorganisation_loses_nothing(devnet: Devnet, key: str) -> None:
    chain = connect(devnet, key)
    snapshot = devnet.node.request("evm_snapshot")
    first = chain.deposit(5)
    devnet.node.request("evm_revert", snapshot)
    assert chain.stake(chain.address) == (0, 0)
    second = chain.deposit(6)
    assert chain.stake(chain.address) == (11, 0)
    assert devnet.node.receipt(first.transaction) is not None
    assert [entry.hash for entry in chain._journal.all()] == [first.transaction, second.transaction]


def test_a_nonce_beyond_a_gap_is_given_up(devnet: Devnet, key: str) -> None:
    lies = True

    def answer(request: dict[str, Any]) -> bytes:
        if request["method"] == "eth_getTransactionCount" and lies:
            return result(request, "0x4d")
        return forward(devnet.rpc, request)

    with serve(answer) as url:
        chain = connect(devnet, key, url=url)
        with pytest.raises(ChainUnavailable):
            chain.deposit(5)
        lies = False
        chain.deposit(5)
        assert chain.stake(chain.address) == (5, 0)
    assert [entry.fate for entry in chain._journal.all()] == [Fate.DROPPED, Fate.MINED]


# ---------------------------------------------------------------- what a node may not make an account do


@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("eth_maxPriorityFeePerGas", hex(10**15), "is said to cost"),
        ("eth_estimateGas", hex(10**12), "is said to need"),
        ("eth_estimateGas", hex(2**24 + 1), "is said to need"),
    ],
)
def test_absurd_fees_are_not_paid(devnet: Devnet, key: str, method: str, value: str, message: str) -> None:
    def answer(request: dict[str, Any]) -> bytes:
        return result(request, value) if request["method"] == method else forward(devnet.rpc, request)

    with serve(answer) as url:
        chain = connect(devnet, key, url=url)
        with pytest.raises(BadAnswer, match=message):
            chain.deposit(5)
        assert chain._journal.all() == []


def test_no_transaction_asks_for_more_gas_than_one_may_have(devnet: Devnet, key: str) -> None:
    def answer(request: dict[str, Any]) -> bytes:
        estimates = request["method"] == "eth_estimateGas"
        return result(request, hex(2**24 - 1)) if estimates else forward(devnet.rpc, request)

    with serve(answer) as url:
        chain = connect(devnet, key, url=url)
        chain.deposit(5)
        assert [entry.gas for entry in chain._journal.all()] == [2**24]


def test_a_call_that_another_program_overtook_is_judged_anew(paused: Devnet, key: str) -> None:
    chain = connect(paused, key)
    chain_of_another_program = connect(paused, key)
    with pytest.raises(ChainUnavailable):
        chain.deposit(5)
    paused.node.request("evm_mine")
    chain.deposit(5)
    with pytest.raises(ChainUnavailable):
        chain.withdraw_stake(5)
    (_, withdrawal) = chain._journal.all()
    paused.node.request("anvil_dropTransaction", withdrawal.hash)
    with pytest.raises(ChainUnavailable):
        chain_of_another_program.withdraw_stake(4)
    paused.node.request("evm_mine")
    with pytest.raises(ChainUnavailable, match="another transaction took nonce"):
        _patient(chain).withdraw_stake(5)
    with pytest.raises(Refused, match="InsufficientFree"):
        chain.withdraw_stake(5)


@pytest.mark.parametrize("text", ["", "0x", "not a key", "0x" + "00" * 32, "0x" + "11" * 31, "11" * 33])
def test_what_is_no_key_is_refused_and_not_shown(devnet: Devnet, text: str) -> None:
    with pytest.raises(ConfigError, match="not a private key") as caught:
        Web3Chain(devnet.rpc, devnet.deployment, text)
    assert not text.strip("0x") or text not in str(caught.value)
