"""What machines can do: how long each would take for a segment, and whether it claims it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from crowdtrain._errors import PlanError
from crowdtrain.simulation.fleet import HOUR, Fleet, Machine, Market, Network
from crowdtrain.simulation.workload import Workload

__all__ = ["Estimator"]

MOST_KINDS = 4000
"""kinds of segments that are looked at to choose a lease"""
SLACK = 1 + 1e-9


class Estimator:
    """Estimates for every machine of a fleet and every segment of a workload.

    Raises PlanError if there is a segment that no machine could ever do.
    """

    def __init__(self, workload: Workload, fleet: Fleet, network: Network, market: Market) -> None:
        self.workload, self._network = workload, network
        self.kept: frozenset[int] = frozenset() if market.uploads == "all" else workload.private
        """groups that stay with the machine that made them"""
        self.stored = [tuple(g for g in task.outputs if g not in self.kept) for task in workload.tasks]
        """groups of each segment's output that go to the store"""
        self.bytes_in = [workload.bytes(task.inputs) for task in workload.tasks]
        self.bytes_out = [workload.bytes(groups) for groups in self.stored]

        def each(value: Callable[[Machine], float | None], default: float = 0.0) -> list[float]:
            found = (value(machine) for machine in fleet.machines)
            return [float(default if number is None else number) for number in found]

        self.speed = each(lambda machine: machine.speed)
        self.up = each(lambda machine: machine.up, network.up)
        self.down = each(lambda machine: machine.down, network.down)
        self.latency = each(lambda machine: machine.latency, network.latency)
        self._memory = each(lambda machine: machine.memory)
        self._rate = each(lambda machine: machine.price / HOUR)
        self._priced = workload.price > 0
        self._rates = np.array(self._rate)
        self._speeds, self._memories = np.array(self.speed), np.array(self._memory)
        self._per_byte_up, self._per_byte_down = 1 / np.array(self.up), 1 / np.array(self.down)
        self._waits = 2 * (np.array(self.latency) + network.chain)
        self.lease = market.lease or self._fitting_lease(market.lease_part)
        self.limit = self.lease * market.lease_part
        """seconds that a segment may take, as estimated"""
        self._check_somebody_is_able()

    def seconds(self, index: int) -> NDArray[np.float64]:
        """Seconds that each machine would take for a segment, if it has to fetch everything."""
        moving = self.bytes_in[index] * self._per_byte_down + self.bytes_out[index] * self._per_byte_up
        total: NDArray[np.float64] = (
            moving + self.workload.tasks[index].operations / self._speeds + self._waits
        )
        return total

    def willing(self, index: int) -> NDArray[np.bool_]:
        """Which machines can do a segment in time even if they have to fetch everything, and are paid enough for it."""
        seconds = self.seconds(index)
        found: NDArray[np.bool_] = (seconds <= self.limit * SLACK) & self._has_memory(index)
        if self._priced:
            found &= seconds * self._rates <= self.workload.tasks[index].price * SLACK
        return found

    def _has_memory(self, index: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.workload.tasks[index].memory <= self._memories
        return found

    def could(self, machine: int, operations: float, memory: float) -> bool:
        """Whether a machine is fast and large enough for such a segment."""
        return operations / self.speed[machine] <= self.limit and memory <= self._memory[machine]

    def fits(self, machine: int, index: int, lacking: Collection[int]) -> bool:
        """Whether a machine that lacks these groups can do a segment in time, and is paid enough for it."""
        task = self.workload.tasks[index]
        if not self.could(machine, task.operations, task.memory):
            return False
        if self.kept and not self.kept.isdisjoint(lacking):
            return False
        seconds = self.exactly(machine, index, lacking)
        is_paid = not self._priced or seconds * self._rate[machine] <= task.price * SLACK
        return is_paid and seconds <= self.limit * SLACK

    def exactly(self, machine: int, index: int, lacking: Collection[int]) -> float:
        """Seconds that a machine that has to fetch these groups would take for a segment."""
        task, sizes = self.workload.tasks[index], self.workload.sizes
        fetching = sum(sizes[g] for g in lacking) / self.down[machine]
        storing = self.bytes_out[index] / self.up[machine]
        waiting = 2 * (self.latency[machine] + self._network.chain)
        return fetching + task.operations / self.speed[machine] + storing + waiting

    def _fitting_lease(self, part: float) -> float:
        """A lease that nine in ten machines can keep for every segment, in whole minutes."""
        kinds: dict[Sequence[float], int] = {}
        for index, task in enumerate(self.workload.tasks):
            kinds.setdefault((task.operations, self.bytes_in[index], self.bytes_out[index]), index)
        most = np.zeros(len(self.speed))
        for index in list(kinds.values())[:MOST_KINDS]:
            np.maximum(most, self.seconds(index), out=most)
        return 60.0 * math.ceil(float(np.quantile(most, 0.9)) / part / 60 * SLACK + 1e-9)

    def _check_somebody_is_able(self) -> None:
        known: set[tuple[float, float]] = set()
        for index, task in enumerate(self.workload.tasks):
            if (task.operations, task.memory) in known:
                continue
            known.add((task.operations, task.memory))
            able = task.operations / self._speeds + self._waits <= self.limit * SLACK
            if not (able & self._has_memory(index)).any():
                raise PlanError(
                    f"no machine can do segment {index} ({task.what}): {task.operations:.3g} operations "
                    f"in {self.limit:.3g} s with {task.memory:.3g} bytes of memory"
                )
