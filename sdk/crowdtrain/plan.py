"""Plans: which segments a job is made of, and what each of them starts from (docs/PROTOCOL.md, "Plans").

A plan is a directed acyclic graph of segments in an order in which they can be done. Its root is on chain;
a claim proves one leaf of it. A training strategy is a function that returns a plan, such as :func:`chain`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from crowdtrain_engine import Program, State, merkle
from crowdtrain_engine.program import MAX_GROUPS
from crowdtrain_engine.state import Array
from crowdtrain_engine.trace import checkpoint_count
from eth_abi.abi import encode as abi_encode

from crowdtrain._errors import PlanError
from crowdtrain._records import spec_fields
from crowdtrain.chain import INITIAL, GroupProof, SegmentSpec, Source

__all__ = [
    "MAX_CHECKPOINTS", "MAX_GROUPS", "MAX_INTERVAL", "MAX_SEGMENTS", "Piece", "Plan", "assemble", "chain",
    "group_proofs", "interval_of", "leaf",
]  # fmt: skip

MAX_SEGMENTS = 2**16
"""most segments of a plan that a manifest can list; the contract allows more"""
MAX_INTERVAL = 256
MAX_CHECKPOINTS = 256
_SPEC = "(bytes32,bytes32,uint32,uint32,uint128,(uint32,uint32)[],(uint32,uint32)[],uint32)"


def encode(spec: SegmentSpec) -> bytes:
    """``abi.encode`` of a segment's specification."""
    return abi_encode([_SPEC], [spec_fields(spec)])


def leaf(spec: SegmentSpec) -> bytes:
    """The plan's leaf of a segment: 32 bytes."""
    return merkle.leaf(encode(spec))


