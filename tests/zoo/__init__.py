"""Models that people really train, small enough for tests; benchmarks build the same ones larger."""
