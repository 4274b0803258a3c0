"""Builds the native backend; everything else about the package is in pyproject.toml."""

from __future__ import annotations

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NATIVE = Path("engine/native")
# The words of a result may depend on nothing but the program: no reassociation, no contraction of a * b + c.
FLAGS = [
    "-std=c++20", "-O3", "-g0", "-fno-fast-math", "-ffp-contract=off", "-fno-math-errno",
    "-fno-trapping-math", "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra",
]  # fmt: skip
X86_FLAGS = {
    # long chains of operations are put in order for the processor: elementary functions gain a tenth
    "kernels_avx2.cpp": ["-mavx2", "-mfma", "-fschedule-insns", "-fsched-pressure"],
    # GCC 12 takes the undefined operands of its own intrinsics for mistakes
    "kernels_avx512.cpp": ["-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl",
                           "-Wno-maybe-uninitialized", "-Wno-uninitialized"],
    "sha256_sha.cpp": ["-msha", "-msse4.1"],
}  # fmt: skip


class BuildNative(build_ext):
    """Compiles each source with the flags of its instruction set, several at a time."""

    def build_extension(self, ext: Extension) -> None:
        own_flags = X86_FLAGS if platform.machine() in ("x86_64", "AMD64") else {}

        def compile_source(source: str) -> str:
            (built,) = self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=ext.include_dirs,
                extra_postargs=FLAGS + own_flags.get(Path(source).name, []),
                depends=ext.depends,
            )
            return built

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_source, ext.sources))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(
            objects, str(target), extra_postargs=["-pthread"], target_lang="c++", build_temp=self.build_temp
        )


setup(
    ext_modules=[
        Extension(
            "crowdtrain_engine._native",
            sources=sorted(map(str, NATIVE.glob("*.cpp"))),
            include_dirs=[pybind11.get_include(), str(NATIVE)],
            depends=sorted(map(str, NATIVE.glob("*.hpp"))),
        )
    ],
    cmdclass={"build_ext": BuildNative},
)
