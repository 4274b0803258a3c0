"""No entry point of the contracts is without a test of who runs in front of its caller."""

from __future__ import annotations

from pathlib import Path

import pytest
from crowdtrain import _abi

SOURCE = Path(__file__).parents[2] / "contracts" / "test" / "protocol" / "FrontRunning.t.sol"
SHARED = {
    "sweep": "IBurner",
    "approve": "IERC20",
    "transfer": "IERC20",
    "transferFrom": "IERC20",
    "permit": "IERC20Permit",
}
"""where functions are declared that several contracts have"""


@pytest.mark.parametrize(
    "contract", ["Market", "Stake", "Dispute", "Audit", "Emission", "Token", "Campaign", "Crowdfund"]
)
def test_somebody_runs_in_front_of_every_call(contract: str) -> None:
    source = SOURCE.read_text()
    entries = [
        entry["name"]
        for entry in _abi.artifact(contract)["abi"]
        if entry["type"] == "function" and entry["stateMutability"] not in ("view", "pure")
    ]
    assert entries
    missing = [
        name for name in entries if f"abi.encodeCall({SHARED.get(name, f'I{contract}')}.{name}," not in source
    ]
    assert missing == []
