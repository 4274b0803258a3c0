"""The development chain: funded, timed, and gone with the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crowdtrain import devnet as devnets
from crowdtrain._errors import ChainError, ChainUnavailable, ConfigError
from crowdtrain._rpc import Node
from crowdtrain._sender import account_of
from crowdtrain.chain import Address
from crowdtrain.deployment import Deployment
from crowdtrain.devnet import CHAIN_ID, Devnet, deploy
from crowdtrain.web3_chain import Web3Chain


def test_accounts_have_money_and_contracts_know_each_other(devnet: Devnet) -> None:
    assert Deployment.load(devnet.deployment_path) == devnet.deployment
    assert devnet.deployment_path.name == f"{CHAIN_ID}.json"
    chain = Web3Chain(devnet.rpc, devnet.deployment, devnet.keys[3])
    assert chain.tokens(chain.address) == 10**24
    assert devnet.node.balance(chain.address) == 1000 * 10**18
    assert chain.deposit(5).events[0].name == "Deposited"


def test_time_passes_when_told(devnet: Devnet) -> None:
    before = devnet.node.block()
    devnet.advance(1000)
    after = devnet.node.block()
    assert after.timestamp >= before.timestamp + 1000
    assert after.number == before.number + 1


def test_another_deployment_can_share_the_token(devnet: Devnet) -> None:
    key = devnet.keys[4]
    other = deploy(devnet.node, key, Address(devnet.deployment.token))
    assert other.token == devnet.deployment.token
    assert other.market != devnet.deployment.market
    chain = Web3Chain(devnet.rpc, other, key)
    chain.deposit(7)
    assert chain.stake(chain.address) == (7, 0)


def test_an_account_without_money_cannot_deploy(devnet: Devnet) -> None:
    with pytest.raises(ChainError, match="was not taken"):
        deploy(devnet.node, "0x" + "77" * 32)


def test_blocks_come_by_themselves_if_wanted(tmp_path: Path) -> None:
    with Devnet(tmp_path, accounts=1, block_time=1) as chain:
        first = chain.node.block().number
        while chain.node.block().number < first + 2:
            time.sleep(0.05)


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with Devnet(tmp_path, accounts=1) as chain:
        port = int(chain.rpc.rsplit(":", 1)[1])
        with pytest.raises(ChainUnavailable, match=f"port {port} is taken"):
            Devnet(tmp_path / "other", accounts=1, port=port)


def test_anvil_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devnets, "__file__", str(tmp_path / "devnet.py"))
    with pytest.raises(ConfigError, match="run npm ci"):
        devnets.find_anvil()


def run(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "crowdtrain.cli", "devnet", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux passes SIGKILL on")
def test_the_chain_ends_with_its_process(tmp_path: Path, number: signal.Signals) -> None:
    process = run("--folder", str(tmp_path), "--accounts", "2")
    assert process.stdout is not None
    rpc = process.stdout.readline().split()[1]
    assert Node(rpc).chain_id() == CHAIN_ID
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == (-number if number == signal.SIGKILL else 0)
    for _ in range(200):
        try:
            Node(rpc, timeout=1).chain_id()
        except ChainUnavailable:
            return
        time.sleep(0.05)
    raise AssertionError("anvil is still there")


def test_keys_are_the_same_each_time(devnet: Devnet) -> None:
    assert account_of(devnet.keys[0]).address == account_of(devnets._key(0)).address
    assert len({*devnet.keys, devnets._DEPLOYER}) == len(devnet.keys) + 1
