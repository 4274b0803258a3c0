"""Descriptions of optimizers: defaults and checks. How they train is in test_lowering_models."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import crowdtrain.optim as optim
import pytest
import torch


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_names_and_defaults_are_those_of_torch(name: str) -> None:
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    for field in dataclasses.fields(getattr(optim, name)):
        assert field.default == theirs[field.name].default, field.name


BAD: list[tuple[type, dict[str, Any], str]] = [
    (optim.SGD, {"lr": -1.0}, "lr"),
    (optim.SGD, {"lr": float("nan")}, "lr"),
    (optim.SGD, {"lr": float("inf")}, "lr"),
    (optim.SGD, {"momentum": -0.1}, "momentum"),
    (optim.SGD, {"weight_decay": -0.1}, "weight_decay"),
    (optim.SGD, {"nesterov": True}, "nesterov"),
    (optim.SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov"),
    (optim.Adam, {"betas": (1.0, 0.9)}, r"betas\[0\]"),
    (optim.Adam, {"betas": (0.9, -0.1)}, r"betas\[1\]"),
    (optim.AdamW, {"eps": -1e-8}, "eps"),
    (optim.AdamW, {"weight_decay": float("nan")}, "weight_decay"),
]


@pytest.mark.parametrize(("kind", "options", "message"), BAD, ids=str)
def test_values_out_of_range_are_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_optimizers_are_values() -> None:
    assert optim.AdamW(lr=0.1) == optim.AdamW(lr=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        optim.SGD().lr = 1.0  # type: ignore[misc]


def test_slots_and_counters() -> None:
    assert optim.SGD().slots == ()
    assert optim.SGD(momentum=0.9).slots == ("momentum",)
    assert optim.Adam().slots == ("first_moment", "second_moment")
    assert optim.AdamW(amsgrad=True).slots == ("first_moment", "second_moment", "max_second_moment")
    assert optim.SGD().counters == ()


def test_describing_an_optimizer_needs_no_torch() -> None:
    root = Path(__file__).parents[2]
    code = (
        f"import sys; sys.path[:0] = [{str(root / 'engine')!r}, {str(root / 'sdk')!r}]\n"
        "import crowdtrain.optim, crowdtrain.lowering, crowdtrain._training\n"
        "crowdtrain.optim.AdamW()\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
