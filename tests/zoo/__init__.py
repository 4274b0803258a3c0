"""Models that people really train, small enough for tests; benchmarks build the same ones larger."""

from zoo.table import ZOO, Entry

__all__ = ["ZOO", "Entry"]
