"""The manifest of a job: a JSON file that says where its programs, data, initial state and plan are to be
found.

It comes from a stranger. Whatever it says is checked against roots on chain before it is used (:mod:`.jobs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from crowdtrain_engine.program import MAX_TENSORS
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from crowdtrain import cid as cids
from crowdtrain._errors import Corrupt, PlanError
from crowdtrain.chain import INITIAL, SegmentSpec, Source
from crowdtrain.plan import MAX_GROUPS, MAX_SEGMENTS, Piece, Plan

__all__ = ["MAX_MANIFEST", "Manifest"]

MAX_MANIFEST = 2**24
"""most bytes of a manifest"""


def _cid(text: str) -> str:
    try:
        cids.to_bytes(text)
    except Corrupt as error:
        raise ValueError(str(error)) from None
    return text


Hex32 = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$", max_length=66)]
CidText = Annotated[str, Field(max_length=59), AfterValidator(_cid)]
Amount = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,38})$", max_length=39)]
"""Token units, as a decimal string: JSON's numbers end at 2^53."""
Uint32 = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(max_length=512)]
SourceEntry = tuple[Uint32 | None, Uint32]
"""Segment and group; a null segment is the initial state."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class FileEntry(_Strict):
    """A program or dataset: its root, and where its file is."""

    root: Hex32
    cid: CidText

    @property
    def root_bytes(self) -> bytes:
        """The root's 32 bytes."""
        return bytes.fromhex(self.root[2:])


class InitialEntry(_Strict):
    """The initial state: root of every group, and where the file is."""

    groups: Annotated[tuple[Hex32, ...], Field(min_length=1, max_length=MAX_GROUPS)]
    cid: CidText

    @property
    def group_roots(self) -> tuple[bytes, ...]:
        """The roots, 32 bytes each."""
        return tuple(bytes.fromhex(root[2:]) for root in self.groups)


class SegmentEntry(_Strict):
    """A leaf of the plan; ``program`` and ``dataset`` number the manifest's lists, a null source is the initial
    state."""

    program: Uint32
    dataset: Uint32
    steps: Uint32
    interval: Uint32
    price: Amount
    inputs: Annotated[tuple[SourceEntry, ...], Field(min_length=1, max_length=MAX_GROUPS)]
    fallbacks: Annotated[tuple[SourceEntry, ...], Field(max_length=MAX_GROUPS)] = ()
    quorum: Uint32 = 0


class PieceEntry(_Strict):
    """Part of the result: which tensors the group at ``source`` is, in the model."""

    group: Name
    names: Annotated[tuple[Name, ...], Field(max_length=MAX_TENSORS)]
    source: SourceEntry


class Manifest(_Strict):
    """What a job's files are, and its plan."""

    version: Literal[1] = 1
    programs: Annotated[tuple[FileEntry, ...], Field(min_length=1, max_length=MAX_SEGMENTS)]
    datasets: Annotated[tuple[FileEntry, ...], Field(min_length=1, max_length=MAX_SEGMENTS)]
    initial: InitialEntry
    segments: Annotated[tuple[SegmentEntry, ...], Field(min_length=1, max_length=MAX_SEGMENTS)]
    result: Annotated[tuple[PieceEntry, ...], Field(max_length=MAX_SEGMENTS)] = ()
    """what the trained model is made of; by default it is the last segment's output"""

    @property
    def program_cids(self) -> dict[bytes, str]:
        """Where each program's file is, by root."""
        return {entry.root_bytes: entry.cid for entry in self.programs}

    @property
    def dataset_cids(self) -> dict[bytes, str]:
        """Where each dataset's file is, by root."""
        return {entry.root_bytes: entry.cid for entry in self.datasets}

    def encode(self) -> bytes:
        """The file's bytes."""
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """The manifest in ``data``. Raises PlanError, naming the field and the rule, for anything else."""
        if len(data) > MAX_MANIFEST:
            raise PlanError(f"a manifest has at most {MAX_MANIFEST} bytes, not {len(data)}")
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "file"
            raise PlanError(f"manifest: {where}: {first['msg']}") from None

    def plan(self) -> Plan:
        """The plan. Raises PlanError if it breaks a rule, or names a program or dataset that is not
        listed."""
        return Plan(tuple(self._spec(index, entry) for index, entry in enumerate(self.segments)))

    def pieces(self) -> tuple[Piece, ...]:
        """What the result is made of."""
        return tuple(Piece(entry.group, entry.names, *_sources([entry.source])) for entry in self.result)

    def _spec(self, index: int, entry: SegmentEntry) -> SegmentSpec:
        for what, number, files in (
            ("program", entry.program, self.programs),
            ("dataset", entry.dataset, self.datasets),
        ):
            if number >= len(files):
                raise PlanError(f"segment {index} uses {what} {number}, the manifest lists {len(files)}")
        if any(segment == INITIAL for segment, _ in (*entry.inputs, *entry.fallbacks)):
            raise PlanError(f"segment {index}: the initial state is written as null, not as {INITIAL}")
        return SegmentSpec(
            program_root=self.programs[entry.program].root_bytes,
            data_root=self.datasets[entry.dataset].root_bytes,
            steps=entry.steps,
            interval=entry.interval,
            price=int(entry.price),
            inputs=_sources(entry.inputs),
            fallbacks=_sources(entry.fallbacks),
            quorum=entry.quorum,
        )

    @classmethod
    def of(
        cls,
        plan: Plan,
        *,
        programs: dict[bytes, str],
        datasets: dict[bytes, str],
        initial: tuple[tuple[bytes, ...], str],
        result: Sequence[Piece] = (),
    ) -> Manifest:
        """The manifest of ``plan``: CIDs of its programs and datasets by root, group roots and CID of the
        initial state. Raises PlanError if a program or dataset of the plan is missing."""
        for spec in plan.segments:
            if spec.program_root not in programs or spec.data_root not in datasets:
                raise PlanError("a program or dataset of the plan was not given")
        numbers = [{root: number for number, root in enumerate(files)} for files in (programs, datasets)]
        return cls(
            programs=_entries(programs),
            datasets=_entries(datasets),
            initial=InitialEntry(groups=tuple(f"0x{root.hex()}" for root in initial[0]), cid=initial[1]),
            segments=tuple(
                SegmentEntry(
                    program=numbers[0][spec.program_root],
                    dataset=numbers[1][spec.data_root],
                    steps=spec.steps,
                    interval=spec.interval,
                    price=str(spec.price),
                    inputs=_listed(spec.inputs),
                    fallbacks=_listed(spec.fallbacks),
                    quorum=spec.quorum,
                )
                for spec in plan.segments
            ),
            result=tuple(
                PieceEntry(group=piece.group, names=piece.names, source=_listed([piece.source])[0])
                for piece in result
            ),
        )


def _sources(entries: Sequence[SourceEntry]) -> tuple[Source, ...]:
    return tuple(Source(INITIAL if segment is None else segment, group) for segment, group in entries)


def _listed(sources: Sequence[Source]) -> tuple[SourceEntry, ...]:
    return tuple((None if s.segment == INITIAL else s.segment, s.group) for s in sources)


def _entries(files: dict[bytes, str]) -> tuple[FileEntry, ...]:
    return tuple(FileEntry(root=f"0x{root.hex()}", cid=cid) for root, cid in files.items())
