"""The package's public face: every name is there, and importing costs nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import crowdtrain
import pytest

SLOW = ("torch", "web3", "eth_account", "fastapi", "numpy", "httpx", "sqlalchemy", "rich")


def python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout


@pytest.mark.parametrize("name", crowdtrain.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(crowdtrain, name) is not None
    assert name in dir(crowdtrain)


def test_the_names_that_others_build_on_are_public() -> None:
    names = {"lower", "optim", "Dataset", "State", "Program", "execute", "isas", "load_into", "Client"}
    stores = {"LocalStore", "HttpStore", "IpfsStore", "FakeStore"}
    assert names | stores | {"CrowdtrainError", "LoweringError"} <= set(crowdtrain.__all__)


def test_errors_are_the_ones_that_are_raised() -> None:
    from crowdtrain.lowering.errors import LoweringError

    assert issubclass(LoweringError, crowdtrain.LoweringError)


def test_a_name_that_is_not_there_is_said() -> None:
    with pytest.raises(AttributeError, match="module 'crowdtrain' has no attribute 'nothing'"):
        _ = crowdtrain.nothing


def test_importing_imports_nothing_slow() -> None:
    imported = python("import sys, crowdtrain; print(*sys.modules)").split()
    assert not set(SLOW) & set(imported)


@pytest.mark.parametrize(
    "code",
    [
        "from crowdtrain.cli import app",
        "from crowdtrain.cli import app; app(['--help'], standalone_mode=False)",
    ],
)
def test_the_command_line_imports_nothing_slow(code: str) -> None:
    out = python(f"import sys; {code}; print('modules', *sys.modules)")
    imported = out.split("modules ", 1)[1].split()
    assert not set(SLOW) - {"rich"} & set(imported)


def test_execution_and_lowering_do_without_the_chain() -> None:
    imported = python(
        "import sys; from crowdtrain import Dataset, State, execute, lower; print(*sys.modules)"
    ).split()
    assert not {"web3", "eth_account", "fastapi"} & set(imported)
