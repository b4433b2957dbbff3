"""The compiled leaf; everything else about the distribution is in pyproject.toml."""

from __future__ import annotations

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [Extension("taskengine._fastpath", ["taskengine/_fastpath.pyx"])],
        compiler_directives={"language_level": 3},
    )
)
