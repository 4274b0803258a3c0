"""The fake chain keeps the contracts' rules (the same tests run on the contracts in tests/e2e), and its
own.
"""

from __future__ import annotations

import copy
import random

import pytest
from crowdtrain._errors import Refused
from crowdtrain.chain import Address
from crowdtrain.fakes import FakeChain
from crowdtrain.game.sabotage import parse
from sdk.arena import CID, STAKE, Arena, Segment, fake_arena
from sdk.liars import Troublemaker
from sdk.market_rules import *  # noqa: F403
from sdk.market_rules import Deal
from small_programs import perceptron, perceptron_data, perceptron_state


@pytest.fixture
def arena() -> Arena:
    return fake_arena()


def world(chain: object) -> dict[str, object]:
    assert isinstance(chain, FakeChain)
    return copy.deepcopy(vars(chain._world))


def total(chain: object) -> int:
    assert isinstance(chain, FakeChain)
    return sum(chain._world.tokens.values())


def test_a_refused_call_changes_nothing(arena: Arena) -> None:
    deal = Deal.post(arena)
    deal.claim(0, arena.solver)
    before = world(arena.buyer)
    with pytest.raises(Refused):
        deal.claim(0, arena.challenger)
    with pytest.raises(Refused):
        arena.buyer.deposit(10**9)
    with pytest.raises(Refused):
        Deal.post(arena, escrow=10**9)
    assert world(arena.buyer) == before


def test_every_transaction_is_a_block_with_its_events(arena: Arena) -> None:
    number, _ = arena.buyer.head()
    receipt = arena.solver.deposit(5)
    assert receipt.block == number + 1 == arena.buyer.head()[0]
    assert [event.name for event in receipt.events] == ["Deposited"]
    assert arena.buyer.events(receipt.block, receipt.block) == list(receipt.events)
    assert arena.buyer.events(receipt.block + 1, receipt.block + 9) == []
    arena.advance(60)
    assert arena.buyer.head()[0] == receipt.block + 1


def test_time_passes_only_when_it_is_told_to(arena: Arena) -> None:
    now = arena.buyer.now()
    arena.solver.deposit(5)
    assert arena.buyer.now() == now
    arena.advance(60)
    assert arena.solver.now() == now + 60


@pytest.mark.parametrize("seed", range(5))
def test_tokens_are_neither_made_nor_lost(arena: Arena, seed: int) -> None:
    everything = total(arena.buyer)
    segment = Segment.commit(
        arena, perceptron(2), perceptron_state(), perceptron_data(2),
        steps=2, interval=1, sabotage=parse(["gradient", "silent-page"][seed % 2]) if seed else None,
    )  # fmt: skip
    segment.dispute(challenger=None if seed else Troublemaker(segment.honest, random.Random(seed)))
    assert total(arena.buyer) == everything
    chain = arena.buyer
    assert isinstance(chain, FakeChain)
    held = chain._world
    stakes = sum(held.free.values()) + sum(held.locked.values())
    accounts = {arena.buyer.address, arena.solver.address, arena.challenger.address}
    outside = {account: tokens for account, tokens in held.tokens.items() if account not in accounts}
    assert sorted(outside.values()) == sorted([stakes + held.burned, 100])
    assert held.burned == STAKE - STAKE // 2


def test_accounts_share_one_chain() -> None:
    chain = FakeChain()
    other = chain.as_account("0x" + "77" * 20)
    other.mint(7)
    assert chain.tokens(Address("0x" + "77" * 20)) == 7
    assert chain.tokens(chain.address) == 0
    assert CID
