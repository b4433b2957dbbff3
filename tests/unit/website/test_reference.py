"""The API reference has every public name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import taskengine
from website.reference import HIDDEN, REFERENCE, markdown, names

PACKAGE = Path(taskengine.__file__).parent
BASES = {"taskengine.datatypes.Frame"}


def test_it_has_what_the_package_exports() -> None:
    assert {f"taskengine.{name}" for name in taskengine.__all__} <= set(names())


@pytest.mark.parametrize("module", ["tasks", "sources", "datatypes", "errors", "aio"])
def test_it_has_what_the_public_modules_define(module: str) -> None:
    defined = ast.parse((PACKAGE / f"{module}.py").read_text()).body
    kinds = (ast.ClassDef,) if module == "errors" else (ast.ClassDef, ast.FunctionDef)
    public = {f"taskengine.{module}.{node.name}" for node in defined if isinstance(node, kinds) and node.name[0] != "_"}
    told = {f"taskengine.errors.{name.split('.')[-1]}" if module == "errors" else name for name in names()}
    assert public - BASES <= told


def test_no_name_is_there_twice() -> None:
    assert len(list(names())) == len(set(names()))


def test_a_page() -> None:
    page = markdown(REFERENCE["api/hardware.md"])
    assert page.startswith("# Hardware\n\n")
    assert "\n\n::: taskengine_hardware.robot\n\n" in page
    (hidden,) = HIDDEN
    assert page.endswith(f'::: {hidden}\n    options:\n      filters: ["!^_", "!^start$", "!^stop_called$"]\n')
