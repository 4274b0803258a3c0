"""Files that are whole or not there: written beside their place, synced, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_file", "publish"]


@contextmanager
def atomic_file(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """A file that takes its place at ``path`` when the block ends, and vanishes if the block raises.

    ``private`` keeps it from other users. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            publish(file, Path(name), path, mode=0o600 if private else 0o644)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def publish(file: BinaryIO, temporary: Path, path: Path, mode: int = 0o644) -> None:
    """Syncs the open ``file``, which is ``temporary``, and renames it to ``path``: a crash leaves either."""
    file.flush()
    os.fsync(file.fileno())
    os.chmod(temporary, mode)
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
