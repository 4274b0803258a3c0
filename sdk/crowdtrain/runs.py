"""Segments run on this machine: what they would cost, and their checkpoints, kept in a folder.

A run is named by its segment, the plan's leaf and the inputs, so a lease that ran out, a kill or another attempt
on the same inputs goes on from the last checkpoint, and a folder that was used on another chain does no harm.
Solvers and verifiers run segments in the same way.

    folder/JOB-SEGMENT-LEAF-INPUT/run.json            what is known so far
    folder/JOB-SEGMENT-LEAF-INPUT/NUMBER.safetensors  the state at a checkpoint; number 0 is the input
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from crowdtrain_engine import (
    Axis,
    DataError,
    Dataset,
    DType,
    Instruction,
    Nest,
    Program,
    Read,
    State,
    TensorType,
    execute,
)
from crowdtrain_engine.ops import BY_NAME
from crowdtrain_engine.state import Array
from crowdtrain_engine.trace import Deviation, Machine, Replay, checkpoint_count, run_segment
from crowdtrain_engine.validation import cost

from crowdtrain import tensors
from crowdtrain._errors import Corrupt, CrowdtrainError, PlanError
from crowdtrain._files import atomic_file
from crowdtrain.chain import JobId, Segment, SegmentKey, SegmentSpec
from crowdtrain.jobs import JobFiles, SegmentOf

__all__ = [
    "TRIAL",
    "TRIAL_MOST",
    "Appraisal",
    "Cancelled",
    "Hardware",
    "PacedMachine",
    "Progress",
    "Run",
    "RunId",
    "Runs",
    "Speeds",
    "Unaffordable",
    "measure_speed",
    "memory_needed",
]

Pace = Callable[[int, Mapping[str, Array], float], None]
TRIAL_MOST = 1.0
"""seconds that a step may take, by its operations, for a trial"""
TRIAL = 0.2
"""seconds for which a program that was never run here is tried"""
CHUNK = 1.0
"""seconds of work between two looks at whether to go on"""


class Unaffordable(CrowdtrainError):
    """A segment needs more than this machine may spend."""


# ------------------------------------------------------------------ what a segment would cost


@dataclass(frozen=True, slots=True)
class Hardware:
    """How segments are run here, and how much they may use.

    ``speed`` is in body operations a second (:func:`measure_speed`), ``memory`` and ``disk`` in bytes; ``share`` is the
    part of the processors' time that training may take, which ``speed`` does not know of.
    """

    backend: str
    threads: int | None
    isa: str | None
    memory: int
    disk: int
    speed: float
    share: float = 1.0

    def machine(self, program: Program, data: Dataset, **options: Any) -> Machine:
        """A machine that runs ``program`` on ``data``; ``options`` are those of :class:`PacedMachine`."""
        return PacedMachine(
            program, data, backend=self.backend, threads=self.threads, isa=self.isa, **options
        )


def memory_needed(program: Program) -> int:
    """Bytes, about, that a machine needs to run a program."""
    state = sum(kind.size for kind in program.state)
    # values of the step, and the state and data once more while they are read and written
    return cost(program).memory + 4 * (2 * state + sum(kind.size for kind in program.data))


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What one step of a program costs here."""

    seconds: float
    memory: int
    state: int
    """bytes of a state, and so of a checkpoint"""

    @classmethod
    def of(cls, program: Program, hardware: Hardware) -> Appraisal:
        """An estimate from the program alone. Raises Unaffordable if it needs too much memory."""
        memory = memory_needed(program)
        if memory > hardware.memory:
            raise Unaffordable(
                f"a step needs {memory} bytes of memory, at most {hardware.memory} are allowed"
            )
        state = 4 * sum(kind.size for kind in program.state)
        return cls(cost(program).operations / (hardware.speed * hardware.share), memory, state)

    def check(self, spec: SegmentSpec, hardware: Hardware, used: int) -> None:
        """Raises Unaffordable if the checkpoints of a segment, and the ``used`` bytes, are too much for the disk."""
        disk = self.state * (checkpoint_count(spec.steps, spec.interval) + 1)
        if disk + used > hardware.disk:
            raise Unaffordable(
                f"checkpoints need {disk} bytes of disk beside {used} in use, at most {hardware.disk} are allowed"
            )


