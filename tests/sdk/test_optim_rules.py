"""Every optimizer, schedule and option of the update trains as PyTorch's does: same weights, same batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import crowdtrain.optim as ours
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from crowdtrain.lowering import Builder, InvalidOption, UnsupportedModel, lower
from crowdtrain.lowering.expr import Accumulator, Const, const, f32, u32
from crowdtrain.optim.sums import sum_of_squares
from crowdtrain_engine import Dataset, DType, State, TensorType, execute
from crowdtrain_engine.state import Array
from lowering_support import floats, integers, rng
from torch import nn
from torch.optim import swa_utils
from torch.optim.lr_scheduler import LRScheduler

Step = Callable[[int], None]
Eager = Callable[[nn.Module], Step]
"""From a model to what is done after the gradients of step number i are there."""


def mlp() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3))


INPUTS, TARGETS = floats(40, 6), integers(40, below=3)
BATCH = 8


def orders(steps: int) -> Array:
    return np.stack([rng(step).permutation(len(INPUTS))[:BATCH] for step in range(steps)])


def train(optimizer: Any, steps: int, **options: Any) -> tuple[State, Array]:
    example = (INPUTS[:BATCH], TARGETS[:BATCH])
    program = lower(mlp(), F.cross_entropy, optimizer=optimizer, example=example, **options)
    data = Dataset(INPUTS.numpy(), TARGETS.numpy(), order=orders(steps))
    state, logs = execute(program, program.initial_state(), data, steps=steps, backend="native")
    return state, logs["loss"]


def train_eagerly(eager: Eager, steps: int) -> tuple[nn.Module, Array]:
    """With gradients that add up until ``eager`` clears them."""
    model, losses = mlp(), []
    after = eager(model)
    for i, rows in enumerate(orders(steps)):
        loss = F.cross_entropy(model(INPUTS[rows]), TARGETS[rows])
        loss.backward()
        after(i)
        losses.append(loss.item())
    return model, np.array(losses)


def assert_same(
    optimizer: Any, eager: Eager, steps: int = 100, tolerance: float = 1e-4, **options: Any
) -> tuple[State, nn.Module]:
    state, losses = train(optimizer, steps, **options)
    model, expected = train_eagerly(eager, steps)
    assert expected[-10:].mean() < 0.99 * expected[:10].mean(), "nothing is learnt"
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(
            state["parameters"][name],
            parameter.detach().numpy(),
            rtol=10 * tolerance,
            atol=tolerance,
            err_msg=name,
        )
    return state, model


def plain(make: Callable[[Any], torch.optim.Optimizer]) -> Eager:
    """The usual loop."""

    def eager(model: nn.Module) -> Step:
        optimizer = make(model.parameters())

        def after(_: int) -> None:
            optimizer.step()
            optimizer.zero_grad()

        return after

    return eager


OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.1, "weight_decay": 1e-2}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    ("Adam", {"lr": 1e-2, "weight_decay": 1e-2}),
    ("Adam", {"lr": 1e-2, "amsgrad": True}),
    ("AdamW", {"lr": 1e-2, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}),
    ("AdamW", {"lr": 1e-2, "amsgrad": True}),
    ("Adamax", {"lr": 1e-2, "weight_decay": 1e-2}),
    ("NAdam", {"lr": 1e-2, "weight_decay": 1e-2}),
    ("NAdam", {"lr": 1e-2, "weight_decay": 0.1, "decoupled_weight_decay": True, "momentum_decay": 1e-2}),
    ("RAdam", {"lr": 2e-2, "weight_decay": 1e-2}),
    ("RAdam", {"lr": 2e-2, "weight_decay": 0.1, "decoupled_weight_decay": True, "betas": (0.9, 0.99)}),
    ("RAdam", {"lr": 2e-2, "betas": (0.8, 0.6)}),
    ("RMSprop", {"lr": 1e-3, "weight_decay": 1e-2}),
    ("RMSprop", {"lr": 1e-3, "momentum": 0.9, "centered": True, "eps": 1e-3}),
    ("Adagrad", {"lr": 0.05, "lr_decay": 0.05, "initial_accumulator_value": 0.1, "weight_decay": 1e-2}),
    ("Adagrad", {"lr": 0.02}),
    ("Adadelta", {"lr": 5.0, "weight_decay": 1e-3}),
    ("Adafactor", {"lr": 2e-2, "weight_decay": 0.1}),
    ("Adafactor", {"lr": 5e-2, "beta2_decay": -0.5, "eps": (1e-4, 1e-2), "d": 1.5}),
]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=str)
def test_rules_are_those_of_torch(name: str, options: dict[str, Any]) -> None:
    eager = getattr(torch.optim, name)
    assert_same(getattr(ours, name)(**options), plain(lambda p: eager(p, **options)))


@pytest.mark.parametrize(
    "name",
    ["SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "Adafactor"],
)
def test_maximizing(name: str) -> None:
    options = {"lr": 0.01, "weight_decay": 0.1, "maximize": True}
    eager = getattr(torch.optim, name)(model.parameters(), **options) if (model := mlp()) else None
    data = Dataset(INPUTS.numpy(), TARGETS.numpy(), order=orders(10))
    program = lower(
        model,
        lambda o, y: -F.cross_entropy(o, y),
        optimizer=getattr(ours, name)(**options),
        example=(INPUTS[:BATCH], TARGETS[:BATCH]),
    )
    _, logs = execute(program, program.initial_state(), data, steps=10, backend="native")
    for rows, loss in zip(orders(10), logs["loss"], strict=True):
        eager.zero_grad()
        value = -F.cross_entropy(model(INPUTS[rows]), TARGETS[rows])
        value.backward()
        eager.step()
        np.testing.assert_allclose(loss, value.item(), rtol=1e-4)


class EagerLion(torch.optim.Optimizer):
    """Algorithm 2 of the paper."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                c = beta1 * m + (1 - beta1) * p.grad
                p -= group["lr"] * (c.sign() + group["weight_decay"] * p)
                m.copy_(beta2 * m + (1 - beta2) * p.grad)


