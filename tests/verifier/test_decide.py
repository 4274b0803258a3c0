"""What a verifier decides: a table of situations, and what holds in all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from crowdtrain.actions import Action, Answer, Expire, Forfeit, Load, Settle, Timeout, Void, Withdraw
from crowdtrain.chain import Game, GameId, Outcome, Phase, Segment, SegmentKey, SegmentState
from crowdtrain.game import CHALLENGER_PHASES
from crowdtrain_verifier.decide import (
    Attest,
    Challenge,
    Check,
    Close,
    Draw,
    Enroll,
    Inspect,
    Policy,
    Punish,
    Verdict,
    View,
    commitment,
    decide,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from views import BLOCK, BOOK, JOB, ME, NOW, OTHER, STAKE, TERMS, audit, chain_view, game, output, segment

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
    ("a dispute that has not begun", view(committed(), verdict=WRONG, games=(ours(since=NOW + 1),)), ()),
    ("the attempt is gone", view(committed(attempt=1), verdict=RIGHT, games=(ours(),)), (Close(GameId(1)),)),
    ("the segment is open again", view(segment(0), games=(ours(),)), (Close(GameId(1)),)),
]


@pytest.mark.parametrize(("what", "seen", "expected"), SITUATIONS, ids=[what for what, _, _ in SITUATIONS])
def test_situation(what: str, seen: View, expected: tuple[Action, ...]) -> None:
    assert decide(seen, NEVER) == expected


TIDY: list[tuple[str, View, tuple[Action, ...]]] = [
    ("window long over", view(committed(until=NOW - 31), verdict=RIGHT), (Settle(FIRST),)),
    (
        "window long over, trace hidden and not known here",
        view(committed(until=NOW - 31), verdict=WRONG, chain={"rounds": {FIRST: audit()}}),
        (),
    ),
    (
        "trace hidden for long",
        view(committed(until=NOW - 131), verdict=WRONG, chain={"rounds": {FIRST: audit()}}),
        (Forfeit(FIRST),),
    ),
    (
        "trace hidden for long, but known here",
        view(committed(until=NOW - 131), verdict=RIGHT, chain={"rounds": {FIRST: audit()}}),
        (Settle(FIRST),),
    ),
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


DRAWN: dict[str, Any] = {"drawn": frozenset([FIRST])}
OLD = {"draw_block": BLOCK - 5}
SEED = bytes([1] * 32)


def audited(verdict: Verdict | None = RIGHT, drawn: bool = True, **audits: Any) -> View:
    """A commitment under audit, for which this verifier is drawn."""
    chain = {"rounds": {FIRST: audit(**audits)}, "weight": 10, **(DRAWN if drawn else {})}
    return view(committed(), verdict=verdict, chain=chain)


AUDITS: list[tuple[str, View, tuple[Action, ...]]] = [
    ("right", audited(), (Attest(FIRST),)),
    ("wrong", audited(WRONG), (Challenge(FIRST, STAKE),)),
    ("not judged", audited(None), (Check(FIRST),)),
    ("not judged, its block may be forgotten", audited(None, **OLD), (Draw(FIRST), Check(FIRST))),
    ("not judged, drawn already", audited(None, **OLD, seed=SEED), (Check(FIRST),)),
    ("not for oneself", audited(drawn=False, **OLD), ()),
    (
        "attested",
        view(
            committed(),
            verdict=RIGHT,
            chain={**DRAWN, "rounds": {FIRST: audit()}, "attested": frozenset([FIRST])},
        ),
        (),
    ),
    ("too late", audited(attest_until=NOW - 1), ()),
    ("just in time", audited(attest_until=NOW), (Attest(FIRST),)),
    ("seats taken", audited(attestations=4), ()),
    ("another commitment by now", audited(seal=SEED), ()),
    ("nobody drew in time", audited(None, drawn=False, draw_block=BLOCK - 257), (Draw(FIRST), Check(FIRST))),
    ("settled just now", audited(outcome=Outcome.SETTLED), ()),
    (
        "one drawn of two commitments",
        view(
            committed(),
            committed(1, until=NOW + 1),
            chain={**DRAWN, "rounds": {FIRST: audit(), SegmentKey(JOB, 1): audit()}},
        ),
        (Check(FIRST),),
    ),
]


@pytest.mark.parametrize(("what", "seen", "expected"), AUDITS, ids=[what for what, _, _ in AUDITS])
def test_an_audit(what: str, seen: View, expected: tuple[Action, ...]) -> None:
    assert decide(seen, NEVER) == expected


def test_only_the_drawn_are_replayed_if_wanted() -> None:
    policy = Policy(tidy=False, drawn_only=True)
    assert decide(audited(None), policy) == (Check(FIRST),)
    assert decide(audited(None, drawn=False), policy) == ()
    assert decide(audited(None, attest_until=NOW - 1), policy) == ()


def test_silence_of_others_is_reported_where_that_pays() -> None:
    ended, auditor = (FIRST, 0), OTHER
    assert decide(view(ended=frozenset([ended])), Policy()) == (Inspect(*ended),)
    assert decide(view(ended=frozenset([ended]), working=True), Policy()) == ()
    assert decide(view(faults={ended: (auditor,)}), Policy()) == (Punish(FIRST, 0, auditor),)
    assert decide(view(faults={ended: (auditor,)}), NEVER) == ()
    silent = audited(drawn=False, draw_block=BLOCK - 33)
    assert decide(silent, Policy()) == (Draw(FIRST),)
    assert decide(silent, NEVER) == ()
    dear = replace(silent, gas_price=10**9)
    # 250,000 gas are 2.5e14 wei, more than half the penalty of 8 if an ether is worth 20,000 units
    assert decide(dear, Policy(ether=10_000)) == (Draw(FIRST),)
    assert decide(dear, Policy(ether=20_000)) == ()


def test_enrolment_is_kept_up() -> None:
    assert decide(view(), Policy(enroll=100)) == (Enroll(100, 100),)
    assert decide(view(chain={"weight": 60, "free": 30}), Policy(enroll=100)) == (Enroll(40, 10),)
    assert decide(view(chain={"weight": 100}), Policy(enroll=100)) == ()
    assert decide(view(chain={"weight": 120}), Policy(enroll=100)) == ()
    assert decide(view(), Policy(enroll=1001)) == ()
    assert decide(view(chain={"locked": 60}), Policy(enroll=100, max_stake=159)) == ()


def test_earnings_are_taken_when_no_audit_is_open() -> None:
    assert decide(view(chain={"owed": 5}), Policy()) == (Withdraw(),)
    assert decide(view(chain={"owed": 5, "attested": frozenset([FIRST])}), Policy()) == ()
    assert decide(view(chain={"owed": 5}, working=True), Policy()) == ()


def test_policies() -> None:
    disputed = view(committed(games=1), verdict=WRONG, games=(game(defender=OTHER),))
    assert decide(disputed, Policy(tidy=False, join=True)) == (Challenge(FIRST, STAKE),)
    assert decide(view(committed(), verdict=WRONG), Policy(max_stake=STAKE - 1)) == ()


def test_where_a_clock_is_too_short_nothing_is_challenged_but_all_else_is_done() -> None:
    short = replace(NEVER, min_clock=TERMS.clock + 1)
    assert decide(view(committed(), verdict=WRONG), replace(NEVER, min_clock=TERMS.clock)) != ()
    assert decide(view(committed(), verdict=WRONG), short) == ()
    assert decide(view(committed()), short) == ()  # nor is it replayed for nothing
    assert decide(audited(), short) == (Attest(FIRST),)
    assert decide(audited(None), short) == (Check(FIRST),)
    assert decide(view(committed(games=1), verdict=WRONG, games=(ours(),)), short) == (Answer(GameId(1)),)


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
    rounds = {
        s.key: audit(
            outcome=draw(st.sampled_from(Outcome)),
            attestations=draw(st.integers(0, 4)),
            attest_until=draw(moments),
            draw_block=BLOCK - draw(st.sampled_from([1, 5, 40, 300])),
            seed=draw(st.sampled_from([bytes(32), SEED])),
            seal=s.seal,
        )
        for s in present
        if s.state is COMMITTED and draw(st.booleans())
    }
    keys = st.sets(st.sampled_from([SegmentKey(JOB, i) for i in range(3)])).map(frozenset)
    return View(
        chain_view(
            *present,
            games=games,
            free=draw(st.integers(0, 100)),
            tokens=draw(st.integers(0, 100)),
            rounds=rounds,
            weight=draw(st.integers(0, 1)),
            drawn=draw(keys),
            attested=draw(keys),
        ),
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
def test_only_what_counts_is_attested(seen: View) -> None:
    chain = seen.chain
    for action in decide(seen, Policy()):
        if isinstance(action, Attest):
            attested, found = chain.segments[action.key], chain.rounds[action.key]
            assert attested.state is COMMITTED
            assert attested.solver != ME
            assert seen.verdicts[commitment(attested)] is RIGHT
            assert found.outcome is Outcome.OPEN
            assert found.attestations < found.seats
            assert chain.now <= found.attest_until
            assert action.key in chain.drawn - chain.attested
        if isinstance(action, Draw):
            assert chain.rounds[action.key].seed == bytes(32)


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
                assert 0 <= seen.chain.now - played.since <= played.challenger_left


def test_a_source_that_was_done_again_makes_a_commitment_void() -> None:
    seen = view(committed(0, group_roots=output(7)), committed(1), verdict=RIGHT)
    assert decide(seen, Policy()) == (Void(SegmentKey(JOB, 1)),)
