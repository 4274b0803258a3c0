"""The engine's speed beside eager PyTorch's: ``python -m bench`` (or ``make bench``) trains, measures and compares."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # models stand in tests/zoo
