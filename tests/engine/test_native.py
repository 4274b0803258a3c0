"""The native backend gives the words of the reference, on every instruction set and thread count."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from crowdtrain_engine import (
    Axis,
    BackendError,
    DType,
    Index,
    Instruction,
    Mode,
    Nest,
    Program,
    ProgramError,
    Read,
    TensorType,
    _native,
    isas,
    reference,
)
from crowdtrain_engine.native import NativePlan
from crowdtrain_engine.ops import BY_NAME, FIRST_ELEMENTARY, OPS, Op
from crowdtrain_engine.validation import cost
from engine.products import WHICH, convolution, matrix_product
from engine.strategies import (
    SPECIAL,
    Case,
    cases,
    contractions,
    convolutions,
    deep_products,
    layouts,
    programs,
    rowwise,
    scatters,
    unions,
    updates,
    words,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

Words = NDArray[np.uint32]

thorough = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def plan(case: Case, isa: str, threads: int) -> _native.Plan:
    header, _, *nests = case.program.leaves
    return _native.Plan(header, list(nests), isa, threads)


def assert_same(got: Words, expected: Words, what: str) -> None:
    if not np.array_equal(got, expected):
        at = int(np.flatnonzero(got != expected)[0])
        raise AssertionError(f"{what}: word {at} is {got[at]:08x}, the reference has {expected[at]:08x}")


def check(case: Case, steps: int) -> None:
    """One step with all its values, then ``steps`` in a row, on every ISA and with one and two threads."""
    case.program.validate()
    every = [reference.run_step(case.program, [*case.state, *case.data])]
    for _ in range(steps):
        state = [every[-1][following] for following in case.program.next]
        if len(every) < steps:
            every.append(reference.run_step(case.program, [*state, *case.data]))
    for isa in isas():
        for threads in (1, 2):
            native = plan(case, isa, threads)
            got = native.values(list(case.state), list(case.data))
            for value, (mine, theirs) in enumerate(zip(got, every[0], strict=True)):
                assert_same(mine, theirs, f"{isa}, value {value}")
            after = [tensor.copy() for tensor in case.state]
            logs = native.run(after, list(case.data), steps)
            for number, (mine, theirs) in enumerate(zip(after, state, strict=True)):
                assert_same(mine, theirs, f"{isa}, state {number} after {steps} steps")
            for log, value in zip(logs, case.program.logs, strict=True):
                assert_same(
                    log.reshape(-1), np.concatenate([values[value] for values in every]), f"{isa}, {value}"
                )


@given(case=cases())
@thorough
def test_any_program(case: Case) -> None:
    check(case, steps=3)


@given(case=cases(updates()))
@thorough
def test_states_updated_in_place(case: Case) -> None:
    check(case, steps=3)


@given(case=cases(contractions() | deep_products()))
@thorough
def test_matrix_products(case: Case) -> None:
    check(case, steps=1)


@given(case=cases(convolutions()))
@thorough
def test_convolutions(case: Case) -> None:
    check(case, steps=1)


@given(case=cases(rowwise()))
@thorough
def test_nests_that_run_row_by_row(case: Case) -> None:
    check(case, steps=2)


@given(case=cases(layouts()))
@thorough
def test_operands_in_any_order(case: Case) -> None:
    check(case, steps=1)


@given(case=cases(unions()))
@thorough
def test_concatenations(case: Case) -> None:
    assert kinds(case.program) == ["union"]
    check(case, steps=1)


@given(case=cases(scatters()))
@thorough
def test_scatters(case: Case) -> None:
    assert kinds(case.program)[-1] == "scatter"
    check(case, steps=1)


@pytest.mark.parametrize("isa", isas())
def test_the_kernels_that_run_say_who_they_are(isa: str) -> None:
    nest = Nest(DType.f32, (), (), (), 1, immediates=(7,))
    program = Program((1,), (TensorType(DType.f32, ()),), (), (nest,), (1,))
    header, _, *nests = program.leaves
    assert _native.Plan(header, list(nests), isa, 1).isa == isa


def kinds(program: Program) -> list[str]:
    header, _, *nests = program.leaves
    return _native.Plan(header, list(nests), isas()[0], 1).kinds()


@pytest.mark.parametrize("program", [matrix_product(64, 48, 32), matrix_product(700, 10, 300)])
def test_matrix_products_have_kernels_of_their_own(program: Program) -> None:
    assert kinds(program) == ["contraction"]


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_are_matrix_products(which: str, stride: int) -> None:
    assert kinds(convolution(which, 4, 3, 8, (9, 9), 3, stride=stride, padding=1)) == ["contraction"]


@pytest.mark.parametrize("isa", isas())
def test_every_operation_on_every_instruction_set(isa: str) -> None:
    rng = np.random.default_rng(0)
    operands = [words(rng, 4099) for _ in range(3)]
    operands[0][: len(SPECIAL) ** 2] = np.repeat(np.array(SPECIAL, np.uint32), len(SPECIAL))
    operands[1][: len(SPECIAL) ** 2] = np.tile(np.array(SPECIAL, np.uint32), len(SPECIAL))
    for op in OPS:
        reads = tuple(Read(i, (Axis(4099, ((0, 1),)),)) for i in range(op.arity))
        refs = range(1, op.arity + 1)
        nest = Nest(DType.u32, (4099,), reads, (Instruction(op.code, *refs),), op.arity + 1)
        state = tuple(TensorType(DType.u32, (4099,)) for _ in range(3))
        case = Case(Program((3,), state, (), (nest,), (0, 1, 2)), tuple(operands), ())
        got = plan(case, isa, 1).values(list(operands), [])[3]
        assert_same(got, reference.run_nest(nest, operands), f"{op.name} on {isa}")


@pytest.mark.slow
@pytest.mark.parametrize("op", [op for op in OPS if op.code >= FIRST_ELEMENTARY], ids=lambda op: op.name)
def test_elementary_functions_of_every_word(op: Op) -> None:
    count = 1 << 22
    reads = (Read(0, ()), Index(0))
    body = (Instruction(BY_NAME["iadd"].code, 1, 2), Instruction(op.code, 3))
    nest = Nest(DType.f32, (count,), reads, body, 4)
    program = Program((1,), (TensorType(DType.u32, ()),), (), (nest,), (0,))
    plans = [plan(Case(program, (), ()), isa, 2) for isa in isas()]
    for start in range(0, 1 << 32, count):
        first, *others = (native.nest(0, [np.full(1, start, np.uint32)]) for native in plans)
        for isa, other in zip(isas()[1:], others, strict=True):
            assert_same(other, first, f"{op.name} of words from {start:08x} on {isa}")


def flush_subnormals() -> Callable[[], object]:
    assert torch.set_flush_denormal(True)
    return lambda: torch.set_flush_denormal(False)


def round_upward() -> Callable[[], object]:
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    before = libm.fegetround()
    assert libm.fesetround({"x86_64": 0x800, "aarch64": 0x400000}[platform.machine()]) == 0
    return lambda: libm.fesetround(before)


@pytest.mark.parametrize("disturb", [flush_subnormals, round_upward])
def test_what_another_library_has_set_changes_no_word(disturb: Callable[[], Callable[[], object]]) -> None:
    count = 5000
    rng = np.random.default_rng(1)
    state = [rng.integers(0, 1 << 23, count, np.uint32), words(rng, count)]  # subnormals, and anything
    reads = tuple(Read(value, (Axis(count, ((0, 1),)),)) for value in range(2))
    body = tuple(Instruction(BY_NAME[name].code, *refs) for name, *refs in BODY)
    nest = Nest(DType.f32, (count,), reads, body, 6, immediates=(0x3F000001,))
    case = Case(
        Program((2,), (TensorType(DType.f32, (count,)),) * 2, (), (nest,), (2, 1)),
        tuple(state),
        (),
    )
    expected = reference.run_nest(case.program.nests[0], state)
    for isa in isas():
        for threads in (1, 2):
            native = plan(case, isa, threads)
            after = [tensor.copy() for tensor in state]
            restore = disturb()
            try:
                got = native.values(state, [])[2]
                native.run(after, [], 1)
                in_python = reference.run_nest(case.program.nests[0], state)
                ours_is_gone = (
                    np.float32(1e-38) * np.float32(0.1) == 0 or np.float32(1) + np.float32(1e-9) > 1
                )
            finally:
                restore()
            assert ours_is_gone  # the mode that was set is there again
            assert_same(in_python, expected, "reference")
            assert_same(got, expected, f"{isa}, {threads} threads")
            assert_same(after[0], expected, f"{isa}, {threads} threads, run")


BODY = (("fmul", 1, 3), ("fadd", 4, 1), ("ffma", 5, 2, 1))


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """``data`` with a few bytes changed, inserted or taken away."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, len(out) + 1))
        kind = rng.integers(0, 4)
        if kind == 0 and out:
            del out[at : at + int(rng.integers(1, 5))]
        elif kind == 1:
            out[at:at] = rng.bytes(int(rng.integers(1, 5)))
        elif at < len(out):
            out[at] = int(rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF, out[at] ^ 1, int(rng.integers(256))]))
    return bytes(out)


