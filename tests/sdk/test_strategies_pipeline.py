"""Pipelines compute what one machine would, stage by stage, and nothing travels that need not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import crowdtrain as ct
import numpy as np
import pytest
import torch
from crowdtrain import strategies
from crowdtrain.chain import INITIAL
from crowdtrain.random import Draws
from crowdtrain.strategies import Blueprint, Traffic
from crowdtrain_engine import Dataset, State
from lowering_support import DrawnByProgram
from torch import nn

MICRO, BATCH, STEPS, SEED = 3, 4, 3, 11
SAMPLES = 48


class Noise(nn.Module):
    """Draws numbers on which no gradient depends."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.p * torch.randn_like(x) if self.p else x


class Embed(nn.Module):
    """Hands on what it makes of characters, and which of them count."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(12, 16), nn.Embedding(6, 16)
        self.drop = nn.Sequential(Noise(0.1), nn.Dropout(0.2))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.drop(self.token(x) + self.place.weight[: x.shape[1]]), x != 0


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48, bias=False), nn.Linear(16, 16)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n, t, width = x.shape
        parts = self.qkv(self.norm(x)).split(width, -1)
        q, k, v = (part.view(n, t, 2, -1).transpose(1, 2) for part in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = self.out(mixed.transpose(1, 2).reshape(n, t, width))
        return x + self.drop(mixed * counts[..., None]), counts


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head, self.drop = nn.LayerNorm(16), nn.Linear(16, 12), nn.Dropout(0.1)

    def forward(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.drop(self.norm(x)))
        return logits


class Centre(nn.Module):
    """Subtracts a running mean, so that what comes out depends on a buffer that changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = torch.tanh(x - self.mean + 0.5)
        self.mean.mul_(0.5).add_(result.detach().mean((0, 2, 3))[:, None, None])
        return result


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def gpt() -> list[nn.Module]:
    torch.manual_seed(1)
    return [Embed(), Block(), Block(), Head()]


def cnn() -> list[nn.Module]:
    """Batch norm in two stages; the second begins in place, the third has nothing to train."""
    torch.manual_seed(2)
    return [
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)),
        nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), Centre()),
        nn.Sequential(nn.AvgPool2d(2), nn.Flatten()),
        nn.Linear(54, 3),
    ]


def characters() -> tuple[np.ndarray, np.ndarray]:
    rows = np.random.default_rng(3).integers(0, 12, (SAMPLES, 7))
    return rows[:, :-1], rows[:, 1:]


def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.standard_normal((SAMPLES, 1, 8, 8)).astype(np.float32), rng.integers(0, 3, SAMPLES)


KINDS: dict[str, tuple[Callable[[], list[nn.Module]], Callable[..., Any], Callable[..., Any]]] = {
    "gpt": (gpt, cross_entropy, characters),
    "cnn": (cnn, nn.functional.cross_entropy, images),
}
OPTIMIZERS: dict[str, Any] = {
    "gpt": [("*norm*", ct.optim.AdamW(lr=1e-2, weight_decay=0.0)), ("*", ct.optim.AdamW(lr=1e-2))],
    "cnn": ct.optim.SGD(lr=ct.optim.StepLR(0.1, 2, 0.5), momentum=0.9),
}


