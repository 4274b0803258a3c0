"""``crowdtrain crowdfund``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from crowdtrain import _cli_job as job
from crowdtrain._cli_wallet import Account, Amount, account_named, connect, parse_address, parse_amount
from crowdtrain._errors import BadAnswer, ConfigError
from crowdtrain.config import Config
from crowdtrain.economics import AUDIT_RATE, AUDIT_SHARE, LEAST_TIME
from crowdtrain.launch import Deployed, Key, Rpc, StoreAt

if TYPE_CHECKING:
    from rich.table import Table

    from crowdtrain.chain import Address, JobTerms, Receipt
    from crowdtrain.crowdfund import Campaign, Crowdfunding, Holding
    from crowdtrain.web3_crowdfund import Web3Campaigns

__all__ = ["app"]

EXAMPLES = """Examples:

crowdtrain crowdfund create digits --name "Digits" --symbol DIG --steps 600 --price 1e18 --keyfile me.json

crowdtrain crowdfund status 0x5FbD…

crowdtrain crowdfund pledge 0x5FbD… 2e18 --keyfile me.json

crowdtrain crowdfund launch 0x5FbD… --keyfile me.json

crowdtrain crowdfund claim 0x5FbD… --keyfile me.json

A campaign is named by its address; a job's folder is written by crowdtrain.save_bundle(folder, program, data)."""

app = typer.Typer(
    help="Fund a model together, and own it: backers, solvers and auditors get shares.",
    epilog=EXAMPLES,
    no_args_is_help=True,
)

Where = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="The campaign's address.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]


def _campaigns(config: Config, *, read_only: bool = False) -> Web3Campaigns:
    from crowdtrain.web3_crowdfund import Web3Campaigns

    return Web3Campaigns(config.connect(read_only=True) if read_only else connect(config))


def _crowdfunding(config: Config) -> Crowdfunding:
    from crowdtrain.crowdfund import Crowdfunding

    return Crowdfunding(_campaigns(config), config.open_store())


def _print_all(receipts: list[Receipt]) -> None:
    for receipt in receipts:
        typer.echo(f"{receipt.transaction}  {', '.join(_told(receipt))}")


def _told(receipt: Receipt) -> list[str]:
    """What a campaign's events say, in words."""
    told = []
    for event in receipt.events:
        if event.contract == "Campaign" and event.name not in ("Transfer", "Approval"):
            amounts = [v for k, v in event.fields.items() if k in ("amount", "shares", "steps", "job")]
            told.append(" ".join([event.name, *map(str, amounts)]))
    return told


# ---------------------------------------------------------------- organisers


@app.command()
def create(
    folder: job.Folder,
    name: Annotated[str, typer.Option(help="Name of the model and its shares, up to 64 bytes.")],
    symbol: Annotated[str, typer.Option(help="Symbol of its shares, up to 16 bytes.")],
    steps: job.Steps,
    price: job.Price,
    segments: job.Segments = None,
    interval: job.Interval = None,
    stake: job.Stake = None,
    lease: job.Lease = None,
    window: job.Window = None,
    clock: job.Clock = None,
    audits: job.Audits = AUDIT_RATE,
    audit_share: job.AuditShare = AUDIT_SHARE,
    days: Annotated[float, typer.Option(min=0.001, max=365, help="Days in which pledges are taken.")] = 30.0,
    backers: Annotated[float, typer.Option(min=0, max=100, help="Percent of the shares for backers.")] = 50.0,
    solvers: Annotated[float, typer.Option(min=0, max=100, help="Percent for those who compute.")] = 40.0,
    auditors: Annotated[float, typer.Option(min=0, max=100, help="Percent for those who audit.")] = 10.0,
    rpc: Rpc = None,
    store: StoreAt = None,
    deployment: Deployed = None,
    keyfile: Key = None,
    yes: Yes = False,
) -> None:
    """Stores a job's files and begins a campaign to fund it, or to find volunteers at price 0. Prints its address.

    The stake that is proposed counts the shares that a cheat would get; volunteers' jobs have none to propose.
    """
    from rich.console import Console

    from crowdtrain.bundle import load_bundle
    from crowdtrain.client import Client
    from crowdtrain.crowdfund import doubts, with_bonus

    if stake is None and parse_amount(price) == 0:
        raise ConfigError(
            "name a --stake: nothing tells what its shares are worth, and without a stake garbage risks nothing"
        )
    config = Config.read(rpc=rpc, store=store, deployment=deployment, keyfile=keyfile)
    bundle, crowdfunding = load_bundle(folder), _crowdfunding(config)
    client = Client(crowdfunding.campaigns.chain, crowdfunding.store)
    offer = job.make_quote(
        client, bundle, steps=steps, price=price, segments=segments, interval=interval, stake=stake,
        lease=lease, window=window, clock=clock, audits=audits, audit_share=audit_share,
    )  # fmt: skip
    parts = (round(backers * 100), round((solvers + auditors) * 100))
    offer = with_bonus(offer, *parts, propose_stake=stake is None)
    if window is None:
        offer = replace(offer, window=max(offer.window, LEAST_TIME))
    for doubt in doubts(offer.risk):
        typer.echo(f"warning: {doubt}", err=True)
    if not yes:
        Console(stderr=True).print(offer)
        typer.confirm(f"Begin a campaign to raise {offer.escrow}?", abort=True, err=True)
    made = crowdfunding.create(
        offer,
        name,
        symbol,
        pledging=round(days * 24 * 3600),
        backers=round(backers * 100),
        solvers=round(solvers * 100),
        auditors=round(auditors * 100),
        state=bundle.state,
    )
    typer.echo(made)


