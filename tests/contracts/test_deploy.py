"""`hardhat deploy` on a chain, with the file that it writes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from crowdtrain.deployment import Deployment
from web3 import Web3

import build


@pytest.mark.slow
def test_hardhat_deploys_what_the_package_would(web3: Web3, tmp_path: Path) -> None:
    block = web3.eth.block_number
    hardhat = build.ROOT / "node_modules" / ".bin" / "hardhat"
    url = web3.provider.endpoint_uri  # type: ignore[attr-defined]
    done = subprocess.run(
        [str(hardhat), "deploy", "--network", "target", "--folder", str(tmp_path)],
        cwd=build.ROOT,
        env={**os.environ, "RPC_URL": str(url)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    deployment = Deployment.load(tmp_path / f"{web3.eth.chain_id}.json")
    assert deployment.block == block

    def told(contract: str, name: str) -> str:
        selector = Web3.keccak(text=f"{name}()")[:4]
        return Web3.to_checksum_address(web3.eth.call({"to": contract, "data": selector})[12:])

    names = {
        "stake": ("token", "market", "dispute", "audit"),
        "market": ("token", "stake", "dispute", "audit", "emission"),
        "dispute": ("market", "stake", "referee"),
        "audit": ("stake", "market"),
        "emission": ("market",),
    }
    for contract, others in names.items():
        told_of = [told(getattr(deployment, contract), other) for other in others]
        assert told_of == [getattr(deployment, other) for other in others], contract
    assert told(deployment.emission, "token") == deployment.rewards
    assert told(deployment.rewards, "minter") == deployment.emission
    assert web3.eth.get_code(deployment.crowdfund)
    assert web3.eth.get_code(deployment.referee)
