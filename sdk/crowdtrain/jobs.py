"""The files of a job, verified against what is on chain: what solver, verifier and buyer all start from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from itertools import chain

from crowdtrain_engine import Dataset, Program, ProgramError, State, TensorType, merkle
from crowdtrain_engine.state import Array

from crowdtrain import tensors
from crowdtrain._errors import Corrupt, PlanError
from crowdtrain.chain import INITIAL, Chain, GroupProof, Job, JobId, Segment, SegmentSpec, Source
from crowdtrain.manifest import MAX_MANIFEST, Manifest
from crowdtrain.plan import Piece, Plan, assemble, group_proofs
from crowdtrain.stores._blobs import Store

__all__ = ["MAX_BYTES", "MAX_PROGRAM", "JobFiles", "load_files", "load_job", "publish_job"]

MAX_PROGRAM = 2**24
"""most bytes of a program's file"""
MAX_BYTES = 2**33
"""most bytes of a dataset or state that are loaded if nothing else is said"""
SegmentOf = Callable[[int], Segment]
"""Gives a segment of the job, by number, as it stands on chain."""


class JobFiles:
    """A job's manifest and plan, checked against its terms; programs, data and states are fetched when
    asked for.

    Everything that is returned has the root that the chain or the plan names. Methods raise NotFound or
    StoreUnavailable as the store does, Corrupt if a file is not what its root says, and ProgramError if a
    program is not valid, in which case nobody can rightly commit a result for it.
    """

    def __init__(self, store: Store, job: Job, manifest: Manifest, *, max_bytes: int = MAX_BYTES) -> None:
        """Raises PlanError, saying what differs, unless manifest and terms agree.

        A dataset or state of more than ``max_bytes`` is not loaded either, but raises PlanError.
        """
        self.store = store
        self._max_bytes = max_bytes
        self.job = job
        self.manifest = manifest
        self.plan: Plan = manifest.plan()
        self.pieces = manifest.pieces()
        for piece in self.pieces:
            self.plan.check_source(piece.source, len(self.plan.segments))
        self._leaves: dict[bytes, tuple[bytes, ...]] = {}
        self._programs: dict[bytes, Program] = {}
        self._data: tuple[bytes, bytes, Dataset] | None = None
        self._check()

    def _check(self) -> None:
        terms, roots = self.job.terms, self.manifest.initial.group_roots
        facts = (
            ("segments", len(self.plan.segments), terms.segments),
            ("plan root", self.plan.root.hex(), terms.plan_root.hex()),
            ("groups of the initial state", len(roots), terms.initial_groups),
            ("initial root", merkle.root(roots).hex(), terms.initial_root.hex()),
        )
        for what, listed, posted in facts:
            if listed != posted:
                raise PlanError(f"job {self.job.id}: the manifest's {what}: {listed}, on chain: {posted}")
        if self.plan.initial_groups != frozenset(range(len(roots))):
            raise PlanError(
                f"job {self.job.id}: the plan must use the initial state's {len(roots)} groups, all of them"
            )

    def spec(self, index: int) -> SegmentSpec:
        """Specification of segment ``index``."""
        return self.plan.segments[index]

    # ---------------------------------------------------------------- programs

    def leaves(self, index: int) -> tuple[bytes, ...]:
        """Header, labels and nests of the program of segment ``index``, as bytes, valid or not."""
        root = self.spec(index).program_root
        if root not in self._leaves:
            cid = self.manifest.program_cids[root]
            leaves = _split(self.store.get(cid, MAX_PROGRAM), f"program {cid}")
            actual = merkle.root([merkle.leaf(data) for data in leaves])
            if actual != root:
                raise Corrupt(f"program {cid} has root 0x{actual.hex()}, planned is 0x{root.hex()}")
            self._leaves[root] = leaves
        return self._leaves[root]

    def program(self, index: int) -> Program:
        """The program of segment ``index``. Raises ProgramError if it is not valid or its groups are not the
        plan's."""
        root = self.spec(index).program_root
        if root not in self._programs:
            program = Program.decode(_join(self.leaves(index)))
            if program.is_open:
                raise ProgramError("header", "the number of rows of its data is still open; bind it first")
            self._programs[root] = program
        program = self._programs[root]
        if len(program.groups) != len(self.spec(index).inputs):
            raise ProgramError(
                "header", f"{len(program.groups)} groups, the plan gives {len(self.spec(index).inputs)}"
            )
        return program

    # ---------------------------------------------------------------- data and states

    def dataset(self, index: int) -> Dataset:
        """The dataset of segment ``index``; the one asked for last is kept."""
        spec = self.spec(index)
        if self._data is None or self._data[:2] != (spec.data_root, spec.program_root):
            program, cid = self.program(index), self.manifest.dataset_cids[spec.data_root]
            self._afford(program.data, f"dataset of segment {index}")
            data = tensors.load_dataset(self.store, cid, program, spec.data_root)
            self._data = (spec.data_root, spec.program_root, data)
        return self._data[2]

    def input_proofs(self, index: int, segment: SegmentOf) -> tuple[GroupProof, ...]:
        """Roots of the input groups of segment ``index``, proved as a claim needs them.

        Raises PlanError if a source is not committed.
        """
        return group_proofs(self._sources(index, segment), lambda number: self._roots_of(number, segment))

    def input_root(self, index: int, segment: SegmentOf) -> bytes:
        """Root of the input state of segment ``index``. Raises PlanError if a source is not committed."""
        return merkle.root([proof.root for proof in self.input_proofs(index, segment)])

    def load_input(self, index: int, segment: SegmentOf) -> State:
        """The input state of segment ``index``, from the initial state and the outputs of earlier segments.

        Raises PlanError if a source is not committed.
        """
        program, sources = self.program(index), self._sources(index, segment)
        loaded = self._load(sources, segment)
        state: list[Array] = []
        kinds = tensors.group_types(program)
        for number, (source, types) in enumerate(zip(sources, kinds, strict=True)):
            group = loaded[source]
            if [(tensor.dtype, tensor.shape) for tensor in group] != [
                (t.dtype.numpy, t.shape) for t in types
            ]:
                raise PlanError(f"segment {index}: group {number} is not of the types that its source gives")
            state += group
        return State.from_tensors(program, state)

    def load_output(self, index: int, segment: Segment) -> State:
        """The output state that is committed for segment ``index``."""
        program = self.program(index)
        self._afford(program.state, f"output of segment {index}")
        return tensors.load_state(self.store, segment.cid, program, segment.group_roots)

    def result_sources(self) -> tuple[int, ...]:
        """Segments whose outputs make the result."""
        if not self.pieces:
            return (len(self.plan.segments) - 1,)
        return tuple(sorted({piece.source.segment for piece in self.pieces} - {INITIAL}))

    def load_result(self, segment: SegmentOf) -> State:
        """The trained model's state. Raises PlanError if what it is made of is not committed."""
        if not self.pieces:
            index = len(self.plan.segments) - 1
            return self.load_output(index, segment(index))
        loaded = self._load([piece.source for piece in self.pieces], segment)
        return assemble(self.pieces, loaded.__getitem__)

    def _sources(self, index: int, segment: SegmentOf) -> tuple[Source, ...]:
        chosen = self.spec(index).chosen(index, segment)
        if chosen is None:
            raise PlanError(f"job {self.job.id}: too few of the inputs of segment {index} are committed")
        return chosen

    def _roots_of(self, number: int, segment: SegmentOf) -> tuple[bytes, ...]:
        if number == INITIAL:
            return self.manifest.initial.group_roots
        roots = segment(number).group_roots
        if len(roots) != len(self.spec(number).inputs):
            raise PlanError(f"job {self.job.id}: segment {number} is not committed")
        return roots

    def _load(self, sources: Collection[Source], segment: SegmentOf) -> dict[Source, tensors.Group]:
        found = {}
        for number in {source.segment for source in sources}:
            groups = {source.group for source in sources if source.segment == number}
            for group, loaded in self._load_groups(number, groups, segment).items():
                found[Source(number, group)] = loaded
        return found

    def _load_groups(self, number: int, groups: set[int], segment: SegmentOf) -> dict[int, tensors.Group]:
        roots = self._roots_of(number, segment)
        if number == INITIAL:
            types, cid, where = self._initial_types, self.manifest.initial.cid, "initial state"
        else:
            types, cid = tensors.group_types(self.program(number)), segment(number).cid
            where = f"output of segment {number}"
        self._afford([kind for group in types for kind in group], where)
        return tensors.load_groups(self.store, cid, types, roots, groups)

    def _afford(self, types: Sequence[TensorType], where: str) -> None:
        needed = 4 * sum(kind.size for kind in types)
        if needed > self._max_bytes:
            raise PlanError(
                f"job {self.job.id}: {where} has {needed} bytes, at most {self._max_bytes} are accepted here"
            )

    @cached_property
    def _initial_types(self) -> list[tuple[TensorType, ...]]:
        """Types of the initial groups: those of the first programs that start from them."""
        found: dict[int, tuple[TensorType, ...]] = {}
        for index, spec in enumerate(self.plan.segments):
            for number, source in chain(enumerate(spec.inputs), enumerate(spec.fallbacks)):
                if source.segment == INITIAL and source.group not in found:
                    found[source.group] = tensors.group_types(self.program(index))[number]
        return [found[group] for group in sorted(found)]


