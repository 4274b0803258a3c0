"""``crowdtrain job``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crowdtrain._cli_risk import risk
from crowdtrain._cli_simulate import find_recipe, with_steps
from crowdtrain._cli_wallet import connect, parse_amount
from crowdtrain._errors import ConfigError
from crowdtrain.config import Config
from crowdtrain.economics import AUDIT_RATE, AUDIT_SHARE
from crowdtrain.launch import Deployed, Key, Rpc, StoreAt

if TYPE_CHECKING:
    from crowdtrain.bundle import Bundle
    from crowdtrain.client import Client, Quote
    from crowdtrain.progress import Progress

__all__ = ["app", "make_quote"]

EXAMPLES = """Examples:

crowdtrain job quote digits --steps 600 --segments 6 --price 1e18

crowdtrain job post digits --steps 600 --segments 6 --price 1e18 --keyfile me.json

crowdtrain job post digits --steps 6000 --price 6e18 --strategy DiLoCo --workers 4 --inner-steps 50 --keyfile me.json

crowdtrain job post digits --steps 6000 --price 6e18 --strategy auto --fleet fleet.toml

crowdtrain job risk 1

crowdtrain job watch 1

crowdtrain job result 1 --out trained.safetensors

A job's folder is written by crowdtrain.save_bundle(folder, program, data)."""

AUTO = "auto"

app = typer.Typer(
    help="Buy training: quote, post, watch, fetch the result.", epilog=EXAMPLES, no_args_is_help=True
)

app.command()(risk)

