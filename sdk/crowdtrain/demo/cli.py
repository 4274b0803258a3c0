"""``crowdtrain demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer()


@app.callback(invoke_without_command=True, epilog="Example: crowdtrain demo --crowd --folder .demo")
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything is kept; emptied first.")] = Path(".demo"),
    crowd: Annotated[
        bool, typer.Option("--crowd", help="Many machines train one model; one leaves, one joins, two cheat.")
    ] = False,
) -> None:
    """Runs the main job on an embedded chain: bought, cheated on, caught, done again, and paid.

    Ends with 0 if everything that must be true at the end is true.
    """
    from rich.console import Console

    try:
        from crowdtrain.demo import crowd as many
        from crowdtrain.demo import main as one
    except ModuleNotFoundError as error:
        typer.echo(f"crowdtrain demo: {error.name} is missing: pip install 'crowdtrain[demo]'", err=True)
        raise typer.Exit(2) from error
    raise typer.Exit((many if crowd else one).run(folder, Console()))
