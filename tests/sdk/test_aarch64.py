"""The kernels cross-compiled for aarch64 and run under an emulator give the same roots: ``make test-aarch64``."""

from __future__ import annotations

import ast
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from crowdtrain import golden
from crowdtrain_engine import (
    Axis,
    Dataset,
    DType,
    Instruction,
    Nest,
    Program,
    Read,
    State,
    TensorType,
    execute,
    merkle,
)  # fmt: skip
from crowdtrain_engine.ops import OPS
from engine.strategies import SPECIAL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
ISAS = ("neon", "portable")


def flags() -> list[str]:
    """Those that setup.py compiles with."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLAGS":
            return [str(flag) for flag in ast.literal_eval(node.value)]
    raise AssertionError("setup.py has no FLAGS")


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """engine/tools/run_program.cpp and the native engine, for aarch64."""
    missing = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: apt-get install g++-aarch64-linux-gnu qemu-user")
    folder, native = tmp_path_factory.mktemp("aarch64"), ROOT / "engine" / "native"
    sources = [*sorted(native.glob("*.cpp")), ROOT / "engine" / "tools" / "run_program.cpp"]
    sources.remove(native / "module.cpp")

    def build(source: Path) -> Path:
        built = folder / f"{source.stem}.o"
        command = [COMPILER, *flags(), f"-I{native}", "-c", source, "-o", built]
        subprocess.run(command, check=True, timeout=900)
        return built

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(build, sources))
    program = folder / "run_program"
    subprocess.run([COMPILER, "-static", "-pthread", *objects, "-o", program], check=True)
    return program


def run(
    runner: Path, folder: Path, program: Program, state: State, data: Dataset, steps: int, isa: str
) -> bytes:
    """The state's root after some steps on the emulated machine."""
    (folder / "program").write_bytes(program.encode())
    tensors = [*state.tensors, *data.tensors.values()]
    words = [tensor.astype(tensor.dtype.newbyteorder("<")).tobytes() for tensor in tensors]
    (folder / "words").write_bytes(b"".join(words))
    command = [EMULATOR, runner, folder / "program", folder / "words", str(steps), isa, "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    name, *roots = done.stdout.split()
    assert name == isa
    left, groups = [bytes.fromhex(root) for root in roots], []
    for count in program.groups:
        groups.append(merkle.root(left[:count]))
        left = left[count:]
    return merkle.root(groups)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", golden.names())
def test_golden_roots(runner: Path, tmp_path: Path, name: str, isa: str) -> None:
    model = golden.load(name)
    found = run(runner, tmp_path, model.program, model.state, model.data, model.steps, isa)
    assert found == model.state_root


@pytest.mark.parametrize("isa", ISAS)
def test_every_operation_on_words_of_every_kind(runner: Path, tmp_path: Path, isa: str) -> None:
    """Each operation becomes a state tensor, from three whose words are special or of any bits."""
    count, rng = 4099, np.random.default_rng(3)
    kind = TensorType(DType.u32, (count,))
    tensors = []
    for _ in range(3):
        special, any_bits = rng.choice(SPECIAL, count), rng.integers(0, 2**32, count)
        tensors.append(np.where(rng.random(count) < 0.5, special, any_bits).astype(np.uint32))
    reads = tuple(Read(value, (Axis(count, ((0, 1),)),)) for value in range(3))
    nests = tuple(
        Nest(DType.u32, (count,), reads, (Instruction(op.code, *range(1, op.arity + 1)),), 4) for op in OPS
    )
    results = len(OPS)
    program = Program(
        (3, results),
        (kind,) * (3 + results),
        (),
        nests,
        (0, 1, 2, *range(3 + results, 3 + 2 * results)),
    )
    program.validate()
    state = State.from_tensors(program, [*tensors, *[np.zeros(count, np.uint32)] * results])
    data = Dataset.from_tensors({})
    expected, _ = execute(program, state, data, steps=1, backend="reference")
    assert run(runner, tmp_path, program, state, data, 1, isa) == expected.root