def eager_optimizer(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    if kind == "cnn":
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    named = dict(model.named_parameters())
    norms = [p for name, p in named.items() if "norm" in name]
    rest = [p for name, p in named.items() if "norm" not in name]
    return torch.optim.AdamW([{"params": norms, "weight_decay": 0.0}, {"params": rest}], lr=1e-2)


def batch(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = KINDS[kind][2]()
    return torch.from_numpy(inputs[:BATCH]), torch.from_numpy(targets[:BATCH])


Clip = tuple[float | None, float | None]
NONE: Clip = None, None
"""bounds of the norm, and of each element"""


@cache
def lowered(kind: str, clip: Clip = NONE) -> ct.LoweredPipeline:
    stages, loss, _ = KINDS[kind]
    return ct.lower_stages(
        stages(), loss, optimizer=OPTIMIZERS[kind], example=batch(kind), micro_batches=MICRO,
        clip_grad_norm=clip[0], clip_grad_value=clip[1], seed=SEED,
    )  # fmt: skip


def datasets(kind: str, copies: int = 1, rows: int = STEPS * MICRO) -> list[Dataset]:
    rng = np.random.default_rng(5)
    orders = [
        np.stack([rng.choice(SAMPLES, BATCH, replace=False) for _ in range(rows)]) for _ in range(copies)
    ]
    return [Dataset(*KINDS[kind][2](), order=order) for order in orders]


def planned(kind: str, copies: int = 1, clip: Clip = NONE) -> Blueprint:
    return strategies.swarm(lowered(kind, clip), datasets(kind, copies), steps=STEPS)


# ------------------------------------------------------------------ beside PyTorch


def eager(kind: str, copies: int, clip: Clip, pipeline: ct.LoweredPipeline) -> nn.Sequential:
    """The whole model, trained by PyTorch with gradients added up over micro-batches and copies."""
    model = nn.Sequential(*KINDS[kind][0]())
    optimizer = eager_optimizer(kind, model)
    data = datasets(kind, copies)
    for step in range(STEPS):
        optimizer.zero_grad()
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        afterwards = []
        for copy, dataset in enumerate(data):
            model.load_state_dict(model.state_dict() | before)
            for micro in range(step * MICRO, (step + 1) * MICRO):
                samples = dataset.tensors["order"][micro]
                inputs, targets = (torch.from_numpy(part[samples]) for part in KINDS[kind][2]())
                output: Any = (inputs,)
                for k, stage in enumerate(model):
                    draws = pipeline.stages[k].first.draws
                    seed = SEED + copy * len(model) + k
                    with DrawnByProgram(Draws(seed, micro, draws)) if draws else nullcontext():
                        output = stage(*(output if isinstance(output, tuple) else (output,)))
                (KINDS[kind][1](output, targets) / (MICRO * copies)).backward()
            afterwards.append(dict(model.named_buffers()) if copies == 1 else _copied(model))
        if copies > 1:
            model.load_state_dict(model.state_dict() | _mean(afterwards))
        if clip[1] is not None:
            nn.utils.clip_grad_value_(model.parameters(), clip[1])
        if clip[0] is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip[0])
        if kind == "cnn":
            optimizer.param_groups[0]["lr"] = 0.1 * 0.5 ** (step // 2)
        optimizer.step()
    return model


def _copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def _mean(buffers: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {
        name: sum(b[name] for b in buffers) / len(buffers) if tensor.is_floating_point() else tensor
        for name, tensor in buffers[0].items()
    }


def assert_close(state: State, model: nn.Module, start: nn.Module) -> None:
    """Equal to 1e-3 of how far a tensor has moved at most."""
    before = start.state_dict()
    own = {"parameters": model.named_parameters(), "buffers": model.named_buffers()}
    for group, named in own.items():
        for name, tensor in named:
            expected = tensor.detach().numpy()
            moved = float(np.abs(expected - before[name].numpy()).max())
            assert moved > 0, name
            np.testing.assert_allclose(state[group][name], expected, rtol=0, atol=1e-3 * moved, err_msg=name)


@pytest.mark.parametrize("clip", [NONE, (0.3, None), (0.1, 0.02), (None, 0.02)])
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_trains_as_pytorch_does(kind: str, copies: int, clip: Clip) -> None:
    blueprint = planned(kind, copies, clip)
    state = strategies.carry_out(blueprint, threads=1).state
    assert_close(state, eager(kind, copies, clip, lowered(kind, clip)), nn.Sequential(*KINDS[kind][0]()))
    ct.load_into(nn.Sequential(*KINDS[kind][0]()), state)


@pytest.mark.parametrize("kind", KINDS)
def test_every_backend_gives_the_same_words(kind: str) -> None:
    blueprint = planned(kind, copies=2, clip=(0.3, None))
    native = strategies.carry_out(blueprint, threads=2).state.root
    assert native == strategies.carry_out(blueprint, backend="reference").state.root
    assert blueprint.plan.root == planned(kind, copies=2, clip=(0.3, None)).plan.root


@pytest.mark.parametrize("kind", KINDS)
def test_without_random_numbers_the_words_are_those_of_one_machine(kind: str) -> None:
    """Stages cut the model, not its arithmetic."""
    stages = KINDS[kind][0]()
    for module in nn.ModuleList(stages).modules():
        if isinstance(module, nn.Dropout | Noise):
            module.p = 0.0
    options = {"optimizer": OPTIMIZERS[kind], "example": batch(kind)}
    pipeline = ct.lower_stages(stages, KINDS[kind][1], micro_batches=MICRO, **options)
    whole = ct.lower(Whole(stages), KINDS[kind][1], accumulate=MICRO, **options)
    (data,) = datasets(kind)
    together = strategies.carry_out(strategies.swarm(pipeline, [data], steps=STEPS)).state
    alone, _ = ct.execute(whole, whole.initial_state(), data, steps=STEPS * MICRO)
    for group in together:
        assert together[group].keys() == {name.removeprefix("stages.") for name in alone[group]}
        for name, tensor in together[group].items():
            assert tensor.tobytes() == alone[group][f"stages.{name}"].tobytes(), name


def test_one_stage_is_one_machine() -> None:
    options = {"optimizer": ct.optim.SGD(lr=0.1), "example": batch("cnn"), "seed": SEED}
    whole = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.3), nn.Linear(8, 3))
    program = ct.lower(whole, nn.functional.cross_entropy, accumulate=MICRO, **options)
    pipeline = ct.lower_stages([whole], nn.functional.cross_entropy, micro_batches=MICRO, **options)
    (data,) = datasets("cnn")
    together = strategies.carry_out(strategies.swarm(pipeline, [data], steps=STEPS)).state
    alone, _ = ct.execute(program, program.initial_state(), data, steps=STEPS * MICRO)
    for name, tensor in alone["parameters"].items():
        assert together["parameters"][f"0.{name}"].tobytes() == tensor.tobytes()


class Whole(nn.Module):
    """All stages, one after another."""

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x: torch.Tensor) -> Any:
        passing: Any = (x,)
        for stage in self.stages:
            passing = stage(*(passing if isinstance(passing, tuple) else (passing,)))
        return passing