@app.command()
def launch(campaign: Where, rpc: Rpc = None, deployment: Deployed = None, keyfile: Key = None) -> None:
    """Posts the job of a campaign that reached its goal. Anybody may. Prints the job's number."""
    campaigns = _campaigns(Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile))
    typer.echo(campaigns.launch(parse_address(campaign))[0])


# ---------------------------------------------------------------- backers


@app.command()
def pledge(
    campaign: Where,
    amount: Amount,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Look neither at the job's files nor at its terms.")
    ] = False,
    rpc: Rpc = None,
    store: StoreAt = None,
    deployment: Deployed = None,
    keyfile: Key = None,
    yes: Yes = False,
) -> None:
    """Checks the job's files against the campaign and that its terms make cheats lose, and pledges; takes no more
    than is missing to the goal."""
    from rich.console import Console

    config = Config.read(rpc=rpc, store=store, deployment=deployment, keyfile=keyfile)
    campaigns, where = _campaigns(config), parse_address(campaign)
    units, seen = parse_amount(amount), campaigns.campaign(where)
    if not unchecked:
        from crowdtrain.crowdfund import Crowdfunding

        crowdfunding = Crowdfunding(campaigns, config.open_store())
        specs = crowdfunding.check(where).plan.segments
        prices = [spec.price / spec.steps for spec in specs]
        typer.echo(f"{len(specs)} segments; a step costs {min(prices):g} to {max(prices):g}", err=True)
        risk = crowdfunding.risk(seen.terms, specs)
        typer.echo(f"cheapest attack: {risk.summary}", err=True)
    if not yes:
        Console(stderr=True).print(_status(campaigns, seen))
        typer.confirm(f"Pledge {units}?", abort=True, err=True)
    taken, receipt = campaigns.pledge(where, units)
    typer.echo(f"{receipt.transaction}  pledged {taken}")


@app.command()
def refund(
    campaign: Where,
    backer: Annotated[
        str | None, typer.Option(help="Whose pledge goes back; the key's own by default.")
    ] = None,
    rpc: Rpc = None,
    deployment: Deployed = None,
    keyfile: Key = None,
) -> None:
    """Gives a pledge back to its backer, once the campaign has failed. Anybody may."""
    config = Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile)
    campaigns = _campaigns(config)
    whose = account_named(backer, config)
    _print_all([campaigns.refund(parse_address(campaign), whose)])


# ---------------------------------------------------------------- owners


@app.command()
def credit(
    campaign: Where, rpc: Rpc = None, store: StoreAt = None, deployment: Deployed = None, keyfile: Key = None
) -> None:
    """Gives solvers and auditors the shares of all segments that have settled. Anybody may."""
    config = Config.read(rpc=rpc, store=store, deployment=deployment, keyfile=keyfile)
    credited = _crowdfunding(config).credit(parse_address(campaign))
    typer.echo(f"segments credited: {', '.join(map(str, credited)) or 'none'}")


@app.command()
def finish(campaign: Where, rpc: Rpc = None, deployment: Deployed = None, keyfile: Key = None) -> None:
    """Takes back for the backers what the job does not need, and compensation. Anybody may, and again."""
    campaigns = _campaigns(Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile))
    _print_all([campaigns.finish(parse_address(campaign))])


@app.command()
def income(
    campaign: Where, amount: Amount, rpc: Rpc = None, deployment: Deployed = None, keyfile: Key = None
) -> None:
    """Pays income of the model, such as a licence fee, to all who hold shares."""
    campaigns = _campaigns(Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile))
    _print_all([campaigns.pay_income(parse_address(campaign), parse_amount(amount))])


@app.command()
def claim(
    campaign: Where, rpc: Rpc = None, store: StoreAt = None, deployment: Deployed = None, keyfile: Key = None
) -> None:
    """Takes all that the key's account is due: shares, what came back, income, and rewards."""
    from crowdtrain.crowdfund import Crowdfunding
    from crowdtrain.stores import FakeStore

    config = Config.read(rpc=rpc, store=store, deployment=deployment, keyfile=keyfile)
    # nothing is stored or fetched to claim
    receipts = Crowdfunding(_campaigns(config), FakeStore()).claim(parse_address(campaign))
    _print_all(receipts)
    if not receipts:
        typer.echo("nothing is due")


# ---------------------------------------------------------------- looking


