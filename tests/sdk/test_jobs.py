"""A job's files: verified against the chain, whatever a buyer, solver or store says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
from crowdtrain import tensors
from crowdtrain._errors import Corrupt, NotFound, PlanError, StoreUnavailable
from crowdtrain.chain import Chain, Job, JobId, Segment
from crowdtrain.jobs import MAX_PROGRAM, JobFiles, load_job, publish_job
from crowdtrain.manifest import MAX_MANIFEST, Manifest
from crowdtrain.plan import Plan, chain
from crowdtrain_engine import Instruction, Program, ProgramError, merkle
from small_jobs import INTERVAL, STEPS, Sample, open_segment, sample
from small_programs import perceptron_data, perceptron_state


class OneJob:
    """The only part of a chain that loading needs."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def job(self, job: JobId) -> Job:
        return self._job


def load(job: Job, given: Sample, **options: int) -> JobFiles:
    return load_job(cast(Chain, OneJob(job)), given.store, job.id, **options)


def repost(given: Sample, plan: Plan, programs: list[Program]) -> Sample:
    manifest = publish_job(given.store, plan, programs, [given.data], given.state)
    return replace(given, plan=plan, program=programs[0], manifest=manifest)


def nothing_committed(index: int) -> Segment:
    return open_segment(index)


def test_everything_comes_back_verified() -> None:
    given = sample()
    files = load(given.job, given)
    assert files.plan == given.plan
    for index in range(2):
        assert files.program(index).root == given.program.root
        assert files.dataset(index).root == given.data.root
        assert files.leaves(index) == given.program.leaves
    assert files.load_input(0, nothing_committed).root == given.state.root
    assert files.input_root(0, nothing_committed) == given.state.root


def test_a_successor_starts_from_what_was_committed() -> None:
    given = sample()
    files = load(given.job, given)
    middle = given.after(given.plan.segments[0].steps)
    segments: Callable[[int], Segment] = [given.committed(0, middle)].__getitem__
    assert files.load_input(1, segments).root == middle.root
    assert files.input_root(1, segments) == middle.root
    assert files.load_output(0, segments(0)).root == middle.root
    for source, proof in zip(given.plan.segments[1].inputs, files.input_proofs(1, segments), strict=True):
        assert merkle.verify(middle.root, proof.root, source.group, proof.proof)


def test_a_successor_of_nothing_has_no_input() -> None:
    given = sample()
    files = load(given.job, given)
    for call in (files.input_proofs, files.input_root, files.load_input):
        with pytest.raises(PlanError, match="segment 0 is not committed"):
            call(1, nothing_committed)


def test_an_output_that_is_not_what_was_committed_is_refused() -> None:
    given = sample()
    files = load(given.job, given)
    lie = replace(given.committed(0, given.after(1)), cid=tensors.save_state(given.store, given.state))
    with pytest.raises(Corrupt, match="committed is"):
        files.load_output(0, lie)
    with pytest.raises(Corrupt, match="committed is"):
        files.load_input(1, [lie].__getitem__)
    with pytest.raises(Corrupt, match="is not a CID"):
        files.load_output(0, replace(lie, cid=""))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan_root": bytes(32)}, "plan root"),
        ({"initial_root": bytes(32)}, "initial root"),
        ({"initial_groups": 4}, "groups of the initial state: 3, on chain: 4"),
        ({"segments": 3}, "segments: 2, on chain: 3"),
    ],
)
def test_terms_that_differ_are_named(change: dict[str, object], message: str) -> None:
    given = sample()
    terms = replace(given.job.terms, **change)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=message):
        load(replace(given.job, terms=terms), given)


def test_a_job_without_a_manifest_is_refused() -> None:
    given = sample()
    with pytest.raises(PlanError, match="names no manifest"):
        load(replace(given.job, manifest=""), given)


def test_initial_groups_that_nobody_uses_are_refused() -> None:
    given = sample()
    spec = given.plan.segments[0]
    other = repost(given, Plan((replace(spec, inputs=spec.inputs[:2]),)), [given.program])
    with pytest.raises(PlanError, match="all of them"):
        load(other.job, other)


def test_a_store_that_fails_is_no_fault_of_the_job() -> None:
    given = sample()
    given.store.available = False
    with pytest.raises(StoreUnavailable):
        load(given.job, given)
    given.store.available = True
    files = load(given.job, given)
    for cid in files.manifest.program_cids.values():
        del given.store.blobs[cid]
    with pytest.raises(NotFound):
        files.program(0)


