"""What a verifier decides: a table of situations, and what holds in all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from crowdtrain.actions import Action, Answer, Expire, Load, Settle, Timeout, Void
from crowdtrain.chain import Game, GameId, Phase, Segment, SegmentKey, SegmentState
from crowdtrain.game import CHALLENGER_PHASES
from crowdtrain_verifier.decide import (
    Challenge,
    Check,
    Close,
    Policy,
    Verdict,
    View,
    commitment,
    decide,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from views import BOOK, JOB, ME, NOW, OTHER, STAKE, chain_view, game, output, segment

OPEN, CLAIMED, COMMITTED, SETTLED = SegmentState
FIRST = SegmentKey(JOB, 0)
NEVER = Policy(tidy=False)


def committed(index: int = 0, **changes: Any) -> Segment:
    """A segment that somebody else has committed."""
    return segment(index, COMMITTED, **{"solver": OTHER, **changes})


def ours(number: int = 1, index: int = 0, **changes: Any) -> Game:
    """A dispute that this verifier began, in which it is to move."""
    return game(
        number, index, **{"challenger": ME, "defender": OTHER, "phase": Phase.PICK_CHECKPOINT, **changes}
    )


def view(
    *segments: Segment,
    games: tuple[Game, ...] = (),
    verdict: Verdict | None = None,
    chain: dict[str, Any] | None = None,
    **own: Any,
) -> View:
    """A view in which ``verdict`` was found of every segment."""
    verdicts = {commitment(each): verdict for each in segments} if verdict else {}
    plain = View(chain_view(*segments, games=games, **(chain or {})), books={JOB: BOOK}, verdicts=verdicts)
    return replace(plain, **own)


WRONG, RIGHT = Verdict.WRONG, Verdict.RIGHT
SITUATIONS: list[tuple[str, View, tuple[Action, ...]]] = [
    ("nothing to check", view(), ()),
    ("a commitment of an unknown job", view(committed(), books={}), (Load(JOB),)),
    ("a commitment", view(committed()), (Check(FIRST),)),
    ("a commitment, and working", view(committed(), working=True), ()),
    (
        "a commitment that could not be checked",
        view(committed(), resting=frozenset([f"segment 0 of {'job 1'}"])),
        (),
    ),
    ("two commitments", view(committed(), committed(1, until=NOW + 1)), (Check(SegmentKey(JOB, 1)),)),
    ("its window is over", view(committed(until=NOW - 1)), ()),
    ("its inputs have changed", view(committed(input_root=bytes(32))), ()),
    ("one's own", view(committed(solver=ME)), ()),
    ("right", view(committed(), verdict=RIGHT), ()),
    ("wrong", view(committed(), verdict=WRONG), (Challenge(FIRST, STAKE),)),
    ("invalid", view(committed(), verdict=Verdict.INVALID), (Challenge(FIRST, STAKE),)),
    ("doubtful", view(committed(), verdict=Verdict.DOUBTFUL), ()),
    ("wrong, bond there", view(committed(), verdict=WRONG, chain={"free": STAKE}), (Challenge(FIRST, 0),)),
    ("wrong, no money", view(committed(), verdict=WRONG, chain={"tokens": STAKE - 1}), ()),
    ("wrong, too late", view(committed(until=NOW - 1), verdict=WRONG), ()),
    (
        "wrong, disputed by another",
        view(committed(games=1), verdict=WRONG, games=(game(defender=OTHER),)),
        (),
    ),
    (
        "wrong, disputed by another, at the end of the window",
        view(committed(games=1, until=NOW + 10), verdict=WRONG, games=(game(defender=OTHER),)),
        (Challenge(FIRST, STAKE),),
    ),
    (
        "wrong, already disputed",
        view(committed(games=1), verdict=WRONG, games=(ours(phase=Phase.REVEAL_PAGE),)),
        (),
    ),
    (
        "wrong, but a dispute of it was lost",
        view(committed(), verdict=WRONG, games=(ours(phase=Phase.OVER),)),
        (),
    ),
    ("own move", view(committed(games=1), verdict=WRONG, games=(ours(),)), (Answer(GameId(1)),)),
    (
        "own move, being computed",
        view(committed(games=1), verdict=WRONG, games=(ours(),), answering=True),
        (),
    ),
    ("own move after a restart", view(committed(games=1, until=NOW - 1), games=(ours(),)), (Check(FIRST),)),
    (
        "own move after a restart, another commitment first",
        view(committed(games=1), committed(1, until=NOW + 1), games=(ours(),)),
        (Check(FIRST),),
    ),
    (
        "the defender is silent",
        view(committed(games=1), verdict=WRONG, games=(ours(phase=Phase.REVEAL_STEP, since=NOW - 101),)),
        (Timeout(GameId(1)),),
    ),
    ("own clock over", view(committed(games=1), verdict=WRONG, games=(ours(since=NOW - 101),)), ()),
    ("the attempt is gone", view(committed(attempt=1), verdict=RIGHT, games=(ours(),)), (Close(GameId(1)),)),
    ("the segment is open again", view(segment(0), games=(ours(),)), (Close(GameId(1)),)),
]


@pytest.mark.parametrize(("what", "seen", "expected"), SITUATIONS, ids=[what for what, _, _ in SITUATIONS])
def test_situation(what: str, seen: View, expected: tuple[Action, ...]) -> None:
    assert decide(seen, NEVER) == expected


TIDY: list[tuple[str, View, tuple[Action, ...]]] = [
    ("window long over", view(committed(until=NOW - 31), verdict=RIGHT), (Settle(FIRST),)),
    ("window just over", view(committed(until=NOW - 30), verdict=RIGHT), ()),
    ("lease long over", view(segment(0, CLAIMED, solver=OTHER, until=NOW - 31)), (Expire(FIRST),)),
    ("inputs changed", view(committed(input_root=bytes(32))), (Void(FIRST),)),
    (
        "a silent defender in another's dispute",
        view(committed(games=1), verdict=RIGHT, games=(game(defender=OTHER, since=NOW - 131),)),
        (Timeout(GameId(1)),),
    ),
    ("somebody works, its job unknown", view(segment(0, CLAIMED, solver=OTHER), books={}), (Load(JOB),)),
]


@pytest.mark.parametrize(("what", "seen", "expected"), TIDY, ids=[what for what, _, _ in TIDY])
def test_a_tidy_verifier_does_what_nobody_else_does(
    what: str, seen: View, expected: tuple[Action, ...]
) -> None:
    assert decide(seen, Policy()) == expected


def test_policies() -> None:
    disputed = view(committed(games=1), verdict=WRONG, games=(game(defender=OTHER),))
    assert decide(disputed, Policy(tidy=False, join=True)) == (Challenge(FIRST, STAKE),)
    assert decide(view(committed(), verdict=WRONG), Policy(max_stake=STAKE - 1)) == ()


# ------------------------------------------------------------------ what holds always

moments = st.integers(NOW - 120, NOW + 120)
accounts = st.sampled_from([ME, OTHER])
thorough = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PHASES = [phase for phase in Phase if phase is not Phase.NONE]


@st.composite
def views(draw: st.DrawFn) -> View:
    present = [
        segment(index, state)
        if (state := draw(st.sampled_from(SegmentState))) is OPEN
        else segment(
            index,
            state,
            solver=draw(accounts),
            until=draw(moments),
            attempt=draw(st.integers(0, 1)),
            games=draw(st.integers(0, 2)),
        )
        for index in range(3)
    ]
    games = tuple(
        game(
            number,
            index,
            phase=draw(st.sampled_from(PHASES)),
            since=draw(moments),
            challenger=draw(accounts),
            defender=OTHER,
        )
        for number, index in enumerate(draw(st.lists(st.integers(0, 2), max_size=3)), start=1)
    )
    verdicts = {commitment(s): draw(st.sampled_from(Verdict)) for s in present if draw(st.booleans())}
    names = [f"segment {i} of job 1" for i in range(3)] + ["job 1", "dispute 1", "dispute 2"]
    return View(
        chain_view(*present, games=games, free=draw(st.integers(0, 100)), tokens=draw(st.integers(0, 100))),
        books=draw(st.sampled_from([{}, {JOB: BOOK}])),
        verdicts=verdicts,
        resting=draw(st.sets(st.sampled_from(names)).map(frozenset)),
        working=draw(st.booleans()),
        answering=draw(st.booleans()),
    )


@thorough
@given(views())
def test_nothing_is_done_twice_or_about_what_rests(seen: View) -> None:
    actions = decide(seen, Policy())
    assert len(actions) == len(set(actions))
    assert not {action.about for action in actions} & seen.resting
    assert sum(isinstance(a, (Load, Check)) for a in actions) <= (0 if seen.working else 1)
    assert sum(isinstance(a, Answer) for a in actions) <= (0 if seen.answering else 1)


@thorough
@given(views())
def test_a_bond_is_paid_only_for_what_would_be_won(seen: View) -> None:
    chain = seen.chain
    for action in decide(seen, Policy()):
        if isinstance(action, Challenge):
            challenged = chain.segments[action.key]
            assert challenged.state is COMMITTED
            assert challenged.solver != ME
            assert chain.now <= challenged.until
            assert seen.verdicts[commitment(challenged)].is_punishable
            assert not [g for g in chain.games_of(challenged) if g.challenger == ME]
            assert chain.free + action.deposit >= STAKE
            assert action.deposit <= chain.tokens


@thorough
@given(views())
def test_only_open_games_are_played(seen: View) -> None:
    for action in decide(seen, Policy()):
        if isinstance(action, (Answer, Close, Timeout)):
            played = seen.chain.games[action.game]
            assert played.phase is not Phase.OVER
            if isinstance(action, Answer):
                assert played.challenger == ME
                assert played.phase in CHALLENGER_PHASES
                assert seen.chain.now - played.since <= played.challenger_left


def test_a_source_that_was_done_again_makes_a_commitment_void() -> None:
    seen = view(committed(0, group_roots=output(7)), committed(1), verdict=RIGHT)
    assert decide(seen, Policy()) == (Void(SegmentKey(JOB, 1)),)
