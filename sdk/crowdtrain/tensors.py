"""States and datasets as safetensors files in a store.

A state is stored group by group, and named by the list of the groups' CIDs, so that nobody stores or fetches a
group twice, or one that is not needed. Tensors are named by position: what they are called, what they must look
like and which root they must have comes from the program and the chain, never from the file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.numpy
from crowdtrain_engine import Dataset, DType, Program, State, TensorType, merkle
from crowdtrain_engine.state import Array

from crowdtrain import cid as cids
from crowdtrain._errors import Corrupt, StoreUnavailable
from crowdtrain.stores._blobs import Store

__all__ = [
    "Group", "group_types", "load_dataset", "load_groups", "load_state", "read_dataset", "read_state",
    "save_dataset", "save_state", "write_dataset", "write_state", "write_tensors",
]  # fmt: skip

T = TypeVar("T")
Group = list[Array]
"""tensors of a group, in order"""
_NAMES = {"F32": DType.f32, "I32": DType.i32, "U32": DType.u32}
_CID = 36
_HEADER = 256
"""bytes of a safetensors header for each tensor, at most"""


def save_state(store: Store, state: State) -> str:
    """Stores a state and returns its CID. Raises StoreUnavailable."""
    listed = [_save(store, partial(_write_numbered, tensors=group.values())) for group in state.values()]
    return store.put(b"".join(map(cids.to_bytes, listed)))


def load_state(store: Store, cid: str, program: Program, group_roots: Sequence[bytes]) -> State:
    """The state of ``program`` at ``cid``. Raises Corrupt, saying what differs, unless it has these group
    roots."""
    groups = load_groups(store, cid, group_types(program), group_roots)
    return State.from_tensors(program, [tensor for number in sorted(groups) for tensor in groups[number]])


def group_types(program: Program) -> list[tuple[TensorType, ...]]:
    """Types of the tensors in each group of a program's state."""
    return [program.state[program.bounds[i] : program.bounds[i + 1]] for i in range(len(program.groups))]


def load_groups(
    store: Store,
    cid: str,
    types: Sequence[Sequence[TensorType]],
    roots: Sequence[bytes],
    only: Collection[int] | None = None,
) -> dict[int, Group]:
    """Groups, by number, of the state at ``cid``, which has groups of these types; all or ``only`` some.

    Raises Corrupt, saying what differs, if a tensor has another type or a group another root; NotFound or
    StoreUnavailable as the store does. No more is read than such groups need.
    """
    if len(types) != len(roots):
        raise Corrupt(f"state {cid}: {len(roots)} groups are committed, the program has {len(types)}")
    listed = store.get(cid, _CID * len(types))
    if len(listed) != _CID * len(types):
        raise Corrupt(
            f"state {cid} lists {len(listed)} bytes of CIDs, {len(types)} groups have {_CID * len(types)}"
        )
    groups = {}
    for number in sorted(range(len(types)) if only is None else set(only)):
        where = f"state {cid}: group {number}"
        name = cids.from_bytes(listed[_CID * number : _CID * (number + 1)])
        groups[number] = list(_load(store, name, where, _numbered(types[number])).values())
        root = merkle.root(merkle.tensor_roots(groups[number]))
        if root != roots[number]:
            raise Corrupt(f"{where} has root 0x{root.hex()}, committed is 0x{roots[number].hex()}")
    return groups


def save_dataset(store: Store, data: Dataset) -> str:
    """Stores a dataset and returns its CID. Raises StoreUnavailable."""
    return _save(store, lambda path: write_dataset(path, data))


def load_dataset(store: Store, cid: str, program: Program, root: bytes) -> Dataset:
    """The dataset of ``program`` at ``cid``. Raises Corrupt, saying what differs, unless it has this root."""
    tensors = _load(store, cid, f"dataset {cid}", _numbered(program.data))
    data = Dataset.from_tensors(dict(zip(program.labels.data, tensors.values(), strict=True)))
    if data.root != root:
        raise Corrupt(f"dataset {cid} has root 0x{data.root.hex()}, planned is 0x{root.hex()}")
    return data


