"""An EVM to run contracts in, and the compiler, for tests of the contracts from Python."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from web3 import Web3
from web3.contract import Contract

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "contracts" / "tools"))

import build  # noqa: E402  (it lies beside the contracts, not in a package)

Deploy = Callable[..., Contract]


@pytest.fixture(scope="session")
def web3() -> Iterator[Web3]:
    """A client of an anvil of its own, without gas limits, that ends with the session."""
    command = [str(ROOT / "node_modules" / ".bin" / "anvil"), "--port", "0", "--disable-block-gas-limit"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as anvil:
        try:
            assert anvil.stdout is not None
            matches = (re.search(r"Listening on (\S+)", line) for line in anvil.stdout)
            address = next(match[1] for match in matches if match)
            yield Web3(Web3.HTTPProvider(f"http://{address}", request_kwargs={"timeout": 600}))
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
