"""Whose money moved, and why: the chain's events as a ledger in which every entry has a counter-entry.

What an account is worth is its tokens, its stake (free and locked) and what the Market owes it. Deposits, locks and
withdrawals only move money between these; :func:`entries` gives what changes the worth of an account, :func:`moves`
those too. Amounts are token units.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crowdtrain.chain import Address, Chain, ChainEvent, Reason

__all__ = ["BURNED", "Entry", "Kind", "entries", "escrow_of", "moves", "worth"]

BURNED = "burned"
"""The account of fees, and of what was slashed and given to nobody."""
_NOBODY = Address("0x" + "0" * 40)


class Kind(enum.StrEnum):
    """What an entry is, in one word."""

    ESCROW = "escrow"
    PAY = "pay"
    FEE = "fee"
    AUDIT = "audit pay"
    REFUND = "refund"
    SLASH = "slash"
    PENALTY = "penalty"
    BOUNTY = "bounty"
    COMPENSATION = "compensation"
    BURN = "burned"
    DEPOSIT = "deposit"
    LOCK = "lock"
    UNLOCK = "unlock"
    WITHDRAWAL = "withdrawal"
    REWARD = "reward"
    PLEDGE = "pledge"
    INCOME = "income"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True)
class Entry:
    """What an event did to an account, and because of which ``cause``; ``rewards`` are the protocol's own tokens.

    For an escrow, and for what is burned, ``owed`` is what is held. ``game`` names a dispute whose segment only
    earlier events tell.
    """

    block: int
    transaction: str
    index: int
    account: str
    kind: Kind
    cause: str
    job: int | None = None
    segment: int | None = None
    game: int | None = None
    tokens: int = 0
    free: int = 0
    locked: int = 0
    owed: int = 0
    rewards: int = 0

    @property
    def amount(self) -> int:
        """By how much the account is worth more."""
        return self.tokens + self.free + self.locked + self.owed


def escrow_of(job: object) -> str:
    """The account of a job's escrow."""
    return f"escrow of job {job}"


def entries(events: Iterable[ChainEvent]) -> list[Entry]:
    """What changed the worth of accounts, in order; the amounts sum to zero. All events of a transaction must be
    among them, or none."""
    return [entry for entry in moves(events) if entry.amount]


def moves(events: Iterable[ChainEvent]) -> list[Entry]:
    """Everything that these events did to accounts, in order."""
    found: list[Entry] = []
    before: list[ChainEvent] = []
    for event in events:
        if before and before[-1].transaction != event.transaction:
            before = []
        mover = _MOVERS.get((event.contract, event.name))
        if mover is not None:
            found += [_placed(entry, event) for entry in mover(event.fields, before)]
        before.append(event)
    return found


def worth(chain: Chain, account: Address) -> int:
    """Tokens, free and locked stake, and what the Market owes, together."""
    free, locked = chain.stake(account)
    return chain.tokens(account) + free + locked + chain.owed(account)


# ------------------------------------------------------------------ what each event does

Fields = Mapping[str, Any]
Before = Sequence[ChainEvent]
"""the events before one in its transaction"""


def _entry(account: object, kind: Kind, cause: str, about: Fields | None = None, **changes: int) -> Entry:
    known = about or {}
    job, segment, game = known.get("job"), known.get("segment"), known.get("game")
    return Entry(0, "", 0, str(account), kind, cause, job, segment, game, **changes)


def _placed(entry: Entry, event: ChainEvent) -> Entry:
    return replace(entry, block=event.block, transaction=event.transaction, index=event.index)


def _segment(fields: Fields) -> str:
    return f"segment {fields['segment']} of job {fields['job']}"


def _posted(f: Fields, before: Before) -> Iterator[Entry]:
    escrow = f["terms"]["escrow"]
    yield _entry(f["buyer"], Kind.ESCROW, f"escrow for job {f['job']}", f, tokens=-escrow)
    yield _entry(escrow_of(f["job"]), Kind.ESCROW, "posted", f, owed=escrow)


