"""The Emission's rules, for the fake chain."""

from __future__ import annotations

from collections.abc import Sequence

from crowdtrain._fake_world import World, require
from crowdtrain.chain import Address

__all__ = ["accrue", "claimable", "collect", "epoch"]

_EPOCH, _FIRST_BUDGET, _RATIO = 30 * 24 * 3600, 10**25, 1
_SOLVER, _AUDITORS, _BUYER = 60, 25, 15
"""percent of a fee"""


def epoch(world: World) -> int:
    """Number of the epoch that it is."""
    return (world.time - world.start) // _EPOCH


def accrue(world: World, fee: int, solver: Address, buyer: Address, auditors: Sequence[Address]) -> None:
    """Points for a settled segment that paid ``fee``."""
    now = epoch(world)
    world.fees[now] = world.fees.get(now, 0) + fee
    share = fee * _AUDITORS // 100 // len(auditors) if auditors else 0
    solver_points, buyer_points = fee * _SOLVER // 100, fee * _BUYER // 100
    for account, points in (
        (solver, solver_points),
        (buyer, buyer_points),
        *((auditor, share) for auditor in auditors),
    ):
        world.points[now, account] = world.points.get((now, account), 0) + points
    world.emit(
        "Emission", "Accrued", epoch=now, solver=solver, buyer=buyer, fee=fee, solverPoints=solver_points,
        auditorPoints=share, buyerPoints=buyer_points, auditors=tuple(auditors),
    )  # fmt: skip


def claimable(world: World, number: int, account: Address) -> int:
    """What an account's points of an epoch are worth, so far."""
    points, paid = world.points.get((number, account), 0), world.fees.get(number, 0)
    most = _FIRST_BUDGET >> number
    return points * _RATIO if paid * _RATIO <= most else points * most // paid


def collect(world: World, sender: Address, number: int, account: Address) -> None:
    """Mints what an account's points of an epoch that is over are worth."""
    end = world.start + (number + 1) * _EPOCH
    require(world.time >= end, "EpochRunning", epoch=number, until=end)
    amount = claimable(world, number, account)
    require(amount > 0, "NothingToClaim", epoch=number, account=account)
    points = world.points.pop((number, account))
    world.rewards[account] = world.rewards.get(account, 0) + amount
    world.emit("Emission", "Claimed", epoch=number, account=account, points=points, amount=amount)
