"""Trains models and runs kernels beside PyTorch, in turn, and prints how they compare. Meant for an idle machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from crowdtrain._bench import hashing
from crowdtrain_engine import Program
from rich.console import Console
from rich.markup import escape

from bench.cases import CASES, Lowered
from bench.kernels import OPERATIONS, SQUARES, contractions, measure_kernels
from bench.publish import RESULTS
from bench.report import Report, as_json, as_markdown, as_table, sheets, summary
from bench.timing import FULL, QUICK, facts, limits
from bench.training import measure_training

PARTS = ("training", "kernels")
app = typer.Typer(add_completion=False)


@contextmanager
def _status(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """Shows what is being done, while it is done."""
    with console.status(what) as status:
        yield lambda doing: status.update(f"{escape(what)}: {escape(doing)}")


def _write(report: Report, out: Path, console: Console) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "latest.json").write_text(as_json(report))
    (out / "latest.md").write_text(as_markdown(report))
    console.print(f"Written: {out / 'latest.json'} and latest.md", highlight=False)


@app.command(epilog="Example: python -m bench --model MLP --model GPT-0.8M --only training --quick")
def main(
    model: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(CASES)}; all by default. Repeatable.")
    ] = None,
    only: Annotated[str | None, typer.Option(help=f"One part: {' or '.join(PARTS)}.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few and short rounds: minutes, and less exact.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of both.")] = min(2, os.cpu_count() or 1),
    compile_seconds: Annotated[
        float | None,
        typer.Option(
            min=0, help="Time for torch.compile to compile a model, 240 by default; 0, as with --quick: none."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where latest.json and latest.md are written.")] = RESULTS,
    json_: Annotated[
        bool, typer.Option("--json", help="Print JSON, and nothing else, to standard output.")
    ] = False,
) -> None:
    """Trains models and runs kernels beside PyTorch, in turn, and prints how they compare."""
    names = model or list(CASES)
    if unknown := set(names) - set(CASES):
        raise typer.BadParameter(
            f"there is no model {', '.join(sorted(unknown))}; there are {', '.join(CASES)}"
        )
    if only not in (None, *PARTS):
        raise typer.BadParameter(f"there is no part {only}; there are {', '.join(PARTS)}")
    effort = QUICK if quick else FULL
    patience = compile_seconds if compile_seconds is not None else 0.0 if quick else 240.0
    console = Console(stderr=json_, width=None if sys.stdout.isatty() else 150)
    known = facts(threads)
    report = Report(known, limits(threads, effort), hashing(effort.seconds))
    console.print(summary(report), highlight=False)
    if only != "kernels":
        for name in names:
            with _status(console, name) as say:
                report.trained.append(measure_training(name, threads, effort, patience, say))
            ours, eager = (report.trained[-1].times[side] for side in ("ours", "eager"))
            console.print(f"{name}: ours / eager {ours.ratio(eager)[0]:.2f}", highlight=False)
    if only != "training":
        with _status(console, "kernels") as say:
            programs: dict[str, Program] = {name: Lowered(CASES[name], 1).program for name in names}
            say(f"{len(contractions(programs))} sums of products in {len(programs)} models")
            for kernel in measure_kernels(programs, SQUARES, OPERATIONS, threads, effort):
                report.kernels.append(kernel)
                say(kernel.name)
    console.print(summary(report), highlight=False)
    for sheet in sheets(report):
        console.print(as_table(sheet))
    _write(report, out, console)
    if json_:
        print(as_json(report), end="")


if __name__ == "__main__":
    app()
