"""What the gateway answers with: JSON forms of the chain's records. Amounts are strings, for they exceed
2^53."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from crowdtrain.chain import NONE, ChainEvent, Game, Job, Record, Round, Segment, SegmentKey

__all__ = [
    "AccountModel", "AuditModel", "BlobModel", "ErrorModel", "EventModel", "GameModel", "HealthModel", "JobModel",
    "SegmentModel",
]  # fmt: skip

Hex = Annotated[
    str,
    BeforeValidator(lambda data: f"0x{data.hex()}"),
    Field(description="bytes in hexadecimal", examples=["0x00ff"]),
]
Amount = Annotated[
    str, BeforeValidator(str), Field(description="token units", examples=["1000000000000000000"])
]
Name = Annotated[str, BeforeValidator(lambda member: member.name.lower())]
Seconds = Annotated[int, Field(description="Unix time or seconds")]


class _Record(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ErrorModel(BaseModel):
    """Why a request was not carried out."""

    error: str = Field(description="kind of error", examples=["NotFound"])
    message: str = Field(description="what is wrong, and where")


class BlobModel(BaseModel):
    """A stored blob."""

    cid: str = Field(description="CID of the blob, version 1, base32")
    size: int = Field(description="its length in bytes")


class HealthModel(BaseModel):
    """Whether the gateway can serve."""

    status: str = Field(examples=["ok"])
    block: int | None = Field(description="latest block of the chain; null if no chain is served")
    free_bytes: int = Field(description="bytes that are left for blobs")


class TermsModel(_Record):
    """What the buyer fixed when posting."""

    plan_root: Hex
    initial_root: Hex
    initial_groups: int
    segments: int
    escrow: Amount
    stake: Amount
    lease: Seconds
    window: Seconds
    clock: Seconds
    audit_rate: int = Field(description="least expected number of auditors of a segment, in 1/10,000")
    audit_share: int = Field(description="what auditors of a segment share, in 1/10,000 of its price")
    deadline: Seconds


class JobModel(_Record):
    """A job as it stands."""

    id: int
    buyer: str
    terms: TermsModel
    reserved: Amount
    spent: Amount
    settled: int = Field(description="number of settled segments")
    manifest: str = Field(description="CID of the job's manifest; empty if it names none")

    @classmethod
    def of(cls, job: Job) -> JobModel:
        """The form of a record."""
        return cls.model_validate(job)


class SegmentModel(_Record):
    """A segment as it stands."""

    job: int
    index: int
    state: Name = Field(description="open, claimed, committed or settled")
    solver: str
    until: Seconds
    attempt: int
    games: int = Field(description="disputes of this attempt that are open")
    price: Amount
    input_root: Hex
    output_root: Hex
    group_roots: tuple[Hex, ...]
    cid: str = Field(description="CID of the output state; empty if there is none")

    @classmethod
    def of(cls, segment: Segment) -> SegmentModel:
        """The form of a record."""
        fields = {name: getattr(segment, name) for name in cls.model_fields if name not in ("job", "index")}
        return cls(job=segment.key.job, index=segment.key.index, **fields)


class AuditModel(_Record):
    """The audit of a commitment."""

    job: int
    segment: int
    attempt: int
    outcome: Name = Field(description="none, open, settled, overturned, forfeited or voided")
    rate: int = Field(description="expected number of auditors, in 1/10,000")
    seats: int
    attestors: list[str] = Field(description="accounts that attested, under seal")
    solver: str
    attest_until: Seconds
    penalty: Amount = Field(description="what silence costs a drawn auditor, token units")
    drawn: bool = Field(description="whether the seed of the draw is fixed")
    trace_root: Hex = Field(description="zero until it is revealed")

    @classmethod
    def of(cls, key: SegmentKey, attempt: int, audit: Round, attestors: Sequence[str]) -> AuditModel:
        """The form of a record."""
        derived = ("job", "segment", "attempt", "attestors", "drawn")
        fields = {name: getattr(audit, name) for name in cls.model_fields if name not in derived}
        return cls(
            job=key.job,
            segment=key.index,
            attempt=attempt,
            attestors=list(attestors),
            drawn=audit.seed != NONE,
            **fields,
        )


class AccountModel(_Record):
    """What an account's work came to, and its stake in audits."""

    address: str
    settled: int
    overturned: int
    forfeited: int
    expired: int
    unbroken: Amount = Field(description="value settled since the last overturned or forfeited, token units")
    attested: int
    silent: int
    misattested: int
    enrolled: Amount = Field(description="stake with which it takes part in draws, token units")

    @classmethod
    def of(cls, address: str, record: Record, enrolled: int) -> AccountModel:
        """The form of a record."""
        fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        return cls.model_validate({"address": address, "enrolled": enrolled, **fields})


class EventModel(BaseModel):
    """An event of a contract; fields have their Solidity names, bytes are in hexadecimal, numbers decimal
    strings."""

    block: int
    transaction: str
    name: str
    fields: dict[str, Any]

    @classmethod
    def of(cls, event: ChainEvent) -> EventModel:
        """The form of a record."""
        fields = {name: _plain(value) for name, value in event.fields.items()}
        return cls(block=event.block, transaction=event.transaction, name=event.name, fields=fields)


class GameModel(_Record):
    """A dispute as it stands, with its events."""

    id: int
    job: int
    segment: int
    attempt: int
    phase: Name = Field(description="the move that is awaited, or over")
    reason: Name = Field(description="how it ended, or none")
    challenger: str
    defender: str
    bond: Amount
    since: Seconds
    challenger_left: Seconds
    defender_left: Seconds
    position: Hex
    history: list[EventModel]

    @classmethod
    def of(cls, game: Game) -> GameModel:
        """The form of a record."""
        derived = ("job", "segment", "history")
        fields = {name: getattr(game, name) for name in cls.model_fields if name not in derived}
        history = [EventModel.of(event) for event in game.history]
        return cls(job=game.key.job, segment=game.key.index, history=history, **fields)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)