def _settled(f: Fields, before: Before) -> Iterator[Entry]:
    what = _segment(f)
    yield _entry(escrow_of(f["job"]), Kind.PAY, f"{what} settled", f, owed=-f["price"])
    yield _entry(f["solver"], Kind.PAY, f"price of {what}", f, owed=f["price"])
    yield _entry(f["solver"], Kind.FEE, f"fee of {what}", f, owed=-f["fee"])
    yield _entry(BURNED, Kind.FEE, f"fee of {what}", f, owed=f["fee"])


def _audited(f: Fields, before: Before) -> Iterator[Entry]:
    what = _segment(f)
    yield _entry(escrow_of(f["job"]), Kind.AUDIT, f"auditor of {what} paid", f, owed=-f["amount"])
    yield _entry(f["auditor"], Kind.AUDIT, f"attested right to {what}", f, owed=f["amount"])


def _refunded(f: Fields, before: Before) -> Iterator[Entry]:
    yield _entry(escrow_of(f["job"]), Kind.REFUND, "refunded", f, owed=-f["amount"])
    yield _entry(f["buyer"], Kind.REFUND, f"what job {f['job']} did not need", f, owed=f["amount"])


def _slashed(f: Fields, before: Before) -> Iterator[Entry]:
    event = _cause(_SLASHING, f["account"], before)
    name, about = (event.name, event.fields) if event else ("", {})
    lost, won, bounty_kind, kind = _SLASHES.get(name, _unknown_slash)(about)
    burned = f["amount"] - f["bounty"]
    yield _entry(f["account"], kind, lost, about, locked=-f["amount"])
    yield _entry(f["winner"], bounty_kind, won, about, free=f["bounty"])
    yield _entry(BURNED, Kind.BURN, "burned part of a slash", about, owed=burned)


Slash = tuple[str, str, Kind, Kind]
"""why the loser lost and the winner won, and the kinds of their entries"""


def _lost_dispute(f: Fields) -> Slash:
    ending = f"dispute {f['game']}: {Reason(f['reason']).name.lower().replace('_', ' ')}"
    return f"slashed: lost {ending}", f"won {ending}", Kind.BOUNTY, Kind.SLASH


def _forfeited(f: Fields) -> Slash:
    what = _segment(f)
    lost = f"slashed: did not reveal the trace root of {what}"
    return lost, f"{what} was forfeited", Kind.COMPENSATION, Kind.SLASH


def _silent(f: Fields) -> Slash:
    what = _segment(f)
    return f"drawn for {what}, and silent", f"reported silence about {what}", Kind.BOUNTY, Kind.PENALTY


def _misattested(f: Fields) -> Slash:
    what = _segment(f)
    return f"attested wrong to {what}", f"reported a wrong attestation to {what}", Kind.BOUNTY, Kind.PENALTY


def _unknown_slash(f: Fields) -> Slash:
    return "slashed", "part of another's slash", Kind.BOUNTY, Kind.SLASH


_SLASHES: Mapping[str, Callable[[Fields], Slash]] = {
    "Closed": _lost_dispute,
    "Forfeited": _forfeited,
    "Silent": _silent,
    "Misattested": _misattested,
}
_SLASHING = {"Closed": "loser", "Forfeited": "solver", "Silent": "auditor", "Misattested": "auditor"}
_LOCKING = {"Claimed": "solver", "Challenged": "challenger", "Enrolled": "auditor"}
_UNLOCKING = {
    "Settled": "solver",
    "Expired": "solver",
    "Voided": "solver",
    "Closed": "winner",
    "Left": "auditor",
}
"""events because of which stake is slashed, locked or unlocked, with the field that has the account"""


def _cause(names: Mapping[str, str], account: object, before: Before) -> ChainEvent | None:
    """The last event that explains what happens to the stake of an account."""
    for event in reversed(before):
        field = names.get(event.name)
        if field is not None and event.fields.get(field) in (account, _NOBODY):
            return event
    return None