@given(program=programs(), seed=st.integers(0, 2**32 - 1))
@settings(thorough, max_examples=300)
def test_the_decoder_accepts_what_python_accepts(program: Program, seed: int) -> None:
    rng = np.random.default_rng(seed)
    leaves = list(program.leaves)
    which = int(rng.choice([0, *range(2, len(leaves))]))
    leaves[which] = mutated(leaves[which], rng)
    file = b"".join(len(leaf).to_bytes(4, "big") + leaf for leaf in leaves)
    accepted = accepts(lambda: Program.decode(file)) and not Program.decode(file).is_open
    if not accepted or cost(Program.decode(file)).memory < 1 << 28:
        assert accepts(lambda: _native.Plan(leaves[0], leaves[2:], isas()[0], 1)) == accepted


def accepts(decode: Callable[[], object]) -> bool:
    try:
        decode()
    except ProgramError:
        return False
    return True


def test_arrays_that_do_not_fit_are_refused() -> None:
    case = Case(matrix_product(4, 5, 6), (np.zeros(24, np.uint32), np.zeros(30, np.uint32)), ())
    native = plan(case, isas()[0], 1)
    good = list(case.state)
    bad: list[list[NDArray[np.generic]]] = [
        [good[0]], [good[0], good[0]], [good[0], good[1].astype(np.uint64)], [good[0], np.zeros(60)[::2]],
    ]  # fmt: skip
    for arrays in bad:
        with pytest.raises(ValueError, match=r"arrays are needed|must be a C-contiguous array of 30"):
            native.values(arrays, [])
        with pytest.raises(ValueError, match=r"arrays are needed|must be a C-contiguous array of 30"):
            native.run(arrays, [], 1)
    with pytest.raises(IndexError):
        native.nest(1, good)


