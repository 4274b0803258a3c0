"""States and datasets: named tensors, checked against a program, with their roots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crowdtrain_engine import merkle
from crowdtrain_engine._errors import DataError
from crowdtrain_engine.program import DType, Program, TensorType

__all__ = ["Array", "Dataset", "State"]

Array = NDArray[np.generic]

_DTYPES = frozenset(member.numpy for member in DType)
_LONG = frozenset((np.dtype(np.int64), np.dtype(np.uint64)))


def _tensor(name: str, values: ArrayLike) -> Array:
    array = np.asarray(values)
    if array.dtype in _LONG:
        info = np.iinfo(np.int32)
        if array.size and not (info.min <= array.min() and array.max() <= info.max):
            raise DataError(f"{name}: 64-bit integers beyond 32 bits; give int32, uint32 or float32")
        array = array.astype(np.int32)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    if array.dtype not in _DTYPES:
        raise DataError(f"{name}: dtype {array.dtype} cannot be used; give float32, int32 or uint32")
    return np.asarray(array, order="C")  # unlike ascontiguousarray, keeps the shape () of a scalar


def _check(name: str, array: Array, kind: TensorType) -> None:
    if array.dtype != kind.dtype.numpy or array.shape != kind.shape:
        raise DataError(
            f"{name}: {array.dtype} {array.shape} was given, the program needs {kind.dtype.numpy} {kind.shape}"
        )


class State(Mapping[str, Mapping[str, Array]]):
    """Groups of named tensors between two steps: ``state["parameters"]["0.weight"]`` is an array.

    Treat it as a value: arrays are not written to once they are in a state.
    """

    def __init__(self, groups: Mapping[str, Mapping[str, ArrayLike]]) -> None:
        self._groups = {
            group: {name: _tensor(f"{group}/{name}", values) for name, values in tensors.items()}
            for group, tensors in groups.items()
        }
        self._group_roots: tuple[bytes, ...] | None = None

    def __getitem__(self, group: str) -> Mapping[str, Array]:
        return self._groups[group]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def tensors(self) -> list[Array]:
        """All tensors, group after group."""
        return [tensor for group in self._groups.values() for tensor in group.values()]

    @property
    def group_roots(self) -> tuple[bytes, ...]:
        """Root of every group, over the roots of its tensors."""
        if self._group_roots is None:
            roots = iter(merkle.tensor_roots(self.tensors))
            self._group_roots = tuple(
                merkle.root(list(islice(roots, len(group)))) for group in self._groups.values()
            )
        return self._group_roots

    @property
    def root(self) -> bytes:
        """Root over the groups' roots: 32 bytes."""
        return merkle.root(self.group_roots)

    @classmethod
    def from_tensors(cls, program: Program, tensors: Sequence[Array]) -> State:
        """The state of ``program`` whose tensors are these, in order."""
        groups: dict[str, dict[str, Array]] = {}
        for i, group in enumerate(program.labels.groups):
            span = slice(program.bounds[i], program.bounds[i + 1])
            groups[group] = dict(zip(program.labels.state[span], tensors[span], strict=True))
        return cls(groups)

    def check(self, program: Program) -> None:
        """Raises DataError unless the groups, names, types and shapes are those that ``program`` declares."""
        if tuple(self._groups) != program.labels.groups:
            raise DataError(
                f"groups {tuple(self._groups)} were given, the program has {program.labels.groups}"
            )
        names = [name for group in self._groups.values() for name in group]
        if tuple(names) != program.labels.state or tuple(map(len, self._groups.values())) != program.groups:
            raise DataError(f"tensors {names} were given, the program has {list(program.labels.state)}")
        for name, tensor, kind in zip(names, self.tensors, program.state, strict=True):
            _check(name, tensor, kind)


class Dataset:
    """What a program may read: ``inputs`` and ``targets`` by sample, and which samples each step takes.

    ``inputs`` and ``targets`` are arrays (or tuples of arrays) whose first dimension is the sample; ``order`` is
    ``[steps, batch]``, numbers of samples. Without ``order`` the dataset cannot be executed, only held.
    """

    def __init__(
        self,
        inputs: ArrayLike | tuple[ArrayLike, ...],
        targets: ArrayLike | tuple[ArrayLike, ...] = (),
        *,
        order: ArrayLike,
    ) -> None:
        tensors: dict[str, Array] = {}
        for what, arrays in (("inputs", inputs), ("targets", targets)):
            parts = arrays if isinstance(arrays, tuple) else (arrays,)
            for i, part in enumerate(parts):
                name = what if len(parts) == 1 else f"{what}.{i}"
                tensors[name] = _tensor(name, part)
        if len({tensor.shape[:1] for tensor in tensors.values()}) > 1 or not tensors:
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
            raise DataError(f"inputs and targets need the same number of samples: {shapes}")
        (samples,) = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors.values()}
        steps = np.asarray(order)
        if steps.ndim != 2 or steps.size == 0 or not np.issubdtype(steps.dtype, np.integer):
            raise DataError(
                f"order must be integers of shape [steps, batch], not {steps.dtype} {steps.shape}"
            )
        if steps.min() < 0 or steps.max() >= samples:
            raise DataError(f"order names sample {steps.max()} or {steps.min()}, there are {samples}")
        self.tensors = {**tensors, "order": np.ascontiguousarray(steps, np.uint32)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> Dataset:
        """A dataset of these very tensors, as they come from a store; checked against a program by ``check``."""
        dataset = cls.__new__(cls)
        dataset.tensors = {name: _tensor(name, tensor) for name, tensor in tensors.items()}
        return dataset

    @property
    def rows(self) -> tuple[int, ...]:
        """First dimension of each tensor, as :meth:`Program.bind` takes them."""
        return tuple(tensor.shape[0] if tensor.ndim else 1 for tensor in self.tensors.values())

    @cached_property
    def roots(self) -> tuple[bytes, ...]:
        """Root of every tensor."""
        return tuple(merkle.tensor_roots(self.tensors.values()))

    @property
    def root(self) -> bytes:
        """Root over the tensors' roots: 32 bytes, all 0 if there is no tensor."""
        return merkle.root(self.roots) if self.tensors else bytes(32)

    def check(self, program: Program) -> None:
        """Raises DataError unless the tensors are those that the (bound) ``program`` declares."""
        if tuple(self.tensors) != program.labels.data:
            raise DataError(f"data {tuple(self.tensors)} were given, the program reads {program.labels.data}")
        for (name, tensor), kind in zip(self.tensors.items(), program.data, strict=True):
            _check(name, tensor, kind)
