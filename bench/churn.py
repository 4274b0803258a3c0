"""Unequal machines that vanish train one model on a real chain, beside what was forecast: ``make bench-churn``.

Solvers of speeds 1 : 2 : 4, in processes of their own, carry an elastic plan out twice: in peace, and with a quarter
of all claims abandoned, by a kill -9 after the claim. Who is killed stays away for a lease and comes back with the same
folder.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated

import numpy as np
import safetensors.numpy
import torch
import typer
from crowdtrain import lower
from crowdtrain._errors import CrowdtrainError
from crowdtrain._explain import format_bytes
from crowdtrain._files import atomic_file
from crowdtrain.chain import Address, ChainEvent, JobId, SegmentKey, SegmentSpec
from crowdtrain.demo import stage
from crowdtrain.demo.stage import Stage
from crowdtrain.demo.text import CharGPT, Text, cross_entropy, order, text
from crowdtrain.optim import AdamW
from crowdtrain.simulation import Fleet, Forecast, Machine, Market, Network, Workload, simulate
from crowdtrain.simulation.fleet import HOUR
from crowdtrain.strategies import Blueprint, carry_out, elastic_diloco
from crowdtrain.watch import Watch
from crowdtrain_engine import Dataset, Executor, Program, State
from rich.console import Console

from bench.economy.tables import filled
from bench.publish import RESULTS
from bench.report import Sheet, as_table, sheet_markdown

__all__ = ["Happened", "Setting", "Trial", "app", "compared", "crowd", "seconds_of"]

DOCUMENT = Path(__file__).parents[1] / "docs" / "SIMULATION.md"
LOOK = 0.1
"""seconds between two looks at the chain"""
MEASURED, SLICES, MOST_STEPS = 0.5, 5, 50
"""seconds of processor time for which a program is measured, in how many parts, and most steps of each"""
ROOM = 1.4
"""what solvers take of a lease has room for so many times a machine's own work: not for that of one twice as fast"""
LONG = 240.0
"""seconds after which a job is given up"""
HOURLY = 1.0
"""what an hour of a machine of speed 1 costs"""
FORECASTS = 20
"""seeds of which the spread of forecasts is told"""


@dataclass(frozen=True)
class Setting:
    """The machines, and what they do."""

    speeds: tuple[int, ...] = (1, 1, 2, 4)
    share: float = 0.08
    """part of a processor's time that a machine of speed 1 takes"""
    rounds: int = 4
    steps: int = 80
    """of a machine of speed 1 in each round; others take as many times more as they are faster"""
    window: int = 8
    lease_part: float = 0.5
    """of the solvers: the less, the more slack a lease has"""
    abandons: float = 0.25
    seed: int = 0
    price: int = 10**20
    calibration: int = 6
    """segments of the job by which the chain and the solvers' own work are measured"""

    @property
    def all_steps(self) -> list[int]:
        """Of each worker in each round."""
        return [self.steps * speed for speed in self.speeds]


def crowd(setting: Setting) -> Blueprint:
    """The plan: elastic DiLoCo over a small GPT, with a quorum of half."""
    words = text()
    inputs, targets = Text.windows(words.train[:400_000])
    torch.manual_seed(0)
    program = lower(
        CharGPT(words.size),
        cross_entropy,
        optimizer=AdamW(lr=1e-3),
        example=(torch.from_numpy(inputs[:4]), torch.from_numpy(targets[:4])),
    )
    most = setting.rounds * max(setting.all_steps)
    data = [
        Dataset(inputs, targets, order=order(len(inputs), most, 4, seed=k))
        for k in range(len(setting.speeds))
    ]
    return elastic_diloco(
        program,
        data,
        rounds=setting.rounds,
        steps=setting.all_steps,
        quorum=ceil(len(setting.speeds) / 2),
        price=setting.price,
    )


def zeros(program: Program) -> State:
    """A state of which every word is 0."""
    return State.from_tensors(program, [np.zeros(kind.shape, kind.dtype.numpy) for kind in program.state])


def seconds_of(program: Program, blueprint: Blueprint) -> float:
    """Processor time of a step here, as one thread takes it."""
    index = next(i for i, spec in enumerate(blueprint.plan.segments) if spec.program_root == program.root)
    executor = Executor(program, zeros(program), blueprint.dataset(index), backend="native", threads=1)
    executor.run(1)
    times = []
    for _ in range(SLICES):
        steps, begun = 0, time.thread_time()
        while (spent := time.thread_time() - begun) < MEASURED / SLICES and steps < MOST_STEPS:
            executor.run(1)
            steps += 1
        times.append(spent / steps)
        time.sleep(0.1)
    return median(times)