def test_an_instruction_set_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    program = matrix_product(2, 2, 2)
    with pytest.raises(BackendError, match=r"there are .*portable"):
        NativePlan(program, isa="vliw")
    monkeypatch.setenv("CROWDTRAIN_ISA", "portable")
    assert NativePlan(program).isa == "portable"
    assert NativePlan(program, isa=isas()[0]).isa == isas()[0]
    monkeypatch.setenv("CROWDTRAIN_ISA", "vliw")
    with pytest.raises(BackendError, match="'vliw' does not run here"):
        NativePlan(program)


def test_arrays_that_overlap_are_refused() -> None:
    memory = np.zeros(40, np.uint32)
    native = plan(Case(matrix_product(4, 5, 6), (), ()), isas()[0], 1)
    with pytest.raises(ValueError, match="overlap"):
        native.run([memory[:24], memory[10:]], [], 1)


def test_data_may_be_the_same_array_twice_but_not_the_state_too() -> None:
    axes = (Axis(3, ((0, 1),)),)
    add = Nest(DType.u32, (3,), (Read(1, axes), Read(2, axes)), (Instruction(BY_NAME["iadd"].code, 1, 2),), 3)
    kind = TensorType(DType.u32, (3,))
    program = Program((1,), (kind,), (kind, kind), (add,), (3,), ())
    program.validate()
    native = NativePlan(program, threads=1)
    memory = np.arange(6, dtype=np.uint32)
    state = np.zeros(3, np.uint32)
    native.run([state], [memory[:3], memory[1:4]], 1)
    np.testing.assert_array_equal(state, [1, 3, 5])
    with pytest.raises(ValueError, match="overlap"):
        native.run([memory[2:5]], [memory[:3], memory[:3]], 1)


def test_one_plan_called_from_several_threads() -> None:
    program = matrix_product(65, 70, 300)
    rng = np.random.default_rng(2)
    state = [words(rng, kind.size) for kind in program.state]
    native = plan(Case(program, (), ()), isas()[0], 2)
    expected = reference.run_nest(program.nests[0], state)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: native.nest(0, state), range(40)):
            assert_same(got, expected, "a thread")


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two processors"
)
def test_a_worker_that_leaves_its_callers_processor_may_still_use_all() -> None:
    """A system that wakes it there may leave it there, though other processors are idle; so it moves by itself."""

    def threads() -> set[int]:
        return {int(task) for task in os.listdir("/proc/self/task")}

    allowed = os.sched_getaffinity(0)
    program = matrix_product(256, 256, 256)
    operands = [np.zeros(kind.size, np.uint32) for kind in program.state]
    before = threads()
    native = NativePlan(program, threads=2)
    (worker,) = threads() - before
    try:
        os.sched_setaffinity(0, {min(allowed)})
        for _ in range(20):
            os.sched_setaffinity(worker, {min(allowed)})
            os.sched_setaffinity(worker, allowed)
            native.nest(0, operands)
    finally:
        os.sched_setaffinity(0, allowed)
    until = time.monotonic() + 10
    while os.sched_getaffinity(worker) != allowed and time.monotonic() < until:
        time.sleep(0.01)  # it may be about to move
    assert os.sched_getaffinity(worker) == allowed


