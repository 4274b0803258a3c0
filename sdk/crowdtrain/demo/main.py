"""``crowdtrain demo``: sets the stage, watches, and judges what came out."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from crowdtrain_engine import Dataset, State
from numpy.typing import NDArray
from rich.console import Console
from torch.nn import functional

from crowdtrain import optim
from crowdtrain._errors import ConfigError, CrowdtrainError, Refused
from crowdtrain._training import LoweredProgram, load_into
from crowdtrain.chain import Address, ChainEvent, GameId, JobId, Segment, SegmentState
from crowdtrain.client import Client, Quote
from crowdtrain.demo import digits
from crowdtrain.demo.people import CAST, Person, running, serving
from crowdtrain.demo.report import (
    Balances,
    Check,
    checks_of_money,
    ledger_of,
    show_checks,
    show_gas,
    show_ledger,
)
from crowdtrain.demo.screen import UNIT, Account, Screen, money
from crowdtrain.devnet import Devnet
from crowdtrain.folders import read_status
from crowdtrain.gas import gas_spent
from crowdtrain.ledger import BURNED, escrow_of, worth
from crowdtrain.lowering import lower
from crowdtrain.watch import Watch
from crowdtrain.web3_chain import Web3Chain

__all__ = ["run"]

SEGMENTS, STEPS, INTERVAL, BATCH = 8, 30, 6, 64
"""segments, steps of each, steps between its checkpoints, samples of a step"""
PRICE, STAKE, TOKENS = 10 * UNIT, 25 * UNIT, 1000 * UNIT
LEASE, WINDOW, CLOCK = 60, 40, 120
AUDITS, AUDIT_SHARE = 1.0, 0.5
"""seconds; short, so that people need not wait"""
PATIENCE = 600
"""seconds until the demo gives up"""
LEAST_ACCURACY, MOST_DIFFERENCE = 0.95, 0.015
CHEAT, AUDITOR = "solver Mallory", "verifier Vera"


@dataclass(frozen=True)
class Stage:
    """What the demo needs to watch its job."""

    console: Console
    folder: Path
    devnet: Devnet
    people: Mapping[str, Person]
    chain: Web3Chain
    client: Client

    @property
    def names(self) -> dict[Address, str]:
        return {person.address: name for name, person in self.people.items()}


def run(folder: Path, console: Console) -> int:
    """The whole demo in ``folder``, which is emptied first; the exit code."""
    torch.set_num_threads(1)  # more gain nothing on so small a network, and the solvers need the processors
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with ExitStack() as stack:
            return _play(folder, console, stack)
    except KeyboardInterrupt:
        console.print("Interrupted; every process has been ended.")
        return 130
    except CrowdtrainError as error:
        console.print(f"[red]The demo failed:[/] {error}\nLogs are in {folder}.")
        return 1


def _play(folder: Path, console: Console, stack: ExitStack) -> int:
    started = time.monotonic()
    console.rule("1. A chain, a store, and the contracts")
    devnet = stack.enter_context(Devnet(folder / "chain", accounts=len(CAST), tokens=TOKENS, block_time=1))
    people = {
        name: Person(name, key, command) for (name, command), key in zip(CAST, devnet.keys, strict=True)
    }
    store = stack.enter_context(serving(folder / "store", devnet.rpc, devnet.deployment_path))
    console.print(f"chain {devnet.rpc}, store {store}, contracts {devnet.deployment_path}", highlight=False)

    console.rule("2. A job: a convolutional network on handwritten digits")
    buyer = people["buyer"]
    client = Client.connect(rpc=devnet.rpc, deployment=devnet.deployment_path, key=buyer.key, store=store)
    stage = Stage(
        console, folder, devnet, people, Web3Chain(devnet.rpc, devnet.deployment, buyer.key), client
    )
    shown, order, program, quote = _job(stage)
    start = {name: worth(stage.chain, person.address) for name, person in people.items()}
    job = client.post(quote)

    console.rule("3. Two solvers and two verifiers, one of them a cheat")
    for person in people.values():
        if person.command:
            _start(stage, person, store, stack)
    segments, events = _watch(stage, job.id, program)

    console.rule("4. What came out")
    state = client.result(job.id)
    with suppress(Refused):  # nothing is left if every auditor's pot was paid out
        stage.chain.refund(job.id)
    events = stage.chain.events(devnet.deployment.block, stage.chain.head()[0])
    checks = _checks_of_training(console, shown, order, program, state, segments)
    checks += _accounts(stage, job.id, start, events)
    passed = show_checks(console, checks)
    console.print(f"{time.monotonic() - started:.0f} seconds in all. Logs are in {folder}.", highlight=False)
    return 0 if passed else 1


def _job(
    stage: Stage,
) -> tuple[digits.Digits, NDArray[np.uint32], LoweredProgram, Quote]:
    shown = digits.load()
    order = digits.sample_order(len(shown.images), SEGMENTS * STEPS, BATCH)
    lowered = lower(
        digits.network(),
        functional.cross_entropy,
        optimizer=optim.AdamW(lr=digits.LEARNING_RATE, weight_decay=digits.WEIGHT_DECAY),
        example=(torch.from_numpy(shown.images[:BATCH]), torch.from_numpy(shown.classes[:BATCH])),
    )
    data = Dataset(shown.images, shown.classes, order=order)
    quote = stage.client.quote(
        lowered,
        data,
        steps=SEGMENTS * STEPS,
        segments=SEGMENTS,
        interval=INTERVAL,
        price=PRICE,
        stake=STAKE,
        lease=LEASE,
        window=WINDOW,
        clock=CLOCK,
        audits=AUDITS,
        audit_share=AUDIT_SHARE,
    )
    _show_job(stage.console, quote)
    return shown, order, lowered, quote


def _show_job(console: Console, quote: Quote) -> None:
    samples, batch = quote.datasets[0].tensors["inputs"].shape[0], BATCH
    program = quote.programs[0]
    parameters = sum(kind.size for kind in program.state[: program.groups[0]])
    for line in (
        f"{parameters:,} parameters; one training step, with batch norm and AdamW, is {len(program.nests)} nests",
        f"{samples:,} digits to train on, {batch} in each step",
        f"{SEGMENTS} segments of {STEPS} steps, a checkpoint every {INTERVAL}",
        f"{money(PRICE)} tokens for each segment, of which {money(quote.fee // SEGMENTS)} are burned as a fee",
        f"auditors share {money(quote.audit_pot // SEGMENTS)} for each; {money(quote.escrow)} are held in escrow",
        f"a solver stakes {money(STAKE)} for each segment; results may be challenged for {WINDOW} seconds, "
        f"games begin when half of that, for sealed attestations, is over",
    ):
        console.print(f"  {line}", highlight=False)


def _start(stage: Stage, person: Person, store: str, stack: ExitStack) -> None:
    """Starts a person's process, with a folder, a key and a copy of the deployment file of its own."""
    folder = stage.folder / person.name.replace(" ", "-")
    deployment = folder / "deployments" / stage.devnet.deployment_path.name
    deployment.parent.mkdir(parents=True)
    shutil.copy(stage.devnet.deployment_path, deployment)
    command = [
        *person.command[:1],
        *("--folder", str(folder), "--rpc", stage.devnet.rpc, "--store", store),
        *("--deployment", str(deployment), "--threads", "1", "--poll", "0.2", "--idle", "0.5", "--quiet"),
        *person.command[1:],
    ]
    stack.enter_context(running(command, folder, {"CROWDTRAIN_KEY": person.key}))
    stage.console.print(f"{person.name}: crowdtrain {' '.join(person.command)}", highlight=False)


