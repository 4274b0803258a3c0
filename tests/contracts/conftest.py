"""An EVM to run contracts in, and the compiler, for tests of the contracts from Python."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from contracts.referee import Referee
from crowdtrain.devnet import find_anvil
from web3 import Web3
from web3.contract import Contract

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "contracts" / "tools"))

import build  # noqa: E402  (it lies beside the contracts, not in a package)

Deploy = Callable[..., Contract]


@pytest.fixture(scope="session")
def web3() -> Iterator[Web3]:
    """A client of an anvil of its own, without gas limits, that ends with the session."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(find_anvil()), "--silent", "--port", str(port), "--disable-block-gas-limit"]
    with subprocess.Popen(command) as anvil:
        try:
            client = Web3(Web3.HTTPProvider(f"http://127.0.0.1:{port}", request_kwargs={"timeout": 600}))
            while not client.is_connected():
                assert anvil.poll() is None, "anvil does not start"
                time.sleep(0.05)
            yield client
        finally:
            anvil.terminate()


@pytest.fixture(scope="session")
def deploy(web3: Web3) -> Deploy:
    """deploy(name, *arguments) deploys a contract of the package, or one of contracts/test/harness."""

    def deploy_contract(name: str, *arguments: object) -> Contract:
        packaged = build.ARTIFACTS / f"{name}.json"
        if packaged.exists():
            artifact = json.loads(packaged.read_text())
        else:
            artifact = build.compile_contracts([build.CONTRACTS / "test" / "harness" / f"{name}.sol"])[name]
        contract = web3.eth.contract(abi=artifact["abi"], bytecode=artifact["bytecode"])
        receipt = web3.eth.wait_for_transaction_receipt(
            contract.constructor(*arguments).transact({"from": web3.eth.accounts[0]})
        )
        deployed = web3.eth.contract(address=receipt["contractAddress"], abi=artifact["abi"])
        assert isinstance(deployed, Contract)
        return deployed

    return deploy_contract


@pytest.fixture(scope="session")
def referee(deploy: Deploy) -> Referee:
    return Referee(deploy("Referee"), deploy("Calls"))
