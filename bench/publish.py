"""Puts the results of ``python -m bench`` into docs/PERFORMANCE.md: ``make bench-publish``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.report import as_markdown, from_json

__all__ = ["DOCUMENT", "RESULTS", "published"]

RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parents[1] / "docs" / "PERFORMANCE.md"
BEGIN, END = "<!-- results: filled by make bench-publish -->", "<!-- end of results -->"
app = typer.Typer(add_completion=False)


def published(document: str, results: str) -> str:
    """The document with these results in place of those that it has. Raises ValueError if it has no place for them."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no lines {BEGIN!r} and {END!r}")
    return f"{before}{begin}\n\n{results.strip()}\n\n{end}{after}"


@app.command()
def main(
    results: Annotated[Path, typer.Argument(help="What the benchmark has written.")] = RESULTS
    / "latest.json",
    busy: Annotated[bool, typer.Option("--busy", help="Even if the machine was not idle.")] = False,
) -> None:
    """Puts results into docs/PERFORMANCE.md. Those of a busy machine are refused."""
    try:
        report = from_json(results.read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise typer.BadParameter(f"{results} is no result of python -m bench: {error}") from error
    if not report.facts["idle"] and not busy:
        raise typer.BadParameter(
            "the machine was not idle when this was measured; measure again, or use --busy"
        )
    DOCUMENT.write_text(published(DOCUMENT.read_text(), as_markdown(report)))
    typer.echo(f"Written: {DOCUMENT}")


if __name__ == "__main__":
    app()
