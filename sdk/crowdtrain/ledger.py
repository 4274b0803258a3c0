"""Whose money moved, and why: the chain's events as a ledger in which every entry has a counter-entry.

What an account is worth is its tokens, its stake (free and locked) and what the Market owes it, so deposits,
locks and withdrawals change nothing; only the movements below do. Amounts are token units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crowdtrain._errors import BadAnswer
from crowdtrain.chain import Address, Chain, ChainEvent

__all__ = ["BURNED", "Entry", "entries", "escrow_of", "worth"]

BURNED = "burned"
"""The account of what was slashed and given to nobody."""


@dataclass(frozen=True, slots=True)
class Entry:
    """``amount`` came to ``account`` (or left it, if negative) because of ``cause``."""

    block: int
    account: str
    amount: int
    cause: str


def escrow_of(job: object) -> str:
    """The account of a job's escrow."""
    return f"escrow of job {job}"


def entries(events: Iterable[ChainEvent]) -> list[Entry]:
    """The ledger of these events, in order; the amounts sum to zero."""
    ledger: list[Entry] = []
    for event in events:
        f = event.fields
        segment = f"segment {f.get('segment')} of job {f.get('job')}"
        match event.name:
            case "Posted":
                moves = [
                    (f["buyer"], -_escrow(event), f"escrow for job {f['job']}"),
                    (escrow_of(f["job"]), _escrow(event), "posted"),
                ]
            case "Settled":
                price = _amount(f["price"])
                moves = [
                    (escrow_of(f["job"]), -price, f"{segment} settled"),
                    (f["solver"], price, f"pay for {segment}"),
                ]
            case "Refunded":
                amount = _amount(f["amount"])
                moves = [
                    (escrow_of(f["job"]), -amount, "refunded"),
                    (f["buyer"], amount, f"refund of job {f['job']}"),
                ]
            case "Slashed":
                amount, bounty = _amount(f["amount"]), _amount(f["bounty"])
                moves = [
                    (f["account"], -amount, "slashed: lost a dispute"),
                    (f["winner"], bounty, "bounty: won a dispute"),
                    (BURNED, amount - bounty, "burned part of a slash"),
                ]
            case _:
                moves = []
        ledger += [Entry(event.block, str(account), amount, cause) for account, amount, cause in moves]
    return ledger


def _amount(value: object) -> int:
    if not isinstance(value, int):
        raise BadAnswer(f"an event's amount is {value!r}, not a number")
    return value


def _escrow(event: ChainEvent) -> int:
    terms = event.fields["terms"]
    if not isinstance(terms, Mapping):
        raise BadAnswer(f"the terms of a Posted event are {terms!r}")
    return _amount(terms["escrow"])


def worth(chain: Chain, account: Address) -> int:
    """Tokens, free and locked stake, and what the Market owes, together."""
    free, locked = chain.stake(account)
    return chain.tokens(account) + free + locked + chain.owed(account)
