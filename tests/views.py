"""Views of a chain, made up: one job of three segments, each built on the one before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from crowdtrain.chain import (
    INITIAL,
    NONE,
    Address,
    Game,
    GameId,
    Job,
    JobId,
    JobTerms,
    Outcome,
    Phase,
    Reason,
    Round,
    Segment,
    SegmentKey,
    SegmentSpec,
    SegmentState,
    Source,
    Tree,
)
from crowdtrain.plan import Plan
from crowdtrain.watch import Book, ChainView
from crowdtrain_engine import merkle

__all__ = [
    "BLOCK",
    "BOOK",
    "JOB",
    "ME",
    "NOBODY",
    "OTHER",
    "SEGMENTS",
    "STAKE",
    "TERMS",
    "audit",
    "chain_view",
    "game",
    "segment",
]

ME, OTHER, NOBODY = (Address("0x" + digit * 40) for digit in "120")
JOB, STAKE, SEGMENTS, NOW, BLOCK = JobId(1), 50, 3, 1000, 500


def _root(text: str) -> bytes:
    return merkle.leaf(text.encode())


def output(index: int) -> tuple[bytes, ...]:
    """Group roots of the output of a segment; those of segment -1 are the initial state's."""
    return _root(f"{index}.0"), _root(f"{index}.1")


BOOK = Book(
    Plan(
        tuple(
            SegmentSpec(
                _root("program"),
                _root("data"),
                steps=10,
                interval=5,
                price=100,
                inputs=tuple(Source(INITIAL if index == 0 else index - 1, group) for group in range(2)),
            )
            for index in range(SEGMENTS)
        )
    ),
    output(-1),
)
TERMS = JobTerms(
    plan_root=BOOK.plan.root,
    initial_root=merkle.root(BOOK.initial),
    initial_groups=2,
    segments=SEGMENTS,
    escrow=300,
    stake=STAKE,
    lease=60,
    window=40,
    clock=100,
    audit_rate=0,
    audit_share=0,
    deadline=5000,
)


def segment(index: int, state: SegmentState = SegmentState.OPEN, **changes: Any) -> Segment:
    """A segment of the job, held by ME unless it is open, with the inputs and outputs of honest work."""
    is_open, done = state is SegmentState.OPEN, state >= SegmentState.COMMITTED
    plain = Segment(
        key=SegmentKey(JOB, index),
        state=state,
        solver=NOBODY if is_open else ME,
        until=0 if is_open else NOW + 20,
        attempt=0,
        games=0,
        heir=NOBODY,
        heir_until=0,
        lapsed=NOBODY,
        lapsed_until=0,
        price=100,
        leaf=bytes(32),
        input_root=bytes(32) if is_open else merkle.root(output(index - 1)),
        output_root=merkle.root(output(index)) if done else bytes(32),
        seal=_root(f"seal {index}") if done else bytes(32),
        group_roots=output(index) if done else (),
        cid="cid" if done else "",
    )
    return replace(plain, **changes)


def audit(**changes: Any) -> Round:
    """The audit of a commitment of the last block but two, for which nobody has drawn yet."""
    plain = Round(
        outcome=Outcome.OPEN,
        seats=4,
        attestations=0,
        rate=10_000,
        solver=OTHER,
        committed_in=BLOCK - 2,
        draw_block=BLOCK - 1,
        attest_until=NOW + 10,
        penalty=8,
        seal=_root("seal 0"),
        seed=NONE,
        trace_root=NONE,
    )
    return replace(plain, **changes)


def game(number: int = 1, index: int = 0, **changes: Any) -> Game:
    """A dispute in which the defender is to show the trace."""
    zero = bytes(32)
    plain = Game(
        GameId(number), SegmentKey(JOB, index), 0, Phase.REVEAL_TRACE, Tree.NESTS, 0, Reason.NONE,
        challenger=OTHER, defender=ME, since=NOW, challenger_left=100, defender_left=100, bond=STAKE,
        position=zero, program_root=zero, data_root=zero, steps=10, interval=5, first=0, length=10,
        list_count=0, index=0, count=0, value=0, before=zero, after=zero, list_root=zero, nests_root=zero,
        node=zero, words=0, fold_length=0, word=0, from_=0, to=0, accumulator=0, claimed=0,
    )  # fmt: skip
    return replace(plain, **changes)


def chain_view(*segments: Segment, games: tuple[Game, ...] = (), **changes: Any) -> ChainView:
    """The job with these segments, the others open, as ME sees it with 1,000 tokens."""
    present = {SegmentKey(JOB, index): segment(index) for index in range(SEGMENTS)}
    present |= {given.key: given for given in segments}
    reserved = sum(
        s.price for s in present.values() if s.state in (SegmentState.CLAIMED, SegmentState.COMMITTED)
    )
    settled = sum(s.state is SegmentState.SETTLED for s in present.values())
    job = Job(JOB, OTHER, TERMS, reserved, 100 * settled, settled, "manifest")
    plain = ChainView(
        now=NOW,
        block=BLOCK,
        address=ME,
        free=0,
        locked=0,
        tokens=1000,
        owed=0,
        jobs={JOB: job},
        segments=present,
        games={given.id: given for given in games},
    )
    return replace(plain, **changes)