Folder = Annotated[Path, typer.Argument(help="Folder with the job's files (crowdtrain.save_bundle).")]
Steps = Annotated[int, typer.Option(min=1, help="Training steps in all.")]
Price = Annotated[
    str, typer.Option(help="Token units for each segment, like 1e18; for the whole plan of a strategy.")
]
Segments = Annotated[int | None, typer.Option(min=1, help="Segments; about ten minutes each by default.")]
Interval = Annotated[int | None, typer.Option(min=1, max=256, help="Steps between checkpoints.")]
Stake = Annotated[
    str | None, typer.Option(help="Token units a solver locks; enough for cheats to lose by default.")
]
Lease = Annotated[int | None, typer.Option(min=1, help="Seconds from claim to commit.")]
Window = Annotated[int | None, typer.Option(min=1, help="Seconds in which a result can be challenged.")]
Clock = Annotated[int | None, typer.Option(min=1, help="Seconds each player of a dispute has.")]
Audits = Annotated[
    float,
    typer.Option(min=0, max=4, help="Least expected auditors of a segment; else its solver's record says."),
]
AuditShare = Annotated[
    float,
    typer.Option(min=0, max=4, help="What auditors share, in prices; what they do not need comes back."),
]
Strategy = Annotated[
    str | None,
    typer.Option(
        help="Many workers: a strategy's name, as crowdtrain simulate lists them, or auto: what is recommended. "
        "Lower the program for what a worker does: a learning-rate schedule is for steps / workers."
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Workers of the strategy, who share the steps.")]
Inner = Annotated[
    int | None, typer.Option("--inner-steps", min=1, help="Steps of a worker between two merges.")
]
Machines = Annotated[
    Path | None,
    typer.Option(
        "--fleet",
        help="TOML or JSON file of machines; those that worked in the last 7,200 blocks by default.",
    ),
]
Number = Annotated[int, typer.Argument(min=1, help="Number of the job.")]


def _client(config: Config, *, read_only: bool = True) -> Client:
    from crowdtrain.client import Client

    chain = config.connect(read_only=True) if read_only else connect(config)
    return Client(chain, config.open_store())


def make_quote(
    client: Client, bundle: Bundle, *, steps: int, price: str, stake: str | None, **options: Any
) -> Quote:
    """The quote that a command's options ask for."""
    return client.quote(
        bundle.program,
        bundle.data,
        steps,
        price=parse_amount(price),
        stake=None if stake is None else parse_amount(stake),
        **options,
    )


def _crowd_quote(
    client: Client,
    bundle: Bundle,
    *,
    steps: int,
    price: str,
    stake: str | None,
    strategy: str | None,
    workers: int | None,
    inner: int | None,
    fleet: Path | None,
    segments: int | None,
    interval: int | None,
    shown: bool = True,
    **options: Any,
) -> Quote:
    """A quote for one worker or a strategy. If it is ``shown``, with what suits the fleet that is named or online."""
    from crowdtrain.client import advise
    from crowdtrain.simulation import RECIPES, Fleet
    from crowdtrain.strategies import planned

    if strategy is None and (workers or inner):
        raise ConfigError("--workers and --inner-steps are those of a --strategy")
    if strategy is not None and (segments or interval):
        raise ConfigError("a strategy has segments and intervals of its own")
    named = None if fleet is None else Fleet.read(fleet)
    looks = named is None and (strategy == AUTO or (strategy is None and shown))
    machines = client.fleet() if looks else named
    alone = partial(make_quote, client, bundle, steps=steps, price=price, stake=stake, **options)
    if strategy is None:
        return alone(segments=segments, interval=interval, fleet=machines if shown else None)
    advice = None
    if strategy == AUTO:
        if machines is None:
            raise ConfigError("nobody has worked in the last 7,200 blocks: name a --fleet, or a strategy")
        postable = [
            with_steps(recipe, inner)
            for recipe in RECIPES
            if not (recipe.gradients or (inner or 0) % recipe.fragments)
        ]
        advice = advise(bundle.program, bundle.data, steps, machines, postable)
        if advice.best is None:
            raise ConfigError(advice.why)
        recipe, workers = advice.best.recipe, workers or advice.best.workers
        if workers == 1:
            return replace(alone(), advice=advice)
    else:
        recipe = find_recipe(strategy, inner)
    blueprint = planned(
        recipe, bundle.program, bundle.data, bundle.state,
        workers=workers or (2 if named is None else len(named)), steps=steps, price=parse_amount(price),
    )  # fmt: skip
    # speeds of strangers advise, but set no terms
    offer = client.quote_plan(
        blueprint, fleet=named, stake=None if stake is None else parse_amount(stake), **options
    )
    return replace(offer, advice=advice)


@app.command()
def quote(
    folder: Folder,
    steps: Steps,
    price: Price,
    segments: Segments = None,
    interval: Interval = None,
    stake: Stake = None,
    lease: Lease = None,
    window: Window = None,
    clock: Clock = None,
    audits: Audits = AUDIT_RATE,
    audit_share: AuditShare = AUDIT_SHARE,
    strategy: Strategy = None,
    workers: Workers = None,
    inner_steps: Inner = None,
    fleet: Machines = None,
    rpc: Rpc = None,
    store: StoreAt = None,
    deployment: Deployed = None,
) -> None:
    """Prints what a job would cost, how long it would take, and which strategy suits the machines that are online."""
    from rich.console import Console

    from crowdtrain.bundle import load_bundle

    client = _client(Config.read(rpc=rpc, store=store, deployment=deployment))
    offer = _crowd_quote(
        client, load_bundle(folder), steps=steps, price=price, segments=segments, interval=interval, stake=stake,
        lease=lease, window=window, clock=clock, audits=audits, audit_share=audit_share,
        strategy=strategy, workers=workers, inner=inner_steps, fleet=fleet,
    )  # fmt: skip
    Console().print(offer)


@app.command()
def post(
    folder: Folder,
    steps: Steps,
    price: Price,
    segments: Segments = None,
    interval: Interval = None,
    stake: Stake = None,
    lease: Lease = None,
    window: Window = None,
    clock: Clock = None,
    audits: Audits = AUDIT_RATE,
    audit_share: AuditShare = AUDIT_SHARE,
    strategy: Strategy = None,
    workers: Workers = None,
    inner_steps: Inner = None,
    fleet: Machines = None,
    rpc: Rpc = None,
    store: StoreAt = None,
    deployment: Deployed = None,
    keyfile: Key = None,
    yes: Annotated[bool, typer.Option("--yes", help="Post without asking.")] = False,
) -> None:
    """Stores a job's files, pays its price into escrow, and opens it to solvers. Prints its number."""
    from rich.console import Console

    from crowdtrain.bundle import load_bundle

    config = Config.read(rpc=rpc, store=store, deployment=deployment, keyfile=keyfile)
    bundle, client = load_bundle(folder), _client(config, read_only=False)
    offer = _crowd_quote(
        client, bundle, steps=steps, price=price, segments=segments, interval=interval, stake=stake,
        lease=lease, window=window, clock=clock, audits=audits, audit_share=audit_share,
        strategy=strategy, workers=workers, inner=inner_steps, fleet=fleet, shown=not yes,
    )  # fmt: skip
    if not yes:
        Console(stderr=True).print(offer)
        typer.confirm(f"Pay {offer.escrow} into escrow?", abort=True, err=True)
    typer.echo(client.post(offer, None if offer.result else bundle.state).id)


@app.command()
def watch(number: Number, rpc: Rpc = None, deployment: Deployed = None) -> None:
    """Prints what happens to a job, from the beginning until nothing more can."""
    from crowdtrain.chain import JobId
    from crowdtrain.client import Client
    from crowdtrain.stores import FakeStore

    # nothing is stored or fetched to watch
    client = Client(Config.read(rpc=rpc, deployment=deployment).connect(read_only=True), FakeStore())
    for event in client.watch(JobId(number)):
        typer.echo(_line(event))


def _line(event: Progress) -> str:
    from dataclasses import fields

    values = {field.name: getattr(event, field.name) for field in fields(event) if field.name != "block"}
    told = ", ".join(f"{name} {getattr(value, 'name', value)}" for name, value in values.items())
    return f"block {event.block}: {type(event).__name__.lower()}: {told}"


@app.command()
def result(
    number: Number,
    out: Annotated[Path, typer.Option(help="File for the trained state, safetensors.")],
    rpc: Rpc = None,
    store: StoreAt = None,
    deployment: Deployed = None,
) -> None:
    """Fetches the output of the last segment, checks it against the chain, and writes it to a file."""
    from crowdtrain.bundle import export_state
    from crowdtrain.chain import JobId

    config = Config.read(rpc=rpc, store=store, deployment=deployment)
    state = _client(config).result(JobId(number))
    export_state(out, state)
    typer.echo(f"{out}: root 0x{state.root.hex()}")


@app.command("list")
def list_jobs(
    first: Annotated[int, typer.Option(min=1, help="Number of the first job.")] = 1,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most jobs to show.")] = 50,
    rpc: Rpc = None,
    deployment: Deployed = None,
) -> None:
    """Prints the jobs on the chain."""
    from rich.console import Console
    from rich.table import Table

    from crowdtrain.chain import JobId

    chain = Config.read(rpc=rpc, deployment=deployment).connect(read_only=True)
    table = Table("job", "buyer", "settled", "escrow", "spent", "stake", "deadline in")
    now = chain.now()
    for number in range(first, min(first + limit, chain.job_count() + 1)):
        job = chain.job(JobId(number))
        left = max(0, job.terms.deadline - now)
        settled = f"{job.settled} of {job.terms.segments}"
        money = (f"{job.terms.escrow:,}", f"{job.spent:,}", f"{job.terms.stake:,}")
        table.add_row(str(number), job.buyer, settled, *money, f"{left} s" if left else "over")
    Console().print(table)


@app.command()
def refund(number: Number, rpc: Rpc = None, deployment: Deployed = None, keyfile: Key = None) -> None:
    """After the deadline, or when all is settled: takes back what was not spent."""
    from crowdtrain.chain import JobId

    chain = connect(Config.read(rpc=rpc, deployment=deployment, keyfile=keyfile))
    typer.echo(chain.refund(JobId(number)).transaction)
    typer.echo(chain.withdraw().transaction)
