"""The nest builder: positions, formulas, storing, long sums, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from crowdtrain.lowering.builder import Builder
from crowdtrain.lowering.expr import (
    Const,
    bits,
    const,
    convert,
    divide,
    fma,
    i32,
    operation,
    select,
    u32,
    word_of,
)
from crowdtrain.lowering.index import Exact, Index, Loop, exact
from crowdtrain.lowering.tensor import Tensor, reshape
from crowdtrain_engine import Dataset, DType, Mode, Program, Read, State, TensorType, execute
from crowdtrain_engine.state import Array
from hypothesis import given
from hypothesis import strategies as st

F32 = DType.f32


def test_index_simplifies_what_ranges_tell() -> None:
    i, j = Loop(3), Loop(4)
    k = Index.of(i) * 4 + Index.of(j)
    assert k // 4 == Index.of(i)
    assert k % 4 == Index.of(j)
    assert (k * 6 + 5) // 6 == k
    assert (k * 6 + 5) % 6 == Index.of(5)
    assert k - k == Index()
    assert (k // 6) // 2 == k // 12 == Index()
    assert (k * 5 + Index.of(Loop(5))) // 20 == Index.of(i)
    m = Index.of(Loop(5))
    assert (k * 5 + m) % 20 == Index.of(j) * 5 + m
    assert exact(k * 3 + 6, 3) == k + 2
    assert exact(k * 3 + 1, 2) == Exact(k * 3 + 1, 2)
    assert Index.of(Loop(1)) == Index()


@given(st.data())
def test_index_arithmetic_is_integer_arithmetic(data: st.DataObject) -> None:
    loops = [Loop(data.draw(st.integers(1, 5))) for _ in range(3)]
    at = {loop: data.draw(st.integers(0, loop.extent - 1)) for loop in loops}
    form, value = Index(), 0
    for _ in range(data.draw(st.integers(1, 5))):
        loop = data.draw(st.sampled_from(loops))
        factor, offset = data.draw(st.integers(-4, 12)), data.draw(st.integers(-20, 20))
        form, value = form + Index.of(loop) * factor + offset, value + at[loop] * factor + offset
        divisor = data.draw(st.integers(1, 13))
        kind = data.draw(st.sampled_from(["none", "floor", "mod"]))
        if kind == "floor":
            form, value = form // divisor, value // divisor
        elif kind == "mod":
            form, value = form % divisor, value % divisor
    assert form.low <= value <= form.high
    assert _evaluate(form, at) == value


def _evaluate(index: Index, at: dict[Loop, int]) -> int:
    total = index.offset
    for atom, coefficient in index.terms:
        if isinstance(atom, Loop):
            total += coefficient * at[atom]
        else:
            inner = _evaluate(atom.inner, at)  # type: ignore[attr-defined]
            quotient = type(atom).__name__ == "Quotient"
            total += coefficient * (inner // atom.divisor if quotient else inner % atom.divisor)  # type: ignore[attr-defined]
    return total


@given(st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1))
def test_division_of_words_is_exact(n: int, divisor: int) -> None:
    result = divide(Const(u32, n), divisor)
    assert isinstance(result, Const)
    assert result.word == n // divisor


def test_constants_are_folded_and_neutral_operations_left_out() -> None:
    x = word_of(Index.of(Loop(3)), i32)
    assert x + 0 is x
    assert x * 1 is x
    y = operation("i2f", F32, x)
    assert y * 1.0 is y
    assert y - 0.0 is y
    assert y + 0.0 is not y  # -0 + 0 is 0
    assert isinstance(const(2.0) + 3.0, Const)
    assert (const(2.0) + 3.0).word == bits(5.0, F32)  # type: ignore[attr-defined]
    assert select(const(1, u32), y, const(3.0)) is y


def test_types_that_do_not_go_together_are_refused() -> None:
    x = word_of(Index.of(Loop(3)), i32)
    with pytest.raises(TypeError, match="i32 and f32"):
        x + const(1.0)
    with pytest.raises(OverflowError, match="32 bits"):
        bits(2**33, i32)


class Bench:
    """A builder with one state tensor ``x`` of floats, run once by the reference."""

    def __init__(self, *shape: int) -> None:
        self.b = Builder()
        self.x = self.b.state("g", "x", TensorType(F32, shape))
        self.values = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)

    def run(self, result: Tensor) -> tuple[Program, Array]:
        self.b.log("y", result)
        program = self.b.finish()
        fixed = {"constants": self.b.constants} if self.b.constants else {}
        state = State({"g": {"x": self.values}, **fixed})
        _, logs = execute(program, state, Dataset.from_tensors({}), steps=1, backend="reference")
        return program, logs["y"][0]


def test_equal_subexpressions_reads_and_immediates_stand_once() -> None:
    t = Bench(4)

    def formula(i: Index) -> object:
        return (t.x[i] * 2.0 + 1.0) * (t.x[i] * 2.0 + 1.0) + 2.0

    program, y = t.run(t.b.map((4,), formula, "y"))  # type: ignore[arg-type]
    (nest,) = program.nests
    assert (len(nest.operands), len(nest.immediates), len(nest.body)) == (1, 2, 4)
    np.testing.assert_allclose(y, (t.values * 2 + 1) ** 2 + 2, rtol=1e-6)


def test_pointwise_formulas_become_one_nest() -> None:
    t = Bench(3, 4)
    y = t.x
    for _ in range(5):
        y = t.b.pointwise(lambda v: v * v + 1.0, y, what="step")
    program, _ = t.run(y)
    assert len(program.nests) == 1


def test_a_formula_that_grows_too_large_is_stored_on_the_way() -> None:
    t = Bench(8)
    y, expected = t.x, t.values.astype(np.float64)
    for k in range(100):
        y = t.b.pointwise(lambda v, u, k=k: v * 0.5 + u * (k + 1.5), y, t.x, what="step")
        expected = expected * 0.5 + t.values * (k + 1.5)
    program, result = t.run(y)
    assert 2 < len(program.nests) < 20
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_what_would_be_computed_again_for_each_repetition_is_stored() -> None:
    t = Bench(3, 4)
    rows = t.b.sum((3,), (4,), lambda i, j: t.x[i, j], "rows")
    scale = t.b.pointwise(lambda v: 1.0 / v, rows, what="scale")
    column = t.b.view(scale, (3, 1), lambda i, _: (i,))
    program, y = t.run(t.b.pointwise(lambda v, s: v * s, t.x, column, what="scaled"))
    assert program.labels.nests == ("rows", "scale", "scaled")
    np.testing.assert_allclose(y, t.values / t.values.sum(1, keepdims=True), rtol=1e-4)


def test_reshapes_cost_nothing() -> None:
    t = Bench(2, 3, 4)
    flat = reshape(reshape(t.x, (24,)), (2, 12))
    program, y = t.run(t.b.sum((2,), (12,), lambda n, k: flat[n, k], "sum"))
    assert program.labels.nests == ("sum",)
    assert program.nests[0].reads[0].shape == (2, 12)
    np.testing.assert_allclose(y, t.values.reshape(2, 12).sum(1), rtol=1e-5)


def test_reshapes_of_permutations_split_loops_instead_of_copying() -> None:
    t = Bench(2, 3, 4)
    turned = t.b.view(t.x, (2, 4, 3), lambda n, j, i: (n, i, j))
    flat = reshape(turned, (2, 12))
    weights = t.b.map((5, 12), lambda i, j: operation("u2f", F32, word_of(i * 12 + j)), "weights")
    program, y = t.run(
        t.b.fold((2, 5), (12,), lambda acc, n, o, k: fma(flat[n, k], weights[o, k], acc), "product")
    )
    assert program.labels.nests == ("product",)
    assert program.nests[0].fold == (4, 3)
    np.testing.assert_allclose(
        y, t.values.transpose(0, 2, 1).reshape(2, 12) @ np.arange(60.0).reshape(5, 12).T, rtol=1e-5
    )


def test_what_no_split_makes_affine_is_gathered_by_a_table_of_positions() -> None:
    t = Bench(4, 6)
    turned = reshape(t.b.view(t.x, (6, 4), lambda i, j: (j, i)), (24,))
    program, y = t.run(t.b.stored(t.b.view(turned, (23,), lambda i: (i + 1,))))
    assert any(axis.mode is Mode.GATHER for read in program.nests[-1].reads for axis in read.axes)
    np.testing.assert_array_equal(y, t.values.T.reshape(24)[1:])


def test_nests_that_read_only_constants_are_computed_while_lowering() -> None:
    t = Bench(3)
    table = t.b.table(np.array([1.5, 2.5, -1.0], np.float32), "table")
    squares = t.b.map((3,), lambda i: table[i] * table[i], "squares")
    total = t.b.fold((3,), (3,), lambda acc, i, j: acc + squares[j], "total")
    program, y = t.run(t.b.map((3,), lambda i: t.x[i] + total[i] * table[i], "y"))
    assert program.labels.nests == ("y",)
    assert program.labels.state == ("x", "table", "total")
    np.testing.assert_allclose(y, t.values + 9.5 * np.array([1.5, 2.5, -1.0]), rtol=1e-6)


def test_equal_tables_stand_once_and_names_are_told_apart() -> None:
    t = Bench(2)
    first, same = (t.b.table(np.array([3.0, 4.0], np.float32), name) for name in ("a", "b"))
    other = t.b.table(np.array([3, 4], np.int32), "a")
    assert first.value == same.value
    t.run(t.b.map((2,), lambda i: t.x[i] + first[i] * convert(other[i], F32) - same[i], "y"))
    assert set(t.b.constants) == {"a", "a 2"}


@given(st.sampled_from([(4, 6), (2, 3, 4), (24,), (6, 4), (3, 8), (2, 2, 6), (8, 3)]), st.data())
def test_any_chain_of_reshapes_and_permutations(shape: tuple[int, ...], data: st.DataObject) -> None:
    t = Bench(4, 6)
    y, expected = t.x, t.values
    for _ in range(3):
        y, expected = reshape(y, shape), expected.reshape(shape)
        order = data.draw(st.permutations(range(len(shape))))
        y = t.b.view(
            y, [shape[d] for d in order], lambda *i, o=order: tuple(i[o.index(d)] for d in range(len(o)))
        )
        expected = expected.transpose(order)
        shape = data.draw(st.sampled_from([(4, 6), (2, 3, 4), (24,), (3, 8), (8, 3)]))
    _, result = t.run(y)
    np.testing.assert_array_equal(result, expected)


def test_reading_beyond_the_edges_gives_the_fill_through_a_permutation() -> None:
    t = Bench(2, 3)
    turned = t.b.view(t.x, (3, 2), lambda i, j: (j, i))
    assert turned.has_edges((0, 1))
    program, y = t.run(t.b.map((5, 2), lambda i, j: turned.read((i - 1, j), 7.0), "padded"))
    assert len(program.nests) == 1
    np.testing.assert_array_equal(y, np.pad(t.values.T, ((1, 1), (0, 0)), constant_values=7))


def test_reading_beyond_the_edges_of_a_slice_needs_it_stored() -> None:
    t = Bench(6)
    part = t.b.view(t.x, (3,), lambda i: (i + 2,))
    assert not part.has_edges((0,))
    with pytest.raises(ValueError, match="beyond its edges"):
        part.read((Index.of(Loop(4)) - 1,))
    t.b.bordered(part, (0,))
    _, y = t.run(t.b.map((5,), lambda i: part.read((i - 1,)), "padded"))
    np.testing.assert_array_equal(y, np.pad(t.values[2:5], 1))


def test_a_padded_view_keeps_its_own_fill() -> None:
    t = Bench(2, 2)
    padded = t.b.tensor(F32, (4, 2), lambda i, j: t.x.read((i - 1, j), 5.0), "padded")
    assert not padded.has_edges((1,))
    t.b.bordered(padded, (1,))
    _, y = t.run(t.b.map((4, 4), lambda i, j: padded.read((i, j - 1), 3.0), "twice"))
    inner = np.pad(t.values, ((1, 1), (0, 0)), constant_values=5)
    np.testing.assert_array_equal(y, np.pad(inner, ((0, 0), (1, 1)), constant_values=3))


@pytest.mark.parametrize("over", [(1025,), (2003,), (64, 33), (3, 7, 101), (2, 2048)], ids=str)
def test_long_sums_of_every_shape(over: tuple[int, ...]) -> None:
    t = Bench(2, *over)
    program, y = t.run(t.b.sum((2,), over, lambda n, *i: t.x[(n, *i)], "total"))
    exact_sum = t.values.reshape(2, -1).astype(np.float64).sum(1)
    np.testing.assert_allclose(y, exact_sum, rtol=1e-6, atol=1e-5)
    assert len(program.nests) >= 2
    assert max(nest.fold_length for nest in program.nests) <= 400


def test_nests_on_which_nothing_depends_are_left_out() -> None:
    t = Bench(3)
    unused = t.b.map((3,), lambda i: t.x[i] * 3.0, "unused")
    t.b.map((3,), lambda i: unused[i] * 3.0, "unused too")
    program, _ = t.run(t.b.map((3,), lambda i: t.x[i] * 2.0, "used"))
    assert program.labels.nests == ("used",)
    assert isinstance(program.nests[0].operands[0], Read)


def test_state_must_be_declared_first_and_once() -> None:
    t = Bench(3)
    with pytest.raises(ValueError, match="twice"):
        t.b.state("g", "x", TensorType(F32, (3,)))
    t.b.map((3,), lambda i: t.x[i] * 2.0, "y")
    with pytest.raises(ValueError, match="before data and nests"):
        t.b.state("g", "late", TensorType(F32, (3,)))
