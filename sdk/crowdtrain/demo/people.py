"""Who takes part in the demo, as processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import httpx

from crowdtrain._errors import StoreUnavailable
from crowdtrain._sender import account_of
from crowdtrain.chain import Address

__all__ = ["Person", "running", "serving"]

# a parent that is killed cannot end its children; on Linux the kernel does
_DIE_WITH_PARENT = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
)
_START, _GRACE = 30.0, 10.0
"""seconds that a process may take to start, and to end by itself"""


@dataclass(frozen=True)
class Person:
    """An account with a name for people; ``command`` is what its process runs, if it has one."""

    name: str
    key: str
    command: tuple[str, ...] = ()

    @cached_property
    def address(self) -> Address:
        """The account of the key."""
        return Address(account_of(self.key).address)


@contextmanager
def running(
    command: list[str], folder: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ``crowdtrain`` with these arguments until the block ends; it prints to ``folder/output``.

    The process is in a session of its own, so that Ctrl-C reaches only the one that started it, which then
    ends its children in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = [sys.executable, "-m", "crowdtrain.cli", *command]
    if sys.platform == "linux":
        whole = [sys.executable, "-c", _DIE_WITH_PARENT, str(os.getpid()), *whole]
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(
            whole,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def serving(folder: Path, rpc: str, deployment: Path) -> Iterator[str]:
    """Runs the store's gateway on a free port until the block ends; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = [
        "--rpc",
        rpc,
        "--deployment",
        str(deployment),
        "--folder",
        str(folder / "blobs"),
        "--port",
        str(port),
    ]
    with running(["serve", *options], folder):
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{url}/health", timeout=1).is_success:
                    yield url
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise StoreUnavailable(f"the store does not start; see {folder / 'output'}")