def test_copies_and_stages_draw_numbers_of_their_own() -> None:
    blueprint = planned("gpt", copies=2)
    seeds = [
        int(group["seed"])
        for name, group in blueprint.initial.items()
        if name.startswith("counters") and "seed" in group
    ]
    assert sorted(seeds) == list(range(SEED, SEED + 8))


# ------------------------------------------------------------------ plans


def test_the_plan() -> None:
    roles = Counter((role.what, role.worker) for role in planned("gpt").roles)
    expected = {("forward", k): STEPS * MICRO for k in range(3)}
    expected |= {("backward", k): STEPS * MICRO for k in range(4)}
    assert roles == expected | {("update", k): STEPS for k in range(4)}
    copies = Counter(role.what for role in planned("gpt", copies=2, clip=(0.3, None)).roles)
    assert copies == {"forward": 54, "backward": 72, "merge": 12, "update": 12}
    assert planned("gpt", copies=2).workers == 8


def test_only_activations_and_their_gradients_travel() -> None:
    """Parameters stay where their stage is; nothing goes from a stage to one that is not next to it."""
    traffic = Traffic()
    strategies.carry_out(planned("gpt"), traffic=traffic)
    hidden, counts = 4 * BATCH * 6 * 16, 4 * BATCH * 6
    passes, header = STEPS * MICRO, 200
    for stage in range(4):
        down = (hidden + counts if stage > 0 else 0) + (hidden if stage < 3 else 0)
        assert passes * down <= traffic.down[stage] <= passes * (down + 2 * header)
        up = (hidden + counts if stage < 3 else 0) + (hidden if stage > 0 else 0)
        assert passes * up <= traffic.up[stage] <= passes * (up + 2 * header)


