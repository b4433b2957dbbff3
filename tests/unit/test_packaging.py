"""An installation holds our two packages, the compiled leaf, and no generic name."""

from __future__ import annotations

import importlib
import os
import re
import tomllib
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest
from setuptools import Distribution
from setuptools.config.pyprojecttoml import apply_configuration

from taskengine.cli.main import UNIT

ROOT = Path(__file__).resolve().parents[2]
BY_BARE_NAME = re.compile(
    r"""(?:\b(?:pip3?|pipx|uv|poetry|pdm|uvx|easy_install)\b[^\n]*?[\s"'`=])(?:taskengine)(?=[\[\s"'`=<>~!;,.)]|$)(?!\.\w)"""
)
"""A line that has a package manager fetch `taskengine`, which on PyPI is somebody else's."""
TEXTS = {".py", ".pyx", ".pxi", ".h", ".md", ".toml", ".sh", ".yml", ".yaml", ".service", ".txt", ".cfg", ""}
OTHERS = {".git", ".venv", ".venv-peers", ".hypothesis", "build", "dist", "corpus", "node_modules", "__pycache__"}
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The Python files that a wheel would hold, as paths inside it; what setuptools says, without building one."""
    monkeypatch.chdir(ROOT)
    distribution = apply_configuration(Distribution({"script_name": "setup.py"}), ROOT / "pyproject.toml")
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    return {str(Path(path).relative_to(build.build_lib)) for path in build.get_outputs(include_bytecode=False)}


def test_only_our_names_land_in_site_packages(files: set[str]) -> None:
    assert {path.split("/")[0] for path in files} == {"taskengine", "taskengine_hardware"}


def test_types_and_every_module_are_packaged(files: set[str]) -> None:
    assert {"taskengine/py.typed", "taskengine/__init__.py", "taskengine/_fastpath.pyi"} <= files
    for folder, package in PROJECT["tool"]["setuptools"]["package-dir"].items():
        wanted = {f"{folder}/{path.relative_to(ROOT / package)}" for path in (ROOT / package).rglob("*.py")}
        assert wanted <= files


def test_the_unit_file_is_packaged(files: set[str]) -> None:
    assert f"taskengine/{UNIT.name}" in files
    assert UNIT.is_file()


def test_types_of_our_own_packages_are_checked_under_their_installed_names() -> None:
    mypy = PROJECT["tool"]["mypy"]
    ignored = {name.split(".")[0] for override in mypy["overrides"] for name in override["module"]}
    assert not ignored & set(PROJECT["tool"]["setuptools"]["package-dir"])
    assert (ROOT / mypy["mypy_path"] / "taskengine_hardware").resolve() == ROOT / "hardware"


def test_what_we_use_privately_has_an_upper_bound() -> None:
    needed = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["hardware"]]
    assert {text.split(">=")[0] for text in needed if ",<" in text} == {"pyzmq", "gpiozero"}


def test_the_fast_path_is_compiled() -> None:
    file = importlib.import_module("taskengine._fastpath").__file__
    assert file is not None
    assert file.endswith(tuple(EXTENSION_SUFFIXES))


def test_the_command_exists() -> None:
    module, _, function = PROJECT["project"]["scripts"]["taskengine"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_core_needs_neither_a_test_nor_a_plotting_library() -> None:
    names = {requirement.split(">=")[0] for requirement in PROJECT["project"]["dependencies"]}
    assert names == {"pyzmq", "msgspec", "click", "rich"}


def test_the_rules_for_security_are_on_and_the_package_ignores_none() -> None:
    lint = PROJECT["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert lint["ignore"] == []
    assert lint["per-file-ignores"].keys() == {"bench/**", "release/**", "tests/**"}
    assert all(rule.startswith("S") for rules in lint["per-file-ignores"].values() for rule in rules)


def _texts() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if not (name in OTHERS or name.startswith(".venv") or name.endswith((".egg-info", "_cache")))
        ]
        yield from (Path(folder, name) for name in names if Path(name).suffix in TEXTS)


@pytest.mark.parametrize(
    ("line", "is_by_name"),
    [
        ("pip install 'taskengine[hardware]'", True),
        ("python -m pip install -U taskengine", True),
        ("uv add taskengine", True),
        ("pipx run taskengine==0.1", True),
        (".venv/bin/pip install '.[hardware]'", False),
        ("/opt/taskengine/bin/pip install '.[hardware]'", False),
        ("pip install -r taskengine/requirements.txt", False),
        ("pip install -e . # the folder taskengine.egg-info", False),
        ("pip install 'taskengine-robot[hardware]'", False),
        ("pip install taskengine-robots", False),
    ],
)
def test_what_installs_by_our_bare_name(line: str, is_by_name: bool) -> None:
    assert bool(BY_BARE_NAME.search(line)) == is_by_name


def test_nothing_says_to_install_by_a_name_that_is_not_ours_on_pypi() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in _texts()
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if BY_BARE_NAME.search(line)
    ]
    assert not found


def test_what_is_said_to_be_installed_by_name_is_our_distribution_with_extras_that_it_has() -> None:
    """Every `taskengine-…` with extras, or behind `install`, is the name in pyproject.toml."""
    extras = PROJECT["project"]["optional-dependencies"].keys()
    named = re.compile(r"(?<![\w/.-])(taskengine[-_]\w+)\[([\w,]+)\]|\binstall [^\n`]*?['\" ](taskengine-\w+)(?![\w.])")
    used = set()
    for path in _texts():
        if path == Path(__file__).resolve():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for found in named.finditer(text):
            assert (found[1] or found[3]) == PROJECT["project"]["name"], f"{path}: {found[0]}"
            used |= set((found[2] or "").split(",")) - {""}
        bare = re.search(rf"(?<![\w/.])taskengine\[({'|'.join(extras)})\]", text)
        assert bare is None, f"{path}: {bare}"
    assert {"hardware", "pair", "metrics", "schedule"} <= used <= extras


def test_the_name_is_not_one_that_pypi_takes_for_a_strangers() -> None:
    """PyPI refuses a name that is another's without separators, and with 1, l and i, and with 0 and o, as one."""

    def likeness(name: str) -> str:
        return re.sub("[-_.]", "", name.lower()).translate(str.maketrans("1l0", "iio"))

    assert likeness(PROJECT["project"]["name"]) != likeness("taskengine") == likeness("Task_Eng1ne")
