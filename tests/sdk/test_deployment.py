"""Deployment files: strict, and found by chain id."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from crowdtrain._errors import ConfigError
from crowdtrain.deployment import Deployment, find_deployment

ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
NAMES = ("token", "stake", "market", "dispute", "referee", "audit", "rewards", "emission", "crowdfund")
DEPLOYMENT = Deployment(chain_id=31337, block=7, **dict.fromkeys(NAMES, ADDRESS))


def test_a_deployment_comes_back(tmp_path: Path) -> None:
    DEPLOYMENT.save(tmp_path / "folder" / "31337.json")
    assert Deployment.load(tmp_path / "folder" / "31337.json") == DEPLOYMENT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chain_id": "31337"}, "chain_id"),
        ({"chain_id": 0}, "chain_id"),
        ({"block": -1}, "block"),
        ({"market": ADDRESS.lower()}, "market: .*checksum"),
        ({"market": "0x00"}, "market"),
        ({"market": None}, "market"),
        ({"owner": ADDRESS}, "owner"),
    ],
)
def test_a_field_that_is_wrong_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    (tmp_path / "file").write_text(json.dumps(json.loads(DEPLOYMENT.model_dump_json()) | change))
    with pytest.raises(ConfigError, match=message):
        Deployment.load(tmp_path / "file")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 10_000])
def test_what_is_no_deployment_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ConfigError, match="deployment file"):
        Deployment.load(tmp_path / "file")


def test_a_file_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Deployment.load(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        DEPLOYMENT.save(tmp_path / "file" / "below")


def test_a_deployment_is_found_by_its_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DEPLOYMENT.save(tmp_path / "deployments" / "31337.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for where in (None, tmp_path / "deployments", tmp_path / "deployments" / "31337.json"):
        assert find_deployment(31337, where) == DEPLOYMENT
    with pytest.raises(ConfigError, match=r"no deployment file 1\.json for chain 1"):
        find_deployment(1)
    with pytest.raises(ConfigError, match="is for chain 31337, the node is on chain 1"):
        find_deployment(1, tmp_path / "deployments" / "31337.json")
    (tmp_path / "deployments" / "31337.json").rename(tmp_path / "moved")
    DEPLOYMENT.save(tmp_path / "home" / ".crowdtrain" / "deployments" / "31337.json")
    assert find_deployment(31337) == DEPLOYMENT
