"""The Audit's rules, for the fake chain. Each function with a sender is one call of ``contracts/Audit.sol``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from crowdtrain_engine.trace import seal as seal_of
from eth_utils.crypto import keccak

from crowdtrain._fake_world import NOBODY, RULES, World, require, revert
from crowdtrain.chain import NONE, WHOLE, Address, Outcome, Record, Round, SegmentKey
from crowdtrain.economics import FLOOR_RATE, HALVING_PRICES, PENALTY_PART, START_RATE

__all__ = [
    "attest", "draw", "drop", "enroll", "expired", "finish_leaving", "is_drawn", "leave", "open_round", "punish",
    "rate_of", "reveal", "round_of", "settle", "weight_at",
]  # fmt: skip

_START_RATE, _FLOOR_RATE = round(START_RATE * WHOLE), round(FLOOR_RATE * WHOLE)
_MOST_SEATS = 16
_EMPTY = Round(Outcome.NONE, 0, 0, 0, NOBODY, 0, 0, 0, 0, NONE, NONE, NONE)


# ------------------------------------------------------------------ weight


def weight_at(world: World, auditor: Address, block: int) -> int:
    """Weight of an auditor, or of all under NOBODY, at the end of a block."""
    return next((w for since, w in reversed(world.weights.get(auditor, ())) if since <= block), 0)


def _set_weight(world: World, auditor: Address, weight: int) -> None:
    change = weight - weight_at(world, auditor, world.block)
    for account in (auditor, NOBODY):
        held = weight_at(world, account, world.block) + change
        world.weights[account] = (*world.weights.get(account, ()), (world.block, held))


def enroll(world: World, sender: Address, amount: int) -> None:
    weight = weight_at(world, sender, world.block) + amount
    _set_weight(world, sender, weight)
    world.emit("Audit", "Enrolled", auditor=sender, amount=amount, weight=weight)
    world.lock(sender, amount)


def leave(world: World, sender: Address, amount: int) -> None:
    weight = weight_at(world, sender, world.block)
    require(0 < amount <= weight, "NotEnrolled", auditor=sender, weight=weight, needed=amount)
    _set_weight(world, sender, weight - amount)
    free = world.time + RULES.unbonding
    world.leaving[sender] = (world.leaving.get(sender, (0, 0))[0] + amount, free)
    world.emit("Audit", "Leaving", auditor=sender, amount=amount, weight=weight - amount, free=free)


def finish_leaving(world: World, sender: Address, auditor: Address) -> None:
    amount, free = world.leaving.get(auditor, (0, 0))
    require(amount > 0, "NothingToLeave", auditor=auditor)
    require(world.time >= free, "TooEarly", until=free)
    del world.leaving[auditor]
    world.emit("Audit", "Left", auditor=auditor, amount=amount)
    world.unlock(auditor, amount)


# ------------------------------------------------------------------ draw and attestations


def draw(world: World, sender: Address, key: SegmentKey, attempt: int) -> None:
    found = _round(world, key, attempt, Outcome.OPEN)
    require(found.seed == NONE, "AlreadyDrawn", seed=found.seed)
    require(world.time <= found.attest_until, "TooLate", until=found.attest_until)
    require(world.block > found.draw_block, "NoSeed", drawBlock=found.draw_block)
    if world.hash_of(found.draw_block) != NONE:
        _draw(world, key, attempt, found)
        return
    world.rounds[key, attempt] = replace(found, draw_block=world.block + 1)
    _emit(world, "DrawMissed", key, attempt, drawBlock=world.block + 1)


def attest(
    world: World, sender: Address, key: SegmentKey, attempt: int, seal: bytes, attestation: bytes
) -> None:
    found = _round(world, key, attempt, Outcome.OPEN)
    require(found.seal == seal, "WrongSeal", actual=found.seal, named=seal)
    require(world.time <= found.attest_until, "TooLate", until=found.attest_until)
    require(attestation != NONE, "NoAttestation")
    if found.seed == NONE:
        found = _draw(world, key, attempt, found)
    require(is_drawn(world, key, attempt, sender), "NotDrawn", auditor=sender)
    taken = world.attestations.get((key, attempt), {})
    require(sender not in taken, "AlreadyAttested", auditor=sender)
    require(found.attestations < found.seats, "SeatsTaken", seats=found.seats)
    world.rounds[key, attempt] = replace(found, attestations=found.attestations + 1)
    world.attestations[key, attempt] = {**taken, sender: attestation}
    _emit(world, "Attested", key, attempt, auditor=sender, attestation=attestation)


def reveal(world: World, sender: Address, key: SegmentKey, attempt: int, trace_root: bytes) -> None:
    found = _round(world, key, attempt, Outcome.OPEN)
    require(world.time > found.attest_until, "TooEarly", until=found.attest_until)
    require(found.trace_root == NONE, "AlreadyRevealed", traceRoot=found.trace_root)
    _reveal(world, key, attempt, found, trace_root)


def punish(world: World, sender: Address, key: SegmentKey, attempt: int, auditor: Address) -> None:
    found = _round(world, key, attempt, Outcome.SETTLED)
    require((key, attempt, auditor) not in world.punished, "AlreadyPunished", auditor=auditor)
    attestation = world.attestations.get((key, attempt), {}).get(auditor, NONE)
    is_silent = attestation == NONE
    if is_silent:
        require(found.seed != NONE, "NoSeed", drawBlock=found.draw_block)
        require(is_drawn(world, key, attempt, auditor), "NotDrawn", auditor=auditor)
        missed = found.attestations < found.seats and found.is_drawn_in_time
        require(missed, "NotAtFault", auditor=auditor)
    else:
        require(attestation != _sealed(found.trace_root, auditor), "NotAtFault", auditor=auditor)
    world.punished = {*world.punished, (key, attempt, auditor)}
    _add(
        world,
        auditor,
        lambda r: replace(r, silent=r.silent + 1) if is_silent else replace(r, misattested=r.misattested + 1),
    )
    penalty = _take(world, auditor, found.penalty)
    name = "Silent" if is_silent else "Misattested"
    _emit(world, name, key, attempt, auditor=auditor, penalty=penalty, reporter=sender)
    world.slash(auditor, penalty, sender)


# ------------------------------------------------------------------ the Market


def open_round(
    world: World, key: SegmentKey, attempt: int, solver: Address, seal: bytes, attest_until: int,
    price: int, pot: int, fee: int, asked: int,
) -> None:  # fmt: skip
    """A commitment begins."""
    rate = rate_of(world, solver, price, asked)
    world.rounds[key, attempt] = opened = Round(
        outcome=Outcome.OPEN,
        seats=min(_MOST_SEATS, 2 * -(-rate // WHOLE) + 2),
        attestations=0,
        rate=rate,
        solver=solver,
        committed_in=world.block,
        draw_block=world.block + 1,
        attest_until=attest_until,
        penalty=min(pot, fee) // PENALTY_PART,
        seal=seal,
        seed=NONE,
        trace_root=NONE,
    )
    _emit(
        world, "Opened", key, attempt, rate=rate, seats=opened.seats, pot=pot, drawBlock=opened.draw_block,
        attestUntil=attest_until,
    )  # fmt: skip


def settle(world: World, key: SegmentKey, attempt: int, trace_root: bytes, price: int) -> list[Address]:
    """A commitment settles; who attested right."""
    found = _round(world, key, attempt, Outcome.OPEN)
    if found.trace_root == NONE:
        found = _reveal(world, key, attempt, found, trace_root)
    _add(world, found.solver, lambda r: replace(r, settled=r.settled + 1, unbroken=r.unbroken + price))
    _end(world, key, attempt, Outcome.SETTLED)
    taken = world.attestations.get((key, attempt), {})
    right = [auditor for auditor, given in taken.items() if given == _sealed(found.trace_root, auditor)]
    for auditor in right:
        _add(world, auditor, lambda r: replace(r, attested=r.attested + 1))
    return right


def drop(world: World, key: SegmentKey, attempt: int, outcome: Outcome) -> None:
    """A commitment ended otherwise."""
    solver = _round(world, key, attempt, Outcome.OPEN).solver
    if outcome is Outcome.OVERTURNED:
        _add(world, solver, lambda r: replace(r, overturned=r.overturned + 1, unbroken=0))
    if outcome is Outcome.FORFEITED:
        _add(world, solver, lambda r: replace(r, forfeited=r.forfeited + 1, unbroken=0))
    _end(world, key, attempt, outcome)


def expired(world: World, solver: Address) -> None:
    """A lease of this solver ran out."""
    _add(world, solver, lambda r: replace(r, expired=r.expired + 1))


# ------------------------------------------------------------------ views and steps


def round_of(world: World, key: SegmentKey, attempt: int) -> Round:
    """The audit of an attempt, empty if there is none."""
    return world.rounds.get((key, attempt), _EMPTY)


def rate_of(world: World, solver: Address, price: int, asked: int) -> int:
    """Expected number of auditors, in 1/10,000."""
    stakes = HALVING_PRICES * price
    everything = stakes + world.records.get(solver, Record()).unbroken
    rate = _START_RATE * stakes // everything if everything else _START_RATE
    return max(rate, _FLOOR_RATE, asked)


def is_drawn(world: World, key: SegmentKey, attempt: int, auditor: Address) -> bool:
    """Whether an account is drawn; refused with NoSeed while that is not known."""
    found = round_of(world, key, attempt)
    require(
        found.outcome is not Outcome.NONE, "UnknownRound", job=key.job, segment=key.index, attempt=attempt
    )
    seed = found.seed if found.seed != NONE else _seed(world, key, attempt, found)
    if auditor == found.solver:
        return False
    weight = weight_at(world, auditor, found.committed_in - 1)
    enrolled = weight_at(world, NOBODY, found.committed_in - 1)
    random = int.from_bytes(keccak(seed + _word(int(auditor, 16)))[16:], "big")
    return random * enrolled * WHOLE >> 128 < weight * found.rate


def _seed(world: World, key: SegmentKey, attempt: int, found: Round) -> bytes:
    block_hash = world.hash_of(found.draw_block)
    require(block_hash != NONE, "NoSeed", drawBlock=found.draw_block)
    return keccak(block_hash + _word(key.job) + _word(key.index) + _word(attempt))


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _draw(world: World, key: SegmentKey, attempt: int, found: Round) -> Round:
    drawn = replace(found, seed=_seed(world, key, attempt, found))
    world.rounds[key, attempt] = drawn
    _emit(world, "Drawn", key, attempt, seed=drawn.seed)
    return drawn


def _reveal(world: World, key: SegmentKey, attempt: int, found: Round, trace_root: bytes) -> Round:
    is_it = trace_root != NONE and _sealed(trace_root, found.solver) == found.seal
    require(is_it, "WrongTrace", traceRoot=trace_root)
    shown = replace(found, trace_root=trace_root)
    world.rounds[key, attempt] = shown
    _emit(world, "Revealed", key, attempt, traceRoot=trace_root)
    return shown


def _end(world: World, key: SegmentKey, attempt: int, outcome: Outcome) -> None:
    world.rounds[key, attempt] = replace(world.rounds[key, attempt], outcome=outcome)
    _emit(world, "Ended", key, attempt, outcome=outcome)


def _take(world: World, auditor: Address, amount: int) -> int:
    """Takes up to ``amount`` from an auditor's weight, then from what is leaving."""
    weight = weight_at(world, auditor, world.block)
    from_weight = min(weight, amount)
    if from_weight:
        _set_weight(world, auditor, weight - from_weight)
    leaving, free = world.leaving.get(auditor, (0, 0))
    from_leaving = min(leaving, amount - from_weight)
    if from_leaving:
        world.leaving[auditor] = (leaving - from_leaving, free)
    return from_weight + from_leaving


def _add(world: World, account: Address, change: Callable[[Record], Record]) -> None:
    world.records[account] = change(world.records.get(account, Record()))


def _sealed(trace_root: bytes, account: Address) -> bytes:
    return seal_of(trace_root, bytes.fromhex(account[2:]))


def _round(world: World, key: SegmentKey, attempt: int, needed: Outcome) -> Round:
    found = round_of(world, key, attempt)
    if found.outcome is Outcome.NONE:
        revert("UnknownRound", job=key.job, segment=key.index, attempt=attempt)
    require(found.outcome is needed, "WrongOutcome", actual=found.outcome, needed=needed)
    return found


def _emit(world: World, name: str, key: SegmentKey, attempt: int, **values: object) -> None:
    world.emit("Audit", name, job=key.job, segment=key.index, attempt=attempt, **values)
