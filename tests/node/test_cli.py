"""``crowdtrain solver``: what it refuses to start with, and what it tells."""

from __future__ import annotations

from pathlib import Path

import pytest
from crowdtrain.folders import exclusive
from crowdtrain_node.cli import app
from status_rules import check_status
from typer.testing import CliRunner

KEY = "0x" + "11" * 32


def run(*arguments: str, **environment: str | None) -> tuple[int, str]:
    """Exit code and output of ``crowdtrain solver``."""
    nothing = {"CROWDTRAIN_KEY": None, "CROWDTRAIN_KEYFILE": None, "CROWDTRAIN_RPC": None}
    result = CliRunner().invoke(app, list(arguments), env={**nothing, **environment})
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--backend", "reference"], "this needs a key"),
        (["--backend", "abacus"], "abacus"),
        (["--isa", "z80"], "z80"),
        (["--sabotage", "everything"], "there is no sabotage 'everything'"),
        (["--threads", "0"], "--threads"),
        (["--keyfile", "nowhere.json", "--backend", "reference"], "nowhere.json"),
    ],
)
def test_what_is_configured_wrongly_is_refused(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    code, output = run("--folder", str(tmp_path), *arguments, CROWDTRAIN_PASSWORD="secret")
    assert code == 2
    assert complaint in output


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with exclusive(tmp_path):
        code, output = run("--folder", str(tmp_path), CROWDTRAIN_KEY=KEY)
    assert code == 2
    assert "in use" in output


def test_status_prints_status_and_ledger(tmp_path: Path) -> None:
    check_status(run, tmp_path, "solver")


def test_help_has_examples() -> None:
    code, output = run("--help")
    assert code == 0
    assert "crowdtrain solver --folder ada" in output
