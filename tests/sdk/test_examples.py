"""The examples run, and do what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_adapters_learn_what_the_frozen_model_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    results = load("lora").main()
    assert results["the classifier"] > 0.88
    assert results["mirrored images"] < 0.6
    assert results["mirrored, with adapters"] > 0.85
    assert results["mirrored, adapters merged"] == pytest.approx(results["mirrored, with adapters"], abs=0.01)
    assert "of 10," in capsys.readouterr().out


def test_only_adapters_are_trained_as_pytorch_trains_them() -> None:
    lora = load("lora")
    torch.manual_seed(3)
    images, classes = torch.randn(64, 6), torch.randint(0, 3, (64,))
    model = lora.adapted(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), 2)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    eager = lora.adapted(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), 2)
    eager.load_state_dict(model.state_dict())
    state = lora.train(model, images, classes)
    assert set(state["first_moment"]) == {"0.down", "0.up", "2.down", "2.up"}
    for name, before in frozen.items():
        np.testing.assert_array_equal(state["parameters"][name], before.numpy())

    optimizer = torch.optim.AdamW([p for p in eager.parameters() if p.requires_grad], lr=1e-2)

    def factor(step: int) -> float:
        return step / 20 if step < 20 else (1 + np.cos(np.pi * (step - 20) / (lora.STEPS - 20))) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for rows in np.random.default_rng(0).integers(0, 64, (lora.STEPS, lora.BATCH)):
        optimizer.zero_grad()
        F.cross_entropy(eager(images[rows]), classes[rows]).backward()
        nn.utils.clip_grad_norm_(eager.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    for name, parameter in eager.named_parameters():
        np.testing.assert_allclose(
            state["parameters"][name], parameter.detach().numpy(), rtol=2e-2, atol=2e-3, err_msg=name
        )
