"""``crowdtrain wallet``."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crowdtrain._errors import ConfigError
from crowdtrain.config import Config
from crowdtrain.launch import Deployed, Key, Rpc

if TYPE_CHECKING:
    from crowdtrain.chain import Address, Chain
    from crowdtrain.statement import Statement
    from crowdtrain.web3_chain import Web3Chain

__all__ = ["account_named", "app", "connect", "parse_address", "parse_amount"]

JOURNALS = Path("~/.crowdtrain/journals")
EXAMPLES = """Examples:

crowdtrain wallet new me.json

crowdtrain wallet balance --keyfile me.json

crowdtrain wallet deposit 5e18 --keyfile me.json

crowdtrain wallet enroll 5e18 --keyfile me.json

crowdtrain wallet claim --keyfile me.json

crowdtrain wallet explain --keyfile me.json"""

app = typer.Typer(
    help="Keys, balances and stakes. Amounts are in token units and may be written like 5e18.",
    epilog=EXAMPLES,
    no_args_is_help=True,
)
Account = Annotated[str | None, typer.Argument(help="Address; the key's own by default.")]
Amount = Annotated[str, typer.Argument(help="Token units, like 1000 or 5e18.")]


def parse_amount(text: str) -> int:
    """Token units in a text such as ``5e18``. Raises ConfigError."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ConfigError(f"{text!r} is not an amount; write token units, like 1000 or 5e18") from None
    if not amount.is_finite() or amount < 0 or amount >= 2**128 or amount != int(amount):
        raise ConfigError(f"{text} must be a whole number of token units, not negative")
    return int(amount)


def parse_address(text: str) -> Address:
    """An address, with its checksum. Raises ConfigError."""
    from eth_utils.address import is_address, to_checksum_address

    from crowdtrain.chain import Address

    if not is_address(text):
        raise ConfigError(f"{text} is not an address")
    return Address(to_checksum_address(text))


def account_named(account: str | None, config: Config) -> Address:
    """The account that is named, or else the key's own. Raises ConfigError."""
    from crowdtrain._sender import account_of

    return parse_address(account or account_of(config.private_key()).address)


def connect(config: Config) -> Web3Chain:
    """The chain as the key's account, with a journal in the user's home."""
    from dataclasses import replace

    from crowdtrain._sender import account_of

    key = config.private_key()
    journal = JOURNALS.expanduser() / f"{account_of(key).address}.sqlite"
    return replace(config, key=key).connect(journal=journal)


@app.command()
def new(path: Annotated[Path, typer.Argument(help="File to write; it must not exist.")]) -> None:
    """Makes a key and writes it to a file that a password protects."""
    from crowdtrain.wallet import create

    password = Config.read().password
    if password is None:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    typer.echo(create(path, password))


@app.command()
def address(keyfile: Key = None) -> None:
    """Prints the address of the key."""
    from crowdtrain._sender import account_of

    typer.echo(account_of(Config.read(keyfile=keyfile).private_key()).address)


@app.command()
def balance(
    account: Account = None,
    rpc: Rpc = None,
    deployment: Deployed = None,
    keyfile: Key = None,
) -> None:
    """Prints what an account has: tokens, stake, what the Market owes it, and ether for gas."""
    config = Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile)
    whose, chain = account_named(account, config), config.connect(read_only=True)
    free, locked = chain.stake(whose)
    _print_table(
        whose,
        ("tokens", chain.tokens(whose)),
        ("free stake", free),
        ("locked stake", locked),
        ("of that, enrolled as auditor", chain.weight(whose)),
        ("of that, leaving", chain.leaving(whose)[0]),
        ("owed by the Market", chain.owed(whose)),
        ("the protocol's own tokens", chain.reward_tokens(whose)),
        ("wei for gas", chain.node.balance(whose)),
    )


def _print_table(title: str, *rows: tuple[str, int]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", title)
    for name, amount in rows:
        table.add_row(name, f"{amount:,}")
    Console().print(table)


@app.command()
def deposit(amount: Amount, rpc: Rpc = None, deployment: Deployed = None, keyfile: Key = None) -> None:
    """Deposits stake, which solvers lock for work and challengers for disputes."""
    chain = connect(Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile))
    typer.echo(chain.deposit(parse_amount(amount)).transaction)


@app.command()
def withdraw(
    stake: Annotated[str | None, typer.Option(help="Free stake to take out, too.")] = None,
    rpc: Rpc = None,
    deployment: Deployed = None,
    keyfile: Key = None,
) -> None:
    """Takes out what the Market owes, and free stake if asked to."""
    chain = connect(Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile))
    if stake is not None:
        typer.echo(chain.withdraw_stake(parse_amount(stake)).transaction)
    if stake is None or chain.owed(chain.address):
        typer.echo(chain.withdraw().transaction)


# ---------------------------------------------------------------- audits


