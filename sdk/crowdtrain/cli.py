"""The command line, ``crowdtrain``.

Packages add commands through the entry-point group ``crowdtrain.commands``: each names a Typer
application in a module that imports nothing slow. The same holds here, so that ``--help`` comes at once.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from crowdtrain import _cli_crowdfund, _cli_job, _cli_simulate, _cli_wallet
from crowdtrain.config import Config
from crowdtrain.launch import Deployed, Rpc

if TYPE_CHECKING:
    from crowdtrain.devnet import Devnet

__all__ = ["app", "main"]

GROUP = "crowdtrain.commands"
MIB = 2**20
EXAMPLES = """Examples:

crowdtrain devnet                          a chain of your own, with money

crowdtrain serve --folder store            a gateway for blobs and jobs

crowdtrain solver --folder ada             train for pay

crowdtrain job post digits --steps 600 --price 1e18 --keyfile me.json

crowdtrain job watch 1"""


class _Commands(TyperGroup):
    """The commands here, and those of packages that registered theirs."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands."""
        added = [point.name for point in entry_points(group=GROUP)]
        return sorted({*super().list_commands(ctx), *added})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by name; its package is imported only now."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for point in entry_points(group=GROUP, name=cmd_name):
            command = typer.main.get_command(point.load())
            command.name = cmd_name
            return command
        return None


app = typer.Typer(
    cls=_Commands,
    help="Train PyTorch models on anybody's machines, for pay, with nobody to be trusted.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(_cli_job.app, name="job")
app.add_typer(_cli_wallet.app, name="wallet")
app.add_typer(_cli_crowdfund.app, name="crowdfund")
app.command(epilog=_cli_simulate.EXAMPLES)(_cli_simulate.simulate)


@app.callback()
def _options() -> None:
    pass


def main() -> None:
    """Runs the command line. An error that the code knows is one line on stderr, and exit code 1."""
    from crowdtrain_engine import EngineError

    from crowdtrain._errors import CrowdtrainError

    try:
        app()
    except (CrowdtrainError, EngineError) as error:
        typer.echo(f"crowdtrain: {error}", err=True)
        sys.exit(1)


# ---------------------------------------------------------------- devnet


@app.command(epilog="Example: crowdtrain devnet --port 8545 --folder deployments")
def devnet(
    folder: Annotated[Path, typer.Option(help="Where the deployment file goes.")] = Path("deployments"),
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; a free one by default.")] = None,
    accounts: Annotated[int, typer.Option(min=1, max=100, help="Accounts with money.")] = 8,
    block_time: Annotated[int, typer.Option(min=1, help="Seconds between blocks if nothing happens.")] = 1,
) -> None:
    """Runs a chain of your own, with the contracts and accounts with money, until Ctrl-C."""
    from crowdtrain._stop import until_stopped
    from crowdtrain.devnet import Devnet

    with Devnet(folder, accounts=accounts, block_time=block_time, port=port) as chain:
        _show_devnet(chain)
        until_stopped()


def _show_devnet(chain: Devnet) -> None:
    from rich.console import Console
    from rich.table import Table

    from crowdtrain._sender import account_of

    console = Console()
    console.print(f"RPC         {chain.rpc}", highlight=False)
    console.print(f"Deployment  {chain.deployment_path}", highlight=False)
    table = Table("account", "private key (everybody knows these: for tests only)")
    for key in chain.keys:
        table.add_row(account_of(key).address, key)
    console.print(table)


# ---------------------------------------------------------------- serve


@app.command(epilog="Example: crowdtrain serve --folder store --port 8350 --rpc http://127.0.0.1:8545")
def serve(
    folder: Annotated[Path, typer.Option(help="Where blobs are kept.")] = Path("store"),
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for everybody.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 8350,
    rpc: Rpc = None,
    deployment: Deployed = None,
    blobs_only: Annotated[bool, typer.Option("--blobs-only", help="Serve no chain, only blobs.")] = False,
    no_uploads: Annotated[bool, typer.Option("--no-uploads", help="Take no blobs.")] = False,
    max_blob: Annotated[int, typer.Option(min=1, help="Most MiB of a blob.")] = 8192,
    reserve: Annotated[int, typer.Option(min=0, help="MiB of the disk that blobs leave free.")] = 1024,
) -> None:
    """Serves blobs by content, and jobs, segments and disputes as JSON; /docs describes it."""
    from crowdtrain.gateway import Limits, create_app, run
    from crowdtrain.stores import LocalStore

    config = Config.read(rpc=rpc, deployment=deployment)
    chain = None if blobs_only else config.connect(read_only=True)
    limits = Limits(max_blob=max_blob * MIB, reserve=reserve * MIB, uploads=not no_uploads)
    typer.echo(f"http://{host}:{port}")
    run(create_app(LocalStore(folder), chain, limits), host, port, limits)


# ---------------------------------------------------------------- explain


@app.command(epilog="Example: crowdtrain explain digits")
def explain(
    path: Annotated[
        Path, typer.Argument(help="A program's file, or a job's folder (crowdtrain.save_bundle).")
    ],
    module: Annotated[str, typer.Option(help="Only modules whose names begin so.")] = "",
    rows: Annotated[int, typer.Option(min=1, help="Lines of each table.")] = 20,
    flops: Annotated[
        float | None, typer.Option(min=1, help="Operations a second; measured by default.")
    ] = None,
    bandwidth: Annotated[
        float | None, typer.Option(min=1, help="Bytes a second; measured by default.")
    ] = None,
) -> None:
    """Prints what a program does and costs: modules and nests, FLOPs, memory, estimated time."""
    from crowdtrain._explain import MachineSpeed, measure
    from crowdtrain._explain import explain as show
    from crowdtrain.bundle import read_program

    program = read_program(path / "program" if path.is_dir() else path)
    machine = measure() if flops is None or bandwidth is None else MachineSpeed(flops, bandwidth)
    machine = MachineSpeed(flops or machine.flops, bandwidth or machine.bandwidth)
    show(program, machine=machine, module=module, rows=rows)


# ---------------------------------------------------------------- bench


@app.command(epilog="Example: crowdtrain bench --threads 1")
def bench(
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; all processors by default.")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time for each measurement.")] = 1.0,
) -> None:
    """Measures this machine as a solver: matrix products by instruction set, and hashing."""
    from rich.console import Console
    from rich.table import Table

    from crowdtrain._bench import hashing, products

    table = Table("what", "speed")
    for name, speed in products(threads, seconds):
        table.add_row(f"matrix product, {name}", f"{speed / 1e9:.3g} G operations/s")
    table.add_row("tensor root", f"{hashing(seconds) / 1e9:.3g} GB/s")
    Console().print(table)


# ---------------------------------------------------------------- selftest


@app.command(epilog="Example: crowdtrain selftest --isa portable --threads 2")
def selftest(
    isa: Annotated[str | None, typer.Option(help="Instruction set; all that run here by default.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads; all processors by default.")
    ] = None,
) -> None:
    """Checks that this machine computes what every machine must: small models, steps, known roots."""
    from rich.console import Console

    from crowdtrain._selftest import selftest as run

    if not run(isa, threads, Console()):
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