def write_state(path: Path, state: State) -> None:
    """Writes a state's file. Raises OSError."""
    groups = list(state.values())
    named = {f"{g}.{t}": tensor for g, group in enumerate(groups) for t, tensor in enumerate(group.values())}
    write_tensors(path, named)


def read_state(path: Path, program: Program) -> State:
    """The state of ``program`` in a file. Raises Corrupt, saying what differs, if it is not one."""
    types = group_types(program)
    expected = {f"{g}.{t}": kind for g, kinds in enumerate(types) for t, kind in enumerate(kinds)}
    tensors = _read(path, f"state {path}", expected)
    return State.from_tensors(program, list(tensors.values()))


def write_dataset(path: Path, data: Dataset) -> None:
    """Writes a dataset's file. Raises OSError."""
    _write_numbered(path, data.tensors.values())


def read_dataset(path: Path, program: Program) -> Dataset:
    """The dataset in a file, for ``program``, which is bound to its numbers of rows if it is open.

    Raises Corrupt, saying what differs, if it does not fit.
    """
    if program.is_open:
        with _opened(path, f"dataset {path}") as file:
            numbers = sorted(file.keys(), key=lambda name: (len(name), name))
            shapes = [file.get_slice(name).get_shape() for name in numbers]
        if len(shapes) != len(program.data) or not all(shapes):
            raise Corrupt(f"dataset {path} has {len(shapes)} tensors with rows, not {len(program.data)}")
        program = program.bind([shape[0] for shape in shapes])
    tensors = _read(path, f"dataset {path}", _numbered(program.data))
    return Dataset.from_tensors(dict(zip(program.labels.data, tensors.values(), strict=True)))


def _save(store: Store, write: Callable[[Path], None]) -> str:
    with tempfile.TemporaryDirectory(prefix="crowdtrain-") as folder:
        path = Path(folder) / "tensors"
        try:
            write(path)
        except OSError as error:
            raise StoreUnavailable(f"tensors cannot be written to {folder}: {error}") from error
        return store.put(path)


def _numbered(values: Iterable[T]) -> dict[str, T]:
    return {str(number): value for number, value in enumerate(values)}


def _write_numbered(path: Path, tensors: Iterable[Array]) -> None:
    write_tensors(path, _numbered(tensors))


def _load(store: Store, cid: str, where: str, expected: Mapping[str, TensorType]) -> dict[str, Array]:
    """Tensors of a stored file that holds the ``expected`` ones and nothing else."""
    limit = sum(4 * kind.size + _HEADER for kind in expected.values()) + _HEADER
    with tempfile.TemporaryDirectory(prefix="crowdtrain-") as folder:
        path = Path(folder) / "tensors"
        store.fetch(cid, path, limit)
        return _read(path, where, expected)


def write_tensors(path: Path, tensors: Mapping[str, Array]) -> None:
    """Writes named tensors as a safetensors file. Raises OSError."""
    try:
        safetensors.numpy.save_file(dict(tensors), path)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from error


def _read(path: Path, where: str, expected: Mapping[str, TensorType]) -> dict[str, Array]:
    with _opened(path, where) as file:
        if set(file.keys()) != set(expected):
            raise Corrupt(f"{where} holds tensors {_few(file.keys())}, it must be {_few(expected)}")
        return {name: _tensor(file, name, kind, where) for name, kind in expected.items()}


@contextmanager
def _opened(path: Path, where: str) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise Corrupt(f"{where} is not a safetensors file: {error}") from error


def _tensor(file: Any, name: str, kind: TensorType, where: str) -> Array:
    part = file.get_slice(name)
    dtype, shape = part.get_dtype(), tuple(part.get_shape())
    if _NAMES.get(dtype) != kind.dtype or shape != kind.shape:
        raise Corrupt(f"{where}: tensor {name} is {dtype} {shape}, it must be {kind.dtype.name} {kind.shape}")
    tensor: Array = file.get_tensor(name)
    return tensor


def _few(names: Collection[str]) -> str:
    some = ", ".join(sorted(names)[:8])
    return f"{some}, … ({len(names)} in all)" if len(names) > 8 else some