def load_job(chain: Chain, store: Store, job: JobId, *, max_bytes: int = MAX_BYTES) -> JobFiles:
    """The verified files of a job; see :class:`JobFiles`.

    Raises PlanError if the manifest is malformed or contradicts the chain, and what chain and store raise.
    """
    return load_files(store, chain.job(job), max_bytes=max_bytes)


def load_files(store: Store, job: Job, *, max_bytes: int = MAX_BYTES) -> JobFiles:
    """The same of a job that may not be posted yet."""
    if not job.manifest:
        raise PlanError(f"job {job.id} names no manifest")
    manifest = Manifest.decode(store.get(job.manifest, MAX_MANIFEST))
    return JobFiles(store, job, manifest, max_bytes=max_bytes)


def publish_job(
    store: Store,
    plan: Plan,
    programs: Iterable[Program],
    datasets: Iterable[Dataset],
    initial: State,
    result: Sequence[Piece] = (),
) -> str:
    """Stores everything that solvers of ``plan`` need, and returns the manifest's CID.

    Raises PlanError if the plan needs a program or dataset that is not among them, StoreUnavailable as the
    store does.
    """
    manifest = Manifest.of(
        plan,
        programs={program.root: store.put(program.encode()) for program in programs},
        datasets={data.root: tensors.save_dataset(store, data) for data in datasets},
        initial=(initial.group_roots, tensors.save_state(store, initial)),
        result=result,
    )
    return store.put(manifest.encode())


def _join(leaves: Sequence[bytes]) -> bytes:
    return b"".join(len(leaf).to_bytes(4, "big") + leaf for leaf in leaves)


def _split(data: bytes, where: str) -> tuple[bytes, ...]:
    """The leaves in a program's file; Corrupt unless they fill it."""
    leaves, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        leaves.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    if at != len(data) or len(leaves) < 3:
        raise Corrupt(
            f"{where} is not a program's file: it needs a header, labels and nests, to the last byte"
        )
    return tuple(leaves)