def invalid(program: Program) -> Program:
    nest = replace(program.nests[0], body=(Instruction(0xFE),))
    return replace(program, nests=(nest, *program.nests[1:]))


def test_an_invalid_program_can_be_shown_but_not_run() -> None:
    given = sample()
    program = invalid(given.program)
    plan = chain(program, given.data.root, segments=1, steps=STEPS, interval=INTERVAL, price=1)
    other = repost(given, plan, [program])
    files = load(other.job, other)
    with pytest.raises(ProgramError, match="opcode 0xfe"):
        files.program(0)
    assert merkle.root([merkle.leaf(data) for data in files.leaves(0)]) == plan.segments[0].program_root


def test_an_open_program_cannot_be_run() -> None:
    given = sample()
    kinds = tuple(replace(kind, shape=(0, *kind.shape[1:])) for kind in given.program.data)
    program = replace(given.program, data=kinds).bind([0, 0, 0])
    plan = chain(program, given.data.root, segments=1, steps=STEPS, interval=INTERVAL, price=1)
    other = repost(given, plan, [program])
    with pytest.raises(ProgramError):
        load(other.job, other).program(0)


@pytest.mark.parametrize(
    ("lie", "message"),
    [(b"", "not a program's file"), (b"\xff" * 9, "not a program's file"), (bytes(12), "has root 0x")],
)
def test_a_program_file_that_is_another_is_refused(lie: bytes, message: str) -> None:
    given = sample()
    files = load(given.job, given)
    entry = files.manifest.programs[0].model_copy(update={"cid": given.store.put(lie)})
    altered = files.manifest.model_copy(update={"programs": (entry,)})
    with pytest.raises(Corrupt, match=message):
        JobFiles(given.store, given.job, altered).program(0)


def test_a_program_over_the_limit_is_refused() -> None:
    given = sample()
    files = load(given.job, given)
    entry = files.manifest.programs[0].model_copy(update={"cid": given.store.put(bytes(MAX_PROGRAM + 1))})
    altered = files.manifest.model_copy(update={"programs": (entry,)})
    with pytest.raises(Corrupt, match="at most"):
        JobFiles(given.store, given.job, altered).leaves(0)


def test_a_dataset_that_is_another_is_refused() -> None:
    given = sample()
    files = load(given.job, given)
    cid = tensors.save_dataset(given.store, perceptron_data(STEPS, seed=9))
    entry = files.manifest.datasets[0].model_copy(update={"cid": cid})
    altered = files.manifest.model_copy(update={"datasets": (entry,)})
    with pytest.raises(Corrupt, match="planned is"):
        JobFiles(given.store, given.job, altered).dataset(0)


def test_what_is_too_large_for_this_machine_is_not_loaded() -> None:
    given = sample()
    files = load(given.job, given, max_bytes=1000)
    with pytest.raises(PlanError, match=r"dataset of segment 0 has \d+ bytes, at most 1000"):
        files.dataset(0)
    with pytest.raises(PlanError, match="initial state has"):
        files.load_input(0, nothing_committed)
    with pytest.raises(PlanError, match="output of segment 0 has"):
        files.load_output(0, given.committed(0, perceptron_state()))


def test_groups_of_another_type_do_not_fit() -> None:
    given = sample()
    spec = given.plan.segments[0]
    swapped = replace(spec, inputs=(spec.inputs[2], spec.inputs[1], spec.inputs[0]))
    other = repost(given, Plan((spec, swapped)), [given.program])
    with pytest.raises(PlanError, match="segment 1: group 0 is not of the types"):
        load(other.job, other).load_input(1, nothing_committed)


def test_programs_with_another_number_of_groups_do_not_fit() -> None:
    given = sample()
    spec = given.plan.segments[0]
    fewer = replace(spec, inputs=spec.inputs[:2])
    other = repost(given, Plan((spec, fewer)), [given.program])
    with pytest.raises(ProgramError, match="3 groups, the plan gives 2"):
        load(other.job, other).program(1)


def test_the_manifest_is_what_the_job_names() -> None:
    given = sample()
    assert Manifest.decode(given.store.get(given.manifest, MAX_MANIFEST)).plan() == given.plan
