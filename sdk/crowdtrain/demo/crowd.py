"""``crowdtrain demo-crowd``: several machines train one model by DiLoCo; one leaves, one joins, two cheat."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from crowdtrain_engine import Dataset
from crowdtrain_engine.state import Array
from rich.console import Console
from rich.table import Table

from crowdtrain._explain import format_bytes
from crowdtrain._training import load_into
from crowdtrain.chain import Address, ChainEvent, JobId, Segment, SegmentKey, SegmentState, Source
from crowdtrain.demo import stage
from crowdtrain.demo.report import Check, show_checks
from crowdtrain.demo.screen import UNIT, Screen, money
from crowdtrain.demo.stage import Stage
from crowdtrain.demo.text import CharGPT, Text, cross_entropy, order, sample, text
from crowdtrain.jobs import load_job
from crowdtrain.lowering import lower
from crowdtrain.optim import AdamW, warmup_cosine
from crowdtrain.plan import assemble
from crowdtrain.strategies import Blueprint, carry_out, diloco
from crowdtrain.watch import ChainView

__all__ = ["run"]

WORKERS, ROUNDS, STEPS, BATCH = 3, 4, 160, 16
CHARACTERS = 600_000
"""of the text that is trained on"""
HELD_OUT = 256
"""windows of text on which the model is measured"""
PRICE, TOKENS = 120 * UNIT, 20_000 * UNIT
LEASE, WINDOW, CLOCK = 40, 40, 120
"""seconds; short, so that people need not wait"""
AUDITS = 1.0
"""auditors of each segment"""
PATIENCE = 900
"""seconds until the demo gives up"""
MOST_LOSS = 2.5
"""nats for each character; all alike would be 4.6, the frequencies of single characters alone 3.4"""
BOB, MALLORY, TRUDY, CARL = "solver Bob", "solver Mallory", "solver Trudy", "solver Carl"
AUDITOR = "verifier Vera"
CAST = (
    ("buyer", ()),
    (AUDITOR, ("verifier", "--enroll", "100e18")),
    (BOB, ("solver", "--min-price", str(UNIT))),
    (MALLORY, ("solver", "--min-price", str(UNIT), "--sabotage", "gradient:40")),
    ("solver Ada", ("solver", "--min-price", str(UNIT))),
    (TRUDY, ("solver", "--lease-part", "0.01", "--sabotage", "optimizer")),
    (CARL, ("solver",)),
)
"""Names, and what each runs. Bob, Mallory and Ada train, merges pay too little for them; Trudy takes what is done in a
moment: merges. Mallory cheats in step 40 of a training segment, Trudy in a merge. Bob vanishes with a segment that he
has claimed; Carl, who takes everything, comes after Trudy's first merge."""


@dataclass
class Story:
    """Who has gone, and come."""

    scene: Stage
    told: set[str] = field(default_factory=set)

    def go_on(self, view: ChainView, segments: Sequence[Segment], screen: Screen) -> None:
        """Lets Bob vanish while he is at work, and Carl join."""
        holders = {(self.scene.names.get(s.solver), s.state) for s in segments}
        if BOB not in self.told and (BOB, SegmentState.CLAIMED) in holders:
            self.told.add(BOB)
            self.scene.processes[BOB].kill()
            screen.say(f"{BOB}'s machine is switched off, with a segment that he has claimed")
        if CARL not in self.told and (TRUDY, SegmentState.COMMITTED) in holders:
            self.told.add(CARL)
            self.scene.start(CARL)
            screen.say(f"{CARL} joins")


def run(folder: Path, console: Console) -> int:
    """The whole demo in ``folder``, which is emptied first; the exit code."""
    return stage.run(folder, console, lambda stack: _play(folder, console, stack))


def _play(folder: Path, console: Console, stack: ExitStack) -> bool:
    console.rule("1. A chain, a store, and the contracts")
    scene = Stage.set(console, folder, stack, CAST, TOKENS)

    console.rule("2. A job: a small GPT on Python's own sources, for three workers")
    words = text()
    blueprint = _blueprint(words)
    quote = scene.client.quote_plan(
        blueprint,
        lease=LEASE,
        window=WINDOW,
        clock=CLOCK,
        audits=AUDITS,
    )
    console.print(quote)
    start = scene.worth()
    job = scene.client.post(quote).id

    console.rule("3. Four solvers and a verifier; one leaves, one joins, two cheat")
    for name, command in CAST:
        if command and name != CARL:
            scene.start(name)
    segments = scene.watch(job, blueprint.program, PATIENCE, Story(scene).go_on)

    console.rule("4. What came out")
    state = scene.client.result(job)
    events = scene.close(job)
    losses = _losses(scene, job, blueprint, words)
    model = _model(words)
    load_into(model, state)
    _show_losses(console, losses)
    console.print(f"[bold]The model writes:[/]\n{sample(model, words, 400, start='def ')}", highlight=False)
    _show_work(scene, blueprint, segments)
    checks = [
        Check(
            f"held-out loss is at most {MOST_LOSS} nats a character",
            losses[-1] <= MOST_LOSS,
            f"{losses[-1]:.3f}",
        ),
        Check(
            "the crowd's weights are those of one machine, bit for bit",
            carry_out(blueprint).state.root == state.root,
            f"{state.root.hex()[:16]}…",
        ),
        *_checks_of_story(scene, blueprint, segments, events),
        *scene.accounts(job, start, events, cheats={MALLORY, TRUDY}, auditor=AUDITOR),
    ]
    return show_checks(console, checks)