def writing(blueprint: Blueprint, folder: Path) -> float:
    """Bytes of checkpoints a second that are hashed and written here."""
    path, times, size = folder / "checkpoint", [], 0
    tensors = list(blueprint.initial.tensors)
    for _ in range(SLICES):
        tensors = [np.asarray(tensor + 1, tensor.dtype) for tensor in tensors]
        named = {str(i): tensor for i, tensor in enumerate(tensors)}
        size = sum(tensor.nbytes for tensor in tensors)
        begun = time.monotonic()
        assert State({"all": named}).root
        with atomic_file(path) as file:
            file.write(safetensors.numpy.save(named))
        times.append(time.monotonic() - begun)
    path.unlink()
    return size / median(times)


@dataclass
class Happened:
    """What became of a job, as it was forecast in the same words: seconds, bytes, money."""

    name: str
    forecast: Forecast
    spread: tuple[float, float]
    """quartiles of the seconds that other seeds forecast"""
    seconds: float
    """from posting to the last commitment"""
    moved: int
    """bytes that all solvers stored and fetched"""
    paid: int
    """what the buyer paid"""
    held: float
    """seconds of all claims, each times the speed of its machine"""
    claims: int
    expired: Mapping[str, int]
    """leases that ran out, by name"""
    killed: Mapping[str, int]
    """kills, by name"""
    steps: int
    """of training that were committed"""
    lost: int
    """steps that were begun in vain"""
    absent: int
    """inputs that merges and workers went on without"""
    checks: Mapping[str, bool] = field(default_factory=dict)

    @property
    def goodput(self) -> float:
        """Part of the steps that counted."""
        return self.steps / (self.steps + self.lost)


