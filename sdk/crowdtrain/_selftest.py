"""``crowdtrain selftest``: whether this machine gives the golden roots, on every instruction set that it has."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from crowdtrain_engine import isas
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from crowdtrain import golden

__all__ = ["Check", "checks", "selftest"]


@dataclass(frozen=True, slots=True)
class Check:
    """One golden model on one instruction set."""

    model: str
    isa: str
    steps: int
    expected: bytes
    found: bytes
    seconds: float

    @property
    def passed(self) -> bool:
        return self.found == self.expected


def checks(chosen: Sequence[str], threads: int | None) -> Iterator[Check]:
    """Runs every golden model on each of the instruction sets ``chosen``."""
    for name in golden.names():
        model = golden.load(name)
        if model.program.root != model.program_root:
            yield Check(name, "program", 0, model.program_root, model.program.root, 0.0)
            continue
        for isa in chosen:
            start = time.perf_counter()
            found = model.run(isa=isa, threads=threads).root
            yield Check(name, isa, model.steps, model.state_root, found, time.perf_counter() - start)


def selftest(isa: str | None, threads: int | None, console: Console) -> bool:
    """Runs and shows all checks; whether all passed."""
    chosen = [isa] if isa else isas()
    done: list[Check] = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("golden roots", total=len(golden.names()) * len(chosen))
        for check in checks(chosen, threads):
            done.append(check)
            progress.advance(task)
    console.print(_table(done, chosen))
    failed = [check for check in done if not check.passed]
    if failed:
        _report(failed, threads, console)
    return not failed


def _table(done: Sequence[Check], chosen: Sequence[str]) -> Table:
    table = Table("model", "steps", *chosen, "state root")
    for name in dict.fromkeys(check.model for check in done):
        own = {check.isa: check for check in done if check.model == name}
        cells = [
            f"{own[isa].seconds * 1e3:.0f} ms" if isa in own and own[isa].passed else "[red]differs[/red]"
            for isa in chosen
        ]
        first = next(iter(own.values()))
        table.add_row(name, str(first.steps), *cells, first.expected.hex()[:16])
    return table


def _report(failed: Sequence[Check], threads: int | None, console: Console) -> None:
    """What to tell those who maintain the engine: results that differ cost a solver its stake."""
    console.print(
        "\n[bold red]This machine does not compute what it must.[/bold red] A solver would lose its stake, a verifier "
        "its bond: do not run either here. Please report this, with the lines that follow:"
    )
    machine = f"{platform.machine()}, {platform.processor() or 'unknown processor'}, {platform.platform()}"
    console.print(f"machine  {machine}", highlight=False)
    console.print(
        f"python   {platform.python_version()}, numpy {np.__version__}, instruction sets {', '.join(isas())}, "
        f"threads {threads or 'all'}",
        highlight=False,
    )
    for check in failed:
        console.print(
            f"{check.model} on {check.isa}: {check.found.hex()} instead of {check.expected.hex()}",
            highlight=False,
            soft_wrap=True,
        )
