"""engine/tools/run_program.cpp, which the slow tests for other machines build, keeps up with the engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[2] / "engine"


def test_it_compiles() -> None:
    compilers = [os.environ.get("CXX", "c++"), "g++", "clang++"]
    found = next((compiler for compiler in compilers if shutil.which(compiler)), None)
    if found is None:
        pytest.skip(f"none of {compilers} is here")
    source = ENGINE / "tools" / "run_program.cpp"
    command = [found, "-std=c++20", "-fsyntax-only", f"-I{ENGINE / 'native'}", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
