"""Models of Hugging Face's ``transformers``, built offline, lower unmodified and train as eager PyTorch trains them."""

from __future__ import annotations

import crowdtrain.optim as ours
import numpy as np
import pytest
import torch
from lowering_support import train_both

pytest.importorskip("transformers", reason="make test-hf installs it")

from zoo.huggingface import HUGGING_FACE


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_losses_follow_eager_pytorch(name: str) -> None:
    entry = HUGGING_FACE[name]
    inputs, targets = entry.samples(3 * entry.batch)
    _, _, losses, expected = train_both(
        entry.make(), entry.loss, ours.AdamW(lr=1e-3), lambda p: torch.optim.AdamW(p, lr=1e-3),
        inputs, targets, steps=100, batch=entry.batch,
    )  # fmt: skip
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    assert np.ptp(losses) > 0
