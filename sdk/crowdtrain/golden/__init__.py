"""Golden roots: small programs that come with the package, and the states to which they lead on any machine.

``golden.json`` is the table: model, steps, roots of the program and of the state after them, as the reference
interpreter gives them. Beside it stands a file for each model, compressed (xz): the size of the program's file form
as u32, that form, and little-endian words of the state tensors and data tensors that nothing generates, in order.
``tests/golden.py`` writes both.
"""

from __future__ import annotations

import json
import lzma
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from crowdtrain_engine import Dataset, DType, Program, State, TensorType, execute
from crowdtrain_engine.state import Array

from crowdtrain.random import Draws

__all__ = ["FOLDER", "TABLE", "Golden", "load", "names", "pack", "unpack"]

FOLDER = Path(str(resources.files(__name__)))
TABLE = "golden.json"


@dataclass(frozen=True, slots=True)
class Golden:
    """A model of the table: what is run, for how long, and what must come out."""

    name: str
    program: Program
    state: State
    data: Dataset
    steps: int
    program_root: bytes
    state_root: bytes

    def run(self, *, backend: str = "native", isa: str | None = None, threads: int | None = None) -> State:
        """The state after the last step."""
        state, _ = execute(
            self.program, self.state, self.data, steps=self.steps, backend=backend, isa=isa, threads=threads
        )
        return state


@cache
def _table() -> dict[str, dict[str, str | int]]:
    table: dict[str, dict[str, str | int]] = json.loads((FOLDER / TABLE).read_text())
    return table


def names() -> list[str]:
    """The models of the table."""
    return list(_table())


def load(name: str) -> Golden:
    """A model of the table. Raises KeyError if it is not there."""
    row = _table()[name]
    program, state, data = unpack((FOLDER / f"{name}.xz").read_bytes())
    roots = bytes.fromhex(str(row["program"])), bytes.fromhex(str(row["state"]))
    return Golden(name, program, state, data, int(row["steps"]), *roots)


def unpack(packed: bytes) -> tuple[Program, State, Dataset]:
    """What is in the file of a model."""
    raw = lzma.decompress(packed)
    (size,) = struct.unpack_from(">I", raw)
    program = Program.decode(raw[4 : 4 + size])
    tensors = list(_tensors(program, np.frombuffer(raw, "<u4", offset=4 + size)))
    data = dict(zip(program.labels.data, tensors[len(program.state) :], strict=True))
    return program, State.from_tensors(program, tensors[: len(program.state)]), Dataset.from_tensors(data)


def pack(program: Program, state: State, data: Dataset) -> bytes:
    """The file of a model whose generated tensors will not be those of ``state`` and ``data``."""
    encoded = program.encode()
    tensors = [*state.tensors, *data.tensors.values()]
    kept = [
        tensor.astype(tensor.dtype.newbyteorder("<")).tobytes()
        for tensor, generated in zip(tensors, _generators(program), strict=True)
        if generated is None
    ]
    return lzma.compress(
        struct.pack(">I", len(encoded)) + encoded + b"".join(kept), preset=9 | lzma.PRESET_EXTREME
    )


def _tensors(program: Program, words: Array) -> Iterator[Array]:
    at = 0
    for number, (kind, generate) in enumerate(zip(_types(program), _generators(program), strict=True)):
        if generate is not None:
            yield generate(Draws(number, 0, 1), kind.shape)
        else:
            yield words[at : at + kind.size].astype(np.uint32).view(kind.dtype.numpy).reshape(kind.shape)
            at += kind.size


def _types(program: Program) -> tuple[TensorType, ...]:
    return (*program.state, *program.data)


def _generators(program: Program) -> Iterator[Callable[[Draws, tuple[int, ...]], Array] | None]:
    """How each tensor is made: parameters are normal, real data uniform, all else stands in the file."""
    for group, count in zip(program.labels.groups, program.groups, strict=True):
        for _ in range(count):
            yield _parameter if group == "parameters" else None
    for kind in program.data:
        yield Draws.uniform if kind.dtype is DType.f32 else None


def _parameter(draws: Draws, shape: tuple[int, ...]) -> Array:
    return draws.normal(shape, 0.0, 0.2)