@app.command("list")
def list_campaigns(
    first: Annotated[int, typer.Option(min=0, help="Number of the first campaign.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most campaigns to show.")] = 50,
    rpc: Rpc = None,
    deployment: Deployed = None,
) -> None:
    """Prints the campaigns on the chain."""
    from rich.console import Console
    from rich.table import Column, Table

    campaigns = _campaigns(Config.read(rpc=rpc, deployment=deployment), read_only=True)
    # an address is there to be copied, so it stays whole
    table = Table(Column("campaign", min_width=42, no_wrap=True), "model", "stage", "raised", "goal", "job")
    for number in range(first, min(first + limit, campaigns.count())):
        address = campaigns.address_of(number)
        try:
            seen = campaigns.campaign(address)
        except BadAnswer:
            table.add_row(address, "(unreadable)")  # a name that is no text
            continue
        number_of_job = "" if seen.job is None else str(seen.job)
        money = (f"{seen.raised:,}", f"{seen.terms.goal:,}")
        table.add_row(address, _plain(seen.terms.name), seen.stage.name.lower(), *money, number_of_job)
    Console().print(table)


@app.command()
def status(campaign: Where, rpc: Rpc = None, deployment: Deployed = None) -> None:
    """Prints how a campaign stands, and until when it takes pledges."""
    from rich.console import Console

    campaigns = _campaigns(Config.read(rpc=rpc, deployment=deployment), read_only=True)
    Console().print(_status(campaigns, campaigns.campaign(parse_address(campaign))))


@app.command()
def shares(
    campaign: Where,
    account: Account = None,
    rpc: Rpc = None,
    deployment: Deployed = None,
    keyfile: Key = None,
) -> None:
    """Prints what an account pledged, owns, and can claim."""
    from rich.console import Console

    config = Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile)
    whose = account_named(account, config)
    campaigns, where = _campaigns(config, read_only=True), parse_address(campaign)
    Console().print(_holding(campaigns.campaign(where), whose, campaigns.holding(where, whose)))


def _status(campaigns: Web3Campaigns, seen: Campaign) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    terms, chain = seen.terms, campaigns.chain
    table = Table("", seen.address, title=_plain(f"{terms.name} ({terms.symbol})"))
    table.add_row("stage", seen.stage.name.lower())
    if terms.goal:
        table.add_row("pledged", ProgressBar(total=terms.goal, completed=seen.raised, width=40))
        table.add_row("", f"{seen.raised:,} of {terms.goal:,} ({100 * seen.raised / terms.goal:.1f} %)")
    else:
        table.add_row("pledged", "nothing: volunteers train this model")
    left = terms.pledge_deadline - chain.now()
    table.add_row("pledges end", f"in {left} s" if left > 0 else "over")
    parts = (("backers", terms.backers), ("solvers", terms.solvers), ("auditors", terms.auditors))
    table.add_row("shares", ", ".join(f"{name} {part / 100:g} %" for name, part in parts))
    for fact in _terms(terms.job):
        table.add_row(*fact)
    table.add_row("files", seen.manifest)
    if seen.job is not None:
        posted = chain.job(seen.job)
        table.add_row("job", f"{seen.job}: {posted.settled} of {terms.job.segments} segments settled")
        table.add_row("credited", f"{seen.credited_steps} of {terms.steps} steps")
        table.add_row("came back", f"{seen.returned:,}")
        table.add_row("shares there are", _shares(seen.shares))
    return table


def _terms(job: JobTerms) -> list[tuple[str, str]]:
    """What keeps solvers honest."""
    from crowdtrain.chain import WHOLE

    each = f"{job.escrow // job.segments:,} are raised on average"
    rate, share = job.audit_rate / WHOLE, job.audit_share / WHOLE
    return [
        ("stake of a solver", f"{job.stake:,} for each segment, for which {each}"),
        ("audits", f"{rate:g} auditors expected at least, who share {share:g} prices"),
        ("window, clock", f"{job.window:,} s, {job.clock:,} s"),
    ]


def _holding(seen: Campaign, whose: Address, holding: Holding) -> Table:
    from rich.table import Table

    from crowdtrain.crowdfund import shares_of

    unclaimed = shares_of(seen.terms, holding.pledged) if holding.has_unclaimed_shares else 0
    table = Table(_plain(seen.terms.symbol), whose)
    table.add_row("pledged", f"{holding.pledged:,}")
    table.add_row("shares", _shares(holding.shares))
    table.add_row("shares to claim", _shares(unclaimed))
    table.add_row("came back, to claim", f"{holding.returns:,}")
    table.add_row("income to claim", f"{holding.income:,}")
    table.add_row("rewards to claim", f"{holding.rewards:,}")
    return table


def _shares(units: int) -> str:
    from crowdtrain.crowdfund import SHARES

    return f"{100 * units / SHARES:.4f} % of the model"


def _plain(text: str) -> str:
    """A stranger's text without what a terminal would obey, or take for markup."""
    from rich.markup import escape

    return escape("".join(letter if letter.isprintable() else "?" for letter in text))
