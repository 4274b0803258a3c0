"""Generate what Solidity shares with Python, compile the contracts with npm's solc, and write what Python
needs of them to sdk/crowdtrain/artifacts.

python contracts/tools/build.py            # write Ops.sol and the artifacts
python contracts/tools/build.py --check    # exit 1 if they differ from what the sources give
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ops
import solcx

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = ROOT / "contracts"
ARTIFACTS = ROOT / "sdk" / "crowdtrain" / "artifacts"
SOLC = CONTRACTS / "tools" / "solc.js"
SETTINGS = CONTRACTS / "tools" / "settings.json"

_IMPORT = re.compile(r"""^import\s[^"';]*["']([^"']+)["']\s*;""", re.MULTILINE)

Artifact = dict[str, Any]


class CompileError(Exception):
    """The compiler refused the sources; the message holds all of its errors."""


def deployable_sources() -> list[Path]:
    """Sources of the contracts that are deployed: contracts/*.sol and contracts/devnet/*.sol, sorted."""
    return sorted([*CONTRACTS.glob("*.sol"), *(CONTRACTS / "devnet").glob("*.sol")])


def compile_contracts(sources: Iterable[Path]) -> dict[str, Artifact]:
    """Compile `sources` with all that they import.

    Returns:
        An artifact {"contractName", "abi", "bytecode"} of each contract of `sources` with bytecode, by name.

    Raises:
        CompileError: the compiler reported an error.
    """
    roots = [path.relative_to(ROOT).as_posix() for path in sources]
    if not roots:
        return {}
    request = {
        "language": "Solidity",
        "sources": {unit: {"content": text} for unit, text in sorted(_with_imports(roots).items())},
        "settings": {
            **json.loads(SETTINGS.read_text()),
            "outputSelection": {unit: {"*": ["abi", "evm.bytecode.object"]} for unit in roots},
        },
    }
    try:
        output = solcx.compile_standard(request, solc_binary=SOLC)
    except solcx.exceptions.SolcError as error:
        raise CompileError(str(error)) from error
    artifacts: dict[str, Artifact] = {}
    for unit in roots:
        for name, contract in output["contracts"].get(unit, {}).items():
            bytecode = contract["evm"]["bytecode"]["object"]
            if bytecode:
                artifacts[name] = {"contractName": name, "abi": contract["abi"], "bytecode": "0x" + bytecode}
    return artifacts


def _with_imports(units: list[str]) -> dict[str, str]:
    """Texts of `units` and of all that they import, by source unit name: a path under ROOT, or npm's name."""
    texts: dict[str, str] = {}
    queue = list(units)
    while queue:
        unit = queue.pop()
        if unit in texts:
            continue
        base = ROOT / "node_modules" if unit.startswith("@") else ROOT
        texts[unit] = (base / unit).read_text()
        for target in _IMPORT.findall(texts[unit]):
            queue.append(_resolve(unit, target) if target.startswith(".") else target)
    return texts


def _resolve(unit: str, relative: str) -> str:
    parts = unit.split("/")[:-1]
    for part in relative.split("/"):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def render(artifact: Artifact) -> str:
    """The text of an artifact file, the same on every machine: a line for each entry of the ABI."""
    abi = ",\n".join(f"  {json.dumps(entry, sort_keys=True)}" for entry in artifact["abi"])
    name, bytecode = json.dumps(artifact["contractName"]), json.dumps(artifact["bytecode"])
    return f'{{\n "contractName": {name},\n "abi": [\n{abi}\n ],\n "bytecode": {bytecode}\n}}\n'


def drift() -> list[str]:
    """Names of generated files that are missing, stale or left over; none when all agree with the sources."""
    if not ops.SOURCE.exists() or ops.SOURCE.read_text() != ops.source():
        return [ops.SOURCE.name]
    artifacts = compile_contracts(deployable_sources())
    expected = {f"{name}.json": render(artifact) for name, artifact in artifacts.items()}
    found = {path.name: path.read_text() for path in ARTIFACTS.glob("*.json")}
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def write() -> None:
    """Write Ops.sol and the artifacts of all deployable sources; delete those of contracts that are gone."""
    ops.SOURCE.write_text(ops.source())
    artifacts = compile_contracts(deployable_sources())
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    for path in ARTIFACTS.glob("*.json"):
        if path.stem not in artifacts:
            path.unlink()
    for name, artifact in artifacts.items():
        (ARTIFACTS / f"{name}.json").write_text(render(artifact))


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        stale = drift()
        if stale:
            print(f"stale: {', '.join(stale)}; run python contracts/tools/build.py")
        return 1 if stale else 0
    if arguments:
        print(__doc__)
        return 2
    try:
        write()
    except CompileError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
