"""Every model of the zoo lowers and trains as eager PyTorch trains it."""

from __future__ import annotations

import crowdtrain.optim as ours
import numpy as np
import pytest
import torch
from lowering_support import train_both
from zoo import ZOO


@pytest.mark.parametrize("name", ZOO)
def test_losses_follow_eager_pytorch(name: str) -> None:
    entry = ZOO[name]
    inputs, targets = entry.samples(3 * entry.batch)
    _, _, losses, expected = train_both(
        entry.make(), entry.loss, ours.AdamW(lr=1e-3), lambda p: torch.optim.AdamW(p, lr=1e-3),
        inputs, targets, steps=100, batch=entry.batch,
    )  # fmt: skip
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    assert np.ptp(losses) > 0