# ---------------------------------------------------------------- watching


def _watch(stage: Stage, job: JobId, program: LoweredProgram) -> tuple[list[Segment], list[ChainEvent]]:
    """Shows what happens until every segment is settled; the segments, and all events."""
    watch = Watch(stage.chain, lambda job: None, first_block=stage.devnet.deployment.block)
    events: list[ChainEvent] = []
    accounts: list[Account] = []
    block = -1
    deadline = time.monotonic() + PATIENCE
    with Screen(stage.console, program, stage.names) as screen:
        while time.monotonic() < deadline:
            view = watch.refresh()
            events += view.events
            segments = view.segments_of(job)
            moved = sorted({GameId(number) for event in view.events for number in _game(event)})
            if view.block != block:
                block, accounts = view.block, _look(stage)
            screen.show(view, segments, accounts, [stage.chain.game(game) for game in moved])
            if segments and all(segment.state is SegmentState.SETTLED for segment in segments):
                return segments, events
            time.sleep(0.4)
    raise CrowdtrainError(f"the job is not settled after {PATIENCE} seconds")


def _game(event: ChainEvent) -> list[int]:
    number = event.fields.get("game")
    return [number] if isinstance(number, int) else []


def _look(stage: Stage) -> list[Account]:
    accounts = []
    for name, person in stage.people.items():
        free, locked = stage.chain.stake(person.address)
        tokens, owed = stage.chain.tokens(person.address), stage.chain.owed(person.address)
        try:
            status = read_status(stage.folder / name.replace(" ", "-")) if person.command else {}
        except ConfigError:  # it has not written one yet
            status = {}
        accounts.append(Account(name, tokens, free, locked, owed, status))
    return accounts


# ---------------------------------------------------------------- judging


def _checks_of_training(
    console: Console,
    shown: digits.Digits,
    order: NDArray[np.uint32],
    program: LoweredProgram,
    state: State,
    segments: Sequence[Segment],
) -> list[Check]:
    ours, theirs = digits.network(), digits.network()
    load_into(ours, state)
    digits.train_in_torch(theirs, shown, order)
    accuracy, plain = digits.accuracy(ours, shown), digits.accuracy(theirs, shown)
    console.print(
        f"Held-out accuracy: {accuracy:.2%} by the crowd, {plain:.2%} in plain PyTorch.", highlight=False
    )
    difference = abs(accuracy - plain)
    on_chain = segments[-1].output_root
    return [
        Check(f"accuracy is at least {LEAST_ACCURACY:.0%}", accuracy >= LEAST_ACCURACY, f"{accuracy:.2%}"),
        Check(
            f"accuracy is within {MOST_DIFFERENCE:.1%} of plain PyTorch",
            difference <= MOST_DIFFERENCE,
            f"{difference:.2%}",
        ),
        Check(
            "the weights' root is the root on chain",
            state.root == on_chain,
            f"{state.root.hex()[:16]}… and {on_chain.hex()[:16]}…",
        ),
    ]


def _accounts(
    stage: Stage, job: JobId, start: Mapping[str, int], events: Sequence[ChainEvent]
) -> list[Check]:
    """Prints ledger and gas; what must be true of the money."""
    end = {name: worth(stage.chain, person.address) for name, person in stage.people.items()}
    ledger = ledger_of(events, stage.names)
    for name in (escrow_of(job), BURNED):
        end[name] = sum(entry.amount for entry in ledger if entry.account == name)
    balances = Balances({**start, escrow_of(job): 0, BURNED: 0}, end)
    show_ledger(stage.console, ledger, balances)
    last, _ = stage.chain.head()
    show_gas(
        stage.console,
        gas_spent(stage.chain.node, stage.devnet.deployment, stage.devnet.deployment.block, last),
    )
    return checks_of_money(stage.chain, ledger, balances, events, cheat=CHEAT, auditor=AUDITOR)
