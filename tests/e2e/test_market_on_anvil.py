"""The rules that tests/sdk/test_fakes.py checks on the fake chain, on the real contracts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crowdtrain.devnet import Devnet
from crowdtrain.web3_chain import Web3Chain
from sdk.arena import STAKE, Arena
from sdk.market_rules import *  # noqa: F403


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with Devnet(tmp_path_factory.mktemp("devnet")) as devnet:
        keys = devnet.keys[:3]
        buyer, solver, challenger = (Web3Chain(devnet.rpc, devnet.deployment, key) for key in keys)
        for account in (solver, challenger):
            account.deposit(20 * STAKE)
        yield Arena(buyer, solver, challenger, devnet.advance, devnet.mine)
