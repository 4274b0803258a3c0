"""Descriptions of optimizers: defaults and checks. How they train is in test_optim_rules."""

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

TORCH = [
    "SGD",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Adagrad",
    "Adadelta",
    "Adafactor",
    "Muon",
]


@pytest.mark.parametrize("name", TORCH)
def test_names_and_defaults_are_those_of_torch(name: str) -> None:
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    for field in dataclasses.fields(getattr(optim, name)):
        assert field.default == theirs[field.name].default, field.name
    ignored = {"params", "foreach", "capturable", "differentiable", "fused"}
    if name == "Adam":
        ignored.add("decoupled_weight_decay")  # that is AdamW
    assert set(theirs) - ignored == {field.name for field in dataclasses.fields(getattr(optim, name))}


@pytest.mark.parametrize(
    "name", ["ConstantLR", "LinearLR", "StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingLR"]
)
def test_schedules_have_the_names_and_defaults_of_torch(name: str) -> None:
    theirs = inspect.signature(getattr(torch.optim.lr_scheduler, name)).parameters
    own = {field.name: field.default for field in dataclasses.fields(getattr(optim, name))}
    del own["lr"]
    assert set(own) == set(theirs) - {"optimizer", "last_epoch"}
    for option, default in own.items():
        if default is not dataclasses.MISSING:
            assert default == theirs[option].default


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
    (optim.Lion, {"betas": (0.9, 1.0)}, r"betas\[1\]"),
    (optim.NAdam, {"momentum_decay": -1.0}, "momentum_decay"),
    (optim.RMSprop, {"alpha": -0.1}, "alpha"),
    (optim.Adagrad, {"initial_accumulator_value": -0.1}, "initial_accumulator_value"),
    (optim.Adadelta, {"rho": 1.5}, "rho"),
    (optim.Adafactor, {"beta2_decay": 0.1}, "beta2_decay"),
    (optim.Adafactor, {"d": 0.5}, "d must be"),
    (optim.Adafactor, {"eps": (None, -1.0)}, r"eps\[1\]"),
    (optim.Muon, {"ns_steps": 100}, "ns_steps"),
    (optim.Muon, {"ns_coefficients": (1.0, 2.0)}, "ns_coefficients"),
    (optim.Muon, {"adjust_lr_fn": "other"}, "adjust_lr_fn"),
    (optim.EMA, {"decay": 1.1}, "decay"),
    (optim.StepLR, {"lr": 0.1, "step_size": 0}, "step_size"),
    (optim.StepLR, {"lr": -0.1, "step_size": 1}, "lr"),
    (optim.ExponentialLR, {"lr": 0.1, "gamma": 0.0}, "gamma"),
    (optim.MultiStepLR, {"lr": 0.1, "milestones": (3, 2)}, "ascending"),
    (optim.MultiStepLR, {"lr": 0.1, "milestones": ()}, "milestones"),
    (optim.SequentialLR, {"schedules": (optim.ConstantLR(0.1),), "milestones": (3,)}, "1 schedules need 0"),
    (optim.LinearLR, {"lr": 0.1, "total_iters": 0}, "total_iters"),
    (optim.CosineAnnealingLR, {"lr": 0.1, "T_max": 10, "eta_min": -1.0}, "eta_min"),
    (optim.OneCycleLR, {"max_lr": 0.1, "total_steps": 10, "pct_start": 1.5}, "pct_start"),
    (optim.OneCycleLR, {"max_lr": 0.1, "total_steps": 10, "anneal_strategy": "x"}, "anneal_strategy"),
    (optim.OneCycleLR, {"max_lr": 0.1, "total_steps": 10, "div_factor": 0.0}, "div_factor"),
    (optim.warmup_cosine, {"lr": 0.1, "warmup": 5, "total": 5}, "total must be above warmup"),
]


@pytest.mark.parametrize(("kind", "options", "message"), BAD, ids=lambda v: getattr(v, "__name__", str(v)))
def test_values_out_of_range_are_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_optimizers_are_values() -> None:
    assert optim.AdamW(lr=0.1) == optim.AdamW(lr=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        optim.SGD().lr = 1.0  # type: ignore[misc]


def test_slots_and_counters() -> None:
    shape = (3, 4, 5)
    assert optim.SGD().slots(shape) == {}
    assert optim.SGD(momentum=0.9).slots(shape) == {"momentum": optim.Slot(shape)}
    assert tuple(optim.AdamW(amsgrad=True).slots(shape)) == (
        "first_moment",
        "second_moment",
        "max_second_moment",
    )
    assert optim.Adagrad(initial_accumulator_value=0.5).slots((2,)) == {"square_sum": optim.Slot((2,), 0.5)}
    assert optim.Adafactor().slots(shape) == {
        "row_variance": optim.Slot((3, 4, 1)), "column_variance": optim.Slot((3, 1, 5)),
    }  # fmt: skip
    assert optim.Adafactor().slots((3,)) == {"variance": optim.Slot((3,))}
    assert optim.SGD().counters == {}
    assert optim.NAdam().counters["momentum_product"] == 1


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
