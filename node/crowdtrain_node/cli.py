"""``crowdtrain solver``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from crowdtrain import launch as options
from crowdtrain._errors import ConfigError
from crowdtrain.config import Config
from crowdtrain.launch import Launch, launch, print_status

if TYPE_CHECKING:
    from crowdtrain.folders import Log
    from crowdtrain.game.sabotage import Sabotage as Cheat
    from crowdtrain.runs import Hardware
    from crowdtrain.stores import Store
    from crowdtrain.web3_chain import Web3Chain

    from crowdtrain_node.solver import Solver

__all__ = ["app"]

HOME = Path("solver")
EXAMPLES = """Examples:

crowdtrain solver --folder ada --rpc http://127.0.0.1:8545 --keyfile ada.json

crowdtrain solver --folder ada --threads 4 --min-price 1000 --max-stake 50000 --metrics 9100

crowdtrain solver status --folder ada"""
MinPrice = Annotated[int, typer.Option(min=0, help="Least pay for a segment, in token units.")]
LeasePart = Annotated[
    float, typer.Option(min=0.01, max=1, help="Part of a lease that the estimated work may take.")
]
Sabotage = Annotated[
    str | None,
    typer.Option(help="Cheat, for tests and demonstrations: NAME or NAME:STEP; a wrong name lists them."),
]

app = typer.Typer(
    help="The solver: claims segments, trains them, and defends the results.",
    epilog=EXAMPLES,
    add_completion=False,
)


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
def run(
    context: typer.Context,
    folder: options.Folder = HOME,
    rpc: options.Rpc = None,
    store: options.StoreAt = None,
    deployment: options.Deployed = None,
    keyfile: options.Key = None,
    min_price: MinPrice = 0,
    max_stake: options.MaxStake = None,
    min_clock: options.MinClock = None,
    lease_part: LeasePart = 0.5,
    patience: options.Patience = 30,
    job: options.Jobs = None,
    backend: options.Backend = "native",
    isa: options.Isa = None,
    threads: options.Threads = None,
    share: options.Share = 1.0,
    memory: options.Memory = None,
    disk: options.Disk = None,
    sabotage: Sabotage = None,
    metrics: options.Metrics = None,
    poll: options.Poll = 0.5,
    idle: options.Idle = 4.0,
    quiet: options.Quiet = False,
) -> None:
    """Claims open segments, trains them, stores and commits the results, and defends them in disputes.

    It may be killed at any moment: started again with the same folder, it goes on from the last checkpoint.
    Ends with 0 after SIGINT or SIGTERM, with 2 if something is not configured rightly.
    """
    if context.invoked_subcommand is not None:
        return
    cheat = _cheat(sabotage)
    config = Config.read(rpc=rpc, store=store, deployment=deployment, keyfile=keyfile)
    given = Launch(
        folder=folder,
        config=config,
        backend=backend,
        isa=isa,
        threads=threads,
        memory=memory,
        disk=disk,
        metrics=metrics,
        poll=poll,
        idle=idle,
        quiet=quiet,
        share=share,
    )

    def make(log: Log, chain: Web3Chain, opened: Store, hardware: Hardware) -> Solver:
        from crowdtrain.chain import JobId

        from crowdtrain_node.decide import NO_LIMIT, Policy
        from crowdtrain_node.solver import Solver

        chosen = frozenset(map(JobId, job or []))
        most = NO_LIMIT if max_stake is None else max_stake
        clock = options.least_clock(min_clock, chain)
        policy = Policy(
            min_price=min_price,
            max_stake=most,
            min_clock=clock,
            lease_part=lease_part,
            patience=patience,
            jobs=chosen,
        )
        return Solver(folder, log, chain, opened, policy, hardware, cheat)

    launch("solver", given, make, **({"sabotage": sabotage} if sabotage else {}))


def _cheat(name: str | None) -> Cheat | None:
    if name is None:
        return None
    from crowdtrain.game.sabotage import parse

    try:
        return parse(name)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--sabotage") from error


@app.command()
def status(folder: options.Folder = HOME) -> None:
    """Prints what the solver of a folder does now, and what it has earned and lost, and why."""
    print_status(folder)
