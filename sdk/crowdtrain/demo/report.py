"""The end of the demo: who got what and why, what it cost in gas, and whether all of it holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from crowdtrain.chain import Address, Chain, ChainEvent, GameId
from crowdtrain.demo.screen import money
from crowdtrain.deployment import Deployment
from crowdtrain.gas import Spent, summarize
from crowdtrain.ledger import BURNED, Entry, Kind, entries, escrow_of

__all__ = ["Balances", "Check", "checks_of_money", "show_checks", "show_gas", "show_ledger"]


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must be true at the end."""

    what: str
    holds: bool
    found: str


@dataclass(frozen=True, slots=True)
class Balances:
    """What every account was worth at the start and is worth at the end, in token units."""

    start: Mapping[str, int]
    end: Mapping[str, int]


def ledger_of(events: Sequence[ChainEvent], names: Mapping[Address, str]) -> list[Entry]:
    """The ledger with names for addresses."""
    return [
        replace(entry, account=names.get(Address(entry.account), entry.account)) for entry in entries(events)
    ]


def show_ledger(console: Console, ledger: Sequence[Entry], balances: Balances) -> None:
    """Every account's start and end, with each movement and its cause."""
    table = Table(title="Ledger, in tokens", title_style="bold")
    table.add_column("account")
    table.add_column("movement")
    table.add_column("amount", justify="right")
    for name, start in balances.start.items():
        movements = [entry for entry in ledger if entry.account == name]
        table.add_row(name, "start", money(start), style="bold")
        for cause, amount, count in _grouped(movements):
            table.add_row("", f"{cause}{f' ({count} times)' if count > 1 else ''}", _signed(amount))
        table.add_row("", "end", money(balances.end[name]), style="bold", end_section=True)
    moved = sum(entry.amount for entry in ledger)
    table.add_row("all accounts", "sum of all movements", _signed(moved), style="bold")
    console.print(table)


def _grouped(movements: Sequence[Entry]) -> list[tuple[str, int, int]]:
    causes: dict[str, list[int]] = {}
    for entry in movements:
        causes.setdefault(entry.cause, []).append(entry.amount)
    return [(cause, sum(amounts), len(amounts)) for cause, amounts in causes.items()]


def _signed(amount: int) -> str:
    return f"{'+' if amount > 0 else ''}{money(amount)}"


def show_gas(console: Console, spent: Sequence[Spent]) -> None:
    """Gas of every kind of transaction, and of each dispute as a whole."""
    table = Table(title="Gas", title_style="bold")
    table.add_column("transaction")
    for column in ("times", "least", "mean", "most"):
        table.add_column(column, justify="right")
    for kind in summarize(spent):
        table.add_row(kind.call, str(kind.count), f"{kind.least:,}", f"{kind.mean:,}", f"{kind.most:,}")
    console.print(table)
    for game, (count, gas) in games(spent).items():
        console.print(f"Dispute {game}: {count} transactions, {gas:,} gas in all.", highlight=False)


def games(spent: Sequence[Spent]) -> dict[GameId, tuple[int, int]]:
    """Number of transactions and gas of each dispute."""
    found: dict[GameId, list[int]] = {}
    for one in spent:
        if one.game is not None and one.succeeded:
            found.setdefault(one.game, []).append(one.gas)
    return {game: (len(gas), sum(gas)) for game, gas in found.items()}


def checks_of_money(
    chain: Chain,
    deployment: Deployment,
    ledger: Sequence[Entry],
    balances: Balances,
    events: Sequence[ChainEvent],
    *,
    cheats: Collection[str],
    auditor: str,
) -> list[Check]:
    """What must be true of the money at the end; ``cheats`` must have lost stake, ``auditor`` must have been paid for
    audits, and nobody else.
    """
    audited = {entry.account for entry in ledger if entry.kind is Kind.AUDIT and entry.amount > 0}
    losers = {entry.account for entry in ledger if entry.kind in (Kind.SLASH, Kind.PENALTY)}
    moved = sum(entry.amount for entry in ledger)
    unexplained = {
        name: balances.end[name] - start - sum(entry.amount for entry in ledger if entry.account == name)
        for name, start in balances.start.items()
    }
    strays = {name: amount for name, amount in unexplained.items() if amount}
    accounts = {
        str(event.fields[key])
        for event in events
        for key in ("account", "solver", "buyer", "auditor")
        if key in event.fields
    }
    stakes = sum(sum(chain.stake(Address(account))) for account in accounts)
    owed = sum(chain.owed(Address(account)) for account in accounts)
    escrow = sum(entry.amount for entry in ledger if entry.account.startswith(escrow_of("")))
    held = chain.tokens(Address(deployment.stake)) + chain.tokens(Address(deployment.market))
    promised = stakes + owed + escrow + chain.burned()
    burned = sum(entry.amount for entry in ledger if entry.account == BURNED)
    return [
        Check(
            "who cheated lost stake, and nobody else did",
            losers == set(cheats),
            ", ".join(sorted(losers)) or "nobody",
        ),
        Check(
            "the auditor was paid, and nobody else was for audits",
            audited == {auditor},
            ", ".join(audited) or "nobody",
        ),
        Check("the ledger sums to zero", moved == 0, money(moved)),
        Check(
            "every balance is explained by the ledger", not strays, str(strays) if strays else "to the unit"
        ),
        Check(
            "the contracts hold exactly stakes, escrow, what is owed and what is burned",
            held == promised,
            f"{money(held)} and {money(promised)}",
        ),
        Check(
            "fees and half of every slash are burned",
            chain.burned() == burned,
            f"{money(chain.burned())} and {money(burned)}",
        ),
    ]


def show_checks(console: Console, checks: Sequence[Check]) -> bool:
    """Prints every check; whether all hold."""
    table = Table(title="What must be true", title_style="bold")
    table.add_column("")
    table.add_column("fact")
    table.add_column("found")
    for check in checks:
        table.add_row("[green]yes[/]" if check.holds else "[red]NO[/]", check.what, check.found)
    console.print(table)
    return all(check.holds for check in checks)
