"""A chain for the tests of the SDK that need a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crowdtrain.devnet import Devnet


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    """An anvil with the contracts, for one module."""
    with Devnet(tmp_path_factory.mktemp("devnet")) as chain:
        yield chain