class Trial:
    """A chain, a store and solvers, until ``stack`` is closed; measured before anything is forecast."""

    def __init__(
        self, setting: Setting, blueprint: Blueprint, folder: Path, console: Console, stack: ExitStack
    ) -> None:
        self.setting, self.blueprint = setting, blueprint
        self.names = [f"solver {k} of speed {speed}" for k, speed in enumerate(setting.speeds)]
        shares = [str(setting.share * speed) for speed in setting.speeds]
        cast = [("buyer", ())] + [
            (name, ("solver", "--share", share, "--patience", "1", "--lease-part", str(setting.lease_part)))
            for name, share in zip(self.names, shares, strict=True)
        ]
        self.stage = Stage.set(console, folder, stack, cast, 10 * setting.price)
        self.step_seconds = {p.root: seconds_of(p, blueprint) for p in blueprint.programs}
        self.writes = writing(blueprint, folder)
        self.starting = max(self._start(name) for name in self.names)
        """seconds from the start of a solver's process to its first look at the chain"""
        self.overhead = self._calibrate()
        """seconds that a segment takes beside its computation"""
        console.print(
            f"solvers start in {self.starting:.1f} s; beside its computation a segment takes {self.overhead:.2f} s; "
            f"checkpoints are written at {self.writes / 1e6:.0f} MB/s",
            highlight=False,
        )
        (most,) = {spec.steps for spec, worker in self._training() if worker == 0}
        (step,) = {self.step_seconds[spec.program_root] for spec, _ in self._training()}
        own = most * step / setting.share
        self.lease = ceil((ROOM * own + self.overhead) / setting.lease_part)

    def _training(self) -> list[tuple[SegmentSpec, int | None]]:
        pairs = zip(self.blueprint.plan.segments, self.blueprint.roles, strict=True)
        return [(spec, role.worker) for spec, role in pairs if role.what == "train"]

    def _start(self, name: str) -> float:
        begun, before = time.monotonic(), self._starts(name)
        self.stage.start(name)
        while self._starts(name) == before:
            if time.monotonic() > begun + LONG:
                raise CrowdtrainError(f"{name} does not start")
            time.sleep(LOOK)
        return time.monotonic() - begun

    def _starts(self, name: str) -> int:
        log = self.stage.folder_of(name) / "log.jsonl"
        return log.read_text().count("solver started") if log.exists() else 0

    def _calibrate(self) -> float:
        """What segments take that are hardly any work, one after the other: claims, commitments, looks at the chain."""
        index = next(i for i, role in enumerate(self.blueprint.roles) if role.what == "train")
        program, tensors = self.blueprint.program(index), dict(self.blueprint.dataset(index).tensors)
        data = Dataset.from_tensors({**tensors, "order": tensors["order"][::-1].copy()})  # nobody has it
        count, client = self.setting.calibration, self.stage.client
        quote = client.quote(
            program, data, 4 * count, segments=count, price=self.setting.price // 100, stake=1, audits=0,
            audit_share=0, lease=60, window=2, clock=60,
        )  # fmt: skip
        job = client.post(quote, zeros(program)).id
        times = [seen for event, seen in self._watch(job, count) if event.name == "Committed"]
        between = (times[-1] - times[1]) / (count - 2)  # at first the program is tried
        slowest = 4 * self.step_seconds[program.root] / self.setting.share
        return max(0.0, between - slowest)

    # ---------------------------------------------------------------- the forecast

    def forecast(self, abandons: float, seed: int) -> Forecast:
        """What is to be expected, by what was measured before."""
        setting, away = self.setting, self.lease + self.starting
        machines = tuple(
            Machine(
                setting.share * speed,
                name,
                price=HOURLY * speed,
                writes=self.writes,
                abandons=abandons,
                away=away if abandons else 0,
            )
            for name, speed in zip(self.names, setting.speeds, strict=True)
        )
        work = Workload.of(self.blueprint, lambda program: self.step_seconds[program.root])
        network = Network(up=1e8, down=1e8, latency=0.0, chain=self.overhead / 2)
        market = Market(lease=self.lease, window=setting.window, patience=1, lease_part=setting.lease_part)
        return simulate(work, Fleet(machines), network, market, seed=seed)

    # ---------------------------------------------------------------- what happens

    def play(self, name: str, abandons: float = 0.0) -> Happened:
        """Posts the plan, and watches until all is settled; with ``abandons``, solvers are killed."""
        setting, client = self.setting, self.stage.client
        seeds = range(setting.seed, setting.seed + (FORECASTS if abandons else 1))
        forecasts = [self.forecast(abandons, seed) for seed in seeds]
        times = [forecast.seconds for forecast in forecasts] * 2
        quote = client.quote_plan(
            self.blueprint, stake=10**18, audits=0, audit_share=0, lease=self.lease, window=setting.window,
            clock=4 * self.lease,
        )  # fmt: skip
        before, moved = self.stage.worth(), self._moved()
        self.lives: Counter[str] = Counter()
        posted = client.post(quote)
        begun = time.monotonic()
        killer = _Killer(self, abandons)
        seen = self._watch(posted.id, len(self.blueprint.plan.segments), killer)
        while killer.waits:  # who is still away comes back, and takes nothing more
            killer.look([])
            time.sleep(LOOK)
        job = client.chain.job(posted.id)
        segments = [client.chain.segment(SegmentKey(posted.id, i)) for i in range(job.terms.segments)]
        training = [i for i, role in enumerate(self.blueprint.roles) if role.what == "train"]
        claims = _claims(seen)
        lapsed = {claim: self.name_of(end) for claim, (_, _, end) in claims.items() if end.name == "Expired"}
        absent = {segment.key.index: segment.absent for segment in segments}
        pay: Counter[str] = Counter()
        for segment in segments:
            pay[self.stage.names[segment.solver]] += segment.price - client.chain.rules().fee(segment.price)
        after = self.stage.worth()
        unfair = [event.name for event, _ in seen if event.name in ("Forfeited", "Overturned", "Voided")]
        specs = self.blueprint.plan.segments
        return Happened(
            name=name,
            forecast=forecasts[0],
            spread=(quantiles(times)[0], quantiles(times)[2]),
            seconds=max(at for event, at in seen if event.name == "Committed") - begun,
            moved=self._moved() - moved + sum(self.lives.values()),
            paid=job.spent,
            held=self._held(claims, killer),
            claims=len(claims),
            expired=Counter(lapsed.values()),
            killed=killer.killed,
            steps=sum(specs[i].steps for i in training),
            lost=killer.lost,
            absent=sum(bits.bit_count() for bits in absent.values()),
            checks={
                "the weights are those of one machine with the same absences, bit for bit": client.result(
                    posted.id
                ).root
                == carry_out(self.blueprint, absent=absent, threads=1).state.root,
                "only claims whose solver was killed lost their lease": set(lapsed) <= set(killer.ends),
                "nobody lost stake or pay": not unfair
                and all(after[who] - before[who] == pay[who] for who in self.names),
            },
        )

    def _watch(self, job: JobId, count: int, killer: _Killer | None = None) -> list[tuple[ChainEvent, float]]:
        """A job's events until ``count`` segments are settled, each with the time at which it was seen."""
        watch = Watch(
            self.stage.client.chain, lambda job: None, first_block=self.stage.devnet.deployment.block
        )
        until = time.monotonic() + LONG
        seen: list[tuple[ChainEvent, float]] = []
        settled = 0
        while settled < count:
            if time.monotonic() > until:
                raise CrowdtrainError(f"job {job} is not settled after {LONG:.0f} seconds")
            fresh = [event for event in watch.refresh().events if event.fields.get("job") == job]
            seen += [(event, time.monotonic()) for event in fresh]
            settled += sum(event.name == "Settled" for event in fresh)
            if killer is not None:
                killer.look(fresh)
            time.sleep(LOOK)
        return seen

    def _moved(self) -> int:
        return sum(self.moved_by(name) for name in self.names)

    def moved_by(self, name: str) -> int:
        """Bytes that a solver's process has stored and fetched, as far as it says."""
        moved = self.stage.status(name).get("bytes")
        return sum(moved.values()) if isinstance(moved, dict) else 0

    def name_of(self, event: ChainEvent) -> str:
        """Of the solver whom an event is about."""
        return self.stage.names[Address(str(event.fields["solver"]))]

    def _held(self, claims: Mapping[Claim, tuple[float, float, ChainEvent]], killer: _Killer) -> float:
        """A machine that is switched off costs nothing, whatever it has claimed."""
        return sum(
            self.setting.speeds[self.names.index(self.name_of(event))]
            * (killer.ends.get(claim, end) - since if event.name == "Expired" else end - since)
            for claim, (since, end, event) in claims.items()
        )