def _locked(f: Fields, before: Before) -> Iterator[Entry]:
    event = _cause(_LOCKING, f["account"], before)
    about = event.fields if event else {}
    match event.name if event else "":
        case "Claimed":
            cause = f"stake for {_segment(about)}"
        case "Challenged":
            cause = f"bond for dispute {about['game']}"
        case "Enrolled":
            cause = "enrolled as auditor"
        case _:
            cause = "locked"
    yield _entry(f["account"], Kind.LOCK, cause, about, free=-f["amount"], locked=f["amount"])


def _unlocked(f: Fields, before: Before) -> Iterator[Entry]:
    event = _cause(_UNLOCKING, f["account"], before)
    about = event.fields if event else {}
    match event.name if event else "":
        case "Closed":
            cause = f"bond back from dispute {about['game']}"
        case "Left":
            cause = "left as auditor"
        case "Settled" | "Expired" | "Voided" as name:
            cause = f"{_segment(about)} {name.lower()}"
        case _:
            cause = "unlocked"
    yield _entry(f["account"], Kind.UNLOCK, cause, about, free=f["amount"], locked=-f["amount"])


def _deposited(f: Fields, before: Before) -> Iterator[Entry]:
    yield _entry(f["account"], Kind.DEPOSIT, "stake deposited", tokens=-f["amount"], free=f["amount"])


def _unstaked(f: Fields, before: Before) -> Iterator[Entry]:
    yield _entry(f["account"], Kind.WITHDRAWAL, "stake withdrawn", tokens=f["amount"], free=-f["amount"])


def _withdrawn(f: Fields, before: Before) -> Iterator[Entry]:
    cause = "what the Market owed, withdrawn"
    yield _entry(f["account"], Kind.WITHDRAWAL, cause, tokens=f["amount"], owed=-f["amount"])


def _rewarded(f: Fields, before: Before) -> Iterator[Entry]:
    yield _entry(f["account"], Kind.REWARD, f"reward for epoch {f['epoch']}", rewards=f["amount"])


def _between(f: Fields, whose: str, kind: Kind, cause: str, amount: int) -> Iterator[Entry]:
    """Tokens that an account got of a campaign, or, if the amount is negative, gave it."""
    yield _entry(f[whose], kind, f"{cause} campaign {f['campaign']}", tokens=amount)
    yield _entry(f["campaign"], kind, f"{cause} this campaign", tokens=-amount)


def _shares_rewarded(f: Fields, before: Before) -> Iterator[Entry]:
    cause = f"rewards of shares in campaign {f['campaign']}"
    yield _entry(f["holder"], Kind.REWARD, cause, rewards=f["amount"])
    yield _entry(f["campaign"], Kind.REWARD, "rewards paid to holders", rewards=-f["amount"])


_MOVERS: Mapping[tuple[str, str], Callable[[Fields, Before], Iterator[Entry]]] = {
    ("Market", "Posted"): _posted,
    ("Market", "Settled"): _settled,
    ("Market", "Audited"): _audited,
    ("Market", "Refunded"): _refunded,
    ("Market", "Withdrawn"): _withdrawn,
    ("Stake", "Deposited"): _deposited,
    ("Stake", "Withdrawn"): _unstaked,
    ("Stake", "Locked"): _locked,
    ("Stake", "Unlocked"): _unlocked,
    ("Stake", "Slashed"): _slashed,
    ("Emission", "Claimed"): _rewarded,
    ("Campaign", "Pledged"): lambda f, _: _between(f, "backer", Kind.PLEDGE, "pledged to", -f["amount"]),
    ("Campaign", "PledgeRefunded"): lambda f, _: _between(
        f, "backer", Kind.REFUND, "pledge back from", f["amount"]
    ),
    ("Campaign", "ReturnClaimed"): lambda f, _: _between(
        f, "backer", Kind.REFUND, "not needed by the job of", f["amount"]
    ),
    ("Campaign", "IncomePaid"): lambda f, _: _between(
        f, "payer", Kind.INCOME, "income paid to", -f["amount"]
    ),
    ("Campaign", "IncomeClaimed"): lambda f, _: _between(
        f, "holder", Kind.INCOME, "income of shares in", f["amount"]
    ),
    ("Campaign", "RewardsClaimed"): _shares_rewarded,
}
