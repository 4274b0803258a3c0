"""Everything that happened to an account's money, and why, from the chain's events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from crowdtrain._errors import BadAnswer, ChainUnavailable
from crowdtrain.chain import Address, Chain, ChainEvent
from crowdtrain.ledger import Entry, Kind, moves

__all__ = ["Balance", "Line", "Statement", "statement"]

_TRIES = 10


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account has: token units, and units of the protocol's own token."""

    tokens: int
    free: int
    locked: int
    owed: int

    @classmethod
    def of(cls, chain: Chain, account: Address) -> Balance:
        """As the contracts have it."""
        free, locked = chain.stake(account)
        return cls(chain.tokens(account), free, locked, chain.owed(account))

    @property
    def worth(self) -> int:
        """All together."""
        return self.tokens + self.free + self.locked + self.owed

    def after(self, entry: Entry) -> Balance:
        """With what an entry changed."""
        return Balance(
            self.tokens + entry.tokens,
            self.free + entry.free,
            self.locked + entry.locked,
            self.owed + entry.owed,
        )


@dataclass(frozen=True, slots=True)
class Line:
    """An entry, and when it was made (Unix seconds)."""

    time: int
    entry: Entry

    @property
    def amount(self) -> int:
        """By how much the account is worth more; of what only moved within it, how much that was."""
        entry = self.entry
        return entry.amount or entry.rewards or max(entry.tokens, entry.free, entry.locked, entry.owed)

    def plain(self) -> dict[str, object]:
        """For JSON; amounts are strings, for they exceed 2^53."""
        fields = asdict(self.entry)
        amounts = {name: str(fields.pop(name)) for name in ("tokens", "free", "locked", "owed", "rewards")}
        for name in ("account", "index", "game"):
            del fields[name]
        kind = {"kind": self.entry.kind.value, "amount": str(self.amount)}
        return {"time": self.time, **fields, **kind, "changes": amounts}


@dataclass(frozen=True, slots=True)
class Statement:
    """All lines of an account, oldest first, with what it had before the first, and what it has now."""

    account: Address
    before: Balance
    lines: tuple[Line, ...]
    now: Balance
    """as the contracts have it"""

    @property
    def sum(self) -> Balance:
        """What the lines lead to."""
        balance = self.before
        for line in self.lines:
            balance = balance.after(line.entry)
        return balance

    def check(self) -> None:
        """Raises BadAnswer unless the lines lead to what the contracts have."""
        if self.sum != self.now:
            raise BadAnswer(
                f"the events of {self.account} lead to {self.sum}, the contracts have {self.now}: the node hides events"
            )

    def plain(self) -> dict[str, object]:
        """For JSON."""

        def shown(balance: Balance) -> dict[str, Any]:
            amounts = {**asdict(balance), "worth": balance.worth}
            return {name: str(amount) for name, amount in amounts.items()}

        return {
            "account": self.account,
            "before": shown(self.before),
            "lines": [line.plain() for line in self.lines],
            "sum": shown(self.sum),
            "contracts": shown(self.now),
        }


def statement(chain: Chain, account: Address) -> Statement:
    """The statement of an account as of one block.

    Raises ChainUnavailable if the node has forgotten balances of the time of deployment, or makes blocks faster than it
    tells of them.
    """
    before = Balance(chain.tokens_before(account), 0, 0, 0)
    events: list[ChainEvent] = []
    transfers: list[ChainEvent] = []
    first = 0
    for _ in range(_TRIES):
        head = chain.head()
        events += chain.events(first, head[0])
        events += chain.campaign_events(account, first, head[0])
        transfers += chain.transfers(account, first, head[0])
        first, now = head[0] + 1, Balance.of(chain, account)
        if chain.head() == head:
            entries = _entries(account, events, transfers)
            times = {block: chain.time_of(block) for block in {entry.block for entry in entries}}
            lines = tuple(Line(times[entry.block], entry) for entry in entries)
            return Statement(account, before, lines, now)
    raise ChainUnavailable(f"the chain changed {_TRIES} times while its events were read")


def _entries(account: Address, events: list[ChainEvent], transfers: list[ChainEvent]) -> list[Entry]:
    places = {
        event.fields["game"]: (event.fields["job"], event.fields["segment"])
        for event in events
        if event.name == "Challenged"
    }
    ordered = sorted(events, key=lambda event: (event.block, event.index))
    own = [entry for entry in moves(ordered) if entry.account == account]
    own += _others(account, own, transfers)
    for i, entry in enumerate(own):
        if entry.job is None and entry.game in places:
            job, segment = places[entry.game]
            own[i] = replace(entry, job=job, segment=segment)  # type: ignore[arg-type]
    return sorted(own, key=lambda entry: (entry.block, entry.index))


def _others(account: Address, own: Iterable[Entry], transfers: Iterable[ChainEvent]) -> Iterator[Entry]:
    """Transfers that no entry explains: tokens from and to other people."""
    explained: dict[tuple[str, int], int] = {}
    for entry in own:
        if entry.tokens:
            key = (entry.transaction, entry.tokens)
            explained[key] = explained.get(key, 0) + 1
    for event in transfers:
        fields: Mapping[str, Any] = event.fields
        payer, payee = fields["from"], fields["to"]
        amount: int = fields["value"] if payee == account else -fields["value"]
        key = (event.transaction, amount)
        if payer == payee or not amount:
            continue
        if explained.get(key):
            explained[key] -= 1
            continue
        cause = f"received from {payer}" if amount > 0 else f"sent to {payee}"
        place = (event.block, event.transaction, event.index)
        yield Entry(*place, account, Kind.TRANSFER, cause, tokens=amount)
