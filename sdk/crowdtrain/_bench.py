"""What this machine can do, for ``crowdtrain bench``."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from crowdtrain_engine import isas, merkle

from crowdtrain.runs import measure_speed

__all__ = ["hashing", "products"]


def products(threads: int | None, seconds: float) -> Iterator[tuple[str, float]]:
    """Body operations a second of a matrix product, for every instruction set that runs here."""
    for isa in isas():
        yield f"native {isa}", measure_speed("native", threads, isa, seconds)


def hashing(seconds: float) -> float:
    """Bytes a second of a tensor's root."""
    tensor = np.zeros(2**22, np.float32)
    done, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds or not done:
        merkle.tensor_root(tensor)
        done += tensor.nbytes
    return done / spent
