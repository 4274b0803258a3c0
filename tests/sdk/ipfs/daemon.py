"""A real IPFS daemon (js-ipfs from npm), installed into build/ipfs, with a repository of its own and no
network.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["daemon", "install"]

HERE = Path(__file__).resolve().parent
INSTALLED = HERE.parents[2] / "build" / "ipfs"


def install() -> Path:
    """The folder in which the daemon is installed, which takes some minutes and 290 MB the first time."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "package.json", INSTALLED)
    if not (INSTALLED / "node_modules" / ".bin" / "jsipfs").exists():
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=INSTALLED, check=True)
    return INSTALLED


@contextmanager
def daemon(repository: Path) -> Iterator[str]:
    """The multiaddress of a daemon that runs until the block ends."""
    program = str(install() / "node_modules" / ".bin" / "jsipfs")
    polyfill = f"--require {HERE / 'promise.cjs'}"
    environment = {**os.environ, "IPFS_PATH": str(repository), "NODE_OPTIONS": polyfill}
    subprocess.run(
        [program, "init", "--profile", "test", "--emptyRepo"],
        env=environment,
        check=True,
        capture_output=True,
    )
    config = json.loads((repository / "config").read_text())
    config["Addresses"] |= {"RPC": "/ip4/127.0.0.1/tcp/0", "Swarm": []}
    (repository / "config").write_text(json.dumps(config))
    command = [program, "daemon", "--offline", "--enable-preload=false"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            matches = (re.search(r"HTTP API listening on (\S+)", line) for line in process.stdout)
            yield next(match[1] for match in matches if match)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
