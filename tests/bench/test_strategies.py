"""The comparison of strategies runs to its end, and keeps what it has."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import strategies


def test_the_command_runs_and_publishes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "STRATEGIES.md"
    empty = "<!-- table: {} -->\n<!-- end of table -->\n"
    page.write_text(empty.format("pre-training") + empty.format("fine-tuning"))
    monkeypatch.setattr(strategies, "DOCUMENT", page)
    monkeypatch.setattr(strategies, "FIGURE", tmp_path / "strategies.svg")
    given = ["--seeds", "1", "--steps", "8", "--workers", "2", "--out", str(tmp_path), "--publish"]
    for _ in range(2):  # the second time it takes what the file has
        result = CliRunner().invoke(strategies.app, given)
        assert result.exit_code == 0, result.output
    for name in (*strategies.PRETRAINING, *strategies.TUNING):
        assert f"| {name} |" in page.read_text()
    assert (tmp_path / "strategies.svg").exists()
