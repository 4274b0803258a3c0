"""Starting a long-running process from the command line: its options, what it is given, and how it ends."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from crowdtrain._errors import ChainUnavailable, ConfigError
from crowdtrain.config import Config

if TYPE_CHECKING:
    from crowdtrain.agent import Agent
    from crowdtrain.folders import Log
    from crowdtrain.runs import Hardware
    from crowdtrain.stores import Store
    from crowdtrain.web3_chain import Web3Chain

__all__ = [
    "Backend", "Deployed", "Disk", "Folder", "Idle", "Isa", "Jobs", "Key", "Launch", "MaxStake", "Memory",
    "Metrics", "MinClock", "Patience", "Poll", "Process", "Quiet", "Rpc", "Share", "StoreAt", "Threads", "launch",
    "least_clock", "print_status",
]  # fmt: skip

GIB = 2**30
MOST_PAUSE = 30.0
"""most seconds between two tries to reach a chain that does not answer"""

# ------------------------------------------------------------------ options that commands share


def _option(*names: str, help: str, **rules: Any) -> Any:
    return typer.Option(*names, help=help, **rules)


Folder = Annotated[Path, _option("--folder", help="Where it keeps its work, log, status and ledger.")]
Rpc = Annotated[str | None, _option("--rpc", help="Address of an EVM node; else CROWDTRAIN_RPC.")]
StoreAt = Annotated[
    str | None, _option("--store", help="Gateway's URL, IPFS multiaddress or folder; else CROWDTRAIN_STORE.")
]
Deployed = Annotated[
    Path | None, _option("--deployment", help="Deployment file or folder; else CROWDTRAIN_DEPLOYMENT.")
]
Key = Annotated[Path | None, _option("--keyfile", "--key", help="Key file; else a key in CROWDTRAIN_KEY.")]
Backend = Annotated[str, _option("--backend", help="Backend that runs programs: native or reference.")]
Isa = Annotated[str | None, _option("--isa", help="Instruction set of the native backend.")]
Threads = Annotated[int | None, _option("--threads", min=1, help="Threads; all processors by default.")]
Share = Annotated[
    float,
    _option("--share", min=0.01, max=1, help="Part of the processors' time for training; disputes take all."),
]
Memory = Annotated[
    float | None, _option("--memory", min=0, help="Most GiB of memory for a segment; half by default.")
]
Disk = Annotated[float | None, _option("--disk", min=0, help="Most GiB of disk; half of what is free.")]
MaxStake = Annotated[
    int | None, _option("--max-stake", min=0, help="Most token units to have as stake at any time.")
]
MinClock = Annotated[
    int | None,
    _option(
        "--min-clock",
        min=0,
        help="Least seconds a job gives each side of a dispute; 600 by default, 0 on a development chain.",
    ),
]
Patience = Annotated[
    int, _option("--patience", min=0, help="Seconds others are left to settle, expire or void theirs.")
]
Jobs = Annotated[list[int] | None, _option("--job", min=1, help="Only this job; may be given many times.")]
Metrics = Annotated[
    int | None, _option("--metrics", min=1, max=65535, help="Port for Prometheus, on this machine only.")
]
Poll = Annotated[float, _option("--poll", min=0.01, help="Seconds between looks at the chain when busy.")]
Idle = Annotated[float, _option("--idle", min=0.01, help="Most seconds between looks at the chain.")]
Quiet = Annotated[bool, _option("--quiet", help="Log to the folder only.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a process needs, parsed once from options and environment."""

    folder: Path
    config: Config
    backend: str
    isa: str | None
    threads: int | None
    memory: float | None
    disk: float | None
    metrics: int | None
    poll: float
    idle: float
    quiet: bool
    share: float = 1.0

    def hardware(self) -> Hardware:
        """The machine as it may be used, its speed measured. Raises BackendError."""
        from crowdtrain.runs import Hardware, measure_speed

        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2 / GIB
        disk = shutil.disk_usage(self.folder).free / 2 / GIB
        return Hardware(
            backend=self.backend,
            threads=self.threads,
            isa=self.isa,
            memory=int(GIB * (memory if self.memory is None else self.memory)),
            disk=int(GIB * (disk if self.disk is None else self.disk) * 2 / 3),  # the rest is for the cache
            speed=measure_speed(self.backend, self.threads, self.isa),
            share=self.share,
        )


class Process(Protocol):
    """A process that looks at the chain and acts, turn by turn."""

    agent: Agent[Any]

    def turn(self) -> bool:
        """One look at the chain and what follows; whether to look again soon."""


def least_clock(given: int | None, chain: Web3Chain) -> int:
    """``--min-clock``, or its default for the chain: where blocks take seconds and transactions wait, who has less than
    minutes to answer loses disputes though in the right."""
    from crowdtrain.devnet import CHAIN_ID
    from crowdtrain.economics import LEAST_TIME

    if given is not None:
        return given
    return 0 if chain.deployment.chain_id == CHAIN_ID else LEAST_TIME


def launch(
    name: str, options: Launch, make: Callable[[Log, Web3Chain, Store, Hardware], Process], **about: object
) -> None:
    """Runs a process until SIGINT or SIGTERM. Ends with exit code 2 if it cannot be configured."""
    from crowdtrain_engine import BackendError

    from crowdtrain.agent import metrics, serve
    from crowdtrain.folders import exclusive, open_log
    from crowdtrain.stores import Cached, Metered

    try:
        with exclusive(options.folder), open_log(options.folder, name, console=not options.quiet) as log:
            hardware = options.hardware()
            chain = _connect(options, log)
            try:
                counted = Metered(options.config.open_store())
                kept = Cached(counted, options.folder / "cache", hardware.disk // 2)
                process = make(log, chain, kept, hardware)
                process.agent.traffic = counted
                log.info(f"{name} started", account=chain.address, speed=f"{hardware.speed:.3g}", **about)
                with metrics(process.agent, options.metrics):
                    serve(process.agent, process.turn, poll=options.poll, most=options.idle)
                log.info(f"{name} stopped")
            finally:
                chain.release()
    except (ConfigError, BackendError) as error:
        typer.echo(f"crowdtrain {name}: {error}", err=True)
        raise typer.Exit(2) from error


def _connect(options: Launch, log: Log) -> Web3Chain:
    pause = options.poll
    while True:
        try:
            return options.config.connect(journal=options.folder / "journal.sqlite")
        except ChainUnavailable as error:
            pause = min(2 * pause, MOST_PAUSE)
            log.warning("no chain yet", reason=str(error), again_in=pause)
            time.sleep(pause)


def print_status(folder: Path) -> None:
    """Prints what a process says of itself, and what each segment brought or cost, and why."""
    from rich.console import Console
    from rich.table import Table

    from crowdtrain.folders import read_ledger, read_status

    console = Console()
    try:
        console.print_json(data=read_status(folder))
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    lines = read_ledger(folder)
    if lines:
        columns = ("block", "job", "segment", "kind", "amount", "cause")
        table = Table(*columns, title="Ledger, in token units")
        for line in lines:
            values = (line.get(column) for column in columns)
            table.add_row(*("" if value is None else str(value) for value in values))
        console.print(table)
