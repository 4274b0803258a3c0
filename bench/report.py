"""What was measured: as tables on the screen, as Markdown, and as JSON, all from the same rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from crowdtrain import MachineSpeed
from rich.table import Table

from bench.kernels import Kernel
from bench.timing import Measured
from bench.training import Share, Trained

__all__ = [
    "Report",
    "Sheet",
    "as_json",
    "as_markdown",
    "as_table",
    "from_json",
    "sheet_markdown",
    "sheets",
    "summary",
]

LOSSES_AGREE = 1e-3


@dataclass
class Report:
    """All that was measured in one run."""

    facts: dict[str, str | int | float | bool]
    limits: dict[str, MachineSpeed]
    hashing: float
    """bytes a second, of a tensor's root"""
    trained: list[Trained] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)


@dataclass(frozen=True)
class Sheet:
    """A table: a title, headings, rows of text. The first columns are names, as many as ``names`` says."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1


def as_table(sheet: Sheet) -> Table:
    """For the screen."""
    table = Table(title=sheet.title, title_justify="left")
    for i, heading in enumerate(sheet.headings):
        table.add_column(heading, justify="left" if i < sheet.names else "right", overflow="fold")
    for row in sheet.rows:
        table.add_row(*row)
    return table


def as_markdown(report: Report) -> str:
    """All tables, below a line that says what they were measured on."""
    return "\n\n".join((summary(report), *(sheet_markdown(sheet) for sheet in sheets(report)))) + "\n"


def sheet_markdown(sheet: Sheet) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    marks = ("---" if i < sheet.names else "---:" for i in range(len(sheet.headings)))
    return "\n".join((f"**{sheet.title}**", "", line(sheet.headings), line(marks), *map(line, sheet.rows)))


def as_json(report: Report) -> str:
    """Everything, times of every round in seconds; with what the tables say of ratios."""
    content: dict[str, Any] = asdict(report)
    for entry, trained in zip(content["trained"], report.trained, strict=True):
        entry["ratio"] = trained.times["ours"].ratio(trained.times["eager"])[0]
        entry["scaling"] = trained.scaling
    for entry, kernel in zip(content["kernels"], report.kernels, strict=True):
        entry["ratio"] = kernel.ours.ratio(kernel.theirs)[0]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Report:
    """The report that :func:`as_json` has written."""
    content = json.loads(text)
    limits = {name: MachineSpeed(**speed) for name, speed in content["limits"].items()}
    report = Report(content["facts"], limits, content["hashing"])
    for entry in content["trained"]:
        del entry["ratio"], entry["scaling"]
        entry["times"] = {side: _measured(times) for side, times in entry["times"].items()}
        entry["profile"] = tuple(Share(**share) for share in entry["profile"])
        report.trained.append(Trained(**entry))
    for entry in content["kernels"]:
        del entry["ratio"]
        entry |= {side: _measured(entry[side]) for side in ("ours", "theirs")}
        report.kernels.append(Kernel(**entry))
    return report


def _measured(entry: dict[str, list[float]]) -> Measured:
    return Measured(tuple(entry["rounds"]))


def summary(report: Report) -> str:
    """What the numbers depend on, and how much they can be trusted."""
    facts = report.facts
    lines = [
        f"{facts['processor']}, {facts['threads']} threads on {facts['processors']} processors, {facts['isa']}; "
        f"{facts['system']}; Python {facts['python']}, NumPy {facts['numpy']}, PyTorch {facts['pytorch']}; "
        f"{facts['date']}; load average {facts['load']} at the start. "
        f"Pages are hashed at {report.hashing / 1e9:.2f} GB/s."
    ]
    if not facts["idle"]:
        lines.append("The machine was not idle: these numbers are worth little.")
    for trained in report.trained:
        if trained.loss_error > LOSSES_AGREE:
            lines.append(f"{trained.name}: losses differ by {trained.loss_error:.1e}: not the same training!")
        if trained.compiled:
            lines.append(f"{trained.name}: torch.compile is not available: {trained.compiled}.")
    return " ".join(lines)


def sheets(report: Report) -> Iterable[Sheet]:
    """The tables for which something was measured."""
    yield _limits(report)
    if report.trained:
        yield _steps(report.trained)
        yield _resources(report.trained)
        for trained in report.trained:
            yield _profile(trained, report.limits["PyTorch"])
    for title, kernels in (
        ("Sums of products alone", [kernel for kernel in report.kernels if kernel.flops]),
        ("Other operations alone", [kernel for kernel in report.kernels if not kernel.flops]),
    ):
        if kernels:
            yield _kernels(title, kernels)


def _limits(report: Report) -> Sheet:
    rows = tuple(
        (name, f"{speed.flops / 1e9:.0f}", f"{speed.bandwidth / 1e9:.1f}")
        for name, speed in report.limits.items()
    )
    return Sheet("What the machine can do", ("by", "large product, GFLOP/s", "large copy, GB/s"), rows)


def _ms(measured: Measured) -> str:
    return f"{measured.seconds * 1e3:.3g}" if measured.seconds < 1 else f"{measured.seconds * 1e3:.0f}"


def _ratio(ours: Measured, theirs: Measured) -> str:
    middle, low, high = ours.ratio(theirs)
    return f"{middle:.2f} ({low:.2f} … {high:.2f})"


def _steps(trained: Sequence[Trained]) -> Sheet:
    rows = []
    for case in trained:
        ours, eager, compiled = case.times["ours"], case.times["eager"], case.times.get("compiled")
        rows.append((
            case.name, f"{case.parameters / 1e6:.2f}M", _ms(ours), _ms(eager), _ratio(ours, eager),
            _ms(compiled) if compiled else "–",
            _ratio(ours, compiled) if compiled else "–", f"{case.flops / ours.seconds / 1e9:.0f}",
        ))  # fmt: skip
    headings = (
        "model", "parameters", "ours, ms", "eager, ms", "ours / eager (quartiles)", "torch.compile, ms",
        "ours / compiled", "ours, GFLOP/s",
    )  # fmt: skip
    return Sheet("A training step", headings, tuple(rows))


def _resources(trained: Sequence[Trained]) -> Sheet:
    rows = []
    for case in trained:
        memory = {side: f"{count / 1e6:.0f}" for side, count in (case.memory or {}).items()}
        eager = case.times["eager_1"].ratio(case.times["eager"])[0] if "eager_1" in case.times else None
        rows.append((
            case.name, memory.get("ours", "–"), memory.get("eager", "–"), f"{case.arena / 1e6:.1f}",
            f"{case.committing:.1%}", f"{case.scaling:.2f}" if case.scaling else "–", f"{eager:.2f}" if eager else "–",
            f"{case.lowering:.1f}", str(case.nests),
        ))  # fmt: skip
    headings = (
        "model", "peak memory of ours, MB", "of eager, MB", "planned for values, MB", "committing",
        "faster than with 1 thread", "the same, eager", "lowering, s", "nests",
    )  # fmt: skip
    return Sheet("Memory, commitments, threads", headings, tuple(rows))


def _profile(case: Trained, limits: MachineSpeed) -> Sheet:
    total = case.times["ours"].seconds
    rows = []
    for share in case.profile:
        flops = None if share.flops is None else share.flops / share.seconds
        speed = share.bytes / share.seconds
        rows.append((
            share.kind, str(share.groups), f"{share.seconds * 1e3:.3g}", f"{share.seconds / total:.0%}",
            f"{flops / 1e9:.1f} ({flops / limits.flops:.0%})" if flops is not None else "–",
            f"{speed / 1e9:.1f} ({speed / limits.bandwidth:.0%})",
        ))  # fmt: skip
    rest = total - sum(share.seconds for share in case.profile)
    rows.append(("the rest", "", f"{rest * 1e3:.3g}", f"{rest / total:.0%}", "", ""))
    headings = ("kind", "groups", "ms", "share", "GFLOP/s (of the limit)", "GB/s (of the limit)")
    return Sheet(f"{case.name}: a step by kinds of nests", headings, tuple(rows))


def _kernels(title: str, kernels: Sequence[Kernel]) -> Sheet:
    rows = tuple(
        (
            kernel.name, kernel.where, f"{kernel.ours.seconds * 1e3:.3g}", f"{kernel.theirs.seconds * 1e3:.3g}",
            _ratio(kernel.ours, kernel.theirs),
            f"{kernel.flops / kernel.ours.seconds / 1e9:.0f}" if kernel.flops else "–",
            f"{kernel.bytes / kernel.ours.seconds / 1e9:.1f}",
        )
        for kernel in kernels
    )  # fmt: skip
    headings = ("what", "in", "ours, ms", "PyTorch, ms", "ours / PyTorch (quartiles)", "GFLOP/s", "GB/s")
    return Sheet(title, headings, rows, names=2)
