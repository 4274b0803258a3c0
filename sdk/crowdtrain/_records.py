"""Between the structures of the contracts and the records of :mod:`crowdtrain.chain`."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from crowdtrain import cid as cids
from crowdtrain._errors import BadAnswer, Corrupt
from crowdtrain.chain import (
    ChainEvent,
    Game,
    GameId,
    GroupProof,
    JobId,
    JobTerms,
    Outcome,
    PageOpening,
    Phase,
    ProgramLeaf,
    Reason,
    Record,
    Round,
    Segment,
    SegmentKey,
    SegmentSpec,
    SegmentState,
    Tree,
    ValueProof,
)

__all__ = [
    "cid_text",
    "game_of",
    "group_proof_fields",
    "leaf_fields",
    "member",
    "page_fields",
    "record_of",
    "round_of",
    "segment_of",
    "shown",
    "spec_fields",
    "terms_fields",
    "terms_of",
    "value_fields",
]

E = TypeVar("E", bound=enum.IntEnum)
Fields = Mapping[str, Any]
_SHOWN = {"TraceRevealed": "checkpoints", "StatesRevealed": "states", "ChildrenRevealed": "children"}


def member(kind: type[E], value: int) -> E:
    """A value of an enumeration, as a contract gave it."""
    try:
        return kind(value)
    except ValueError as error:
        raise BadAnswer(f"{value} is no {kind.__name__}") from error


def cid_text(raw: object) -> str:
    """A CID's text; empty for bytes that are none, which a contract takes as well."""
    try:
        return cids.from_bytes(cast(bytes, raw))
    except Corrupt:
        return ""


# ---------------------------------------------------------------- what contracts return


def terms_of(fields: Fields) -> JobTerms:
    """Terms of a job."""
    return JobTerms(
        plan_root=fields["planRoot"],
        initial_root=fields["initialRoot"],
        initial_groups=fields["initialGroups"],
        segments=fields["segments"],
        escrow=fields["escrow"],
        stake=fields["stake"],
        lease=fields["lease"],
        window=fields["window"],
        clock=fields["clock"],
        audit_rate=fields["auditRate"],
        audit_share=fields["auditShare"],
        deadline=fields["deadline"],
    )


def segment_of(key: SegmentKey, fields: Fields) -> Segment:
    """A segment without what only its events say."""
    return Segment(
        key=key,
        state=member(SegmentState, fields["state"]),
        solver=fields["solver"],
        until=fields["until"],
        attempt=fields["attempt"],
        games=fields["games"],
        heir=fields["heir"],
        heir_until=fields["heirUntil"],
        lapsed=fields["lapsed"],
        lapsed_until=fields["lapsedUntil"],
        price=fields["price"],
        leaf=fields["leaf"],
        input_root=fields["inputRoot"],
        output_root=fields["outputRoot"],
        seal=fields["seal"],
        absent=fields["absent"],
    )


def round_of(fields: Fields) -> Round:
    """The audit of a commitment."""
    return Round(
        outcome=member(Outcome, fields["outcome"]),
        seats=fields["seats"],
        attestations=fields["attestations"],
        rate=fields["rate"],
        solver=fields["solver"],
        committed_in=fields["committedIn"],
        draw_block=fields["drawBlock"],
        attest_until=fields["attestUntil"],
        penalty=fields["penalty"],
        seal=fields["seal"],
        seed=fields["seed"],
        trace_root=fields["traceRoot"],
    )


def record_of(fields: Fields) -> Record:
    """The record of an account."""
    return Record(**fields)


def game_of(game: GameId, fields: Fields) -> Game:
    """A game without what only its events say."""
    return Game(
        id=game,
        key=SegmentKey(JobId(fields["job"]), fields["segment"]),
        attempt=fields["attempt"],
        phase=member(Phase, fields["phase"]),
        tree=member(Tree, fields["tree"]),
        height=fields["height"],
        reason=member(Reason, fields["reason"]),
        challenger=fields["challenger"],
        defender=fields["defender"],
        since=fields["since"],
        challenger_left=fields["challengerLeft"],
        defender_left=fields["defenderLeft"],
        bond=fields["bond"],
        position=fields["position"],
        program_root=fields["programRoot"],
        data_root=fields["dataRoot"],
        steps=fields["steps"],
        interval=fields["interval"],
        first=fields["first"],
        length=fields["length"],
        list_count=fields["listCount"],
        index=fields["index"],
        count=fields["count"],
        value=fields["value"],
        before=fields["before"],
        after=fields["afterRoot"],
        list_root=fields["listRoot"],
        nests_root=fields["nestsRoot"],
        node=fields["node"],
        words=fields["words"],
        fold_length=fields["foldLength"],
        word=fields["word"],
        from_=fields["from"],
        to=fields["to"],
        accumulator=fields["accumulator"],
        claimed=fields["claimed"],
    )


def shown(game: Game, history: tuple[ChainEvent, ...]) -> Game:
    """The game with its events, and what was shown last of each kind in them."""
    lists: tuple[bytes, ...] = ()
    page = partials = b""
    for event in history:
        fields: Fields = event.fields
        if event.name in _SHOWN:
            lists = fields[_SHOWN[event.name]]
        elif event.name == "PageRevealed":
            page = fields["words"]
        elif event.name == "PartialsRevealed":
            partials = fields["partials"]
    words = tuple(int.from_bytes(partials[i : i + 4], "big") for i in range(0, len(partials), 4))
    return replace(game, shown=lists, page=page, partials=words, history=history)


# ---------------------------------------------------------------- what contracts take


def terms_fields(terms: JobTerms) -> tuple[object, ...]:
    """``JobTerms``."""
    return (
        terms.plan_root,
        terms.initial_root,
        terms.initial_groups,
        terms.segments,
        terms.escrow,
        terms.stake,
        terms.lease,
        terms.window,
        terms.clock,
        terms.audit_rate,
        terms.audit_share,
        terms.deadline,
    )


def spec_fields(spec: SegmentSpec) -> tuple[object, ...]:
    """``SegmentSpec``."""
    inputs, fallbacks = (
        [(source.segment, source.group) for source in sources] for sources in (spec.inputs, spec.fallbacks)
    )
    return (
        spec.program_root, spec.data_root, spec.steps, spec.interval, spec.price, inputs, fallbacks, spec.quorum,
    )  # fmt: skip


def group_proof_fields(proofs: Sequence[GroupProof]) -> list[tuple[object, ...]]:
    """``GroupProof[]``."""
    return [(proof.root, list(proof.proof)) for proof in proofs]


def leaf_fields(leaf: ProgramLeaf) -> tuple[object, ...]:
    """``ProgramLeaf``."""
    return (leaf.data, list(leaf.proof))


def value_fields(value: ValueProof) -> tuple[object, ...]:
    """``ValueProof``."""
    return (value.value, value.root, list(value.proof))


def page_fields(page: PageOpening) -> tuple[object, ...]:
    """``Page``."""
    return (page.operand, page.index, page.words, list(page.proof))