def test_lion_is_that_of_the_paper() -> None:
    options: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.1}
    assert_same(ours.Lion(**options), plain(lambda p: EagerLion(p, **options)))


def matrices(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2


def two(make: Callable[[Any], torch.optim.Optimizer], rest: Callable[[Any], torch.optim.Optimizer]) -> Eager:
    """One optimizer for matrices, another for the rest."""

    def eager(model: nn.Module) -> Step:
        pair = [
            make([p for p in model.parameters() if p.ndim == 2]),
            rest([p for p in model.parameters() if p.ndim != 2]),
        ]

        def after(_: int) -> None:
            for optimizer in pair:
                optimizer.step()
                optimizer.zero_grad()

        return after

    return eager


MUON: list[dict[str, Any]] = [
    {"lr": 1e-2},
    {"lr": 1e-2, "nesterov": False, "momentum": 0.8, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"},
    {"lr": 1e-2, "ns_steps": 3, "ns_coefficients": (2.0, -1.5, 0.5), "adjust_lr_fn": "original"},
]


@pytest.mark.parametrize("options", MUON, ids=str)
def test_muon_is_that_of_torch_in_float32(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # what PyTorch iterates in
    eager = two(lambda p: torch.optim.Muon(p, **options), lambda p: torch.optim.AdamW(p, lr=1e-2))
    rules = [(matrices, ours.Muon(**options)), ("*", ours.AdamW(lr=1e-2))]
    assert_same(rules, eager, tolerance=1e-3)


def test_parameters_go_to_the_first_optimizer_that_selects_them() -> None:
    def eager(model: nn.Module) -> Step:
        named = dict(model.named_parameters())
        optimizer = torch.optim.AdamW(
            [
                {"params": [named["0.weight"]], "lr": 1e-3, "weight_decay": 0.5},
                {
                    "params": [p for name, p in named.items() if name.endswith("bias")],
                    "weight_decay": 0.0,
                    "betas": (0.5, 0.9),
                },
                {"params": [named["2.weight"], named["4.weight"]], "weight_decay": 0.1},
            ],
            lr=1e-2,
        )

        def after(_: int) -> None:
            optimizer.step()
            optimizer.zero_grad()

        return after

    rules = [
        ("0.weight", ours.AdamW(lr=1e-3, weight_decay=0.5)),
        (("*.bias", "0.*"), ours.AdamW(lr=1e-2, weight_decay=0.0, betas=(0.5, 0.9))),
        ("*", ours.AdamW(lr=1e-2, weight_decay=0.1)),
    ]
    state, _ = assert_same(rules, eager, steps=30)
    assert set(state["first_moment"]) == set(state["parameters"])
    np.testing.assert_allclose(state["counters"]["bias_correction1.1"], 1 - 0.5**30)


def test_slots_of_several_optimizers_share_a_group() -> None:
    rules = [("*.bias", ours.SGD(momentum=0.9)), ("4.*", ours.Lion()), ("*", ours.Adafactor())]
    state, _ = train(rules, 1)
    assert set(state["momentum"]) == {"0.bias", "2.bias", "4.bias", "4.weight"}
    assert {name: tensor.shape for name, tensor in state["row_variance"].items()} == {
        "0.weight": (16, 1), "2.weight": (12, 1),
    }  # fmt: skip


LRS: dict[str, tuple[ours.Schedule, Callable[[torch.optim.Optimizer], LRScheduler]]] = {
    "constant": (
        ours.ConstantLR(0.1, 0.5, 4),
        lambda o: torch.optim.lr_scheduler.ConstantLR(o, 0.5, 4),
    ),
    "linear": (
        ours.LinearLR(0.1, 0.1, 0.7, 12),
        lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.1, 0.7, 12),
    ),
    "step": (ours.StepLR(0.1, 7, 0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, 7, 0.5)),
    "multi-step": (
        ours.MultiStepLR(0.1, (3, 5, 20), 0.3),
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 5, 20], 0.3),
    ),
    "exponential": (ours.ExponentialLR(0.1, 0.9), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)),
    "cosine": (
        ours.CosineAnnealingLR(0.1, 12, 0.01),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12, 0.01),
    ),
    "one-cycle": (
        ours.OneCycleLR(0.1, 30),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, 30, cycle_momentum=False),
    ),
    "one-cycle in three phases": (
        ours.OneCycleLR(0.1, 30, 0.4, "linear", 10.0, 1e3, True),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o,
            0.1,
            30,
            pct_start=0.4,
            anneal_strategy="linear",
            cycle_momentum=False,
            div_factor=10.0,
            final_div_factor=1e3,
            three_phase=True,
        ),
    ),
    "one-cycle without a way up": (
        ours.OneCycleLR(0.1, 30, 0.0),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, 30, pct_start=0.0, cycle_momentum=False),
    ),
    "sequence": (
        ours.SequentialLR((ours.LinearLR(0.1, 0.1, total_iters=5), ours.ExponentialLR(0.1, 0.9)), (5,)),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [
                torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=5),
                torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
            ],
            [5],
        ),
    ),
}