def _model(words: Text) -> CharGPT:
    torch.manual_seed(0)
    return CharGPT(words.size)


def _blueprint(words: Text) -> Blueprint:
    inputs, targets = words.windows(words.train[:CHARACTERS])
    program = lower(
        _model(words),
        cross_entropy,
        optimizer=AdamW(lr=warmup_cosine(3e-3, warmup=20, total=ROUNDS * STEPS), weight_decay=0.01),
        example=(torch.from_numpy(inputs[:BATCH]), torch.from_numpy(targets[:BATCH])),
    )
    data = []
    for worker in range(WORKERS):
        own, following = inputs[worker::WORKERS], targets[worker::WORKERS]
        data.append(Dataset(own, following, order=order(len(own), ROUNDS * STEPS, BATCH, seed=worker)))
    return diloco(program, data, rounds=ROUNDS, steps=STEPS, price=PRICE)


# ---------------------------------------------------------------- what came out


def _losses(scene: Stage, job: JobId, blueprint: Blueprint, words: Text) -> list[float]:
    """Held-out loss of the model before training, and after each merge."""
    files = load_job(scene.client.chain, scene.client.store, job)
    model = _model(words)
    losses = [_loss(model, words)]
    for index, role in enumerate(blueprint.roles):
        if role.what == "merge":
            output = files.load_output(index, scene.client.chain.segment(SegmentKey(job, index)))
            groups = [list(group.values()) for group in output.values()]
            load_into(model, assemble(blueprint.result, partial(_group, groups)))
            losses.append(_loss(model, words))
    return losses


def _group(groups: Sequence[Sequence[Array]], source: Source) -> Sequence[Array]:
    return groups[source.group]


def _loss(model: CharGPT, words: Text) -> float:
    inputs, targets = (torch.from_numpy(part[:HELD_OUT]).long() for part in words.windows(words.held_out))
    with torch.no_grad():
        return float(cross_entropy(model(inputs), targets))


def _show_losses(console: Console, losses: Sequence[float]) -> None:
    table = Table(title="Held-out loss, nats a character", title_style="bold")
    for column in ("after", "loss", ""):
        table.add_column(column)
    for number, loss in enumerate(losses):
        after = "no training" if number == 0 else f"{number * STEPS} steps of each worker, {number} merges"
        table.add_row(after, f"{loss:.3f}", "█" * round(40 * loss / losses[0]))
    console.print(table)


def _show_work(scene: Stage, blueprint: Blueprint, segments: Sequence[Segment]) -> None:
    """Who computed what, what they moved, and what they were paid."""
    table = Table(title="Who computed what", title_style="bold")
    table.add_column("")
    for column in ("training segments", "steps", "merges", "stored", "fetched", "paid"):
        table.add_column(column, justify="right")
    rules = scene.client.chain.rules()
    for address, name in scene.names.items():
        own = [s for s in segments if s.solver == address]
        moved = scene.status(name).get("bytes")
        if not isinstance(moved, dict):
            continue
        training = [s for s in own if blueprint.roles[s.key.index].what == "train"]
        steps = sum(blueprint.plan.segments[s.key.index].steps for s in training)
        paid = sum(s.price - rules.fee(s.price) for s in own)
        bytes_ = (format_bytes(moved[way]) for way in ("stored", "fetched"))
        table.add_row(
            name, str(len(training)), str(steps), str(len(own) - len(training)), *bytes_, money(paid)
        )
    scene.console.print(table)


def _checks_of_story(
    scene: Stage, blueprint: Blueprint, segments: Sequence[Segment], events: Sequence[ChainEvent]
) -> list[Check]:
    def segments_of(event: str, name: str) -> list[str]:
        """What somebody's segments were for, of which something happened."""
        about = (e.fields for e in events if e.name == event)
        own = [f["segment"] for f in about if scene.names.get(Address(str(f.get("solver")))) == name]
        return [str(blueprint.roles[number]) for number in own if isinstance(number, int)]

    caught = segments_of("Overturned", MALLORY), segments_of("Overturned", TRUDY)
    left, joined = segments_of("Expired", BOB), segments_of("Settled", CARL)
    return [
        Check(
            "a cheat in a training segment was caught",
            any("train" in what for what in caught[0]),
            _few(caught[0]),
        ),
        Check("a cheat in a merge was caught", any("merge" in what for what in caught[1]), _few(caught[1])),
        Check("who left lost a lease, and no more", len(left) == 1, _few(left)),
        Check("who joined was paid", bool(joined), _few(joined)),
    ]


def _few(listed: Sequence[str]) -> str:
    return "; ".join(listed[:2]) + (f"; … ({len(listed)})" if len(listed) > 2 else "") or "none"
