"""A job's files in a local folder, between the script that lowers a model and the command line that posts it.

folder/program        what ``Program.encode`` gives
folder/data           dataset, safetensors
folder/state          initial state, safetensors
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crowdtrain_engine import Dataset, Program, State

from crowdtrain import tensors
from crowdtrain._errors import ConfigError
from crowdtrain._files import atomic_file
from crowdtrain._training import LoweredProgram
from crowdtrain.jobs import MAX_PROGRAM

__all__ = ["Bundle", "export_state", "load_bundle", "read_program", "save_bundle"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a job trains, on what, and from where."""

    program: Program
    data: Dataset
    state: State


def save_bundle(folder: Path, program: Program, data: Dataset, state: State | None = None) -> None:
    """Writes a job's files, for ``crowdtrain job post``.

    Training begins at ``state``, or at the model's own weights if the program was lowered from one.
    Raises ConfigError if there is no state or the folder cannot be written, ProgramError or DataError if
    program, data and state do not fit together.
    """
    if state is None:
        if not isinstance(program, LoweredProgram):
            raise ConfigError("a program that was not lowered from a model needs a state to begin with")
        state = program.initial_state()
    bound = program.bind(data.rows) if program.is_open else program
    bound.validate()
    data.check(bound)
    state.check(bound)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tensors.write_dataset(folder / "data", data)
        tensors.write_state(folder / "state", state)
        with atomic_file(folder / "program") as file:
            file.write(bound.encode())
    except OSError as error:
        raise ConfigError(f"job folder {folder} cannot be written: {error}") from error


def read_program(path: Path) -> Program:
    """The program in a file. Raises ConfigError if it cannot be read, ProgramError if it holds no valid program."""
    try:
        with path.open("rb") as file:
            return Program.decode(file.read(MAX_PROGRAM))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def load_bundle(folder: Path) -> Bundle:
    """A job's files. Raises ConfigError, ProgramError or Corrupt, saying what is wrong with them."""
    program = read_program(folder / "program")
    data = tensors.read_dataset(folder / "data", program)
    program = program.bind(data.rows) if program.is_open else program
    return Bundle(program, data, tensors.read_state(folder / "state", program))


def export_state(path: Path, state: State) -> None:
    """Writes a state as a safetensors file with names for people: ``group/tensor``. Raises ConfigError."""
    named = {f"{group}/{name}": tensor for group, part in state.items() for name, tensor in part.items()}
    try:
        tensors.write_tensors(path, named)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from error
