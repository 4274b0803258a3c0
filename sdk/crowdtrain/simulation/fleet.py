"""Machines, how they come and go, and how they are connected."""

from __future__ import annotations

import json
import math
import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from crowdtrain._errors import ConfigError, PlanError
from crowdtrain.simulation.workload import check_number

__all__ = ["MAX_MACHINES", "Fleet", "Machine", "Market", "Network"]

MAX_MACHINES = 10_000
MAX_FILE = 2**24
HOUR = 3600.0
YEAR = 365 * 24 * HOUR
ALWAYS = ((0.0, math.inf),)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that works for pay. Raises PlanError for numbers that cannot be.

    Bytes and seconds; ``up``, ``down`` and ``latency`` are the network's if they are not given.
    """

    speed: float
    """body operations a second (``measure_speed``)"""
    name: str = ""
    memory: float = math.inf
    price: float = 0.0
    """of an hour of its work, in the plan's unit"""
    up: float | None = None
    """bytes a second that it can send"""
    down: float | None = None
    """bytes a second that it can receive"""
    writes: float = math.inf
    """bytes of checkpoints a second that it hashes and writes"""
    latency: float | None = None
    """seconds before the store answers"""
    present: tuple[tuple[float, float], ...] = ALWAYS
    """from when to when it takes part"""
    mean_up: float = math.inf
    """seconds after which it fails, in the mean; times between failures are exponential"""
    mean_down: float = 0.0
    """seconds until it is back after a failure, in the mean"""
    jitter: float = 0.0
    """standard deviation of the logarithm of the time that a segment takes"""
    abandons: float = 0.0
    """part of its claims that it gives up without a word"""
    away: float = 0.0
    """seconds for which it is gone after it has given up a claim"""

    def __post_init__(self) -> None:
        for what in ("speed", "memory", "up", "down", "writes", "mean_up"):
            value = getattr(self, what)
            if value is not None:
                check_number(f"{what} of a machine", value, above=True)
        for what in ("price", "latency", "mean_down", "jitter", "abandons", "away"):
            value = getattr(self, what)
            if value is not None:
                check_number(f"{what} of a machine", value)
                if not math.isfinite(value):
                    raise PlanError(f"{what} of a machine must be finite")
        if self.jitter > 3 or self.abandons > 1 or math.isinf(self.speed):
            raise PlanError(
                "a machine has a finite speed, a jitter of at most 3, and abandons at most all claims"
            )
        times = [time for interval in self.present for time in interval]
        for time in times:
            check_number("presence of a machine", time)
        if any(late <= early for early, late in pairwise(times)):
            raise PlanError("the intervals in which a machine is present must follow one another")

    def fate(self, seed: int, segment: int, attempt: int) -> tuple[float, float]:
        """By how much its attempt at a segment (number 0, 1, …) takes longer than planned, and after which part of the
        work it gives up; infinity if it does not."""
        if not (self.jitter or self.abandons):
            return 1.0, math.inf
        rng = random.Random(f"{seed}/{segment}/{attempt}")
        factor = math.exp(rng.gauss(0.0, self.jitter) - self.jitter**2 / 2)
        gives_up = rng.random() < self.abandons
        return factor, rng.random() if gives_up else math.inf

    def life(self, rng: random.Random) -> Iterator[tuple[float, float]]:
        """Intervals in which it works: it is present, and has not failed."""
        for start, end in self.present:
            now = start
            while now < end:
                fails = now + (rng.expovariate(1 / self.mean_up) if self.mean_up < math.inf else math.inf)
                yield now, min(fails, end)
                now = fails + (rng.expovariate(1 / self.mean_down) if self.mean_down else 0.0)


@dataclass(frozen=True)
class Fleet:
    """Up to 10,000 machines."""

    machines: tuple[Machine, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.machines) <= MAX_MACHINES:
            raise PlanError(f"a fleet has 1 to {MAX_MACHINES} machines, not {len(self.machines)}")

    def __len__(self) -> int:
        return len(self.machines)

    @classmethod
    def of(cls, count: int, machine: Machine) -> Fleet:
        """Equal machines."""
        check_number("number of machines", count, least=1)
        if count > MAX_MACHINES:
            raise PlanError(f"a fleet has 1 to {MAX_MACHINES} machines, not {count}")
        return cls(tuple(replace(machine, name=f"{machine.name or 'machine'} {i}") for i in range(count)))

    @classmethod
    def mixed(cls, count: int, machine: Machine, *, seed: int = 0, spread: float = 0.6) -> Fleet:
        """Machines whose speeds scatter around that of ``machine``; ``spread`` is the standard deviation of their
        logarithms, as in volunteer computing, where it is about 0.6."""
        check_number("spread", spread)
        rng = random.Random(seed)
        same = cls.of(count, machine).machines
        return cls(
            tuple(replace(one, speed=one.speed * math.exp(rng.gauss(0, min(spread, 3)))) for one in same)
        )

    @classmethod
    def read(cls, path: Path) -> Fleet:
        """The fleet in a TOML or JSON file: a list ``machines``, of which each has the fields of :class:`Machine`, and
        ``count``, how many there are of it. Raises ConfigError, saying what is wrong with it."""
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE + 1)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        if len(content) > MAX_FILE:
            raise ConfigError(f"{path} is larger than {MAX_FILE} bytes")
        try:
            text = content.decode()
            parsed = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
            return cls(tuple(_machines(parsed)))
        except (ValueError, RecursionError) as error:  # of which PlanError is one
            raise ConfigError(f"{path} holds no fleet: {error}") from error

    def fastest(self, count: int) -> Fleet:
        """The ``count`` machines of greatest speed."""
        order = sorted(range(len(self)), key=lambda m: (-self.machines[m].speed, m))[:count]
        return Fleet(tuple(self.machines[m] for m in sorted(order)))


