"""Gas of every call, of an undisputed segment, and of a whole dispute of the demo's model, on a real chain.

Run with ``make bench-gas``. Exits with 1 if an aim is missed: a dispute in at most 20 transactions and
4 million gas, an undisputed segment in at most 550,000 gas.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import crowdtrain_engine as engine
import torch
from crowdtrain import optim
from crowdtrain.chain import JobId, JobTerms, Phase, SegmentKey
from crowdtrain.demo import digits
from crowdtrain.demo.report import games, show_gas
from crowdtrain.devnet import Devnet
from crowdtrain.game import attack, defend
from crowdtrain.game.sabotage import Sabotage, parse
from crowdtrain.gas import Spent, gas_spent
from crowdtrain.jobs import JobFiles, load_job, publish_job
from crowdtrain.lowering import lower
from crowdtrain.plan import chain as chain_of_segments
from crowdtrain.stores import FakeStore
from crowdtrain.tensors import save_state
from crowdtrain.web3_chain import Web3Chain
from crowdtrain_engine.trace import Machine, Replay, seal, trace_root
from rich.console import Console

STEPS, INTERVAL, SEGMENTS, BATCH = 30, 6, 8, 64
STAKE, PRICE = 10**18, 10**17
WINDOW = 600


@contextmanager
def market() -> Iterator[tuple[Devnet, list[Web3Chain]]]:
    """A chain with three accounts: buyer, solver, verifier."""
    with tempfile.TemporaryDirectory() as folder, Devnet(Path(folder), accounts=3) as devnet:
        yield devnet, [Web3Chain(devnet.rpc, devnet.deployment, key) for key in devnet.keys]


def post(buyer: Web3Chain, store: FakeStore) -> JobFiles:
    """Posts the demo's job; its verified files."""
    shown = digits.load()
    batch = torch.from_numpy(shown.images[:BATCH]), torch.from_numpy(shown.classes[:BATCH])
    lowered = lower(
        digits.network(),
        torch.nn.functional.cross_entropy,
        optimizer=optim.AdamW(lr=digits.LEARNING_RATE, weight_decay=digits.WEIGHT_DECAY),
        example=batch,
    )
    order = digits.sample_order(len(shown.images), SEGMENTS * STEPS, BATCH)
    data = engine.Dataset(shown.images, shown.classes, order=order)
    program, state = lowered.bind(data.rows), lowered.initial_state()
    plan = chain_of_segments(
        program, data.root, segments=SEGMENTS, steps=SEGMENTS * STEPS, interval=INTERVAL, price=PRICE
    )
    terms = JobTerms(
        plan_root=plan.root,
        initial_root=state.root,
        initial_groups=len(state),
        segments=SEGMENTS,
        escrow=plan.price,
        stake=STAKE,
        lease=3600,
        window=WINDOW,
        clock=3600,
        audit_rate=0,
        audit_share=0,
        deadline=int(time.time()) + 10**6,
    )
    job, _ = buyer.post(terms, publish_job(store, plan, [program], [data], state))
    return load_job(buyer, store, job)


def commit(solver: Web3Chain, files: JobFiles, index: int, sabotage: Sabotage | None) -> Replay:
    """Claims, executes and commits a segment; the solver's run."""
    key = SegmentKey(JobId(files.job.id), index)

    def segment(number: int) -> object:
        return solver.segment(SegmentKey(key.job, number))

    inputs = files.input_proofs(index, segment)  # type: ignore[arg-type]
    solver.claim(key, files.spec(index), files.plan.proof(index), inputs)
    machine = Machine(files.program(index), files.dataset(index), deviation=sabotage)
    state = files.load_input(index, segment)  # type: ignore[arg-type]
    run = Replay.run(machine, state, steps=STEPS, interval=INTERVAL)
    output = run.state_at(len(run.trace) - 1)
    sealed = seal(trace_root(run.trace), bytes.fromhex(solver.address[2:]))
    cid = save_state(files.store, output)
    solver.commit(key, run.trace[0], output.group_roots, sealed, cid)
    return run


def dispute(defender: Web3Chain, challenger: Web3Chain, files: JobFiles, index: int, run: Replay) -> None:
    """Challenges a committed segment and plays to the end."""
    key = SegmentKey(JobId(files.job.id), index)
    machine = Machine(files.program(index), files.dataset(index))
    own = Replay.run(machine, run.state_at(0), steps=STEPS, interval=INTERVAL)
    number, _ = challenger.challenge(key, files.spec(index), challenger.segment(key).seal)
    challenger.node.request("evm_increaseTime", hex(max(0, challenger.game(number).since - challenger.now())))
    challenger.node.request("evm_mine")
    while (game := challenger.game(number)).phase is not Phase.OVER:
        move, chain = defend(game, run), defender
        if move is None:
            move, chain = attack(game, own), challenger
        if move is None:
            raise RuntimeError(f"nobody has a move in phase {game.phase.name}")
        move.send(chain)


def segment_gas(spent: list[Spent]) -> int:
    """Gas of a claim, commit and settle of a solver who has settled before: the least of each."""
    calls = ("Market.claim", "Market.commit", "Market.settle")
    return sum(min(one.gas for one in spent if one.call == call) for call in calls)


def main() -> int:
    """Plays it all and prints the tables."""
    console = Console()
    store = FakeStore()
    with market() as (devnet, (buyer, solver, verifier)):
        files = post(buyer, store)
        for chain in (solver, verifier):
            chain.deposit(4 * STAKE)
        for index in range(2):
            run = commit(solver, files, index, None)
            devnet.advance(WINDOW + 1)
            key = SegmentKey(JobId(files.job.id), index)
            solver.settle(key, files.spec(index), trace_root(run.trace))
        run = commit(solver, files, 2, parse("gradient:17"))
        dispute(solver, verifier, files, 2, run)
        spent = gas_spent(buyer.node, devnet.deployment, devnet.deployment.block, buyer.head()[0])
    show_gas(console, spent)
    ((transactions, gas),) = games(spent).values()
    undisputed = segment_gas(spent)
    aims = (
        (f"dispute: {transactions} transactions, at most 20", transactions <= 20),
        (f"dispute: {gas:,} gas, at most 4,000,000", gas <= 4_000_000),
        (f"claim + commit + settle: {undisputed:,} gas, at most 550,000", undisputed <= 550_000),
    )
    for what, reached in aims:
        console.print(f"{'reached' if reached else 'MISSED '}  {what}", highlight=False)
    return 0 if all(reached for _, reached in aims) else 1


if __name__ == "__main__":
    sys.exit(main())