Claim = tuple[int, int]
"""a segment, and how often it had been claimed before"""


def _claims(seen: Sequence[tuple[ChainEvent, float]]) -> dict[Claim, tuple[float, float, ChainEvent]]:
    """When each claim began and ended, and with which event."""
    since: dict[int, list[float]] = {}
    claims = {}
    for event, at in seen:
        if event.name == "Claimed":
            since.setdefault(_segment(event), []).append(at)
        elif event.name in ("Committed", "Expired"):
            segment = _segment(event)
            claims[segment, len(since[segment]) - 1] = since[segment][-1], at, event
    return claims


def _segment(event: ChainEvent) -> int:
    return int(str(event.fields["segment"]))


class _Killer:
    """Kills solvers after they have claimed, as the same seed makes machines give up in the forecast."""

    def __init__(self, trial: Trial, abandons: float) -> None:
        self._trial = trial
        self._machine = Machine(1.0, abandons=abandons)
        self._attempts: Counter[int] = Counter()
        self._due: list[tuple[float, str, bool]] = []
        """when somebody is to be killed; or to be started again, if true"""
        self._holds: dict[str, Claim] = {}
        """what each solver has claimed"""
        self.killed: Counter[str] = Counter()
        self.ends: dict[Claim, float] = {}
        """when work on a claim was ended"""
        self.lost = 0

    @property
    def waits(self) -> bool:
        """Whether something is still to be done."""
        return bool(self._due)

    def look(self, events: Sequence[ChainEvent]) -> None:
        """Takes notice of new events, and does what is due."""
        trial, setting = self._trial, self._trial.setting
        for event in events:
            if event.name not in ("Claimed", "Committed", "Expired"):
                continue
            segment, name = _segment(event), trial.name_of(event)
            if event.name != "Claimed":
                if self._holds.get(name) == (segment, self._attempts[segment] - 1):
                    del self._holds[name]
                continue
            self._holds[name] = segment, self._attempts[segment]
            stop = self._machine.fate(setting.seed, segment, self._attempts[segment])[1]
            self._attempts[segment] += 1
            if stop < 1:
                spec = trial.blueprint.plan.segments[segment]
                share = setting.share * setting.speeds[trial.names.index(name)]
                work = spec.steps * trial.step_seconds[spec.program_root] / share
                heapq.heappush(self._due, (time.monotonic() + stop * work, name, False))
        while self._due and self._due[0][0] <= time.monotonic():
            _, name, again = heapq.heappop(self._due)
            if again:
                trial.stage.start(name)
            else:
                self._kill(name)

    def _kill(self, name: str) -> None:
        trial = self._trial
        process = trial.stage.processes[name]
        if process.poll() is not None:
            return
        process.kill()
        process.wait()
        self.killed[name] += 1
        trial.lives[name] += trial.moved_by(name)
        if name in self._holds:
            claim = self._holds[name]
            self.ends[claim] = time.monotonic()
            work = trial.stage.status(name).get("work")
            is_training = trial.blueprint.roles[claim[0]].what == "train"
            if is_training and isinstance(work, dict) and work.get("segment") == claim[0]:
                self.lost += int(work["step"])
        heapq.heappush(self._due, (time.monotonic() + trial.lease, name, True))


