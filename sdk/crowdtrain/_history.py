"""What the contracts only logged: manifests, commitments' roots, and the moves of disputes.

Logs are asked for in bounded stretches of blocks, from the latest backward, for what is wanted is mostly
recent. What was found is kept as long as the contracts' state still agrees with it, so a reorganisation
cannot leave it stale.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from crowdtrain import _abi
from crowdtrain._errors import ChainUnavailable
from crowdtrain._rpc import Log, Node, RpcError
from crowdtrain.chain import ChainEvent
from crowdtrain.deployment import Deployment

__all__ = ["History"]

K = TypeVar("K")
V = TypeVar("V")
SPAN = 5_000
"""blocks whose logs are asked for at once, at most"""
_FOLLOWED = ("Stake", "Market", "Dispute", "Audit", "Emission")
"""contracts whose events are given"""
_SETTLED = 12
"""blocks after which no reorganisation is feared"""
_KEPT = 4096
"""answers and games that are kept"""


@dataclass(frozen=True, slots=True)
class _Moves:
    """Events of a game up to a block."""

    events: tuple[ChainEvent, ...]
    block: int
    hash: str


@dataclass(frozen=True, slots=True)
class _Auditors:
    """Who enrolled before a block."""

    accounts: tuple[str, ...]
    next_block: int


class History:
    """Logs of the contracts of a deployment."""

    def __init__(self, node: Node, deployment: Deployment) -> None:
        self._node = node
        self._first = deployment.block
        self._addresses = {
            name: str(deployment.contracts[name]) for name in (*_FOLLOWED, "Money", "Crowdfund")
        }
        self._contract_at = {
            address.lower(): _abi.contract(name) for name, address in self._addresses.items()
        }
        self._auditors: _Auditors | None = None
        self._found: _Kept[Hashable, ChainEvent] = _Kept()
        self._games: _Kept[int, _Moves] = _Kept()

    def follow(self, address: str, contract: str) -> None:
        """Takes logs of this address for those of such a contract."""
        self._contract_at[address.lower()] = _abi.contract(contract)

    def decode(self, logs: tuple[Log, ...]) -> list[ChainEvent]:
        """The events among logs; those of other contracts, and unknown ones, are left out."""
        events = []
        for log in logs:
            contract = self._contract_at.get(log.address)
            event = contract.events.get(log.topics[0]) if contract and log.topics else None
            if contract is not None and event is not None:
                fields = event.decode(log.topics, log.data)
                place = (log.block, log.index, log.transaction)
                events.append(ChainEvent(*place, event.name, fields, contract.name))
        return events

    def events(self, first: int, last: int) -> list[ChainEvent]:
        """Events of the contracts in blocks ``first … last``, in order."""
        return self._forward([self._addresses[name] for name in _FOLLOWED], [], first, last)

    def transfers(self, account: str, first: int, last: int) -> list[ChainEvent]:
        """Transfers of the token from or to an account in blocks ``first … last``, in order."""
        topic = f"0x{_abi.contract('Money').topics['Transfer'].hex()}"
        who = _topic(int(account, 16))
        money = [self._addresses["Money"]]
        sent = self._forward(money, [topic, who], first, last)
        got = self._forward(money, [topic, None, who], first, last)
        found = {(event.block, event.transaction, event.index): event for event in [*sent, *got]}
        return [found[place] for place in sorted(found, key=lambda place: (place[0], place[2]))]

    def campaign_events(self, campaign: str, account: str | None, first: int, last: int) -> list[ChainEvent]:
        """Events of a campaign, or those that name an account, with the campaign's address."""
        self.follow(campaign, "Campaign")
        topics = [] if account is None else [None, _topic(int(account, 16))]
        events = self._forward([campaign], topics, first, last)
        return [replace(event, fields={**event.fields, "campaign": campaign}) for event in events]

    def auditors(self, block: int) -> tuple[str, ...]:
        """All accounts that enrolled up to a block, in the order in which they did."""
        topic = f"0x{_abi.contract('Audit').topics['Enrolled'].hex()}"
        known = self._auditors or _Auditors((), self._first)
        found = self._forward([self._addresses["Audit"]], [topic], known.next_block, block)
        settled = [str(event.fields["auditor"]) for event in found if event.block <= block - _SETTLED]
        accounts = tuple(dict.fromkeys([*known.accounts, *settled]))
        self._auditors = _Auditors(accounts, max(known.next_block, block - _SETTLED + 1))
        return tuple(dict.fromkeys([*accounts, *(str(event.fields["auditor"]) for event in found)]))

    def find(
        self, key: Hashable, name: str, topics: list[int], accept: Callable[[ChainEvent], bool]
    ) -> ChainEvent:
        """The latest event ``name`` of the Market with these indexed numbers that is accepted.

        ``key`` must say all that the answer depends on: it is kept under it. Raises ChainUnavailable if there
        is none yet: logs may lag behind state.
        """
        found = self._found.get(key)
        if found is not None:
            return found
        topic = f"0x{_abi.contract('Market').topics[name].hex()}"
        for events in self._backward("Market", [topic, *map(_topic, topics)], self._node.block().number):
            for event in reversed(events):
                if accept(event):
                    self._found.keep(key, event)
                    return event
        raise ChainUnavailable(f"the node does not show the event {name} that fits {key}; it may lag")

    def moves(self, game: int, block: int, block_hash: str) -> tuple[ChainEvent, ...]:
        """All events of a game up to a block, oldest first."""
        known = self._games.get(game)
        if known is None or known.block > block or self._node.block(known.block).hash != known.hash:
            events: list[ChainEvent] = []
            for part in self._backward("Dispute", [None, _topic(game)], block):
                events = [*part, *events]
                if part and part[0].name == "Challenged":
                    break
            else:
                raise ChainUnavailable(f"the node does not show how game {game} began; it may lag")
        else:
            new = self._logs([self._addresses["Dispute"]], [None, _topic(game)], known.block + 1, block)
            events = [*known.events, *self.decode(new)]
        self._games.keep(game, _Moves(tuple(events), block, block_hash))
        return tuple(events)

    def forget(self, game: int) -> None:
        """Lets the moves of a game be read again from the beginning."""
        self._games.forget(game)

    def _forward(
        self, addresses: list[str], topics: list[str | None], first: int, last: int
    ) -> list[ChainEvent]:
        found: list[ChainEvent] = []
        for start in range(max(first, self._first), last + 1, SPAN):
            found += self.decode(self._logs(addresses, topics, start, min(start + SPAN - 1, last)))
        return found

    def _backward(self, contract: str, topics: list[str | None], last: int) -> Iterator[list[ChainEvent]]:
        while last >= self._first:
            first = max(self._first, last - SPAN + 1)
            yield self.decode(self._logs([self._addresses[contract]], topics, first, last))
            last = first - 1

    def _logs(self, addresses: list[str], topics: list[str | None], first: int, last: int) -> tuple[Log, ...]:
        """Logs of a stretch, in halves where the node finds it too long or its logs too many."""
        if first > last:
            return ()
        try:
            return self._node.logs(addresses, topics, first, last)
        except RpcError as error:
            if first == last:
                raise ChainUnavailable(f"the node cannot give the logs of block {first}: {error}") from error
        middle = (first + last) // 2
        lower = self._logs(addresses, topics, first, middle)
        return lower + self._logs(addresses, topics, middle + 1, last)


def _topic(number: int) -> str:
    return f"0x{number:064x}"


class _Kept(Generic[K, V]):
    """The answers used last; may be used from several threads."""

    def __init__(self) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """What is kept under ``key``."""
        with self._lock:
            return self._entries.get(key)

    def keep(self, key: K, value: V) -> None:
        """Keeps ``value``, and forgets what was kept first if there is too much."""
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            if len(self._entries) > _KEPT:
                self._entries.popitem(last=False)

    def forget(self, key: K) -> None:
        """Lets go of what is kept under ``key``."""
        with self._lock:
            self._entries.pop(key, None)
