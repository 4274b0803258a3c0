"""Waiting for the signal to end."""

from __future__ import annotations

import signal
import threading

__all__ = ["until_stopped"]


def until_stopped() -> None:
    """Waits for SIGINT or SIGTERM. Call it from the main thread."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()
