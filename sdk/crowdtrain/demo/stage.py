"""What demonstrations share: a chain, a store, people in processes of their own, and a look at what happens."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from crowdtrain_engine import Program
from rich.console import Console

from crowdtrain._errors import ConfigError, CrowdtrainError, Refused
from crowdtrain.chain import Address, ChainEvent, GameId, JobId, Segment, SegmentState
from crowdtrain.client import Client
from crowdtrain.demo.people import Person, running, serving
from crowdtrain.demo.report import Balances, Check, checks_of_money, ledger_of, show_gas, show_ledger
from crowdtrain.demo.screen import Account, Screen
from crowdtrain.devnet import Devnet
from crowdtrain.folders import read_status
from crowdtrain.gas import gas_spent
from crowdtrain.ledger import BURNED, escrow_of, worth
from crowdtrain.watch import ChainView, Watch

__all__ = ["Stage", "run"]


def run(folder: Path, console: Console, play: Callable[[ExitStack], bool]) -> int:
    """A demonstration in ``folder``, which is emptied first; the exit code. ``play`` says whether all is well."""
    torch.set_num_threads(1)  # more gain nothing on so small a network, and the solvers need the processors
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.monotonic()
    try:
        with ExitStack() as stack:
            passed = play(stack)
    except KeyboardInterrupt:
        console.print("Interrupted; every process has been ended.")
        return 130
    except CrowdtrainError as error:
        console.print(f"[red]The demo failed:[/] {error}\nLogs are in {folder}.")
        return 1
    console.print(f"{time.monotonic() - started:.0f} seconds in all. Logs are in {folder}.", highlight=False)
    return 0 if passed else 1


@dataclass(frozen=True)
class Stage:
    """A chain, a store, and the people of a demonstration, until ``stack`` is closed."""

    console: Console
    folder: Path
    stack: ExitStack
    devnet: Devnet
    people: Mapping[str, Person]
    store: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def set(
        cls,
        console: Console,
        folder: Path,
        stack: ExitStack,
        cast: Sequence[tuple[str, tuple[str, ...]]],
        tokens: int,
    ) -> Stage:
        """Starts the chain, with ``tokens`` for each of the ``cast`` (names, and what each runs), and the store."""
        devnet = stack.enter_context(
            Devnet(folder / "chain", accounts=len(cast), tokens=tokens, block_time=1)
        )
        people = {
            name: Person(name, key, command) for (name, command), key in zip(cast, devnet.keys, strict=True)
        }
        store = stack.enter_context(serving(folder / "store", devnet.rpc, devnet.deployment_path))
        console.print(
            f"chain {devnet.rpc}, store {store}, contracts {devnet.deployment_path}", highlight=False
        )
        return cls(console, folder, stack, devnet, people, store)

    @cached_property
    def client(self) -> Client:
        """The buyer."""
        return Client.connect(
            rpc=self.devnet.rpc,
            deployment=self.devnet.deployment_path,
            key=self.people["buyer"].key,
            store=self.store,
        )

    @property
    def names(self) -> dict[Address, str]:
        """What to call an account."""
        return {person.address: name for name, person in self.people.items()}

    def worth(self) -> dict[str, int]:
        """All that everybody has, in token units."""
        return {name: worth(self.client.chain, person.address) for name, person in self.people.items()}

    def folder_of(self, name: str) -> Path:
        """Where somebody's process keeps its files."""
        return self.folder / name.replace(" ", "-")

    def start(self, name: str) -> None:
        """Starts somebody's process, with a folder, a key and a copy of the deployment file of its own."""
        person, folder = self.people[name], self.folder_of(name)
        deployment = folder / "deployments" / self.devnet.deployment_path.name
        deployment.parent.mkdir(parents=True, exist_ok=True)  # it may have been killed
        shutil.copy(self.devnet.deployment_path, deployment)
        command = [
            *person.command[:1],
            *("--folder", str(folder), "--rpc", self.devnet.rpc, "--store", self.store),
            *("--deployment", str(deployment), "--threads", "1", "--poll", "0.2", "--idle", "0.5", "--quiet"),
            *person.command[1:],
        ]
        process = self.stack.enter_context(running(command, folder, {"CROWDTRAIN_KEY": person.key}))
        self.processes[name] = process
        self.console.print(f"{name}: crowdtrain {' '.join(person.command)}", highlight=False)

    # ---------------------------------------------------------------- watching

    def watch(
        self,
        job: JobId,
        program: Callable[[int], Program],
        patience: float,
        on_view: Callable[[ChainView, list[Segment], Screen], None] = lambda view, segments, screen: None,
    ) -> list[Segment]:
        """Shows what happens until every segment is settled. ``program`` is that of a segment.

        Raises CrowdtrainError after ``patience`` seconds.
        """
        chain = self.client.chain
        watch = Watch(chain, lambda job: None, first_block=self.devnet.deployment.block)
        accounts: list[Account] = []
        block = -1
        deadline = time.monotonic() + patience
        with Screen(self.console, program, self.names) as screen:
            while time.monotonic() < deadline:
                view = watch.refresh()
                segments = view.segments_of(job)
                moved = sorted({GameId(number) for event in view.events for number in _game(event)})
                if view.block != block:
                    block, accounts = view.block, self._look()
                screen.show(view, segments, accounts, [chain.game(game) for game in moved])
                on_view(view, segments, screen)
                if segments and all(segment.state is SegmentState.SETTLED for segment in segments):
                    return segments
                time.sleep(0.4)
        raise CrowdtrainError(f"the job is not settled after {patience:.0f} seconds")

    def status(self, name: str) -> Mapping[str, object]:
        """What somebody's process says of itself; nothing if it has not said anything yet."""
        with suppress(ConfigError):
            if self.people[name].command:
                return read_status(self.folder_of(name))
        return {}

    def _look(self) -> list[Account]:
        accounts, chain = [], self.client.chain
        for name, person in self.people.items():
            free, locked = chain.stake(person.address)
            tokens, owed = chain.tokens(person.address), chain.owed(person.address)
            accounts.append(Account(name, tokens, free, locked, owed, self.status(name)))
        return accounts

    # ---------------------------------------------------------------- judging

    def close(self, job: JobId) -> list[ChainEvent]:
        """Takes back what is left of the escrow; all that has happened."""
        with suppress(Refused):  # nothing is left if every auditor's pot was paid out
            self.client.chain.refund(job)
        return list(self.client.chain.events(self.devnet.deployment.block, self.client.chain.head()[0]))

    def accounts(
        self,
        job: JobId,
        start: Mapping[str, int],
        events: Sequence[ChainEvent],
        *,
        cheats: Collection[str],
        auditor: str,
    ) -> list[Check]:
        """Prints ledger and gas; what must be true of the money. ``start`` is what everybody had."""
        end, ledger = self.worth(), ledger_of(events, self.names)
        for name in (escrow_of(job), BURNED):
            end[name] = sum(entry.amount for entry in ledger if entry.account == name)
        balances = Balances({**start, escrow_of(job): 0, BURNED: 0}, end)
        show_ledger(self.console, ledger, balances)
        node, deployment = self.devnet.node, self.devnet.deployment
        show_gas(self.console, gas_spent(node, deployment, deployment.block, self.client.chain.head()[0]))
        return checks_of_money(
            self.client.chain, deployment, ledger, balances, events, cheats=cheats, auditor=auditor
        )


def _game(event: ChainEvent) -> list[int]:
    number = event.fields.get("game")
    return [number] if isinstance(number, int) else []
