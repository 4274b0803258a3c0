"""``crowdtrain demo``: one job, bought, cheated on, caught, done again, and paid."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from crowdtrain_engine import Dataset, State
from numpy.typing import NDArray
from rich.console import Console
from torch.nn import functional

from crowdtrain import optim
from crowdtrain._training import LoweredProgram, load_into
from crowdtrain.chain import Segment
from crowdtrain.client import Quote
from crowdtrain.demo import digits, stage
from crowdtrain.demo.report import Check, show_checks
from crowdtrain.demo.screen import UNIT, money
from crowdtrain.demo.stage import Stage
from crowdtrain.lowering import lower

__all__ = ["run"]

SEGMENTS, STEPS, INTERVAL, BATCH = 8, 30, 6, 64
"""segments, steps of each, steps between its checkpoints, samples of a step"""
PRICE, STAKE, TOKENS = 10 * UNIT, 25 * UNIT, 1000 * UNIT
LEASE, WINDOW, CLOCK = 60, 40, 120
"""seconds; short, so that people need not wait"""
AUDITS, AUDIT_SHARE = 1.0, 0.5
PATIENCE = 600
"""seconds until the demo gives up"""
LEAST_ACCURACY, MOST_DIFFERENCE = 0.95, 0.015
CHEAT, AUDITOR = "solver Mallory", "verifier Vera"
CAST = (
    ("buyer", ()),
    (AUDITOR, ("verifier", "--enroll", "100e18")),
    ("verifier Viktor", ("verifier",)),
    ("solver Ada", ("solver", "--max-stake", str(SEGMENTS // 2 * STAKE))),
    (CHEAT, ("solver", "--sabotage", "gradient:17")),
)
"""Names, and what each runs. Vera alone enrolls as auditor, so she is drawn for all but her own work. Mallory cheats:
one word of one gradient in step 17 of a segment. Who made what a segment builds on goes first, so that Ada, if she is
the quicker one at the beginning, would do all; therefore she stakes for half of the segments at a time."""


@dataclass(frozen=True)
class Job:
    """What is trained, on what."""

    digits: digits.Digits
    order: NDArray[np.uint32]
    program: LoweredProgram
    quote: Quote


def run(folder: Path, console: Console) -> int:
    """The whole demo in ``folder``, which is emptied first; the exit code."""
    return stage.run(folder, console, lambda stack: _play(folder, console, stack))


def _play(folder: Path, console: Console, stack: ExitStack) -> bool:
    console.rule("1. A chain, a store, and the contracts")
    scene = Stage.set(console, folder, stack, CAST, TOKENS)

    console.rule("2. A job: a convolutional network on handwritten digits")
    job = _job(scene)
    start = scene.worth()
    number = scene.client.post(job.quote).id

    console.rule("3. Two solvers and two verifiers, one of them a cheat")
    for name, command in CAST:
        if command:
            scene.start(name)
    segments = scene.watch(number, lambda _: job.program, PATIENCE)

    console.rule("4. What came out")
    state = scene.client.result(number)
    events = scene.close(number)
    checks = _checks_of_training(console, job, state, segments)
    checks += scene.accounts(number, start, events, cheats={CHEAT}, auditor=AUDITOR)
    return show_checks(console, checks)


def _job(scene: Stage) -> Job:
    shown = digits.load()
    order = digits.sample_order(len(shown.images), SEGMENTS * STEPS, BATCH)
    lowered = lower(
        digits.network(),
        functional.cross_entropy,
        optimizer=optim.AdamW(lr=digits.LEARNING_RATE, weight_decay=digits.WEIGHT_DECAY),
        example=(torch.from_numpy(shown.images[:BATCH]), torch.from_numpy(shown.classes[:BATCH])),
    )
    quote = scene.client.quote(
        lowered,
        Dataset(shown.images, shown.classes, order=order),
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
    _show_job(scene.console, lowered, quote, len(shown.images))
    return Job(shown, order, lowered, quote)


def _show_job(console: Console, program: LoweredProgram, quote: Quote, samples: int) -> None:
    parameters = sum(kind.size for kind in program.state[: program.groups[0]])
    for line in (
        f"{parameters:,} parameters; one training step, with batch norm and AdamW, is {len(program.nests)} nests",
        f"{samples:,} digits to train on, {BATCH} in each step",
        f"{SEGMENTS} segments of {STEPS} steps, a checkpoint every {INTERVAL}",
        f"{money(PRICE)} tokens for each segment, of which {money(quote.fee // SEGMENTS)} are burned as a fee",
        f"auditors share {money(quote.audit_pot // SEGMENTS)} for each; {money(quote.escrow)} are held in escrow",
        f"a solver stakes {money(STAKE)} for each segment; results may be challenged for {WINDOW} seconds, "
        f"games begin when half of that, for sealed attestations, is over",
    ):
        console.print(f"  {line}", highlight=False)


def _checks_of_training(console: Console, job: Job, state: State, segments: Sequence[Segment]) -> list[Check]:
    ours, theirs = digits.network(), digits.network()
    load_into(ours, state)
    digits.train_in_torch(theirs, job.digits, job.order)
    accuracy, plain = digits.accuracy(ours, job.digits), digits.accuracy(theirs, job.digits)
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
