"""Segments run in a folder: what they cost, their checkpoints, and going on after an end at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from crowdtrain._errors import Corrupt, PlanError
from crowdtrain.chain import JobId, Segment, SegmentKey
from crowdtrain.game.sabotage import parse
from crowdtrain.jobs import JobFiles
from crowdtrain.manifest import Manifest
from crowdtrain.plan import leaf
from crowdtrain.runs import (
    Appraisal,
    Cancelled,
    Hardware,
    Run,
    RunId,
    Runs,
    Speeds,
    Unaffordable,
    measure_speed,
)
from crowdtrain.shelf import Shelf
from crowdtrain_engine.trace import Machine, Replay
from small_jobs import INTERVAL, Sample, open_segment, sample

HARDWARE = Hardware("reference", None, None, memory=2**26, disk=2**26, speed=1e9)
FIRST = SegmentKey(JobId(1), 0)


class Interrupted(Exception):
    """The process ends here."""


def files_of(given: Sample) -> JobFiles:
    return JobFiles(given.store, given.job, Manifest.decode(given.store.get(given.manifest, 2**20)))


def no_segment(index: int) -> Segment:
    return open_segment(index)


def go_on() -> None:
    pass


def honest(given: Sample) -> Replay:
    machine = Machine(given.program, given.data, backend="reference")
    return Replay.run(machine, given.state, steps=given.plan.segments[0].steps, interval=INTERVAL)


def which(given: Sample) -> RunId:
    return RunId(FIRST, leaf(given.plan.segments[0]), given.state.root)


def prepared(given: Sample, folder: Path) -> Run:
    run = Runs(folder).get(which(given))
    run.prepare(files_of(given), no_segment)
    return run


def test_threads_that_ask_at_once_get_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(run: Run) -> None:
        time.sleep(0.05)

    monkeypatch.setattr(Run, "_load", slowly)
    runs, wanted = Runs(tmp_path), which(sample())
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda _: runs.get(wanted), range(4)))
    assert len(set(map(id, got))) == 1


def stop_after(calls: int) -> Callable[[], None]:
    left = [calls]

    def wait() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted

    return wait


def test_a_run_gives_the_trace_of_the_program(tmp_path: Path) -> None:
    given = sample()
    run = prepared(given, tmp_path)
    assert run.prepared
    assert not run.complete
    state = run.execute(files_of(given), HARDWARE, go_on)
    assert run.complete
    assert run.trace == honest(given).trace
    assert state.root == run.trace[-1]
    assert run.shown["step"] == given.plan.segments[0].steps
    assert isinstance(run.shown["loss"], float)


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_an_interrupted_run_goes_on_from_its_folder(tmp_path: Path, calls: int) -> None:
    given = sample()
    with pytest.raises(Interrupted):
        prepared(given, tmp_path).execute(files_of(given), HARDWARE, stop_after(calls))
    (again,) = Runs(tmp_path)
    assert again.id == which(given)
    again.execute(files_of(given), HARDWARE, go_on)
    assert again.trace == honest(given).trace


def test_a_cancelled_run_ends(tmp_path: Path) -> None:
    given = sample()
    run = prepared(given, tmp_path)

    def cancel() -> None:
        run.cancelled = True

    with pytest.raises(Cancelled):
        run.execute(files_of(given), HARDWARE, cancel)
    run.execute(files_of(given), HARDWARE, go_on)
    assert run.trace == honest(given).trace


def test_a_dispute_is_played_from_what_is_left_of_the_checkpoints(tmp_path: Path) -> None:
    given = sample()
    run = prepared(given, tmp_path)
    run.execute(files_of(given), HARDWARE, go_on)
    run.forget_states()
    replay, right = run.replay(files_of(given), HARDWARE, go_on), honest(given)
    assert replay.trace == right.trace
    assert replay.states(2) == right.states(2)
    assert replay.step(2).outputs.root == right.step(2).outputs.root


def test_a_lie_is_defended_from_the_folder(tmp_path: Path) -> None:
    given, lie = sample(), parse("gradient:2")
    run = prepared(given, tmp_path)
    run.execute(files_of(given), HARDWARE, go_on, lie)
    (again,) = Runs(tmp_path)
    replay = again.replay(files_of(given), HARDWARE, go_on, lie)
    assert replay.trace != honest(given).trace
    assert replay.states(1)[-1] == replay.trace[1]


def test_other_inputs_are_another_run(tmp_path: Path) -> None:
    given = sample()
    run = Runs(tmp_path).get(replace(which(given), input_root=bytes(32)))
    with pytest.raises(PlanError, match="have changed"):
        run.prepare(files_of(given), no_segment)
    assert not run.prepared


def test_a_damaged_checkpoint_is_not_believed(tmp_path: Path) -> None:
    given = sample()
    run = prepared(given, tmp_path)
    run.execute(files_of(given), HARDWARE, go_on)
    for path in tmp_path.glob("*/[12].safetensors"):
        path.write_bytes(b"no tensors")
    (again,) = Runs(tmp_path)
    again.execute(files_of(given), HARDWARE, go_on)
    assert again.trace == honest(given).trace


def test_a_damaged_input_is_fetched_again(tmp_path: Path) -> None:
    given = sample()
    run = prepared(given, tmp_path)
    next(tmp_path.glob("*/0.safetensors")).write_bytes(b"no tensors")
    with pytest.raises(Corrupt, match="fetched again"):
        run.execute(files_of(given), HARDWARE, go_on)
    assert not run.prepared
    run.prepare(files_of(given), no_segment)
    run.execute(files_of(given), HARDWARE, go_on)
    assert run.trace == honest(given).trace


def test_the_same_segment_of_another_plan_is_another_run(tmp_path: Path) -> None:
    """As it is on another chain, when a folder is used again."""
    given = sample()
    prepared(given, tmp_path).execute(files_of(given), HARDWARE, go_on)
    other = Runs(tmp_path).get(replace(which(given), leaf=leaf(given.plan.segments[1])))
    assert not other.prepared
    assert RunId.parse(other.id.folder) == other.id


def test_what_is_dropped_is_gone(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    run = runs.get(which(sample()))
    run.prepare(files_of(sample()), no_segment)
    runs.drop(run)
    assert not list(runs)
    assert not list(tmp_path.iterdir())


def test_foreign_files_in_the_folder_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    assert list(Runs(tmp_path)) == []


def test_what_is_too_large_is_refused() -> None:
    given = sample()
    with pytest.raises(Unaffordable, match="bytes of memory"):
        Appraisal.of(given.program, replace(HARDWARE, memory=1000))
    appraisal = Appraisal.of(given.program, HARDWARE)
    with pytest.raises(Unaffordable, match="bytes of disk"):
        appraisal.check(given.plan.segments[0], replace(HARDWARE, disk=1000), 0)
    appraisal.check(given.plan.segments[0], HARDWARE, 0)
    with pytest.raises(Unaffordable, match="in use"):
        appraisal.check(given.plan.segments[0], HARDWARE, HARDWARE.disk)
    assert appraisal.state == 4 * sum(tensor.size for tensor in given.state.tensors)


def test_speed_is_measured() -> None:
    assert measure_speed("reference", None, None, seconds=0.01) > 1e5


def test_a_program_is_tried_before_it_is_claimed(tmp_path: Path) -> None:
    run, slow = prepared(sample(), tmp_path), replace(HARDWARE, share=0.1)
    assert 0 < run.measure(files_of(sample()), HARDWARE) < run.measure(files_of(sample()), slow) / 2
    run.execute(files_of(sample()), HARDWARE, go_on)
    assert run.roots[-1] == honest(sample()).trace[-1]


def test_what_a_step_took_is_known_after_a_restart(tmp_path: Path) -> None:
    path, guess = tmp_path / "speeds.json", Appraisal(1.0, 2, 3)
    speeds = Speeds(path, HARDWARE)
    for number in range(Speeds.MOST + 1):
        speeds.learn(number.to_bytes(32, "big"), 0.5 + number)
    again = Speeds(path, HARDWARE)
    assert again.corrected(bytes(31) + b"\1", guess) == Appraisal(1.5, 2, 3)
    assert again.corrected(bytes(32), guess) == guess  # the oldest is forgotten
    slower = Speeds(path, replace(HARDWARE, share=0.5))
    assert slower.corrected(bytes(31) + b"\1", guess) == guess  # another way to run
    assert again.forget(time.time()) == frozenset()
    assert len(again.forget(time.time() + Speeds.LASTS)) == Speeds.MOST
    assert again.corrected(bytes(31) + b"\1", guess) == guess
    path.write_text("[1")
    assert Speeds(path, HARDWARE).corrected(bytes(31) + b"\1", guess) == guess


def test_a_share_of_the_time_is_kept_to(tmp_path: Path) -> None:
    run = prepared(sample(), tmp_path)
    start, used = time.perf_counter(), time.thread_time()
    run.execute(files_of(sample()), replace(HARDWARE, share=0.2), go_on)
    worked = time.thread_time() - used
    assert time.perf_counter() - start >= 3 * worked
    assert run.roots[-1] == honest(sample()).trace[-1]
    assert run.progress is not None
    whole, part = (Appraisal.of(sample().program, replace(HARDWARE, share=s)).seconds for s in (1.0, 0.2))
    assert part == pytest.approx(5 * whole)


def test_a_long_rest_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crowdtrain.runs.CHUNK", 0.01)
    run, calls = prepared(sample(), tmp_path), 0

    def wait() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.execute(files_of(sample()), replace(HARDWARE, share=1e-9), wait)


def test_a_library_keeps_few_files_and_all_plans() -> None:
    given = sample()
    shelf = Shelf(given.store, 2**26)
    jobs = [replace(given.job, id=JobId(i)) for i in range(1, 6)]
    files = [shelf.get(job) for job in jobs]
    assert shelf.get(jobs[0]) is files[0]
    shelf.trim({JobId(1)}, {job.id for job in jobs})
    assert shelf.get(jobs[0]) is files[0]
    assert shelf.get(jobs[1]) is not files[1]
    assert set(shelf.books) == {job.id for job in jobs}
    shelf.trim(set(), {JobId(1)})
    assert set(shelf.books) == {JobId(1)}
