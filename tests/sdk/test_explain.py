"""What a program costs, and how that is shown."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import crowdtrain as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from crowdtrain._explain import Costs, measure
from crowdtrain.cli import app
from crowdtrain_engine import Dataset, Program
from lowering_support import floats, integers
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

MACHINE = ct.MachineSpeed(flops=1e9, bandwidth=1e9)
BATCH = (floats(8, 64), integers(8, below=10))


@pytest.fixture(scope="module")
def program() -> ct.LoweredProgram:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 10))
    return ct.lower(model, F.cross_entropy, optimizer=ct.optim.AdamW(), example=BATCH)


def shown(program: Program, **options: Any) -> str:
    out = StringIO()
    ct.explain(program, machine=MACHINE, console=Console(file=out, width=140), **options)
    return out.getvalue()


def test_a_matrix_product_costs_two_operations_for_each_term(program: ct.LoweredProgram) -> None:
    costs = {f"{cost.module}: {cost.what}": cost for cost in Costs.of(program).nests}
    forward = costs["0: forward"]
    assert forward.flops == 2 * 8 * 32 * 64
    assert forward.bytes == 4 * (8 * 64 + 32 * 64 + 8 * 32)
    assert forward.seconds(MACHINE) == forward.flops / 1e9
    assert costs["0: weight gradient"].flops == forward.flops


def test_a_map_costs_each_of_its_operations(program: ct.LoweredProgram) -> None:
    costs = {f"{cost.module}: {cost.what}": cost for cost in Costs.of(program).nests}
    first = costs["optimizer: 0.weight: first moment"]
    assert first.flops == 32 * 64 * (1 + 2)  # a difference and a fused operation
    assert first.bytes == 4 * 3 * 32 * 64
    gelu = next(cost for name, cost in costs.items() if name.startswith("1: "))
    assert gelu.operations > 20 * 8 * 32, "an elementary function takes as long as its definition"
    assert costs["counters: step"].flops == 0


def brute_peak(program: Program) -> int:
    """By looking at every moment anew."""
    first, nests = program.first_nest, program.nests
    peak = 0
    for now in range(len(nests)):
        later = {read.value for nest in nests[now:] for read in nest.reads} | {*program.next, *program.logs}
        live = [i for i in range(now + 1) if i == now or first + i in later]
        peak = max(peak, sum(nests[i].type.size for i in live))
    return 4 * peak


def test_the_peak_is_the_most_that_must_be_kept_at_once(program: ct.LoweredProgram) -> None:
    costs = Costs.of(program)
    assert costs.peak == brute_peak(program)
    assert costs.peak < 4 * sum(nest.type.size for nest in program.nests)
    assert costs.group_words["parameters"] == 64 * 32 + 32 + 32 * 10 + 10
    assert sum(costs.group_words.values()) == sum(kind.size for kind in program.state)


def test_what_is_shown(program: ct.LoweredProgram) -> None:
    text = shown(program)
    for part in (
        program.root.hex(), "open", "2,410", "first_moment", "any number of rows of f32[64]", "i32[]", "loss",
        "optimizer", "0: forward", "f32[8, 32]", "1 GFLOP/s",
    ):  # fmt: skip
        assert part in text, part
    for table in (text[: text.index("Nests, by")], text[text.index("Nests, by") :]):
        shares = [
            float(line.split("│")[-2].strip(" %"))
            for line in table.splitlines()
            if "%" in line and "more" not in line
        ]
        assert len(shares) > 3
        assert shares == sorted(shares, reverse=True)
    few = shown(program, rows=1, module="2")
    assert "0: forward" not in few
    assert "2: forward" in few or "2: weight gradient" in few or "2: input gradient" in few
    assert " more" in few


def test_labels_are_no_markup(program: ct.LoweredProgram) -> None:
    labels = replace(program.labels, nests=("[red]x[/red]: [bold]y",) * len(program.nests))
    plain = Program(
        program.groups, program.state, program.data, program.nests, program.next, program.logs, labels
    )
    assert "[red]x[/red]: [bold]y" in shown(plain)


def test_a_machine_is_measured() -> None:
    speed = measure(threads=1, seconds=0.02)
    assert 1e8 < speed.flops < 1e13
    assert 1e8 < speed.bandwidth < 1e12


def test_a_file_and_a_folder_are_explained(program: ct.LoweredProgram, tmp_path: Path) -> None:
    data = Dataset(BATCH[0].numpy(), BATCH[1].numpy(), order=np.arange(8)[None])
    ct.save_bundle(tmp_path / "job", program, data)
    for path in (tmp_path / "job", tmp_path / "job" / "program"):
        result = CliRunner().invoke(app, ["explain", str(path), "--flops", "1e9", "--bandwidth", "1e9"])
        assert result.exit_code == 0, result.output
        assert "8 rows of" in result.output
    with pytest.raises(ct.ConfigError, match="cannot be read"):
        CliRunner().invoke(app, ["explain", str(tmp_path / "none")], catch_exceptions=False)
