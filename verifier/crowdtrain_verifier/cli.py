"""``crowdtrain verifier``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from crowdtrain import launch as options
from crowdtrain._cli_wallet import parse_amount
from crowdtrain.config import Config
from crowdtrain.launch import Launch, launch, print_status

if TYPE_CHECKING:
    from crowdtrain.folders import Log
    from crowdtrain.runs import Hardware
    from crowdtrain.stores import Store
    from crowdtrain.web3_chain import Web3Chain

    from crowdtrain_verifier.verifier import Verifier

__all__ = ["app"]

HOME = Path("verifier")
EXAMPLES = """Examples:

crowdtrain verifier --folder vera --rpc http://127.0.0.1:8545 --keyfile vera.json

crowdtrain verifier --folder vera --enroll 5e18 --drawn-only

crowdtrain verifier --folder vera --threads 4 --join --max-stake 50000 --metrics 9101

crowdtrain verifier status --folder vera"""
Join = Annotated[
    bool, typer.Option("--join", help="Challenge at once what somebody else is disputing already.")
]
LastPart = Annotated[
    float,
    typer.Option(min=0, max=1, help="Last part of a window, in which what others dispute is challenged too."),
]
Tidy = Annotated[
    bool, typer.Option(help="Settle, expire, void, forfeit, time out and report what nobody else does.")
]
Enroll = Annotated[
    str | None,
    typer.Option(help="Token units, like 5e18, to be drawn with as auditor; deposited if need be."),
]
DrawnOnly = Annotated[
    bool, typer.Option("--drawn-only", help="Replay nothing but commitments for which it is drawn.")
]
Ether = Annotated[
    str,
    typer.Option(help="Token units that an ether is worth, to compare bounties with gas; 0: gas is free."),
]

app = typer.Typer(
    help="The verifier: replays what is committed, and challenges what is wrong.",
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
    max_stake: options.MaxStake = None,
    min_clock: options.MinClock = None,
    join: Join = False,
    last_part: LastPart = 0.25,
    tidy: Tidy = True,
    enroll: Enroll = None,
    drawn_only: DrawnOnly = False,
    ether: Ether = "0",
    patience: options.Patience = 30,
    job: options.Jobs = None,
    backend: options.Backend = "native",
    isa: options.Isa = None,
    threads: options.Threads = None,
    memory: options.Memory = None,
    disk: options.Disk = None,
    metrics: options.Metrics = None,
    poll: options.Poll = 0.5,
    idle: options.Idle = 4.0,
    quiet: options.Quiet = False,
) -> None:
    """Replays what solvers commit, and challenges what is wrong, down to the last step.

    It may be killed at any moment: started again with the same folder, it goes on. Ends with 0 after
    SIGINT or SIGTERM, with 2 if something is not configured rightly.
    """
    if context.invoked_subcommand is not None:
        return
    stake, worth = parse_amount(enroll or "0"), parse_amount(ether)
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
    )

    def make(log: Log, chain: Web3Chain, opened: Store, hardware: Hardware) -> Verifier:
        from crowdtrain.chain import JobId

        from crowdtrain_verifier.decide import NO_LIMIT, Policy
        from crowdtrain_verifier.verifier import Verifier

        chosen = frozenset(map(JobId, job or []))
        most = NO_LIMIT if max_stake is None else max_stake
        clock = options.least_clock(min_clock, chain)
        policy = Policy(
            max_stake=most,
            min_clock=clock,
            join=join,
            last_part=last_part,
            tidy=tidy,
            patience=patience,
            jobs=chosen,
            enroll=stake,
            drawn_only=drawn_only,
            ether=worth,
        )
        return Verifier(folder, log, chain, opened, policy, hardware)

    launch("verifier", given, make)


@app.command()
def status(folder: options.Folder = HOME) -> None:
    """Prints what the verifier of a folder does now, and what it has earned and lost, and why."""
    print_status(folder)