def _machines(parsed: object) -> Iterator[Machine]:
    if not isinstance(parsed, Mapping) or set(parsed) != {"machines"}:
        raise PlanError("it must have a list 'machines' and nothing else")
    if not isinstance(parsed["machines"], Sequence) or isinstance(parsed["machines"], str):
        raise PlanError("'machines' must be a list")
    total = 0
    for entry in parsed["machines"]:
        if not isinstance(entry, Mapping):
            raise PlanError("each of the machines must be a table")
        fields: dict[str, Any] = dict(entry)
        count = fields.pop("count", 1)
        name = fields.pop("name", "machine")
        unknown = set(fields) - set(Machine.__slots__)
        if unknown or not isinstance(name, str) or isinstance(count, bool) or not isinstance(count, int):
            raise PlanError(
                f"machine {name!r}: unknown {sorted(unknown)}, or its name is no text or count no number"
            )
        total += max(count, 0)
        if count < 1 or total > MAX_MACHINES:
            raise PlanError(f"a fleet has 1 to {MAX_MACHINES} machines")
        if "speed" not in fields:
            raise PlanError(f"machine {name!r} has no speed")
        if "present" in fields:
            fields["present"] = _intervals(fields["present"])
        one = Machine(name=name, **fields)
        yield from Fleet.of(count, one).machines if count > 1 else (one,)


def _intervals(value: object) -> tuple[tuple[float, float], ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise PlanError("'present' must be a list of pairs")
    pairs = [tuple(pair) if isinstance(pair, Sequence) else () for pair in value]
    if not all(len(pair) == 2 for pair in pairs):
        raise PlanError("'present' must be a list of pairs")
    return tuple((pair[0], pair[1]) for pair in pairs)


@dataclass(frozen=True, slots=True)
class Network:
    """Links between machines and the store, in bytes a second, and times in seconds."""

    up: float = 1.25e6
    """what a machine can send, unless it says otherwise: 10 Mbit/s"""
    down: float = 1.25e7
    """what a machine can receive, unless it says otherwise: 100 Mbit/s"""
    latency: float = 0.05
    """before the store answers"""
    store_in: float = math.inf
    """what the store can receive from all machines together; they share it evenly"""
    store_out: float = math.inf
    """what the store can send to all machines together"""
    chain: float = 2.0
    """until a transaction is in a block and has been seen"""

    def __post_init__(self) -> None:
        for what in ("up", "down", "store_in", "store_out"):
            check_number(what, getattr(self, what), above=True)
        for what in ("latency", "chain"):
            check_number(what, getattr(self, what))
            if not math.isfinite(getattr(self, what)):
                raise PlanError(f"{what} must be finite")


@dataclass(frozen=True, slots=True)
class Market:
    """How segments are claimed and settled."""

    lease: float | None = None
    """seconds from claim to commit; one that nine in ten machines can keep if it is not given"""
    lease_part: float = 0.5
    """the part of a lease that fetching, computing and storing may take, as estimated, for a machine to claim"""
    window: float = 600.0
    """seconds in which a commitment can be disputed"""
    patience: float = 30.0
    """seconds after the end of a lease until others open a segment again whose solver is gone; itself it does so at
    once"""
    uploads: Literal["all", "shared"] = "all"
    """which groups of an output are stored: all, or those that another worker or the buyer needs. What is not stored
    stays with the machine that made it, which alone can then do the worker's segments"""
    checkpoints: int = 16
    """of a segment; a machine that comes back goes on from the last one"""
    deadline: float = YEAR
    """seconds after which nothing is claimed"""

    def __post_init__(self) -> None:
        if self.lease is not None:
            check_number("lease", self.lease, above=True)
        check_number("lease_part", self.lease_part, above=True)
        check_number("window", self.window)
        check_number("patience", self.patience)
        check_number("deadline", self.deadline, above=True)
        check_number("checkpoints", self.checkpoints, least=1)
        if self.lease_part > 1 or math.isinf(self.window + self.patience):
            raise PlanError("lease_part is at most 1, and window and patience end")
        if self.uploads not in ("all", "shared"):
            raise PlanError(f"uploads must be 'all' or 'shared', not {self.uploads!r}")