def rates(schedule: ours.Schedule, steps: int, **options: Any) -> Array:
    """The rates of a program: a parameter whose gradient is 1 shows by how much it moves."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    program = lower(
        model, lambda o, _: model.weight.sum() + 0 * o.sum(), optimizer=ours.SGD(lr=schedule),
        example=(torch.ones(1, 1), ()), **options,
    )  # fmt: skip
    data = Dataset(np.ones((1, 1), np.float32), order=np.zeros((steps, 1), np.int64))
    state, moved, before = program.initial_state(), [], 0.0
    for _ in range(steps):
        state = State({**state, "parameters": {"weight": np.zeros((1, 1), np.float32)}})
        state, _ = execute(program, state, data, steps=1, backend="native")
        moved.append(before - float(state["parameters"]["weight"][0, 0]))
    return np.array(moved)


@pytest.mark.parametrize("name", LRS)
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_schedules_are_those_of_torch(name: str) -> None:
    schedule, make = LRS[name]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, expected = make(optimizer), []
    for _ in range(30):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates(schedule, 30), expected, rtol=2e-6, atol=1e-9)


def test_warming_up_and_down_on_a_cosine() -> None:
    warmup, total, steps = 5, 25, np.arange(30)
    cosine = 0.01 + 0.09 * (1 + np.cos(np.pi * (steps - warmup) / (total - warmup))) / 2
    expected = np.where(steps < warmup, 0.1 * steps / warmup, np.where(steps < total, cosine, 0.01))
    schedule = ours.warmup_cosine(0.1, warmup=warmup, total=total, eta_min=0.01)
    np.testing.assert_allclose(rates(schedule, 30), expected, rtol=2e-6, atol=1e-9)


def test_a_schedule_far_into_training() -> None:
    """Numbers of updates of six digits, where f32 counts exactly but products are rounded."""
    step = Accumulator(u32)
    for schedule, at, expected in (
        (ours.CosineAnnealingLR(1e-3, 1_000_000), 999_000, 1e-3 * (1 + np.cos(np.pi * 0.999)) / 2),
        (ours.ExponentialLR(1e-3, 0.99999), 700_000, 1e-3 * 0.99999**700_000),
        (ours.StepLR(1.0, 100_000, 0.5), 1_000_000, 0.5**10),
    ):
        assert schedule.at(step).dtype is f32
        value = schedule.at(const(at, u32))
        assert isinstance(value, Const)
        np.testing.assert_allclose(np.uint32(value.word).view(np.float32), expected, rtol=1e-5)


def test_a_schedule_counts_updates() -> None:
    every = rates(ours.StepLR(0.5, 2, 0.5), 12, accumulate=3)
    np.testing.assert_allclose(every[2::3], [0.5, 0.5, 0.25, 0.25], rtol=1e-6)
    assert not every[0::3].any()
    assert not every[1::3].any()


def test_every_optimizer_takes_a_schedule() -> None:
    for kind in (ours.SGD, ours.AdamW, ours.Adamax, ours.NAdam, ours.RAdam, ours.RMSprop, ours.Adagrad,
                 ours.Adadelta, ours.Lion, ours.Adafactor):  # fmt: skip
        fixed, _ = train(kind(lr=1e-2), 4)
        moving, _ = train(kind(lr=ours.ConstantLR(1e-2, 1.0)), 4)
        for name, tensor in fixed["parameters"].items():
            np.testing.assert_allclose(
                moving["parameters"][name], tensor, rtol=1e-5, atol=1e-6, err_msg=kind.__name__
            )


def clipped(make: Callable[[Any], torch.optim.Optimizer], every: int = 1, **clip: float) -> Eager:
    """The usual loop with accumulation and clipping; gradients are scaled as those of loss / every."""

    def eager(model: nn.Module) -> Step:
        optimizer = make(model.parameters())

        def after(i: int) -> None:
            if (i + 1) % every:
                return
            for p in model.parameters():
                assert p.grad is not None
                p.grad /= every
            if "value" in clip:
                nn.utils.clip_grad_value_(model.parameters(), clip["value"])
            if "norm" in clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip["norm"])
            optimizer.step()
            optimizer.zero_grad()

        return after

    return eager


@pytest.mark.parametrize("norm", [0.3, 1e3])
def test_clipping_by_norm(norm: float) -> None:
    assert_same(
        ours.SGD(lr=0.1, momentum=0.9),
        clipped(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), norm=norm),
        steps=40,
        clip_grad_norm=norm,
    )


def test_clipping_by_value_comes_before_clipping_by_norm() -> None:
    assert_same(
        ours.SGD(lr=0.5),
        clipped(lambda p: torch.optim.SGD(p, lr=0.5), value=0.02, norm=0.1),
        steps=40,
        clip_grad_value=0.02,
        clip_grad_norm=0.1,
    )


def test_a_gradient_that_is_no_number_stays_so_when_clipped() -> None:
    model = nn.Linear(1, 1, bias=False)
    for options in ({"clip_grad_norm": 1.0}, {"clip_grad_value": 1.0}):
        program = lower(
            model, lambda o, _: o.sum(), optimizer=ours.SGD(), example=(torch.ones(1, 1), ()), **options
        )  # type: ignore[arg-type]
        data = Dataset(np.full((1, 1), np.nan, np.float32), order=np.zeros((1, 1), np.int64))
        state, _ = execute(program, program.initial_state(), data, steps=1, backend="native")
        assert np.isnan(state["parameters"]["weight"]).all()


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adafactor"])
def test_accumulating_gradients(name: str) -> None:
    options: dict[str, Any] = {"lr": 2e-2, **({"momentum": 0.9, "dampening": 0.5} if name == "SGD" else {})}
    state, _ = assert_same(
        getattr(ours, name)(**options),
        clipped(lambda p: getattr(torch.optim, name)(p, **options), every=3, norm=0.5),
        steps=120,
        accumulate=3,
        clip_grad_norm=0.5,
    )
    assert not any(tensor.any() for tensor in state["gradients"].values())
    assert state["counters"]["step"] == 120


def test_nothing_but_gradients_changes_in_a_step_without_update() -> None:
    before, _ = train(ours.AdamW(lr=ours.StepLR(0.1, 1)), 3, accumulate=3, average=ours.EMA(0.5))
    after, _ = train(ours.AdamW(lr=ours.StepLR(0.1, 1)), 5, accumulate=3, average=ours.EMA(0.5))
    for group in ("parameters", "first_moment", "second_moment", "average"):
        for name, tensor in before[group].items():
            np.testing.assert_array_equal(after[group][name], tensor)
    assert after["counters"]["bias_correction1"] == before["counters"]["bias_correction1"]
    assert any(tensor.any() for tensor in after["gradients"].values())


@pytest.mark.parametrize("every", [1, 2])
def test_averaging_weights(every: int) -> None:
    averages: list[Any] = []

    def eager(model: nn.Module) -> Step:
        averaged = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
        averages.append(averaged)
        inner = clipped(lambda p: torch.optim.SGD(p, lr=0.3), every=every)(model)

        def after(i: int) -> None:
            inner(i)
            if (i + 1) % every == 0:
                averaged.update_parameters(model)

        return after

    state, _ = assert_same(ours.SGD(lr=0.3), eager, steps=40, accumulate=every, average=ours.EMA(0.9))
    for name, parameter in averages[0].module.named_parameters():
        np.testing.assert_allclose(state["average"][name], parameter.detach().numpy(), rtol=1e-3, atol=1e-4)


def test_the_average_begins_as_the_parameters() -> None:
    example = (INPUTS[:BATCH], TARGETS[:BATCH])
    program = lower(mlp(), F.cross_entropy, optimizer=ours.SGD(), example=example, average=ours.EMA())
    state = program.initial_state()
    for name, tensor in state["parameters"].items():
        np.testing.assert_array_equal(state["average"][name], tensor)


adamw = ours.AdamW()
INVALID: list[tuple[dict[str, Any], str]] = [
    ({"optimizer": [("0.*", adamw)]}, r"no optimizer takes 2.weight, 2.bias.*\(\"\*\", optimizer\)"),
    ({"optimizer": []}, "no optimizer takes"),
    ({"optimizer": [("head.*", adamw), ("*", adamw)]}, "'head.*' selects no trainable parameter.* 0.weight"),
    ({"optimizer": [(("*.bias", "x"), adamw), ("*", adamw)]}, "'x' selects no"),
    ({"optimizer": [("*", adamw), ("0.*", adamw)]}, "'0.*' selects; leave it out"),
    ({"optimizer": [adamw]}, "is in the list"),
    ({"optimizer": [(3, adamw)]}, "a selector is"),
    ({"optimizer": torch.optim.AdamW}, "must be an optimizer"),
    ({"optimizer": ours.Muon()}, "parameter 0.bias: Muon is for parameters of two dimensions"),
    ({"clip_grad_norm": 0.0}, "clip_grad_norm must be a number above 0"),
    ({"clip_grad_value": float("nan")}, "clip_grad_value must be a number above 0"),
    ({"clip_grad_norm": "1"}, "clip_grad_norm must be a number"),
    ({"accumulate": 0}, "accumulate"),
    ({"accumulate": 1.5}, "accumulate"),
    ({"average": 0.9}, "average must be an optim.EMA"),
]


@pytest.mark.parametrize(("options", "message"), INVALID, ids=str)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        lower(mlp(), F.cross_entropy, example=(INPUTS[:4], TARGETS[:4]), **{"optimizer": adamw, **options})


def test_a_model_in_which_nothing_trains_is_refused_whatever_the_optimizers() -> None:
    model = mlp().requires_grad_(False)
    for optimizer in (adamw, [("*", adamw)]):
        with pytest.raises(UnsupportedModel, match="nothing to train"):
            lower(model, F.cross_entropy, example=(INPUTS[:4], TARGETS[:4]), optimizer=optimizer)


MOMENTS = ["first moment", "second moment", "update"]
PASSES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, MOMENTS),
    ({"accumulate": 2}, ["sum", "next sum", *MOMENTS]),
    ({"clip_grad_norm": 1.0}, ["clipped gradient", *MOMENTS]),
    ({"clip_grad_value": 1.0, "average": ours.EMA()}, ["clipped gradient", *MOMENTS, "average"]),
]


@pytest.mark.parametrize(("options", "parts"), PASSES, ids=str)
def test_an_update_is_a_few_neighbouring_maps(options: dict[str, Any], parts: list[str]) -> None:
    example = (INPUTS[:4], TARGETS[:4])
    program = lower(mlp(), F.cross_entropy, optimizer=ours.AdamW(), example=example, **options)
    prefix = "optimizer: 2.weight: "
    numbers = [i for i, label in enumerate(program.labels.nests) if label.startswith(prefix)]
    assert [program.labels.nests[i].removeprefix(prefix) for i in numbers] == parts
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert all(not program.nests[i].fold and program.nests[i].type.size == 16 * 12 for i in numbers)


def test_a_norm_reads_a_transposed_gradient_as_it_lies() -> None:
    b = Builder()
    stored = b.state("gradients", "x", TensorType(DType.f32, (24, 100)))
    turned = b.view(stored, (100, 24), lambda i, j: (j, i))
    b.log("squares", sum_of_squares(b, turned, "squares"))
    program = b.finish()
    (read,) = program.nests[0].reads
    assert [axis.terms for axis in read.axes] == [((1, 1),), ((0, 1),)]
    assert read.shape == (50, 48)
    values = floats(24, 100).numpy()
    state = State({"gradients": {"x": values}})
    _, logs = execute(program, state, Dataset.from_tensors({}), steps=1, backend="reference")
    np.testing.assert_allclose(logs["squares"][0], np.square(values, dtype=np.float64).sum(), rtol=1e-6)


def test_native_gives_the_words_of_the_reference() -> None:
    """All rules in one program, with everything around them."""
    kinds: list[ours.Optimizer] = [
        ours.SGD(momentum=0.9, dampening=0.1), ours.AdamW(amsgrad=True), ours.Adamax(), ours.NAdam(), ours.RAdam(),
        ours.RMSprop(momentum=0.9, centered=True), ours.Adagrad(), ours.Adadelta(), ours.Lion(), ours.Adafactor(),
        ours.Muon(lr=ours.OneCycleLR(0.1, 10)),
    ]  # fmt: skip
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(5, 5, bias=False) for _ in kinds))
    program = lower(
        model, F.cross_entropy, optimizer=[(f"{i}.*", kind) for i, kind in enumerate(kinds)],
        example=(torch.ones(4, 5), TARGETS[:4]), clip_grad_norm=0.5, clip_grad_value=0.1, accumulate=2,
        average=ours.EMA(),
    )  # fmt: skip
    data = Dataset(floats(8, 5).numpy(), integers(8, below=5).numpy(), order=np.arange(16).reshape(4, 4) % 8)
    results = [
        execute(program, program.initial_state(), data, steps=4, backend=backend)[0]
        for backend in ("reference", "native")
    ]
    assert results[0].root == results[1].root
    for name, tensor in results[1]["parameters"].items():
        assert np.isfinite(tensor).all()
        assert not np.array_equal(tensor, program.initial_state()["parameters"][name]), name
