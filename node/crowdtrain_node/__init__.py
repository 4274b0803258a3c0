"""The solver: claims segments, trains them, and defends what it commits."""
