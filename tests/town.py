"""Real processes on a real chain: anvil, a gateway, solvers and verifiers, each with its own account."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from crowdtrain._errors import ChainUnavailable, StoreUnavailable
from crowdtrain._sender import account_of
from crowdtrain.chain import Address, ChainEvent, JobId, JobTerms, Segment, SegmentKey
from crowdtrain.cid import cid_of
from crowdtrain.devnet import Devnet
from crowdtrain.jobs import publish_job
from crowdtrain.ledger import worth
from crowdtrain.plan import Plan, chain
from crowdtrain.stores import HttpStore, Store
from crowdtrain.web3_chain import Web3Chain
from small_programs import perceptron, perceptron_data, perceptron_state

__all__ = ["CLOCK", "LEASE", "MONEY", "PAY", "PRICE", "STAKE", "WINDOW", "Town"]

MONEY, STAKE, PRICE = 10**24, 1000, 100
PAY = 98
"""the price without the fee"""
LEASE, WINDOW, CLOCK = 600, 2000, 1000
"""long enough for a slow machine; tests let time pass by setting the chain's clock forward"""
ROWS = 64


class Town:
    """A chain with blocks every second, a store behind HTTP, and whoever is started."""

    def __init__(self, folder: Path, people: int = 10) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._numbers: dict[str, int] = {}
        self.plans: dict[JobId, Plan] = {}
        self.devnet = Devnet(folder / "deployments", accounts=people + 1, tokens=MONEY, block_time=1)
        try:
            self.store = self._open_store()
            self.buyer = self.account("buyer")
            self.program = perceptron(ROWS)
            self.data, self.state = perceptron_data(ROWS), perceptron_state()
        except BaseException:
            self.close()
            raise

    def _open_store(self) -> Store:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.store_url = f"http://127.0.0.1:{port}"
        folder = str(self.folder / "blobs")
        self._spawn("gateway", ["serve", "--folder", folder, "--port", str(port), "--blobs-only"], {})
        store = HttpStore(self.store_url)
        self.wait(lambda: _answers(store), 30, "the gateway")
        return store

    # ---------------------------------------------------------------- people

    def key(self, name: str) -> str:
        """The private key of somebody; whoever is named first gets the first account."""
        number = self._numbers.setdefault(name, len(self._numbers))
        return self.devnet.keys[number]

    def account(self, name: str) -> Web3Chain:
        """The chain as somebody, who must have no process that sends at the same time."""
        return Web3Chain(self.devnet.rpc, self.devnet.deployment, self.key(name))

    def address(self, name: str) -> Address:
        """Somebody's address."""
        return Address(account_of(self.key(name)).address)

    def worth(self, name: str) -> int:
        """All that somebody has, without gas."""
        return worth(self.buyer, self.address(name))

    def start(self, role: str, name: str, *arguments: str, job: JobId | None = None) -> None:
        """Starts a solver or verifier in a process, with the folder and key of ``name``."""
        options = [
            *("--folder", str(self.folder / name), "--rpc", self.devnet.rpc, "--store", self.store_url),
            *("--deployment", str(self.devnet.deployment_path), "--threads", "1"),
            *("--poll", "0.3", "--idle", "1", "--patience", "3"),
            *(("--job", str(job)) if job else ()),
            *arguments,
        ]
        self._spawn(name, [role, *options], {"CROWDTRAIN_KEY": self.key(name)})

    def kill(self, name: str) -> None:
        """Ends a process as a power failure would."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str) -> int:
        """Asks a process to end, and returns its exit code."""
        process = self._running.pop(name)
        process.terminate()
        return process.wait(30)

    def _spawn(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        with (folder / "output").open("ab") as output:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", "crowdtrain.cli", *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            )

    # ---------------------------------------------------------------- jobs

    def post(
        self, *, segments: int = 1, steps: int = 4, interval: int = 2, price: int = PRICE, **changes: int
    ) -> JobId:
        """Posts a job that trains the perceptron."""
        plan = chain(
            self.program, self.data.root, segments=segments, steps=steps, interval=interval, price=price
        )
        manifest = publish_job(self.store, plan, [self.program], [self.data], self.state)
        terms = JobTerms(
            plan_root=plan.root,
            initial_root=self.state.root,
            initial_groups=len(self.state),
            segments=segments,
            escrow=2 * plan.price,
            stake=STAKE,
            lease=LEASE,
            window=WINDOW,
            clock=CLOCK,
            audit_rate=0,
            audit_share=0,
            deadline=self.buyer.now() + 100_000,
        )
        job, _ = self.buyer.post(replace(terms, **changes), manifest)  # type: ignore[arg-type]
        self.plans[job] = plan
        return job

    def status(self, name: str) -> dict[str, object]:
        """What the process of ``name`` says of itself; empty before it does."""
        path = self.folder / name / "status.json"
        return dict(json.loads(path.read_bytes())) if path.exists() else {}

    def segment(self, job: JobId, index: int = 0) -> Segment:
        """A segment as it stands."""
        return self.buyer.segment(SegmentKey(job, index))

    def events(self, *names: str, job: JobId | None = None) -> list[ChainEvent]:
        """Events of these names so far, of all jobs or of one."""
        events = self.buyer.events(self.devnet.deployment.block, self.buyer.head()[0])
        return [e for e in events if e.name in names and (job is None or e.fields.get("job") == job)]

    def wait(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        """Waits until ``done``. Raises AssertionError, naming ``what`` and what people logged last."""
        until = time.monotonic() + seconds
        while True:
            with suppress(ChainUnavailable):  # a node whose logs lag behind its state
                if done():
                    return
            if time.monotonic() > until:
                raise AssertionError(f"{what} did not come in {seconds} s\n{self._last_words()}")
            time.sleep(0.1)

    def _last_words(self) -> str:
        said = []
        for path in sorted(self.folder.glob("*/output")):
            said.append(f"--- {path.parent.name}\n" + "\n".join(path.read_text().splitlines()[-12:]))
        return "\n".join(said)

    # ---------------------------------------------------------------- the end

    def close(self) -> None:
        """Ends all processes, and the chain."""
        for process in self._running.values():
            process.kill()
            process.wait()
        self._running.clear()
        self.devnet.stop()

    def __enter__(self) -> Town:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _answers(store: Store) -> bool:
    try:
        return not store.has(cid_of(b"is anybody there?"))
    except StoreUnavailable:
        return False
