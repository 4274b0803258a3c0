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
    from crowdtrain.web3_chain import Web3Chain

__all__ = ["app", "connect", "parse_amount"]

JOURNALS = Path("~/.crowdtrain/journals")
EXAMPLES = """Examples:

crowdtrain wallet new me.json

crowdtrain wallet balance --keyfile me.json

crowdtrain wallet deposit 5e18 --keyfile me.json"""

app = typer.Typer(
    help="Keys, balances and stakes. Amounts are in token units and may be written like 5e18.",
    epilog=EXAMPLES,
    no_args_is_help=True,
)
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
    account: Annotated[str | None, typer.Argument(help="Address; the key's own by default.")] = None,
    rpc: Rpc = None,
    deployment: Deployed = None,
    keyfile: Key = None,
) -> None:
    """Prints what an account has: tokens, stake, what the Market owes it, and ether for gas."""
    from eth_utils.address import is_address, to_checksum_address
    from rich.console import Console
    from rich.table import Table

    from crowdtrain._sender import account_of
    from crowdtrain.chain import Address

    config = Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile)
    if account is not None and not is_address(account):
        raise ConfigError(f"{account} is not an address")
    whose = Address(to_checksum_address(account or account_of(config.private_key()).address))
    chain = config.connect(read_only=True)
    free, locked = chain.stake(whose)
    table = Table("", whose)
    for name, amount in (
        ("tokens", chain.tokens(whose)),
        ("free stake", free),
        ("locked stake", locked),
        ("owed by the Market", chain.owed(whose)),
    ):
        table.add_row(name, f"{amount:,}")
    table.add_row("wei for gas", f"{chain.node.balance(whose):,}")
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