class Speeds:
    """How long a step of each program really took here, kept in a file, so that a process that is started again claims
    no more than it can do. What was measured in a busy moment does not stand for ever: see :meth:`forget`."""

    MOST = 256
    LASTS = 600.0
    """seconds after which a program is tried again"""

    def __init__(self, path: Path, hardware: Hardware) -> None:
        self._path, self._lock = path, threading.Lock()
        self._how = f"{hardware.backend} {hardware.isa} {hardware.threads} {hardware.share}"
        self._known: dict[bytes, tuple[float, float]] = {}
        try:
            found = json.loads(path.read_bytes())
            if found["how"] == self._how:
                known = found["known"].items()
                self._known = {bytes.fromhex(root): (float(took), float(at)) for root, (took, at) in known}
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            pass  # it can all be measured again

    def learn(self, root: bytes, seconds: float) -> None:
        """Notes what a step of a program takes, of the programs that were run last; a full disk stops nothing."""
        with self._lock:
            self._known.pop(root, None)
            self._known[root] = seconds, time.time()
            self._known = dict(list(self._known.items())[-self.MOST :])
            known = {root.hex(): known for root, known in self._known.items()}
            with contextlib.suppress(OSError), atomic_file(self._path) as file:
                file.write(json.dumps({"how": self._how, "known": known}).encode())

    def forget(self, now: float) -> frozenset[bytes]:
        """Forgets what was measured long before ``now``; of which programs."""
        with self._lock:
            old = frozenset(root for root, (_, at) in self._known.items() if not 0 <= now - at < self.LASTS)
            for root in old:
                del self._known[root]
        return old

    def __contains__(self, root: bytes) -> bool:
        return root in self._known

    def corrected(self, root: bytes, appraisal: Appraisal) -> Appraisal:
        """An appraisal with the time that was measured, if one was."""
        known = self._known.get(root)
        return appraisal if known is None else replace(appraisal, seconds=known[0])


def measure_speed(backend: str, threads: int | None, isa: str | None, seconds: float = 0.2) -> float:
    """Body operations a second of a matrix product on this machine, measured for about ``seconds``."""
    n = 64
    axis = [Axis(n, ((loop, 1),)) for loop in range(3)]
    product = Nest(
        DType.f32,
        (n, n),
        (Read(0, (axis[0], axis[2])), Read(0, (axis[2], axis[1]))),
        (Instruction(BY_NAME["ffma"].code, 1, 2, 0),),
        3,
        fold=(n,),
    )
    square = TensorType(DType.f32, (n, n))
    program = Program((1,), (square,), (), (product,), (1,))
    state = State.from_tensors(program, [np.eye(n, dtype=np.float32)])
    steps, done, start = 1, 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds or not done:
        execute(
            program, state, Dataset.from_tensors({}), steps=steps, backend=backend, threads=threads, isa=isa
        )
        done += steps
        steps *= 2
    return cost(program).operations * done / spent


# ------------------------------------------------------------------ running


@dataclass(slots=True)
class Progress:
    """How far a run is; read by other threads while it goes on."""

    step: int
    steps: int
    loss: float | None = None
    rate: float | None = None
    """steps a second"""
    timed: float = 0.0
    """seconds for which that was measured"""