@app.command()
def enroll(amount: Amount, rpc: Rpc = None, deployment: Deployed = None, keyfile: Key = None) -> None:
    """Locks stake to be drawn with as auditor; what is missing of free stake is deposited."""
    chain = connect(Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile))
    units = parse_amount(amount)
    missing = units - chain.stake(chain.address)[0]
    if missing > 0:
        typer.echo(chain.deposit(missing).transaction)
    typer.echo(chain.enroll(units).transaction)


@app.command()
def leave(
    amount: Annotated[
        str | None, typer.Argument(help="Token units; what left before is unlocked without it.")
    ] = None,
    rpc: Rpc = None,
    deployment: Deployed = None,
    keyfile: Key = None,
) -> None:
    """Takes stake out of draws at once; call it again without an amount, when it is no longer locked, to free it."""
    chain = connect(Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile))
    if amount is None:
        typer.echo(chain.finish_leaving(chain.address).transaction)
        return
    typer.echo(chain.leave(parse_amount(amount)).transaction)
    left, free = chain.leaving(chain.address)
    typer.echo(f"{left} can be freed from {_date(free)} on", err=True)


@app.command()
def record(
    account: Account = None,
    price: Annotated[str, typer.Option(help="Price of a segment, to show how often it is audited.")] = "0",
    rpc: Rpc = None,
    deployment: Deployed = None,
    keyfile: Key = None,
) -> None:
    """Prints what an account's work came to, and how often it is audited."""
    from dataclasses import asdict

    config = Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile)
    whose, chain = account_named(account, config), config.connect(read_only=True)
    names = {
        "settled": "segments settled",
        "overturned": "overturned by a dispute",
        "forfeited": "forfeited, its trace hidden",
        "expired": "leases that ran out",
        "unbroken": "value settled without a fault",
        "attested": "right attestations",
        "silent": "drawn, and silent",
        "misattested": "wrong attestations",
    }
    counts = [(names[name], count) for name, count in asdict(chain.record(whose)).items()]
    rate = chain.rate_of(whose, parse_amount(price), 0)
    _print_table(
        whose,
        *counts,
        ("enrolled as auditor", chain.weight(whose)),
        ("expected auditors, in 1/10,000", rate),
    )


# ---------------------------------------------------------------- rewards


@app.command()
def rewards(
    account: Account = None, rpc: Rpc = None, deployment: Deployed = None, keyfile: Key = None
) -> None:
    """Prints what an account's settled work, audits and jobs earned of the protocol's own token."""
    config = Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile)
    whose, chain = account_named(account, config), config.connect(read_only=True)
    running = chain.epoch()
    _print_table(
        whose,
        *((f"epoch {epoch}, to claim", amount) for epoch, amount in _due(chain, whose)),
        (f"epoch {running}, so far: it is running", chain.rewards(running, whose)),
        ("the protocol's own tokens", chain.reward_tokens(whose)),
    )


@app.command()
def claim(account: Account = None, rpc: Rpc = None, deployment: Deployed = None, keyfile: Key = None) -> None:
    """Claims an account's rewards of all epochs that are over. Anybody may."""
    config = Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile)
    whose, chain = account_named(account, config), connect(config)
    due = _due(chain, whose)
    for epoch, amount in due:
        typer.echo(f"{chain.collect_rewards(epoch, whose).transaction}  epoch {epoch}: {amount}")
    if not due:
        typer.echo("nothing is due")


def _due(chain: Chain, whose: Address) -> list[tuple[int, int]]:
    """Epochs that are over and what they owe, where that is something."""
    over = ((epoch, chain.rewards(epoch, whose)) for epoch in range(chain.epoch()))
    return [(epoch, amount) for epoch, amount in over if amount]


# ---------------------------------------------------------------- explain


@app.command()
def explain(
    account: Account = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    rpc: Rpc = None,
    deployment: Deployed = None,
    keyfile: Key = None,
) -> None:
    """Prints everything that happened to an account's money, and why, and checks that it leads to what it has."""
    import json

    from crowdtrain.statement import statement

    config = Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile)
    told = statement(config.connect(read_only=True), account_named(account, config))
    if as_json:
        typer.echo(json.dumps(told.plain(), indent=1))
    else:
        _print_statement(told)
    told.check()


def _print_statement(told: Statement) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("time", "what", "amount", "job", "segment", "cause", "transaction", title=told.account)
    for line in told.lines:
        entry = line.entry
        # what only moved within the account has no sign
        amount = f"{line.amount:+,}" if entry.amount or entry.rewards else f"{line.amount:,}"
        place = ("" if number is None else str(number) for number in (entry.job, entry.segment))
        table.add_row(_date(line.time), entry.kind, amount, *place, entry.cause, entry.transaction)
    console = Console(width=None if Console().is_terminal else 250)
    console.print(table)
    balances = Table("", "before", "by these lines", "by the contracts")
    for name in ("tokens", "free", "locked", "owed", "worth"):
        shown = (f"{getattr(balance, name):,}" for balance in (told.before, told.sum, told.now))
        balances.add_row(name, *shown)
    console.print(balances)


def _date(seconds: int) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
