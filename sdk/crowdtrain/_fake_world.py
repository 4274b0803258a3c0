"""What the contracts of the fake chain hold, and how a transaction changes it: altogether, or not at all."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import NoReturn

from crowdtrain._abi import printable
from crowdtrain._errors import Refused
from crowdtrain.chain import (
    Address,
    ChainEvent,
    Game,
    GameId,
    Job,
    JobId,
    Record,
    Round,
    Rules,
    Segment,
    SegmentKey,
)

__all__ = ["MARKET", "NOBODY", "RULES", "STAKE", "RevertedError", "World", "require", "revert"]

MARKET = Address("0x00000000000000000000000000000000000ab1e1")
STAKE = Address("0x00000000000000000000000000000000000ab1e2")
NOBODY = Address("0x" + "0" * 40)
RULES = Rules(fee_rate=200, unbonding=14 * 24 * 3600)


class RevertedError(Exception):
    """A rule of a contract is broken. Becomes Refused at the edge of the chain."""

    def __init__(self, error: str, values: dict[str, object]) -> None:
        super().__init__(error)
        self.error = error
        self.values = {name: printable(value) for name, value in values.items()}


def revert(error: str, **values: object) -> NoReturn:
    """Refuses a call with a contract's error and its fields."""
    raise RevertedError(error, values)


def require(condition: bool, error: str, **values: object) -> None:
    """Refuses a call unless ``condition``."""
    if not condition:
        revert(error, **values)


@dataclass
class World:
    """Balances and records of all contracts. Records are frozen: a change replaces them."""

    time: int = 1_700_000_000
    start: int = 1_700_000_000
    """when the contracts were deployed"""
    block: int = 0
    tokens: dict[Address, int] = field(default_factory=dict)
    free: dict[Address, int] = field(default_factory=dict)
    locked: dict[Address, int] = field(default_factory=dict)
    owed: dict[Address, int] = field(default_factory=dict)
    jobs: dict[JobId, Job] = field(default_factory=dict)
    refunded: dict[JobId, int] = field(default_factory=dict)
    segments: dict[SegmentKey, Segment] = field(default_factory=dict)
    groups: dict[SegmentKey, int] = field(default_factory=dict)
    inputs: dict[SegmentKey, tuple[int, ...]] = field(default_factory=dict)
    """attempts of a segment's sources when it was claimed"""
    barred: set[tuple[JobId, Address]] = field(default_factory=set)
    games: dict[GameId, Game] = field(default_factory=dict)
    events: list[ChainEvent] = field(default_factory=list)
    transfers: list[ChainEvent] = field(default_factory=list)
    times: dict[int, int] = field(default_factory=dict)
    """time of every block"""
    burned: int = 0
    rounds: dict[tuple[SegmentKey, int], Round] = field(default_factory=dict)
    attestations: dict[tuple[SegmentKey, int], dict[Address, bytes]] = field(default_factory=dict)
    punished: set[tuple[SegmentKey, int, Address]] = field(default_factory=set)
    weights: dict[Address, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """of each auditor, and of NOBODY the sum: weights, each with the block from which it was held"""
    leaving: dict[Address, tuple[int, int]] = field(default_factory=dict)
    records: dict[Address, Record] = field(default_factory=dict)
    fees: dict[int, int] = field(default_factory=dict)
    """by epoch"""
    points: dict[tuple[int, Address], int] = field(default_factory=dict)
    rewards: dict[Address, int] = field(default_factory=dict)
    """the protocol's own tokens"""
    campaigns: dict[Address, object] = field(default_factory=dict)
    """records of _fake_campaign"""

    @contextmanager
    def transaction(self, call: str) -> Iterator[None]:
        """A block with one transaction. Raises Refused, with everything as it was, if a rule refuses it."""
        before = {f.name: copy.copy(getattr(self, f.name)) for f in fields(self)}
        self.pass_block()
        try:
            yield
        except RevertedError as reason:
            for name, value in before.items():
                setattr(self, name, value)
            raise Refused(call, reason.error, reason.values) from None

    @property
    def transaction_hash(self) -> str:
        """Of the only transaction of the latest block."""
        return "0x" + sha256(b"transaction %d" % self.block).hexdigest()

    def pass_block(self, seconds: int = 0) -> None:
        """Begins a block, so many seconds after the last."""
        self.time += seconds
        self.block += 1
        self.times[self.block] = self.time

    def hash_of(self, block: int) -> bytes:
        """Hash of a block; zero unless it is one of the 256 before the current one."""
        return sha256(b"block %d" % block).digest() if 0 < self.block - block <= 256 else bytes(32)

    def emit(self, contract: str, name: str, **values: object) -> None:
        """Records an event of the current transaction."""
        self.events.append(self._event(contract, name, values))

    def _event(self, contract: str, name: str, values: dict[str, object]) -> ChainEvent:
        recent = (*self.events[-32:], *self.transfers[-32:])
        index = sum(event.block == self.block for event in recent)
        return ChainEvent(self.block, index, self.transaction_hash, name, values, contract)

    def mint(self, account: Address, amount: int) -> None:
        """Makes tokens, in a block of its own."""
        self.pass_block()
        self.tokens[account] = self.tokens.get(account, 0) + amount
        self._transfer(NOBODY, account, amount)

    def _transfer(self, payer: Address, payee: Address, amount: int) -> None:
        values: dict[str, object] = {"from": payer, "to": payee, "value": amount}
        self.transfers.append(self._event("Money", "Transfer", values))

    def pay(self, payer: Address, payee: Address, amount: int) -> None:
        """Moves tokens."""
        have = self.tokens.get(payer, 0)
        require(amount <= have, "ERC20InsufficientBalance", sender=payer, balance=have, needed=amount)
        self.tokens[payer] = have - amount
        self.tokens[payee] = self.tokens.get(payee, 0) + amount
        self._transfer(payer, payee, amount)

    def owe(self, account: Address, amount: int) -> None:
        """Lets ``account`` withdraw ``amount`` from the Market."""
        self.owed[account] = self.owed.get(account, 0) + amount

    # stake

    def take_free(self, account: Address, amount: int) -> None:
        """Takes free stake."""
        free = self.free.get(account, 0)
        require(amount <= free, "InsufficientFree", account=account, free=free, needed=amount)
        self.free[account] = free - amount

    def withdraw_stake(self, account: Address, amount: int) -> None:
        """Pays free stake back."""
        self.take_free(account, amount)
        self.pay(STAKE, account, amount)
        self.emit("Stake", "Withdrawn", account=account, amount=amount)

    def lock(self, account: Address, amount: int) -> None:
        """Moves free stake to locked."""
        self.take_free(account, amount)
        self.locked[account] = self.locked.get(account, 0) + amount
        self.emit("Stake", "Locked", account=account, amount=amount)

    def unlock(self, account: Address, amount: int) -> None:
        """Moves locked stake to free."""
        self.locked[account] -= amount
        self.free[account] = self.free.get(account, 0) + amount
        self.emit("Stake", "Unlocked", account=account, amount=amount)

    def slash(self, account: Address, amount: int, winner: Address) -> None:
        """Takes locked stake: half, rounded down, to ``winner``'s free stake, the rest burned."""
        bounty = amount // 2
        self.locked[account] -= amount
        self.free[winner] = self.free.get(winner, 0) + bounty
        self.emit("Stake", "Slashed", account=account, amount=amount, winner=winner, bounty=bounty)
        self.burned += amount - bounty