class PacedMachine(Machine):
    """A machine that calls ``pace(step, logs, seconds)`` after every second or so of work, which may raise to end
    the run. It takes at most ``share`` of the time that one of its threads could compute, and rests in between; in a
    long rest it calls ``wait`` every second, which may raise too."""

    def __init__(
        self,
        program: Program,
        data: Dataset,
        *,
        pace: Pace = lambda step, logs, seconds: None,
        wait: Callable[[], None] = lambda: None,
        share: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(program, data, **options)
        self._pace = pace
        self._wait = wait
        self._share = share
        self._chunk = 1

    def run(self, state: State, first: int, steps: int) -> tuple[State, dict[str, Array]]:
        """See :class:`Machine`."""
        parts: list[dict[str, Array]] = []
        at, stop = first, first + steps
        while at < stop:
            length = min(self._chunk, stop - at)
            start, used = time.perf_counter(), time.thread_time()
            state, logs = super().run(state, at, length)
            # time for which other processes had the processor is a rest already
            if self._share < 1:
                self._rest(start + (time.thread_time() - used) / self._share)
            spent = time.perf_counter() - start
            parts.append(logs)
            at += length
            self._chunk = max(1, min(2 * length, int(length * CHUNK / max(spent, 1e-9))))
            self._pace(at, logs, spent)
        return state, {
            name: np.concatenate([part[name] for part in parts]) for name in self.program.labels.logs
        }

    def _rest(self, until: float) -> None:
        while (left := until - time.perf_counter()) > 0:
            time.sleep(min(left, CHUNK))
            if left > CHUNK:
                self._wait()


@dataclass(frozen=True, slots=True)
class RunId:
    """What a run computes: a segment, by its leaf of the plan, on an input state."""

    key: SegmentKey
    leaf: bytes
    input_root: bytes

    @classmethod
    def of(cls, segment: Segment) -> RunId:
        """The run of a segment that is claimed or committed."""
        return cls(segment.key, segment.leaf, segment.input_root)

    @property
    def folder(self) -> str:
        """Name of the folder."""
        return f"{self.key.job}-{self.key.index}-{self.leaf.hex()}-{self.input_root.hex()}"

    @classmethod
    def parse(cls, folder: str) -> RunId | None:
        """The run with this folder, if it is one's."""
        match = re.fullmatch(r"(\d+)-(\d+)-([0-9a-f]{64})-([0-9a-f]{64})", folder)
        if match is None:
            return None
        key = SegmentKey(JobId(int(match[1])), int(match[2]))
        return cls(key, bytes.fromhex(match[3]), bytes.fromhex(match[4]))


class Run:
    """One segment on one input: its checkpoints in a folder, and what is known of its result.

    ``roots`` are those of the states at the checkpoints, ``trace`` what stands in the trace in their place
    (the same, unless a deviation lies about them), ``group_roots`` and ``cid`` those of the output.
    """

    def __init__(self, folder: Path, which: RunId) -> None:
        self.folder = folder
        self.id = which
        self.key = which.key
        self.progress: Progress | None = None
        self.cancelled = False
        self.roots: tuple[bytes, ...] = ()
        self.trace: tuple[bytes, ...] = ()
        self.group_roots: tuple[bytes, ...] = ()
        self.cid = ""
        self._load()

    def _load(self) -> None:
        path = self.folder / "run.json"
        if path.exists():
            known = json.loads(path.read_bytes())
            self.roots = tuple(map(bytes.fromhex, known["roots"]))
            self.trace = tuple(map(bytes.fromhex, known["trace"]))
            self.group_roots = tuple(map(bytes.fromhex, known["group_roots"]))
            self.cid = known["cid"]

    def _save(self) -> None:
        known = {
            "roots": [root.hex() for root in self.roots],
            "trace": [root.hex() for root in self.trace],
            "group_roots": [root.hex() for root in self.group_roots],
            "cid": self.cid,
        }
        with atomic_file(self.folder / "run.json") as file:
            file.write(json.dumps(known).encode())

    @property
    def prepared(self) -> bool:
        """Whether the input is here, checked."""
        return bool(self.roots)

    @property
    def complete(self) -> bool:
        """Whether the whole trace and the output's group roots are known."""
        return bool(self.group_roots)

    @property
    def shown(self) -> dict[str, object]:
        """Where the run is, for a status."""
        progress = self.progress
        if progress is None:
            return {}
        return {
            "job": self.key.job,
            "segment": self.key.index,
            "step": progress.step,
            "steps": progress.steps,
            "loss": progress.loss if progress.loss is not None and math.isfinite(progress.loss) else None,
            "steps_per_second": progress.rate,
        }

    def prepare(self, files: JobFiles, segment: SegmentOf) -> None:
        """Fetches the input state, unless it is here. Raises what :meth:`JobFiles.load_input` raises, and
        PlanError if the inputs are no longer those that the run is for."""
        if self.prepared:
            return
        state = files.load_input(self.key.index, segment)
        if state.root != self.id.input_root:
            raise PlanError(f"the inputs of segment {self.key.index} of job {self.key.job} have changed")
        self._keep(0, state)
        self.roots = (state.root,)
        self._save()

    def execute(
        self,
        files: JobFiles,
        hardware: Hardware,
        wait: Callable[[], None],
        deviation: Deviation | None = None,
    ) -> State:
        """Runs on from the last checkpoint to the output, which is returned.

        ``wait`` is called about every second; what it raises ends the run, which can go on later.
        """
        spec = files.spec(self.key.index)
        progress = self.progress = Progress(0, spec.steps)
        self.cancelled = False
        spent = [0.0]

        def go_on() -> None:
            if self.cancelled:
                raise Cancelled
            wait()

        def pace(step: int, logs: Mapping[str, Array], seconds: float) -> None:
            spent.append(spent[-1] + seconds)
            progress.step = step
            # the first step, which is paced alone, also makes the engine's plan
            first = 1 if len(spent) > 2 else 0
            progress.timed = spent[-1] - spent[first]
            progress.rate = (step - begun_at - first) / max(progress.timed, 1e-9)
            progress.loss = _loss(logs)
            go_on()

        index = self.key.index
        machine = hardware.machine(
            files.program(index),
            files.dataset(index),
            pace=pace,
            wait=go_on,
            deviation=deviation,
            share=hardware.share,
        )
        start, state = self._last(machine.program)
        progress.step = begun_at = min(start * spec.interval, spec.steps)
        checkpoints = run_segment(machine, state, steps=spec.steps, interval=spec.interval, start=start)
        for checkpoint in checkpoints:
            state = checkpoint.state
            self._keep(checkpoint.number, state)
            self.roots = (*self.roots[: checkpoint.number], state.root)
            self.trace = (*self.trace[: checkpoint.number], checkpoint.root)
            self._save()
        self.group_roots = state.group_roots
        self._save()
        return state

    def measure(self, files: JobFiles, hardware: Hardware, wait: Callable[[], None] = lambda: None) -> float:
        """Seconds of a step here, by steps that are run and forgotten; the input must be here. ``wait`` is called now
        and then, as in :meth:`execute`."""
        index = self.key.index
        machine = hardware.machine(
            files.program(index),
            files.dataset(index),
            pace=lambda *_: wait(),
            wait=wait,
            share=hardware.share,
        )
        _, state = self._last(machine.program, 0)
        state, _ = machine.run(state, 0, 1)  # the first one makes the engine's plan
        steps, done, start = 1, 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < TRIAL or not done:
            state, _ = machine.run(state, 1 + done, steps)
            done += steps
            steps *= 2
        return spent / done

    def stored(self, cid: str) -> None:
        """Notes where the output was stored."""
        self.cid = cid
        self._save()

    def replay(
        self,
        files: JobFiles,
        hardware: Hardware,
        wait: Callable[[], None],
        deviation: Deviation | None = None,
    ) -> Replay:
        """The run, taken apart for a dispute; it must be complete."""
        index = self.key.index
        spec, program, data = files.spec(index), files.program(index), files.dataset(index)
        machine = hardware.machine(
            program, data, pace=lambda step, logs, seconds: wait(), deviation=deviation
        )

        def state_at(number: int) -> State:
            start, state = self._last(machine.program, number)
            first = start * spec.interval
            return machine.run(state, first, number * spec.interval - first)[0] if start < number else state

        return Replay(machine, steps=spec.steps, interval=spec.interval, trace=self.trace, state_at=state_at)

    def forget_states(self) -> None:
        """Deletes all checkpoints but the input, from which they can be computed again."""
        for path in self.folder.glob("*.safetensors"):
            if path.stem != "0":
                path.unlink()

    def drop(self) -> None:
        """Deletes the run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _last(self, program: Program, most: int | None = None) -> tuple[int, State]:
        """Number and state of the last checkpoint that is here, at most ``most``.

        Raises Corrupt if not even the input is what it was; the run is dropped then.
        """
        last = len(self.roots) - 1 if most is None else min(most, len(self.roots) - 1)
        for number in range(last, -1, -1):
            state = self._restore(program, number)
            if state is not None:
                return number, state
        self.drop()
        self.roots = self.trace = self.group_roots = ()
        raise Corrupt(f"{self.folder}: the input is not what it was; it will be fetched again")

    def _restore(self, program: Program, number: int) -> State | None:
        try:
            loaded = safetensors.numpy.load_file(self._path(number))
            state = State.from_tensors(program, [loaded[name] for name in _names(program)])
            state.check(program)
        except (OSError, safetensors.SafetensorError, KeyError, DataError):
            return None
        return state if state.root == self.roots[number] else None

    def _keep(self, number: int, state: State) -> None:
        named = {
            f"{g}.{t}": tensor
            for g, group in enumerate(state.values())
            for t, tensor in enumerate(group.values())
        }
        with atomic_file(self._path(number)) as file:
            file.write(safetensors.numpy.save(named))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.safetensors"


class Cancelled(CrowdtrainError):
    """A run is no longer wanted."""


class Runs:
    """The runs in a folder. May be used from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._runs: dict[RunId, Run] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for which in filter(None, (RunId.parse(path.name) for path in folder.iterdir())):
            self.get(which)

    def get(self, which: RunId) -> Run:
        """A run, begun or not."""
        with self._lock:  # two threads must not get two runs, one of which knows nothing
            if which not in self._runs:
                self._runs[which] = Run(self._folder / which.folder, which)
            return self._runs[which]

    @property
    def size(self) -> int:
        """Bytes of disk in use."""
        return sum(path.stat().st_size for path in self._folder.glob("*/*.safetensors"))

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    def drop(self, run: Run) -> None:
        """Deletes a run."""
        run.drop()
        self._runs.pop(run.id, None)


def _names(program: Program) -> list[str]:
    return [f"{g}.{t}" for g, types in enumerate(tensors.group_types(program)) for t in range(len(types))]


def _loss(logs: Mapping[str, Array]) -> float | None:
    """The last value of the first logged scalar, or of the one called loss."""
    scalars = {name: rows for name, rows in logs.items() if rows.ndim == 1 and rows.size}
    name = "loss" if "loss" in scalars else next(iter(scalars), None)
    return None if name is None else float(scalars[name][-1])