def interval_of(steps: int) -> int:
    """Steps between two checkpoints of a segment of ``steps``, if nothing else is said: 16 checkpoints, or as many as
    the protocol asks for."""
    return min(MAX_INTERVAL, max(1, steps // 16, -(-steps // MAX_CHECKPOINTS)))


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a result: the tensors of the group at ``source`` are ``names`` of the model's group ``group``."""

    group: str
    names: tuple[str, ...]
    source: Source


def assemble(result: Iterable[Piece], outputs: Callable[[Source], Sequence[Array]]) -> State:
    """The state that ``result`` describes; ``outputs`` gives the tensors of a group, in order. Raises PlanError if they
    are not as many as are named."""
    groups: dict[str, dict[str, Array]] = {}
    for piece in result:
        found = outputs(piece.source)
        if len(found) != len(piece.names):
            raise PlanError(
                f"the result names {len(piece.names)} tensors of group {piece.source.group} of segment "
                f"{piece.source.segment}, which has {len(found)}"
            )
        groups.setdefault(piece.group, {}).update(zip(piece.names, found, strict=True))
    return State(groups)


@dataclass(frozen=True)
class Plan:
    """Segments, each after those it builds on. Raises PlanError if one of them breaks a rule of the
    protocol."""

    segments: tuple[SegmentSpec, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.segments) <= MAX_SEGMENTS:
            raise PlanError(f"a plan has 1 to {MAX_SEGMENTS} segments, not {len(self.segments)}")
        for index, spec in enumerate(self.segments):
            _check(spec, f"segment {index}")
            for source in spec.all_sources:
                self.check_source(source, index)

    def check_source(self, source: Source, index: int) -> None:
        """Raises PlanError unless ``source`` is a group of the initial state, or of a segment before ``index``."""
        if source.segment == INITIAL:
            return
        if not 0 <= source.segment < index:
            raise PlanError(
                f"segment {index} builds on segment {source.segment}, which does not come before it"
            )
        groups = len(self.segments[source.segment].inputs)
        if source.group >= groups:
            raise PlanError(
                f"segment {index} builds on group {source.group} of segment {source.segment}, "
                f"which has {groups}"
            )

    @cached_property
    def tree(self) -> merkle.Tree:
        """Merkle tree over the leaves of the segments."""
        return merkle.Tree([leaf(spec) for spec in self.segments])

    @property
    def root(self) -> bytes:
        """Root of the plan: 32 bytes."""
        return self.tree.root

    def proof(self, index: int) -> tuple[bytes, ...]:
        """Siblings that prove segment ``index`` under the root."""
        return tuple(self.tree.proof(index))

    @property
    def price(self) -> int:
        """Token units that all segments cost together."""
        return sum(spec.price for spec in self.segments)

    @cached_property
    def depth(self) -> int:
        """Most segments of which each builds on the one before."""
        depths: list[int] = []
        for spec in self.segments:
            before = (depths[source.segment] for source in spec.all_sources if source.segment != INITIAL)
            depths.append(1 + max(before, default=0))
        return max(depths)

    @property
    def initial_groups(self) -> frozenset[int]:
        """Groups of the initial state that some segment starts from."""
        return frozenset(
            source.group for spec in self.segments for source in spec.all_sources if source.segment == INITIAL
        )


def group_proofs(
    sources: Sequence[Source], roots_of: Callable[[int], Sequence[bytes]]
) -> tuple[GroupProof, ...]:
    """Roots of the groups at ``sources``, each proved in the state of its segment; ``roots_of`` gives all of a
    segment's group roots."""
    trees = {number: merkle.Tree(roots_of(number)) for number in {source.segment for source in sources}}
    return tuple(
        GroupProof(trees[s.segment].levels[0][s.group], tuple(trees[s.segment].proof(s.group)))
        for s in sources
    )


def _check(spec: SegmentSpec, where: str) -> None:
    if len(spec.program_root) != 32 or len(spec.data_root) != 32:
        raise PlanError(f"{where}: program and data roots have 32 bytes")
    if not 1 <= spec.steps < 2**32:
        raise PlanError(f"{where}: steps must be at least 1 and fit in 32 bits, not {spec.steps}")
    if not 1 <= spec.interval <= MAX_INTERVAL:
        raise PlanError(f"{where}: interval must be 1 to {MAX_INTERVAL}, not {spec.interval}")
    checkpoints = checkpoint_count(spec.steps, spec.interval)
    if checkpoints > MAX_CHECKPOINTS:
        raise PlanError(
            f"{where}: {spec.steps} steps at interval {spec.interval} make {checkpoints} checkpoints, "
            f"at most {MAX_CHECKPOINTS} are allowed; use a longer interval or more segments"
        )
    if not 0 <= spec.price < 2**128:
        raise PlanError(f"{where}: price must not be negative and fit in 128 bits, not {spec.price}")
    if not 1 <= len(spec.inputs) <= MAX_GROUPS:
        raise PlanError(f"{where}: a state has 1 to {MAX_GROUPS} groups, not {len(spec.inputs)}")
    for source in spec.all_sources:
        if not 0 <= source.group < MAX_GROUPS:
            raise PlanError(f"{where}: group {source.group} of its source cannot be")
    if len(spec.fallbacks) not in (0, len(spec.inputs)):
        raise PlanError(f"{where}: {len(spec.inputs)} inputs need as many fallbacks, or none")
    for source, fallback, optional in zip(spec.inputs, spec.fallbacks, spec.optional, strict=False):
        if optional and source.segment == INITIAL:
            raise PlanError(f"{where}: the initial state is always there and needs no fallback {fallback}")
    if not 0 <= spec.quorum <= sum(spec.optional):
        raise PlanError(f"{where}: quorum is {spec.quorum}, {sum(spec.optional)} inputs are optional")


def chain(
    program: Program, data_root: bytes, *, segments: int, steps: int, interval: int, price: int
) -> Plan:
    """One training run after another: each segment goes on from the whole output of the one before.

    ``steps`` is their number over all segments, which share it evenly, the first ones taking what is left
    over; ``price`` the token units for each segment. Raises PlanError for anything that makes no plan.
    """
    if not 1 <= segments <= min(steps, MAX_SEGMENTS):
        raise PlanError(
            f"{steps} steps can be cut into 1 to {min(steps, MAX_SEGMENTS)} segments, not {segments}"
        )
    groups = range(len(program.groups))
    cuts = [steps * i // segments for i in range(segments + 1)]
    lengths = sorted((stop - start for start, stop in pairwise(cuts)), reverse=True)
    return Plan(
        tuple(
            SegmentSpec(
                program_root=program.root,
                data_root=data_root,
                steps=length,
                interval=min(interval, length),
                price=price,
                inputs=_all_of(INITIAL if index == 0 else index - 1, groups),
            )
            for index, length in enumerate(lengths)
        )
    )


def _all_of(segment: int, groups: Sequence[int]) -> tuple[Source, ...]:
    return tuple(Source(segment, group) for group in groups)
