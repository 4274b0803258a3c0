"""What a solver decides: a table of situations, and what holds in all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from crowdtrain.actions import HELD, Action, Answer, Expire, Forfeit, Load, Settle, Timeout, Void, Withdraw
from crowdtrain.chain import INITIAL, GameId, Phase, Rules, Segment, SegmentKey, SegmentState, Source
from crowdtrain.game import CHALLENGER_PHASES, DEFENDER_PHASES
from crowdtrain.plan import Plan
from crowdtrain.runs import Appraisal
from crowdtrain_engine import merkle
from crowdtrain_node.decide import (
    Appraise,
    Claim,
    Commit,
    Execute,
    Policy,
    Prepare,
    Reveal,
    View,
    decide,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from views import BOOK, JOB, ME, NOW, OTHER, STAKE, TERMS, audit, chain_view, game, output, segment

OPEN, CLAIMED, COMMITTED, SETTLED = SegmentState
KEYS = [SegmentKey(JOB, index) for index in range(3)]
APPRAISED = {spec.program_root: Appraisal(0.5, 0, 0) for spec in BOOK.plan.segments}
PREPARED = {key: merkle.root(output(key.index - 1)) for key in KEYS}
WORKER = (Load, Appraise, Prepare, Execute)


def view(
    *segments: Segment, games: tuple[Any, ...] = (), chain: dict[str, Any] | None = None, **own: Any
) -> View:
    """A view in which everything is known and prepared, unless said otherwise."""
    plain = View(
        chain_view(*segments, games=games, **(chain or {})),
        books={JOB: BOOK},
        appraisals=APPRAISED,
        prepared=PREPARED,
    )
    return replace(plain, **own)


def jobs_with(**terms: int) -> dict[str, Any]:
    """The job with other terms."""
    (job,) = chain_view().jobs.values()
    return {"jobs": {JOB: replace(job, terms=replace(job.terms, **terms))}}  # type: ignore[arg-type]


FIRST = KEYS[0]
MINE = segment(0, CLAIMED)
DONE = segment(0, COMMITTED)
STORED: dict[str, Any] = {"stored": frozenset([FIRST]), "complete": frozenset([FIRST])}
SITUATIONS: list[tuple[str, View, tuple[Action, ...]]] = [
    ("a new job", view(books={}), (Load(JOB),)),
    ("a job that failed to load", view(books={}, resting=frozenset(["job 1"])), ()),
    ("an unknown program", view(appraisals={}), (Appraise(FIRST),)),
    ("inputs that are not here", view(prepared={}), (Prepare(FIRST),)),
    ("all is known", view(), (Claim(FIRST, STAKE),)),
    ("stake is there", view(chain={"free": STAKE}), (Claim(FIRST, 0),)),
    ("a part of the stake is there", view(chain={"free": 20}), (Claim(FIRST, STAKE - 20),)),
    ("no money for the stake", view(chain={"tokens": STAKE - 1}), ()),
    ("barred", view(chain={"barred": frozenset([JOB])}), ()),
    ("past the deadline", view(chain={"now": 5001}), ()),
    ("reserved for an heir", view(segment(0, heir=OTHER, heir_until=NOW + 1)), ()),
    ("the heir's time is over", view(segment(0, heir=OTHER, heir_until=NOW)), (Claim(FIRST, STAKE),)),
    ("being the heir", view(segment(0, heir=ME, heir_until=NOW + 9)), (Claim(FIRST, STAKE),)),
    ("too long for the lease", view(appraisals={p: Appraisal(4, 0, 0) for p in APPRAISED}), ()),
    ("too long for the clock of a dispute", view(chain=jobs_with(clock=9)), ()),
    ("just long enough for it", view(chain=jobs_with(clock=10)), (Claim(FIRST, STAKE),)),
    ("set aside", view(resting=frozenset(["segment 0 of job 1"])), ()),
    ("claimed", view(MINE), (Execute(FIRST),)),
    ("claimed, and working", view(MINE, working=True), ()),
    ("claimed by another", view(segment(0, CLAIMED, solver=OTHER)), ()),
    ("done", view(MINE, **STORED), (Commit(FIRST),)),
    ("done too late", view(MINE, chain={"now": NOW + 21}, **STORED), (Expire(FIRST),)),
    ("lease over", view(MINE, chain={"now": NOW + 21}), (Expire(FIRST),)),
    ("another's lease just over", view(segment(0, CLAIMED, solver=OTHER, until=NOW - 1)), ()),
    ("another's lease long over", view(segment(0, CLAIMED, solver=OTHER, until=NOW - 31)), (Expire(FIRST),)),
    ("committed", view(DONE, **STORED), (Claim(KEYS[1], STAKE),)),
    ("window over", view(DONE, chain={"now": NOW + 21}, working=True), (Settle(FIRST),)),
    (
        "window over, in dispute",
        view(replace(DONE, games=1), chain={"now": NOW + 21}, working=True, **STORED),
        (),
    ),
    (
        "window over, source not settled",
        view(DONE, segment(1, COMMITTED), chain={"now": NOW + 20}, working=True),
        (),
    ),
    (
        "window over, trace hidden",
        view(DONE, chain={"now": NOW + 21, "rounds": {FIRST: audit()}}, working=True, **STORED),
        (Settle(FIRST),),
    ),
    (
        "window over, in dispute, trace hidden",
        view(
            replace(DONE, games=1),
            chain={"now": NOW + 21, "rounds": {FIRST: audit()}},
            working=True,
            **STORED,
        ),
        (Reveal(FIRST),),
    ),
    (
        "window over, source not settled, trace hidden",
        view(
            replace(DONE, until=NOW + 99),
            segment(1, COMMITTED),
            chain={"now": NOW + 21, "rounds": {FIRST: audit(), KEYS[1]: audit()}},
            working=True,
            complete=frozenset(KEYS[:2]),
        ),
        (Reveal(KEYS[1]),),
    ),
    (
        "window over, source not settled, trace revealed",
        view(
            replace(DONE, until=NOW + 99),
            segment(1, COMMITTED),
            chain={"now": NOW + 21, "rounds": {KEYS[1]: audit(trace_root=bytes([1] * 32))}},
            working=True,
            complete=frozenset(KEYS[:2]),
        ),
        (),
    ),
    (
        "trace hidden and lost",
        view(DONE, chain={"rounds": {FIRST: audit()}}),
        (Execute(FIRST),),
    ),
    (
        "another's trace hidden for long",
        view(
            segment(0, COMMITTED, solver=OTHER, until=NOW - 131),
            chain={"rounds": {FIRST: audit()}},
            working=True,
        ),
        (Forfeit(FIRST),),
    ),
    (
        "another's trace hidden, but there is time",
        view(
            segment(0, COMMITTED, solver=OTHER, until=NOW - 130),
            chain={"rounds": {FIRST: audit()}},
            working=True,
        ),
        (),
    ),
    (
        "own trace hidden for long",
        view(segment(0, COMMITTED, until=NOW - 131), chain={"rounds": {FIRST: audit()}}, working=True),
        (),
    ),
    ("own lease lapsed", view(segment(0, lapsed=ME, lapsed_until=NOW)), ()),
    ("own lapse is over", view(segment(0, lapsed=ME, lapsed_until=NOW - 1)), (Claim(FIRST, STAKE),)),
    ("another's lease lapsed", view(segment(0, lapsed=OTHER, lapsed_until=NOW)), (Claim(FIRST, STAKE),)),
    (
        "a dispute that has not begun",
        view(replace(DONE, games=1), games=(game(since=NOW + 1),), working=True, **STORED),
        (),
    ),
    (
        "source overturned",
        view(segment(1, CLAIMED), prepared={}, working=True),
        (Void(KEYS[1]),),
    ),
    (
        "source done again with another result",
        view(replace(DONE, group_roots=output(7)), segment(1, COMMITTED), working=True),
        (Void(KEYS[1]),),
    ),
    (
        "the Market says that an input changed",
        view(DONE, segment(1, COMMITTED), changed=frozenset([KEYS[1]]), working=True),
        (Void(KEYS[1]),),
    ),
    (
        "a dispute",
        view(replace(DONE, games=1), games=(game(),), working=True, **STORED),
        (Answer(GameId(1)),),
    ),
    (
        "a dispute, its move being computed",
        view(replace(DONE, games=1), games=(game(),), working=True, answering=True, **STORED),
        (),
    ),
    (
        "two disputes, less time in the second",
        view(replace(DONE, games=2), games=(game(1), game(2, defender_left=9)), working=True, **STORED),
        (Answer(GameId(2)),),
    ),
    (
        "a dispute whose trace is lost",
        view(replace(DONE, games=1), games=(game(),)),
        (Execute(FIRST),),
    ),
    (
        "own clock over",
        view(replace(DONE, games=1), games=(game(since=NOW - 101),), working=True, **STORED),
        (),
    ),
    (
        "the challenger's clock over",
        view(
            replace(DONE, games=1),
            games=(game(phase=Phase.PICK_STEP, since=NOW - 101),),
            working=True,
            **STORED,
        ),
        (Timeout(GameId(1)),),
    ),
    (
        "another's dispute",
        view(segment(0, COMMITTED, solver=OTHER, games=1), games=(game(defender=OTHER),), working=True),
        (),
    ),
    ("owed", view(*(segment(i, SETTLED) for i in range(3)), chain={"owed": 7}), (Withdraw(),)),
    ("owed, and busy", view(DONE, chain={"owed": 7}, working=True), ()),
]


@pytest.mark.parametrize(("what", "seen", "expected"), SITUATIONS, ids=[what for what, _, _ in SITUATIONS])
def test_situation(what: str, seen: View, expected: tuple[Action, ...]) -> None:
    assert decide(seen, Policy()) == expected


def test_a_policy_limits_price_stake_and_clock() -> None:
    assert decide(view(), Policy(min_price=101)) == ()
    fees = {"rules": Rules(fee_rate=200, unbonding=0)}
    assert decide(view(chain=fees), Policy(min_price=99)) == ()
    assert decide(view(chain=fees), Policy(min_price=98)) == (Claim(FIRST, STAKE),)
    assert decide(view(chain=jobs_with(audit_share=20_100)), Policy()) == ()
    assert decide(view(chain=jobs_with(audit_share=20_000)), Policy()) == (Claim(FIRST, STAKE),)
    assert decide(view(), Policy(min_clock=TERMS.clock)) == (Claim(FIRST, STAKE),)
    assert decide(view(), Policy(min_clock=TERMS.clock + 1)) == ()
    # what was claimed before is done all the same
    assert decide(view(MINE), Policy(min_clock=TERMS.clock + 1)) == (Execute(FIRST),)
    assert decide(view(), Policy(max_stake=STAKE - 1)) == ()
    assert decide(view(DONE, chain={"locked": STAKE}), Policy(max_stake=2 * STAKE - 1)) == ()


def test_a_solver_goes_on_with_its_own_work() -> None:
    """It prefers what builds on its own work to what pays better."""
    first, second, third = BOOK.plan.segments
    start = tuple(Source(INITIAL, group) for group in range(2))
    book = replace(BOOK, plan=Plan((first, second, replace(third, price=101, inputs=start))))
    own, others = view(DONE, books={JOB: book}), view(replace(DONE, solver=OTHER), books={JOB: book})
    ready = {**PREPARED, KEYS[2]: PREPARED[KEYS[0]]}
    assert decide(replace(own, prepared=ready), Policy()) == (Claim(KEYS[1], STAKE),)
    assert decide(replace(others, prepared=ready), Policy()) == (Claim(KEYS[2], STAKE),)


def test_a_segment_is_left_to_those_who_made_its_inputs_for_a_while() -> None:
    (job,) = chain_view().jobs.values()
    committed = NOW - 1 + job.terms.window
    own, others = (segment(0, COMMITTED, solver=who, until=committed) for who in (ME, OTHER))
    assert decide(view(own), Policy()) == (Claim(KEYS[1], STAKE),)
    assert decide(view(others), Policy()) == ()
    assert decide(view(others), Policy(courtesy=1)) == (Claim(KEYS[1], STAKE),)
    assert decide(view(others, chain={"now": NOW + 1}), Policy()) == (Claim(KEYS[1], STAKE),)


def test_of_equal_pay_it_takes_the_largest_that_it_can_do_in_time() -> None:
    start = tuple(Source(INITIAL, group) for group in range(2))
    sizes = [replace(BOOK.plan.segments[0], inputs=start, steps=s, price=25 * s) for s in (4, 16, 8)]
    book = replace(BOOK, plan=Plan(tuple(sizes)))
    ready = dict.fromkeys(KEYS, PREPARED[FIRST])
    assert Policy().lease_part * chain_view().jobs[JOB].terms.lease == 30
    for seconds, best in ((1.0, KEYS[1]), (2.0, KEYS[2]), (4.0, KEYS[0])):
        own = view(
            books={JOB: book},
            prepared=ready,
            appraisals={sizes[0].program_root: Appraisal(seconds, 0, 0)},
            chain=jobs_with(escrow=10_000),
        )
        assert decide(own, Policy()) == (Claim(best, STAKE),)


# ------------------------------------------------------------------ what holds always

accounts = st.sampled_from([ME, OTHER])
thorough = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PHASES = [phase for phase in Phase if phase is not Phase.NONE]
moments = st.integers(NOW - 120, NOW + 120)


@st.composite
def segments(draw: st.DrawFn, index: int) -> Segment:
    state = draw(st.sampled_from(SegmentState))
    if state is OPEN:
        lapse = {"lapsed": draw(accounts), "lapsed_until": draw(moments)}
        return segment(index, heir=draw(accounts), heir_until=draw(moments), **lapse)
    return segment(
        index,
        state,
        solver=draw(accounts),
        until=draw(moments),
        games=draw(st.integers(0, 2)),
        input_root=merkle.root(output(draw(st.sampled_from([index - 1, 9])))),
    )


@st.composite
def views(draw: st.DrawFn) -> View:
    present = [draw(segments(index)) for index in range(3)]
    games = tuple(
        game(
            number,
            index,
            phase=draw(st.sampled_from(PHASES)),
            since=draw(moments),
            defender=draw(accounts),
        )
        for number, index in enumerate(draw(st.lists(st.integers(0, 2), max_size=3)), start=1)
    )
    names = [f"segment {i} of job 1" for i in range(3)] + ["job 1", "dispute 1", "dispute 2"]
    subset = st.sets(st.sampled_from(KEYS)).map(frozenset)
    return View(
        chain_view(
            *present,
            games=games,
            free=draw(st.integers(0, 100)),
            tokens=draw(st.integers(0, 100)),
            owed=draw(st.integers(0, 1)),
            rounds={s.key: audit() for s in present if s.state is COMMITTED and draw(st.booleans())},
            barred=draw(st.sampled_from([frozenset(), frozenset([JOB])])),
            now=draw(st.sampled_from([NOW, 5001])),
        ),
        books=draw(st.sampled_from([{}, {JOB: BOOK}])),
        appraisals=draw(st.sampled_from([{}, APPRAISED])),
        prepared=draw(st.sampled_from([{}, PREPARED])),
        complete=draw(subset),
        stored=draw(subset),
        changed=draw(subset),
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
    work = [action for action in actions if isinstance(action, WORKER)]
    assert len(work) <= (0 if seen.working else 1)
    assert sum(isinstance(action, Answer) for action in actions) <= (0 if seen.answering else 1)


@thorough
@given(views())
def test_what_the_contracts_would_refuse_is_not_tried(seen: View) -> None:
    chain = seen.chain
    for action in decide(seen, Policy()):
        match action:
            case Claim(key, deposit):
                claimed = chain.segments[key]
                assert claimed.state is OPEN
                assert JOB not in chain.barred
                assert chain.now <= chain.jobs[JOB].terms.deadline
                assert claimed.heir_until <= chain.now or claimed.heir == ME
                assert claimed.lapsed_until < chain.now or claimed.lapsed != ME
                assert chain.free + deposit >= STAKE
                assert deposit <= chain.tokens
                assert all(s.state >= COMMITTED for s in chain.sources(BOOK, key))
            case Commit(key):
                assert chain.segments[key].state is CLAIMED
                assert chain.segments[key].solver == ME
                assert chain.now <= chain.segments[key].until
            case Settle(key):
                assert chain.segments[key].state is COMMITTED
                assert chain.now > chain.segments[key].until
                assert chain.segments[key].games == 0
                assert all(s.state is SETTLED for s in chain.sources(BOOK, key))
                assert key in seen.complete or not chain.is_hidden(key)
            case Reveal(key):
                assert chain.segments[key].state is COMMITTED
                assert chain.now > chain.segments[key].until
                assert chain.is_hidden(key)
                assert key in seen.complete
            case Forfeit(key):
                assert chain.segments[key].solver != ME
                assert chain.is_hidden(key)
                assert chain.now > chain.segments[key].until + TERMS.clock
            case Expire(key):
                assert chain.segments[key].state is CLAIMED
                assert chain.now > chain.segments[key].until
            case Void(key):
                assert chain.segments[key].state in HELD
            case Answer(number):
                answered = chain.games[number]
                assert answered.defender == ME
                assert answered.phase in DEFENDER_PHASES
                assert 0 <= chain.now - answered.since <= answered.defender_left
            case Timeout(number):
                ended = chain.games[number]
                assert ended.phase in CHALLENGER_PHASES
                assert chain.now - ended.since > ended.challenger_left


@thorough
@given(views())
def test_one_claim_at_a_time(seen: View) -> None:
    holds = any(s.state is CLAIMED and s.solver == ME for s in seen.chain.segments.values())
    claims = [action for action in decide(seen, Policy()) if isinstance(action, Claim)]
    assert len(claims) <= (0 if holds else 1)


@thorough
@given(views())
def test_every_held_segment_has_a_way_out(seen: View) -> None:
    """Own stake never stays locked for lack of a decision."""
    actions = decide(seen, Policy())
    for held in seen.chain.segments.values():
        known = JOB in seen.books and f"segment {held.key.index} of job 1" not in seen.resting
        if held.solver == ME and held.state is CLAIMED and known and seen.chain.now > held.until:
            assert any(action in actions for action in (Expire(held.key), Void(held.key)))
