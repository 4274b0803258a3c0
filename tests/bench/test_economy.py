"""The simulation of the economy: money is conserved, dishonesty does not pay, the document says what was found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from crowdtrain.economics import Offer
from typer.testing import CliRunner

from bench.economy import __main__ as command
from bench.economy.plot import plot
from bench.economy.simulation import HONEST, Cast, Result, simulate
from bench.economy.tables import filled, simulation, tables
from bench.economy.town import Terms

# so many auditors that it hardly depends on the draw who is caught
WATCHED = Terms(audit_rate=4.0, audit_share=4.0)
SMALL = Cast(
    honest=6, lazy=3, colluding=4, sybil=3, abandoning=2, hiding=1, slandering=1,
    weights=(("honest", 70), ("split weight", 10), ("colluding", 10), ("silent", 5), ("copying", 5)),
)  # fmt: skip
ONE = Cast(
    honest=1, lazy=0, colluding=0, sybil=2, abandoning=0, hiding=0, slandering=0, weights=(("honest", 1),)
)


@pytest.fixture(scope="module")
def played() -> Result:
    return simulate(2, cast=SMALL, terms=WATCHED)


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(command.RESULT.read_text())
    return loaded


def test_money_is_conserved(played: Result) -> None:
    assert played.segments == 2 * SMALL.segments == 38
    assert played.left == 0
    assert played.unexplained == 0
    earned = sum(of.money for of in played.outcomes)
    paid = played.buyer_paid
    assert earned == pytest.approx(paid - played.fees - played.slashed)


def test_each_dishonest_kind_earns_less_than_honest_ones(played: Result) -> None:
    kinds = {of.kind for of in played.outcomes}
    assert len(kinds - set(HONEST)) == 8
    for of in played.outcomes:
        if of.kind == "honest":
            assert of.profit > 0, of
        elif of.kind not in HONEST:
            # some are honest at times, and live on others' stakes
            assert of.profit - of.bounties < 0, of
            assert of.profit < of.honest or of.kind == "false challenges", of


def test_every_right_segment_is_paid_for_and_nearly_every_wrong_one_overturned(played: Result) -> None:
    right = 2 * SMALL.honest
    wrong = 2 * (SMALL.lazy + SMALL.colluding + SMALL.sybil)
    assert played.settled - played.wrong == right
    assert 0 <= played.wrong <= 3
    # the one that hides its trace is either overturned or forfeited
    assert wrong <= played.wrong + played.overturned <= wrong + 2 * SMALL.hiding


def test_a_record_can_be_bought_and_a_run_is_repeatable() -> None:
    runs = [simulate(1, cast=ONE, seed=1) for _ in range(2)]
    assert runs[0] == runs[1]
    (sybil,) = (of for of in runs[0].outcomes if of.kind == "sybil")
    assert runs[0].farmed > 1.4  # what a record of 72 prices costs in fees
    assert runs[0].rates["sybil buyer and solver"][0] == Offer(price=1, stake=1).rate(72) == 0.1
    assert sybil.segments == 2


def test_the_published_run_is_large_and_dishonesty_does_not_pay(published: dict[str, Any]) -> None:
    assert published["segments"] >= 1000
    assert published["left"] == published["unexplained"] == 0
    for of in published["outcomes"]:
        if of["kind"] not in HONEST:
            assert of["profit"] < of["honest"] or of["kind"] == "false challenges", of
            assert of["profit"] - of["bounties"] < 0, of
        if of["deviation"]:
            assert abs(of["caught"] - of["expected_caught"]) < 4 * of["deviation"], of


def test_the_document_has_the_numbers_of_the_formulas_and_of_the_run(published: dict[str, Any]) -> None:
    page = (command.DOCS / "ECONOMICS.md").read_text()
    assert filled(page, tables(published)) == page, "run python -m bench.economy --tables-only"


def test_places_and_tables_must_fit() -> None:
    page = "a\n<!-- table: one -->\nold\n<!-- end of table -->\nb\n"
    assert filled(page, {"one": "new"}) == "a\n<!-- table: one -->\n\nnew\n\n<!-- end of table -->\nb\n"
    for made in ({}, {"one": "new", "two": "new"}):
        with pytest.raises(ValueError, match="has places for"):
            filled(page, made)
    with pytest.raises(ValueError, match="has no line"):
        filled("<!-- table: one -->", {"one": "new"})


def test_the_picture_names_everybody(played: Result, tmp_path: Path) -> None:
    result = json.loads(json.dumps(played.as_dict()))
    for path in (tmp_path / "a.svg", tmp_path / "b.svg"):
        plot(result, path)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    text = " ".join(ElementTree.parse(tmp_path / "a.svg").getroot().itertext())
    for of in played.outcomes:
        assert f"{of.kind} {of.role}" in text
        assert f"| {of.kind} {of.role} |" in simulation(result)


def test_the_command_publishes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, played: Result) -> None:
    page = (command.DOCS / "ECONOMICS.md").read_text()
    (tmp_path / "ECONOMICS.md").write_text(page)
    monkeypatch.setattr(command, "DOCS", tmp_path)
    monkeypatch.setattr(command, "RESULT", tmp_path / "result.json")
    monkeypatch.setattr(command, "simulate", lambda rounds, seed, progress: replace(played, seed=seed))
    result = CliRunner().invoke(command.app, ["--rounds", "2", "--seed", "7"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "result.json").read_text())["seed"] == 7
    assert (
        simulation(json.loads((tmp_path / "result.json").read_text()))
        in (tmp_path / "ECONOMICS.md").read_text()
    )
    assert (tmp_path / "economy.svg").exists()
    again = CliRunner().invoke(command.app, ["--tables-only"])
    assert again.exit_code == 0, again.output
