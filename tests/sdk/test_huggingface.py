"""Models of Hugging Face's ``transformers``, built offline, lower unmodified and train as eager PyTorch trains them."""

from __future__ import annotations

import pytest
from lowering_support import check_losses

pytest.importorskip("transformers", reason="make test-hf installs it")

from zoo.huggingface import HUGGING_FACE


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_losses_follow_eager_pytorch(name: str) -> None:
    check_losses(HUGGING_FACE[name])
