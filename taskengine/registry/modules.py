"""Finds the modules that the entries of TASKS stand for, and their files, without loading any."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from taskengine.registry.loading import name_of_file


class Place(NamedTuple):
    """A module of TASKS: its name in messages, its name for Python, its file if it has one, and an error or ""."""

    name: str
    module: str
    path: str = ""
    problem: str = ""


def places_of(entry: str) -> Iterator[Place]:
    """Yield the modules that one entry of TASKS stands for."""
    path = Path(entry)
    if os.path.isdir(path):  # unlike Path.is_dir, also if the current folder may not be entered
        files = sorted(file for file in path.glob("*.py") if not file.name.startswith("_"))
        if not files:
            yield Place(entry, "", problem=f"the folder {entry} holds no .py file")
        for file in files:
            yield Place(str(file), name_of_file(file), _absolute(file))
    elif entry.endswith(".py"):
        problem = "" if path.is_file() else f"there is no file {path}"
        yield Place(entry, name_of_file(path), _absolute(path), problem)
    else:
        yield Place(entry, entry)


def _absolute(path: Path) -> str:
    """Return the absolute path, because a module may change the current folder."""
    try:
        return str(path.absolute())
    except OSError:  # the current folder was removed
        return str(path)


def file_of(place: Place) -> str:
    """Return the Python file of a module, found without loading any; "" if only an import finds it."""
    if place.path:
        return place.path
    top, *rest = place.module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return ""
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if spec is None or not (spec.has_location or folders):
        return ""
    file = spec.origin or ""
    for part in rest:
        bases = [os.path.join(folder, part) for folder in folders]
        file = next((end for base in bases for end in _ends(base) if os.path.isfile(end)), "")
        folders = [base for base in bases if os.path.isdir(base)]
    return file if file.endswith(".py") else ""


def _ends(base: str) -> tuple[str, str]:
    return os.path.join(base, "__init__.py"), base + ".py"


def places(entry: str) -> list[Path]:
    """Return the files, and the folder, of one entry of TASKS, found without loading any."""
    path = Path(entry)
    if os.path.isdir(path):
        return [path, *sorted(path.glob("*.py"))]
    if entry.endswith(".py"):  # a file may import its neighbours
        return [path, path.parent, *sorted(other for other in path.parent.glob("*.py") if other != path)]
    top, _, rest = entry.partition(".")
    spec = importlib.util.find_spec(top)  # not of a module in a package, which would load the package
    if spec is None or not (spec.origin and spec.has_location):
        return []
    inner = [Path(folder, *rest.split(".")) for folder in spec.submodule_search_locations or () if rest]
    return [Path(spec.origin), *(path.with_suffix(".py") if not path.is_dir() else path for path in inner)]
