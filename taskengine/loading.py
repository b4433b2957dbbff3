"""How task modules are imported: from the source that a reload has read, and never from what Python compiled before.

Python takes a compiled file for current that has the source's size and its time in whole seconds: of two edits within
a second it misses the second one.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import linecache
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

from taskengine.errors import TaskModuleError

FILE_PREFIX = "taskengine_file_"
_SITES = ("site-packages", "dist-packages")
_OWN = os.path.dirname(os.path.abspath(__file__))
_INSTALLED = (_OWN, *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})


def is_users(path: str) -> bool:
    """The file is a user's own: neither Python's, nor installed, nor ours."""
    if any(folder in path for folder in _SITES):
        return False
    return not path.startswith(tuple(folder + os.sep for folder in _INSTALLED))


class _Loader(SourceFileLoader):
    """Compiles the source each time."""

    def get_code(self, fullname: str) -> object:  # type: ignore[override]  # a code object, which has no name here
        path = self.get_filename(fullname)
        source = self.get_data(path)
        code = self.source_to_code(source, path)
        # a traceback shows what runs, whatever the file holds by then
        text = importlib.util.decode_source(source)
        linecache.cache[path] = len(text), None, text.splitlines(keepends=True), path
        return code

    def get_data(self, path: str) -> bytes:
        known = _finder.sources.get(os.path.abspath(path))
        return super().get_data(path) if known is None else known


class _Finder:
    """Finds what PathFinder does, and has the users' own modules loaded by `_Loader`."""

    def __init__(self) -> None:
        self.sources: Mapping[str, bytes] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader and spec.origin and is_users(spec.origin):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


_finder = _Finder()


def install(sources: Mapping[str, bytes]) -> None:
    """Have modules loaded from these sources, by their absolute paths, and others from their files."""
    _finder.sources = sources
    if _finder not in sys.meta_path:
        before = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else len(sys.meta_path)
        sys.meta_path.insert(before, _finder)


def name_of_file(path: Path) -> str:
    """The name of a file's module: its own, so that two folders may both hold an `arm.py`."""
    return f"{FILE_PREFIX}{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"


def load(name: str, path: str) -> ModuleType:
    """Import a module by its name, or, where it has one, from the file `path`."""
    install(_finder.sources)
    return _load_file(name, Path(path)) if path else importlib.import_module(name)


def _load_file(name: str, path: Path) -> ModuleType:
    if str(path) not in _finder.sources and not path.is_file():
        raise TaskModuleError(f"there is no file {path}")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    if spec is None or spec.loader is None:
        raise TaskModuleError(f"{path} is no Python file")
    _let_neighbours_in(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


_folders: list[str] = []
"""Of the files that were loaded; the last is first on the path."""


def _let_neighbours_in(folder: str) -> None:
    """Let a file import its neighbours, before what is installed and behind what is Python's.

    A neighbour of another folder that has the same name is another module.
    """
    path = [entry for entry in sys.path if entry not in _folders]
    for other in _folders:
        if other != folder:
            _forget_twins(other, folder)
    _folders[:] = [folder, *(other for other in _folders if other != folder)]
    at = next((i for i, entry in enumerate(path) if entry.endswith(_SITES)), len(path))
    sys.path[:] = [*path[:at], *_folders, *path[at:]]


def _forget_twins(other: str, folder: str) -> None:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        is_there = "." not in name and os.path.dirname(file) in (other, os.path.join(other, name))
        if is_there and any(os.path.exists(os.path.join(folder, name + end)) for end in (".py", "/__init__.py")):
            for known in [known for known in sys.modules if known == name or known.startswith(name + ".")]:
                del sys.modules[known]


def source_of(name: str, folders: Sequence[str]) -> Iterator[str]:
    """The files of the users' own that an import of `name` runs, found without running any: packages, then the module.

    It looks into `folders`, then where Python looks.
    """
    parts = name.split(".")
    for folder in (*folders, *sys.path):
        if not is_users(os.path.join(folder, "")):
            continue
        base = os.path.join(folder, parts[0])
        if not (os.path.isfile(base + ".py") or os.path.isdir(base)):
            continue
        for i in range(1, len(parts) + 1):
            base = os.path.abspath(os.path.join(folder, *parts[:i]))
            file = next((at for at in (os.path.join(base, "__init__.py"), base + ".py") if os.path.isfile(at)), None)
            if file is not None:
                yield file
        return
