"""A model that a crowd pays for, that strangers' machines train and check, and that belongs to all of them.

Ada wants a classifier of handwritten digits and begins a campaign. Ben and Cleo pledge what it costs, the job is
posted, a solver trains it and an auditor replays the training, each in a process of its own as on machines far apart.
Then they own it: half the backers by their pledges, two fifths the solver, a tenth the auditor. A customer pays a
licence fee, and each takes their part. Run it with ``python examples/crowdfunded_model.py``; it starts a chain of its
own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import crowdtrain as ct
import numpy as np
import torch
import torch.nn.functional as F
from crowdtrain.chain import JobId, SegmentKey
from crowdtrain.crowdfund import SHARES, Crowdfunding
from crowdtrain.devnet import Devnet
from crowdtrain.web3_chain import Web3Chain
from crowdtrain.web3_crowdfund import Web3Campaigns
from sklearn.datasets import load_digits
from torch import nn

STEPS, SEGMENTS, BATCH = 200, 2, 32
PRICE, STAKE, LICENCE = 10_000, 200_000, 90_000
WINDOW = 1200
NAMES = ("ada", "ben", "cleo", "solver", "auditor", "customer")


class Town:
    """A chain, a store, and people: each with a key, the solver and the auditor with a process."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.devnet = stack.enter_context(Devnet(folder / "deployments", accounts=len(NAMES), block_time=1))
        self.keys = dict(zip(NAMES, self.devnet.keys, strict=True))
        self.store = ct.LocalStore(folder / "store")
        self._stack = stack

    def of(self, name: str) -> Crowdfunding:
        """Campaigns as somebody sees them."""
        chain = Web3Chain(self.devnet.rpc, self.devnet.deployment, self.keys[name])
        return Crowdfunding(Web3Campaigns(chain), self.store)

    def start(self, role: str, name: str, *options: str) -> None:
        """Starts ``crowdtrain solver`` or ``crowdtrain verifier`` with somebody's key."""
        where = [
            "--folder",
            str(self.folder / name),
            "--store",
            str(self.folder / "store"),
            "--rpc",
            self.devnet.rpc,
        ]
        where += ["--deployment", str(self.devnet.deployment_path)]
        command = [
            sys.executable,
            "-m",
            "crowdtrain.cli",
            role,
            *where,
            "--threads",
            "1",
            "--poll",
            "0.3",
            *options,
        ]
        environment = {**os.environ, "CROWDTRAIN_KEY": self.keys[name]}
        output = self._stack.enter_context((self.folder / f"{name}.output").open("wb"))
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)


def wait(done: Callable[[], bool], what: str, seconds: float = 180) -> None:
    """Waits until something has happened on the chain."""
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not come in {seconds:.0f} s")
        time.sleep(0.2)


def digits() -> tuple[nn.Module, ct.LoweredProgram, ct.Dataset, torch.Tensor, torch.Tensor]:
    """The model, its program and data, and the images and classes that it is tested with."""
    raw = load_digits()
    images, classes = torch.tensor(raw.data, dtype=torch.float32) / 16, torch.tensor(raw.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    example = (images[:BATCH], classes[:BATCH])
    program = ct.lower(model, F.cross_entropy, optimizer=ct.optim.AdamW(lr=1e-2), example=example)
    order = np.random.default_rng(0).integers(0, 1500, (STEPS, BATCH))
    data = ct.Dataset(images[:1500].numpy(), classes[:1500].numpy(), order=order)
    return model, program, data, images[1500:], classes[1500:]


def raise_money(town: Town, program: ct.LoweredProgram, data: ct.Dataset) -> tuple[str, JobId]:
    """Ada's campaign, funded and launched. Her address for it, and the job's number."""
    ada = town.of("ada")
    quote = ct.Client(ada.campaigns.chain, town.store).quote(
        program, data, STEPS, price=PRICE, segments=SEGMENTS, stake=STAKE, audits=1.0, audit_share=1.0,
        lease=1200, window=WINDOW, clock=600,
    )  # fmt: skip
    campaign = ada.create(quote, "Digits", "DIG")
    print(f"campaign {campaign}: {quote.escrow} to raise")
    for name, amount in (("ben", quote.escrow * 3 // 4), ("cleo", quote.escrow)):
        town.of(name).check(campaign)  # the files are what the campaign says, and cheats would lose
        taken, _ = town.of(name).campaigns.pledge(campaign, amount)
        print(f"{name} pledges {taken}")
    job, _ = town.of("cleo").campaigns.launch(campaign)
    return campaign, job


def train(town: Town, job: JobId) -> None:
    """Solver and auditor do their work; time is set forward over the window for challenges."""
    chain = town.of("ada").campaigns.chain
    keys = [SegmentKey(job, index) for index in range(SEGMENTS)]
    town.start("verifier", "auditor", "--enroll", "1e5", "--drawn-only")
    wait(lambda: chain.total_weight() > 0, "the enrolment of the auditor")
    town.start("solver", "solver")
    wait(lambda: all(chain.attestors(key, 0) for key in keys), "the attestation of every segment")
    print("trained, and replayed by the auditor")
    town.devnet.advance(WINDOW + 1)
    wait(lambda: chain.job(job).settled == SEGMENTS, "the settlement")


def share(town: Town, campaign: str) -> dict[str, dict[str, int]]:
    """Gives out the shares, pays a licence fee, and lets everybody take what is theirs."""
    ada = town.of("ada")
    address = ada.campaigns.address_of(0)
    assert address == campaign
    ada.credit(address)
    town.of("customer").campaigns.pay_income(address, LICENCE)
    owners = {}
    for name in ("ben", "cleo", "solver", "auditor"):
        person = town.of(name)
        chain = person.campaigns.chain
        before = chain.tokens(chain.address)
        person.claim(address)
        holding = person.campaigns.holding(address, chain.address)
        owners[name] = {"shares": holding.shares, "income": chain.tokens(chain.address) - before}
        print(f"{name:8} owns {100 * holding.shares / SHARES:5.2f} % and got {owners[name]['income']}")
    return owners


def main() -> tuple[float, dict[str, dict[str, int]]]:
    """The whole story: the model's accuracy, and who owns what."""
    model, program, data, images, classes = digits()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        town = Town(Path(folder), stack)
        campaign, job = raise_money(town, program, data)
        train(town, job)
        state = ct.Client(town.of("ada").campaigns.chain, town.store).result(job)
        ct.load_into(model, state)
        accuracy = (model(images).argmax(-1) == classes).float().mean().item()
        print(f"the model reads {100 * accuracy:.1f} % of unseen digits")
        return accuracy, share(town, campaign)


if __name__ == "__main__":
    main()
