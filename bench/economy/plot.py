"""A picture of who earned what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["plot"]

HONEST, DISHONEST = "#2a7f4f", "#b23a3a"
INK, GRID = "#666666", "#dddddd"


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Profit of each kind round by round, and at the end, as SVG; the same result gives the same file."""
    from bench.economy.simulation import HONEST as KINDS

    # ids that do not change from run to run; text that can be read on light and dark pages
    with mpl.rc_context(
        {"svg.hashsalt": "economy", "svg.fonttype": "none", "text.color": INK, "font.size": 9}
    ):
        figure = Figure(figsize=(11, 5), layout="constrained")
        over_time, at_end = figure.subplots(1, 2, width_ratios=(3, 2))
        outcomes = sorted(result["outcomes"], key=lambda of: of["profit"])
        names = [f"{of['kind']} {of['role']}" for of in outcomes]
        colours = [HONEST if of["kind"] in KINDS else DISHONEST for of in outcomes]
        for name, colour in zip(names, colours, strict=True):
            curve = [0.0, *result["curves"][name]]
            over_time.plot(range(len(curve)), curve, color=colour, linewidth=1.5)
            if abs(curve[-1]) < 1:
                continue  # these lines lie upon each other
            over_time.annotate(
                name, (len(curve) - 1, curve[-1]), xytext=(3, 0), textcoords="offset points", fontsize=7
            )
        over_time.set_title("profit, in prices of a segment, round by round")
        over_time.set_xlabel("round")
        at_end.barh(names, [of["profit"] for of in outcomes], color=colours)
        at_end.set_title("at the end, with rewards")
        at_end.yaxis.tick_right()
        for axes in (over_time, at_end):
            axes.set_facecolor("none")
            axes.tick_params(colors=INK, labelcolor=INK, labelsize=8)
            axes.xaxis.label.set_color(INK)
            axes.grid(color=GRID, linewidth=0.5)
            axes.spines[:].set_visible(False)
        over_time.set_yscale("symlog", linthresh=10)
        at_end.set_xscale("symlog", linthresh=10)
        figure.savefig(path, transparent=True, metadata={"Date": None})