def test_what_is_the_same_in_all_iterations_is_kept_for_those_that_read_it() -> None:
    """``doubled`` is read last, in the order of the body, by what is computed once, but before that by an iteration."""
    iadd, imul = BY_NAME["iadd"].code, BY_NAME["imul"].code
    output, iteration, two, doubled, moving, still, both = range(1, 8)
    body = (
        Instruction(imul, output, two),
        Instruction(iadd, doubled, iteration),
        Instruction(iadd, doubled, output),
        Instruction(iadd, moving, still),
        Instruction(iadd, 0, both),
    )
    nest = Nest(DType.u32, (5,), (Index(0), Index(1)), body, both + 1, (3,), 0, (2,))
    tensor = TensorType(DType.u32, (5,))
    program = Program((1,), (tensor,), (), (nest,), (1,), ())
    program.validate()
    state = [np.zeros(5, np.uint32)]
    expected = reference.run_step(program, state)[1]
    for isa in isas():
        assert_same(plan(Case(program, (), ()), isa, 1).nest(0, state), expected, isa)


def test_a_gather_beside_a_divided_axis() -> None:
    """The gathered position stays the same along a row in which the divided one moves."""
    rows = Nest(DType.u32, (4,), (Index(0),), (Instruction(BY_NAME["iand"].code, 1, 2),), 3, immediates=(1,))
    read = Read(
        0,
        (
            Axis(2, ((0, 3), (1, 1)), mode=Mode.FLOOR, divisor=6),
            Axis(2, mode=Mode.GATHER, operand=0),
            Axis(3, ((1, 1),)),
        ),
    )
    copy = Nest(DType.f32, (4, 3), (Read(1, (Axis(4, ((0, 1),)),)), read), (), 2)
    tensor = TensorType(DType.f32, (2, 2, 3))
    program = Program((1,), (tensor,), (), (rows, copy), (0,), (2,))
    program.validate()
    state = [np.arange(12, dtype=np.uint32)]
    expected = reference.run_step(program, state)[2]
    for isa in isas():
        (logged,) = plan(Case(program, (), ()), isa, 1).run([state[0].copy()], [], 1)
        assert_same(logged[0], expected, isa)


def test_positions_beyond_all_words_do_not_wrap() -> None:
    """A divided axis whose size times divisor is near 2^63, and positions far below 0 and far above."""
    size = 2**31 - 1
    axis = Axis(size, ((0, -(2**31)), (1, 2**31 - 1)), 0, Mode.FLOOR, 2**32 - 1)
    nest = Nest(DType.u32, (8, 100), (Read(1, (axis,), 5),), (), 1)
    kinds = (TensorType(DType.u32, (8, 100)), TensorType(DType.u32, (size,)))
    program = Program((1,), kinds[:1], kinds[1:], (nest,), (2,))
    state, data = np.zeros(800, np.uint32), np.zeros(size, np.uint32)  # mapped where it is touched only
    header, _, *nests = program.leaves
    for isa in isas():
        got = _native.Plan(header, list(nests), isa, 1).nest(0, [state, data])
        assert_same(got, reference.run_nest(nest, [state, data]), isa)


OUT_OF_MEMORY = """
import resource
import numpy as np
from crowdtrain_engine import _native, isas
from engine.products import matrix_product
program = matrix_product(1024, 1024, 1024)
header, _, *nests = program.leaves
plan = _native.Plan(header, list(nests), isas()[0], 1)
values = [np.zeros(1 << 20, np.uint32)] * 2
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 20) + (300 << 10), -1))
for _ in range(2):
    try:
        plan.nest(0, values)
        print("computed")
    except MemoryError:
        print("refused")
try:
    _native.Plan(header, list(nests), isas()[0], 400)
    print("made")
except (RuntimeError, MemoryError):
    print("refused")
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert not plan.nest(0, values).any()
"""


def test_running_out_of_memory_is_an_error_and_no_more() -> None:
    """What comes after it neither crashes nor hangs."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "refused"


def test_plans_take_memory_by_what_values_take() -> None:
    """Many short nests of many operands: tables of positions would take far more than the outputs."""
    nest = Nest(DType.u32, (2, 63), tuple(Index(1) for _ in range(16)), (), 1, (128,))
    first = Nest(DType.u32, (), (), (), 1, (), immediates=(7,))
    program = Program((1,), (TensorType(DType.u32, ()),), (), (first, *(nest,) * 400), (1,))
    header, _, *nests = program.leaves
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _native.Plan(header, list(nests), isas()[0], 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; it was 430,000
