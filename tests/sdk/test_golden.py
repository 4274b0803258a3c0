"""Golden roots: the reference gives them, and every instruction set and number of threads, whatever is around."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from crowdtrain import golden
from crowdtrain.cli import app
from crowdtrain_engine import isas
from typer.testing import CliRunner

QUICK = ("gpt_dropout", "gru", "mlp", "vae")
LONG = sorted(set(golden.names()) - set(QUICK))


def test_the_table_fits_the_files() -> None:
    files = {path.stem for path in golden.FOLDER.glob("*.xz")}
    assert files == set(golden.names())
    assert sum(path.stat().st_size for path in golden.FOLDER.iterdir() if path.is_file()) < 300_000


@pytest.mark.parametrize("name", golden.names())
def test_programs_are_those_of_the_table(name: str) -> None:
    model = golden.load(name)
    assert model.program.root == model.program_root
    packed = golden.pack(model.program, model.state, model.data)
    program, state, data = golden.unpack(packed)
    assert (program.root, state.root, data.root) == (model.program.root, model.state.root, model.data.root)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)])
def test_roots_are_those_of_the_reference(name: str) -> None:
    model = golden.load(name)
    after = model.run(backend="reference")
    assert after.root == model.state_root, "python -m golden in tests/ writes them anew"


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", golden.names())
def test_every_instruction_set_and_number_of_threads_gives_them(name: str, isa: str) -> None:
    model = golden.load(name)
    for threads in (1, 2, 3, 4):
        assert model.run(isa=isa, threads=threads).root == model.state_root, f"{threads} threads"


@pytest.mark.parametrize("name", golden.names())
def test_golden_models_compute_something(name: str) -> None:
    """Numbers, and other ones than before."""
    model = golden.load(name)
    after = model.run()
    moved = 0
    for parameter, values in after["parameters"].items():
        assert np.isfinite(values).all(), parameter
        moved += not np.array_equal(values, model.state["parameters"][parameter])
    assert moved > len(after["parameters"]) // 2
    assert np.isfinite(after["counters"]["loss"])
    assert after["counters"]["step"] == model.steps


# ------------------------------------------------------------------ the command


def test_selftest_passes_here() -> None:
    result = CliRunner().invoke(app, ["selftest", "--threads", "2"])
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in (*golden.names(), *isas()))
    assert "differs" not in result.output


def test_selftest_says_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    table = json.loads((golden.FOLDER / golden.TABLE).read_text())
    right = table["mlp"]["state"]
    table = {"mlp": {**table["mlp"], "state": "00" * 32}, "gru": table["gru"]}
    monkeypatch.setattr(golden, "_table", lambda: table)
    result = CliRunner().invoke(app, ["selftest", "--isa", "portable"])
    assert result.exit_code == 1
    assert "do not run either here" in " ".join(result.output.split())
    assert f"mlp on portable: {right} instead of {'00' * 32}" in "".join(result.output.splitlines())
    assert "gru on" not in result.output


# ------------------------------------------------------------------ a hostile environment

ROOTS = """
def roots(**how):
    return [golden.load(name).run(isa=isa, threads=threads, **how).root.hex()
            for name in ("gpt_dropout", "mlp", "resnet") for isa in isas() for threads in (1, 3)]

def reference():
    return golden.load("mlp").run(backend="reference").root.hex()
"""
ENGINE = "from crowdtrain_engine import Executor, isas\nfrom crowdtrain import golden\n" + ROOTS
FINISH = "import json\nprint(json.dumps([roots(), reference()]))\n"

# Subnormals become 0, in results and operands: SSE's flush-to-zero and denormals-are-zero bits, ARM's FZ.
FLUSH = "import torch\nassert torch.set_flush_denormal(True)\n"
ROUND = (
    "import ctypes, ctypes.util\nassert ctypes.CDLL(ctypes.util.find_library('m')).fesetround({mode}) == 0\n"
)
UPWARD, TO_ZERO = (0x800, 0xC00) if os.uname().machine == "x86_64" else (0x400000, 0xC00000)

BEFORE = {
    "flush": FLUSH + ENGINE + FINISH,
    "round_up": ROUND.format(mode=UPWARD) + ENGINE + FINISH,
    "round_to_zero": ENGINE + ROUND.format(mode=TO_ZERO) + FINISH,
    "torch_first": "import torch\ntorch.ones(300, 300) @ torch.ones(300, 300)\n" + ENGINE + FINISH,
    "torch_last": ENGINE + "first = roots()\nimport torch\ntorch.ones(300, 300) @ torch.ones(300, 300)\n"
    "assert roots() == first\n" + FINISH,
    "another_thread": ENGINE + "import threading, torch\n"
    "flush = threading.Thread(target=torch.set_flush_denormal, args=(True,))\nflush.start(); flush.join()\n" + FINISH,
    "everything_in_threads": FLUSH + ENGINE + "import json, threading\n"
    "run = threading.Thread(target=lambda: print(json.dumps([roots(), reference()])))\nrun.start(); run.join()\n",
    "between_steps": ENGINE + FLUSH.replace("True", "False") + """
def roots():
    found = []
    for name in ("gpt_dropout", "mlp", "resnet"):
        for isa in isas():
            for threads in (1, 3):
                model = golden.load(name)
                executor = Executor(model.program, model.state, model.data, isa=isa, threads=threads)
                executor.run(1)
                torch.set_flush_denormal(True)
                executor.run(model.steps - 1)
                torch.set_flush_denormal(False)
                found.append(executor.state.root.hex())
    return found
""" + FINISH,
}  # fmt: skip


def run(code: str, **environment: str) -> tuple[list[str], str]:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 0, done.stderr
    found, reference = json.loads(done.stdout.splitlines()[-1])
    return found, reference


def assert_golden(found: tuple[list[str], str]) -> None:
    expected = {name: golden.load(name).state_root.hex() for name in ("gpt_dropout", "mlp", "resnet")}
    each = 2 * len(isas())
    assert found == ([root for root in expected.values() for _ in range(each)], expected["mlp"])


@pytest.mark.parametrize("name", BEFORE)
def test_nothing_that_was_set_before_changes_a_root(name: str) -> None:
    assert_golden(run(BEFORE[name]))


@pytest.mark.parametrize(
    "environment",
    [{"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "2"}, {"OMP_DYNAMIC": "TRUE"}],
    ids=str,
)
def test_no_variable_of_other_libraries_changes_a_root(environment: dict[str, str]) -> None:
    assert_golden(run(BEFORE["torch_first"], **environment))


def test_a_library_built_for_speed_changes_no_root(tmp_path: Path) -> None:
    """What is linked with -ffast-math sets flush-to-zero when it is loaded, for the thread that loads it."""
    library = tmp_path / "fast.so"
    source = tmp_path / "fast.c"
    source.write_text("float product(float a, float b) { return a * b; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-ffast-math", "-o", library, source], check=True)
    load = f"import ctypes\nlibrary = ctypes.CDLL({str(library)!r})\n"
    assert_golden(run(load + ENGINE + FINISH))
    assert_golden(run(ENGINE + load + FINISH))