def test_stages_work_side_by_side() -> None:
    """Each machine does the first segment in the plan that it can: no longer than a pipeline must take."""
    blueprint = planned("gpt")
    costs = {"forward": 1, "backward": 2, "update": 0}
    ends: dict[int, int] = {}
    free = dict.fromkeys(range(4), 0)
    waiting = {k: [i for i, role in enumerate(blueprint.roles) if role.worker == k] for k in range(4)}
    while any(waiting.values()):
        starts = [
            (max(free[k], *(ends.get(s.segment, 0) for s in blueprint.plan.segments[i].inputs)), i, k)
            for k, mine in waiting.items()
            for i in mine
            if all(s.segment == INITIAL or s.segment in ends for s in blueprint.plan.segments[i].inputs)
        ]
        start, index, worker = min(starts)
        cost = costs[blueprint.roles[index].what] + (
            worker == 3 and blueprint.roles[index].what == "backward"
        )
        ends[index] = free[worker] = start + cost
        waiting[worker].remove(index)
    alone, together = 4 * 3 * MICRO * STEPS, max(ends.values())
    assert together <= STEPS * 3 * (MICRO + 4 - 1) < alone / 1.9


def test_micro_batches_of_a_stage_wait_for_no_other_on_their_way_down() -> None:
    """Where neither data, random numbers nor buffers say otherwise, so that several machines can serve a stage."""
    stages = [nn.Linear(64, 8), nn.Sequential(nn.Tanh(), nn.Linear(8, 8)), nn.Linear(8, 3)]
    stages.insert(0, nn.Flatten())
    pipeline = ct.lower_stages(
        stages,
        nn.functional.cross_entropy,
        optimizer=ct.optim.SGD(lr=0.1),
        example=batch("cnn"),
        micro_batches=4,
    )
    plan = strategies.swarm(pipeline, datasets("cnn", rows=4), steps=1)
    forwards = {i for i, role in enumerate(plan.roles) if (role.what, role.worker) == ("forward", 2)}
    assert len(forwards) == 4
    for index in forwards:
        assert not forwards & {source.segment for source in plan.plan.segments[index].inputs}


def test_stages_before_all_that_is_trained_are_only_gone_through() -> None:
    stages = cnn()
    for stage in stages[:2]:
        stage.requires_grad_(False)
    stages[3].bias.requires_grad_(False)
    pipeline = ct.lower_stages(
        stages,
        nn.functional.cross_entropy,
        optimizer=ct.optim.SGD(lr=0.1),
        example=batch("cnn"),
        micro_batches=2,
    )
    assert [stage.backward is None for stage in pipeline.stages] == [True, True, True, False]
    blueprint = strategies.swarm(pipeline, datasets("cnn", copies=2), steps=2)
    state = strategies.carry_out(blueprint).state
    model = nn.Sequential(*cnn())
    for name, parameter in model.named_parameters():
        moved = np.abs(state["parameters"][name] - parameter.detach().numpy()).max()
        assert (moved > 0) == (name == "3.weight"), name
    assert int(state["buffers"]["0.1.num_batches_tracked"]) == 4
    ct.load_into(model, state)


