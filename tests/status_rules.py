"""What ``status`` of a solver or verifier prints of its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

__all__ = ["check_status"]

LINE = {"block": 9, "job": 1, "segment": 0, "kind": "fee", "amount": -2, "cause": "fee of segment 0"}


def check_status(run: Callable[..., tuple[int, str]], folder: Path, role: str) -> None:
    """Nothing to show is an error; else status and ledger are shown. ``run`` gives exit code and output."""
    code, output = run("status", "--folder", str(folder))
    assert code == 2
    assert "status.json" in output
    (folder / "status.json").write_text(json.dumps({"role": role}))
    (folder / "ledger.jsonl").write_text(json.dumps(LINE) + "\n")
    code, output = run("status", "--folder", str(folder))
    assert code == 0
    assert f'"role": "{role}"' in output
    words = [word for word in output.split("Ledger")[1].split() if word.isalnum()]
    assert words[-8:] == ["9", "1", "0", "fee", "fee", "of", "segment", "0"]
