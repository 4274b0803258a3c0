"""The artifacts in the package, py-solc-x, Hardhat and Forge agree on every contract, to the byte."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import build

BIN = build.ROOT / "node_modules" / ".bin"


def _packaged() -> dict[str, str]:
    artifacts = [json.loads(path.read_text()) for path in build.ARTIFACTS.glob("*.json")]
    return {artifact["contractName"]: artifact["bytecode"] for artifact in artifacts}


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], cwd=build.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_artifacts_are_those_of_the_sources() -> None:
    assert build.drift() == [], "run python contracts/tools/build.py"


def test_a_source_that_does_not_compile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "ROOT", tmp_path)
    source = tmp_path / "Bad.sol"
    source.write_text("pragma solidity ^0.8.28;\ncontract Bad { uint256 x = nothing; }\n")
    with pytest.raises(build.CompileError, match="Undeclared identifier"):
        build.compile_contracts([source])


@pytest.mark.slow
def test_hardhat_gives_the_same_bytecode() -> None:
    _run(BIN / "hardhat", "compile")
    compiled = {
        path.stem: json.loads(path.read_text())["bytecode"]
        for path in (build.ROOT / "build" / "hardhat" / "contracts").rglob("*.json")
        if not path.name.endswith(".dbg.json")
    }
    packaged = _packaged()
    assert packaged
    assert {name: compiled.get(name) for name in packaged} == packaged


@pytest.mark.slow
def test_forge_gives_the_same_bytecode() -> None:
    _run(BIN / "forge", "build", "contracts", "--skip", "test")
    packaged = _packaged()
    paths = {name: build.ROOT / "build" / "forge" / f"{name}.sol" / f"{name}.json" for name in packaged}
    compiled = {name: json.loads(path.read_text())["bytecode"]["object"] for name, path in paths.items()}
    assert packaged
    assert compiled == packaged
