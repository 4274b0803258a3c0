"""Moves are the Chain's methods as values."""

from __future__ import annotations

import dataclasses
import inspect
import typing

import pytest
from crowdtrain.chain import Chain, Phase
from crowdtrain.game import CHALLENGER_PHASES, DEFENDER_PHASES, moves

MOVES = [getattr(moves, name) for name in moves.__all__ if name != "Move"]


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_fields_are_the_arguments_of_the_chains_method(move: type[moves.Move]) -> None:
    method = getattr(Chain, move.call)
    parameters = list(inspect.signature(method).parameters)[1:]
    assert [field.name for field in dataclasses.fields(move)] == parameters


def test_every_method_that_names_a_position_is_a_move() -> None:
    answering = {
        name
        for name, method in inspect.getmembers(Chain, inspect.isfunction)
        if "position" in typing.get_type_hints(method)
    }
    assert {move.call for move in MOVES} == answering


def test_every_phase_awaits_somebody_until_the_end() -> None:
    assert set(Phase) - {Phase.NONE, Phase.OVER} == DEFENDER_PHASES | CHALLENGER_PHASES
    assert not DEFENDER_PHASES & CHALLENGER_PHASES