def test_training_goes_on_from_a_state() -> None:
    """SGD without momentum remembers nothing, so two plans are one."""
    pipeline = ct.lower_stages(
        cnn(),
        nn.functional.cross_entropy,
        optimizer=ct.optim.SGD(lr=0.1),
        example=batch("cnn"),
        micro_batches=2,
    )
    (data,) = datasets("cnn", rows=8)
    halves = [Dataset(*images(), order=order) for order in np.split(data.tensors["order"], 2)]
    whole = strategies.carry_out(strategies.swarm(pipeline, [data], steps=4)).state
    first = strategies.carry_out(strategies.swarm(pipeline, [halves[0]], steps=2)).state
    second = strategies.carry_out(strategies.swarm(pipeline, [halves[1]], steps=2, state=first)).state
    assert second.root == whole.root
    with pytest.raises(ct.PlanError, match=r"no 0\.0\.weight among its parameters"):
        strategies.swarm(pipeline, [data], steps=1, state=State({"parameters": {}}))


# ------------------------------------------------------------------ what cannot be


class Noisy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rand_like(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.rand_like(gradient)


class Drawing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = Noisy.apply(x)
        return result


class Dictionary(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"x": x}


def tied() -> list[nn.Module]:
    first, last = nn.Embedding(12, 12), nn.Linear(12, 12, bias=False)
    last.weight = first.weight
    return [first, last]


def shared_buffer() -> list[nn.Module]:
    norm = nn.BatchNorm1d(6, affine=False)
    return [norm, nn.Sequential(nn.Linear(6, 6), norm)]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (tied, r"stage 1 has weight, which is weight of stage 0.*cannot share"),
        (shared_buffer, r"stage 1 has 1\.running_mean, which is running_mean of stage 0"),
        (
            lambda: [nn.Linear(6, 6), Drawing(), nn.Linear(6, 6)],
            "the gradient of stage 1 draws random numbers",
        ),
        (lambda: [nn.Linear(6, 6), Dictionary(), nn.Linear(6, 6)], "tensor or a tuple of tensors, dict"),
        (lambda: [nn.Linear(6, 6).requires_grad_(False)], "depends on no parameter"),
    ],
)
def test_stages_that_make_no_pipeline(stages: Callable[[], list[nn.Module]], message: str) -> None:
    example = (torch.zeros(4, dtype=torch.int64) if stages is tied else torch.zeros(4, 6), torch.zeros(4, 6))
    if stages is tied:
        example = example[0], torch.zeros(4, 12)
    with pytest.raises(ct.UnsupportedModel, match=message):
        ct.lower_stages(
            stages(), nn.functional.mse_loss, optimizer=ct.optim.SGD(lr=0.1), example=example, micro_batches=2
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"micro_batches": 0}, "micro_batches must be"),
        ({"seed": -1}, "seed must be"),
        ({"clip_grad_norm": 0.0}, "clip_grad_norm must be"),
        ({"optimizer": [("4.*", ct.optim.SGD(lr=0.1))]}, r"'4\.\*' selects no trainable parameter"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    given = {"optimizer": ct.optim.SGD(lr=0.1), "example": batch("cnn"), "micro_batches": 2} | options
    with pytest.raises(ct.InvalidOption, match=message):
        ct.lower_stages(cnn(), nn.functional.cross_entropy, **given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: strategies.swarm(lowered("cnn"), [], steps=1), "at least one pipeline"),
        (lambda: strategies.swarm(lowered("cnn"), datasets("cnn"), steps=0), "steps must be at least 1"),
        (lambda: strategies.swarm(lowered("cnn"), datasets("cnn"), steps=4), "12 micro-batches are needed"),
        (
            lambda: strategies.swarm(
                lowered("cnn"), [Dataset.from_tensors({"order": np.zeros((9, 4), np.uint32)})], steps=1
            ),
            "the data have no inputs",
        ),
    ],
)  # fmt: skip
def test_plans_that_cannot_be(make: Callable[[], Blueprint], message: str) -> None:
    with pytest.raises(ct.PlanError, match=message):
        make()