def compared(setting: Setting, runs: Sequence[Happened]) -> Sheet:
    """What was forecast and what happened."""
    rows = []
    for run in runs:
        told = run.forecast
        spread = f" ({run.spread[0]:.0f} … {run.spread[1]:.0f})" if run.spread[0] < run.spread[1] else ""
        lines: list[tuple[str, str, str, float | None]] = [
            ("seconds", f"{told.seconds:.0f}{spread}", f"{run.seconds:.0f}", told.seconds / run.seconds),
            (
                "bytes", format_bytes(told.up + told.down), format_bytes(run.moved),
                (told.up + told.down) / run.moved,
            ),
            ("price, tokens", f"{told.cost / 1e18:.2f}", f"{run.paid / 1e18:.2f}", told.cost / run.paid),
            (
                "machines' own cost", f"{told.expenses:.4f}", f"{run.held * HOURLY / HOUR:.4f}",
                told.expenses / (run.held * HOURLY / HOUR),
            ),
            ("claims", f"{told.claims}", f"{run.claims}", None),
            ("leases that ran out", f"{told.expired}", f"{sum(run.expired.values())}", None),
            ("goodput", f"{told.goodput:.1%}", f"{run.goodput:.1%}", None),
            ("training steps a second", f"{run.steps / told.seconds:.2f}", f"{run.steps / run.seconds:.2f}", None),
        ]  # fmt: skip
        rows += [
            (run.name if i == 0 else "", what, said, found, "" if ratio is None else f"{ratio:.2f}")
            for i, (what, said, found, ratio) in enumerate(lines)
        ]
    headings = ("run", "", "forecast", "happened", "forecast / happened")
    speeds = " : ".join(map(str, setting.speeds))
    return Sheet(f"Solvers of speeds {speeds}, {setting.rounds} rounds", headings, tuple(rows), names=2)


app = typer.Typer(add_completion=False)


@app.command(epilog="Example: python -m bench.churn --rounds 3 --seed 1")
def main(
    rounds: Annotated[int, typer.Option(min=1)] = Setting.rounds,
    seed: Annotated[int, typer.Option(help="Which claims are abandoned.")] = Setting.seed,
    abandons: Annotated[float, typer.Option(min=0, max=0.9, help="Part of the claims.")] = Setting.abandons,
    publish: Annotated[
        bool, typer.Option("--publish", help="Put the table into docs/SIMULATION.md.")
    ] = False,
) -> None:
    """Solvers of unequal speeds, a part of whose claims are abandoned, beside the forecast."""
    console = Console()
    setting = Setting(rounds=rounds, seed=seed, abandons=abandons)
    runs: list[Happened] = []

    def play(_: ExitStack) -> bool:
        blueprint = crowd(setting)
        for name, part in (
            ("in peace", 0.0),
            (f"{setting.abandons:.0%} of claims abandoned", setting.abandons),
        ):
            with ExitStack() as stack:  # nobody has anything of the run before
                trial = Trial(setting, blueprint, folder / f"run {len(runs)}", console, stack)
                runs.append(trial.play(name, part))
        table = compared(setting, runs)
        console.print(as_table(table))
        for run in runs:
            killed = f"{sum(run.killed.values())} kills, {run.absent} absences, {run.lost} steps lost"
            console.print(f"{run.name}: {killed}", highlight=False)
            for what, holds in run.checks.items():
                console.print(f"{'✓' if holds else '✗'} {what}", highlight=False)
        if publish:
            DOCUMENT.write_text(filled(DOCUMENT.read_text(), {"churn": sheet_markdown(table)}))
        return all(all(run.checks.values()) for run in runs)

    folder = RESULTS / "churn"
    raise typer.Exit(stage.run(folder, console, play))


if __name__ == "__main__":
    app()
