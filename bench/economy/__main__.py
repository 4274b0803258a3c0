"""Plays the simulation, writes who earned what, and puts the numbers into docs/ECONOMICS.md: ``make bench-economy``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown

from bench.economy.plot import plot
from bench.economy.simulation import simulate
from bench.economy.tables import filled, simulation, tables

RESULT = Path(__file__).parent / "result.json"
DOCS = Path(__file__).parents[2] / "docs"
app = typer.Typer(add_completion=False)


def publish(result: Mapping[str, Any], docs: Path) -> None:
    """Puts all numbers and the picture of a run into the document."""
    page = docs / "ECONOMICS.md"
    page.write_text(filled(page.read_text(), tables(result)))
    plot(result, docs / "economy.svg")


@app.command(epilog="Example: python -m bench.economy --rounds 2 --no-publish")
def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of 57 segments, about ten seconds each.")] = 20,
    seed: Annotated[int, typer.Option(help="Another run.")] = 0,
    publishes: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Into docs/ECONOMICS.md, or only onto the screen.")
    ] = True,
    tables_only: Annotated[
        bool,
        typer.Option("--tables-only", help="No new run: the last one's numbers, and those of the formulas."),
    ] = False,
) -> None:
    """Plays the simulation and shows who earned what."""
    console = Console()
    if tables_only:
        result: Mapping[str, Any] = json.loads(RESULT.read_text())
    else:
        with console.status("the chain starts") as status:
            played = simulate(
                rounds, seed=seed, progress=lambda done: status.update(f"round {done} of {rounds}")
            )
        result = json.loads(json.dumps(played.as_dict()))
        console.print(Markdown(simulation(result)))
        if publishes:
            RESULT.write_text(json.dumps(result, indent=1) + "\n")
    if publishes:
        publish(result, DOCS)
        console.print(f"Written: {RESULT}, {DOCS / 'ECONOMICS.md'} and economy.svg", highlight=False)


if __name__ == "__main__":
    app()
