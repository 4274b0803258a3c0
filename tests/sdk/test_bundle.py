"""A job's folder, between a script and the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.numpy
from crowdtrain import tensors
from crowdtrain._errors import ConfigError, Corrupt
from crowdtrain._training import LoweredProgram
from crowdtrain.bundle import export_state, load_bundle, save_bundle
from crowdtrain_engine import DataError, ProgramError
from small_programs import perceptron, perceptron_data, perceptron_state

ROWS = 3
PROGRAM, DATA, STATE = perceptron(ROWS), perceptron_data(ROWS), perceptron_state()


def test_a_bundle_comes_back(tmp_path: Path) -> None:
    save_bundle(tmp_path / "job", PROGRAM, DATA, STATE)
    bundle = load_bundle(tmp_path / "job")
    assert (bundle.program.root, bundle.data.root, bundle.state.root) == (PROGRAM.root, DATA.root, STATE.root)


def test_an_open_program_is_bound_to_its_data(tmp_path: Path) -> None:
    kinds = tuple(replace(kind, shape=(0, *kind.shape[1:])) for kind in PROGRAM.data)
    opened = replace(PROGRAM, data=kinds).bind([0, 0, 0])
    assert opened.is_open
    save_bundle(tmp_path, opened, DATA, STATE)
    assert load_bundle(tmp_path).program.root == PROGRAM.root
    (tmp_path / "program").write_bytes(opened.encode())
    assert load_bundle(tmp_path).program.root == PROGRAM.root
    tensors.write_tensors(tmp_path / "data", {"0": DATA.tensors["inputs"]})
    with pytest.raises(Corrupt, match="1 tensors with rows, not 3"):
        load_bundle(tmp_path)


def test_a_lowered_program_brings_its_state(tmp_path: Path) -> None:
    names = ("groups", "state", "data", "nests", "next", "logs", "labels")
    lowered = LoweredProgram(**{name: getattr(PROGRAM, name) for name in names}, initial=dict(STATE))
    save_bundle(tmp_path, lowered, DATA)
    assert load_bundle(tmp_path).state.root == STATE.root


def test_what_does_not_fit_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        save_bundle(tmp_path / "job", PROGRAM, perceptron_data(ROWS + 1), STATE)
    with pytest.raises(ConfigError, match="needs a state"):
        save_bundle(tmp_path / "job", PROGRAM, DATA)
    assert not (tmp_path / "job").exists()


def test_files_that_are_wrong_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_bundle(tmp_path / "absent")
    save_bundle(tmp_path, PROGRAM, DATA, STATE)
    (tmp_path / "data").write_bytes(b"nothing")
    with pytest.raises(Corrupt, match="data is not a safetensors file"):
        load_bundle(tmp_path)
    (tmp_path / "program").write_bytes(b"nothing")
    with pytest.raises(ProgramError):
        load_bundle(tmp_path)


def test_a_state_is_exported_with_names(tmp_path: Path) -> None:
    export_state(tmp_path / "state.safetensors", STATE)
    exported = safetensors.numpy.load_file(tmp_path / "state.safetensors")
    assert set(exported) == {f"{group}/{name}" for group in STATE for name in STATE[group]}
    assert (exported["parameters/weight1"] == STATE["parameters"]["weight1"]).all()
    with pytest.raises(ConfigError, match="cannot be written"):
        export_state(tmp_path / "absent" / "state", STATE)
