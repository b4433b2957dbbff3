"""The compiled leaves; everything else about the distribution is in pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

RELEASE = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]["version"]
"""The release that the modules are compiled for: with Python files of another one they do not load."""

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"taskengine.{name}",
                [f"taskengine/{name}.pyx"],
                define_macros=[("TASKENGINE_RELEASE", f'"{RELEASE}"')],
            )
            for name in ("_fastpath", "_socket", "_descendants")
        ],
        # autotestdict: without it the modules have no `__test__` that the .pyi would have to name
        compiler_directives={"language_level": 3, "autotestdict": False},
        # Cython compares only the dates of .pyx and .c, so a change of this file would compile nothing
        force=True,
    )
)
