"""The benchmark runs, compares equal things, and its results are read back as they were written. Nothing is timed here
that a test depends on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from crowdtrain_engine import isas, reference
from typer.testing import CliRunner
from zoo.language import GPT, Llama, TaggingLSTM, next_token_loss
from zoo.vision import CNN, MixedResNet, ResNet

from bench import __main__ as command
from bench.cases import CASES, Case, Lowered, Ours, images, tokens
from bench.contractions import alone, recognise
from bench.kernels import contractions, measure_nest, measure_operation, operations, square
from bench.memory import measure_memory
from bench.publish import published
from bench.report import as_json, as_markdown, from_json
from bench.timing import Call, Effort, in_turn
from bench.training import INTERVAL, committing, profile, try_compiled

TINY = Effort(rounds=1, seconds=0.001, kernel_seconds=0.001)
SMALL: dict[str, Case] = {
    "CNN": Case(lambda: CNN(4, 8), images(4, 1, 8, 8), F.cross_entropy),
    "ResNet": Case(lambda: ResNet(4, (1, 1)), images(4, 3, 8, 8), F.cross_entropy),
    "MixedResNet": Case(lambda: MixedResNet(4), images(2, 3, 16, 16), F.cross_entropy),
    "GPT": Case(lambda: GPT(17, 16, 2, 2, 8), tokens(17, 2, 8), next_token_loss),
    "Llama": Case(lambda: Llama(17, 16, 2, 4, 2, 24, 8), tokens(17, 2, 8), next_token_loss),
    "LSTM": Case(lambda: TaggingLSTM(17, 8, 2), tokens(17, 2, 3), next_token_loss),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_calls_are_timed_in_turn() -> None:
    made: list[str] = []
    calls = {
        "a": Call(lambda: made.append("a"), lambda: made.append("prepared"), most=2),
        "b": Call(lambda: made.append("b"), most=1),
    }
    times = in_turn(calls, rounds=2, seconds=10.0)
    assert made == ["prepared", "a", "a", "a", "b", "b"] * 2
    assert all(len(measured.rounds) == 2 for measured in times.values())


@pytest.mark.parametrize("name", SMALL)
def test_what_a_nest_is_compared_with_gives_the_same_numbers(name: str) -> None:
    found = contractions({name: Lowered(SMALL[name], 1).program})
    assert len(found) > 3
    for nest, known, where in found:
        assert where == name
        _, program = alone(nest)
        tensors = [torch.randn(kind.shape) for kind in program.state]
        words = [tensor.numpy().reshape(-1).view(np.uint32) for tensor in tensors]
        ours = reference.run_nest(nest, words).view(np.float32)
        theirs = known.call(*tensors)().numpy().reshape(-1)
        # the same numbers, though another order of dimensions
        np.testing.assert_allclose(np.sort(ours), np.sort(theirs), rtol=1e-4, atol=1e-4, err_msg=known.name)


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"MixedResNet"}))  # it has convolutions in groups
def test_everything_that_the_engine_runs_as_contraction_is_compared(name: str) -> None:
    executor = Ours(Lowered(SMALL[name], 1), threads=1).executor
    groups = [group for group in executor.profile(0) if group.kind == "contraction"]
    assert groups
    for group in groups:
        for nest in group.nests:
            assert recognise(executor.program.nests[nest]), executor.program.labels.nests[nest]


def test_names_say_shapes() -> None:
    known = recognise(square(512))
    assert known is not None
    assert known.name == "512 × 512 × 512 NN"
    found = contractions({"CNN": Lowered(SMALL["CNN"], 1).program})
    names = {known.name for _, known, _ in found}
    assert "4 of 4 → 8, 4 × 4 by 3 × 3: weight gradient" in names
    assert "4 × 10 × 32 NT" in names


SMALL_OPERATIONS = operations(tokens=64, width=64, vocabulary=16, length=8)


@pytest.mark.parametrize("name", SMALL_OPERATIONS)
def test_operations_give_what_pytorch_gives(name: str) -> None:
    operation = SMALL_OPERATIONS[name]
    torch.manual_seed(0)
    executor = operation.lowered(1, threads=1)
    executor.run(1)
    torch.manual_seed(0)
    expected = operation.call(*operation.operands())
    for i, result in enumerate(expected):
        ours = executor.state["buffers"][f"result{i}"]
        np.testing.assert_allclose(ours, result.numpy(), rtol=1e-4, atol=1e-4)
    kernel = measure_operation(name, operation, 1, TINY)
    assert kernel.ours.seconds > 0
    assert kernel.bytes > 0


def test_a_nest_is_measured() -> None:
    nest = square(32)
    known = recognise(nest)
    assert known is not None
    kernel = measure_nest(nest, known, "square", 1, TINY)
    assert (kernel.flops, kernel.bytes) == (2 * 32**3, 4 * 3 * 32**2)
    assert kernel.theirs.seconds > 0


@pytest.mark.parametrize("name", ["CNN", "GPT"])
def test_a_profile_names_every_kind_and_all_flops(name: str) -> None:
    ours = Ours(Lowered(SMALL[name]), threads=1)
    shares = {share.kind: share for share in profile(ours.executor.program, ours.executor, TINY)}
    assert {"contraction", "rows"} <= set(shares)
    assert ("scatter" in shares) == (name == "GPT")
    assert shares["contraction"].flops
    assert all(share.bytes > 0 and share.seconds > 0 for share in shares.values())
    assert all((share.flops is None) == (share.kind == "scatter") for share in shares.values())
    assert 0 < committing(ours, TINY) < 1
    assert ours.executor.state["counters"]["step"] > INTERVAL


def test_compiling_is_given_up_in_time() -> None:
    assert try_compiled("MLP", 1, 0) == "not asked for"
    assert try_compiled("MLP", 1, 0.01) == "not compiled within 0.01 s"
    assert "KeyError" in try_compiled("nobody", 1, 60)


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux tells how much was resident"
)
def test_memory_is_measured_in_processes_of_their_own() -> None:
    memory = measure_memory("MLP", threads=1)
    assert memory is not None
    model = CASES["MLP"].make()[0]
    parameters = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert memory["ours"] > 3 * parameters  # with two moments
    assert memory["eager"] > 4 * parameters  # and gradients


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "QUICK", TINY)
    monkeypatch.setattr(command, "SQUARES", (64,))
    monkeypatch.setattr(command, "OPERATIONS", SMALL_OPERATIONS)
    options = ["--model", "MLP", "--quick", "--json", "--threads", "1", "--out", str(tmp_path)]
    result = CliRunner().invoke(command.app, options)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "latest.json").read_text()
    assert result.stdout == text
    report = from_json(text)
    assert as_json(report) == text
    assert as_markdown(report) == (tmp_path / "latest.md").read_text()
    assert report.facts["isa"] in isas()
    (trained,) = report.trained
    assert (trained.name, trained.parameters) == ("MLP", 64 * 256 + 256 + 256 * 256 + 256 + 2560 + 10)
    assert trained.loss_error < 1e-3
    assert {"ours", "eager"} == set(trained.times)
    assert len(report.kernels) > len(SMALL_OPERATIONS)
    filled = published(
        "a\n<!-- results: filled by make bench-publish -->\nold\n<!-- end of results -->\nb\n", "new"
    )
    assert "old" not in filled
    assert "new" in filled
    assert published(filled, "new") == filled


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for options in (["--model", "nobody"], ["--only", "nothing"]):
        assert CliRunner().invoke(command.app, [*options, "--out", str(tmp_path)]).exit_code == 2
    with pytest.raises(ValueError, match="has no lines"):
        published("no place", "new")
