"""What the client's wheel has in place of compiled modules is all that its other modules take from them."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from release.client import REPLACED, client_files
from release.contents import ROOT

FILES = {str(path.relative_to(ROOT)): path.read_bytes() for path in ROOT.glob("taskengine/**/*.py")}


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all parts of a module but those that are for checkers of types."""
    for part in ast.iter_child_nodes(tree):
        if isinstance(part, ast.If) and ast.unparse(part.test) == "TYPE_CHECKING":
            continue
        yield part
        yield from running(part)


def taken(source: bytes, module: str) -> set[str]:
    """Return the names that a module takes from `taskengine.<module>`, by an import or as its attributes."""
    names: set[str] = set()
    for part in running(ast.parse(source)):
        match part:
            case ast.ImportFrom(module=path) if path == f"taskengine.{module}":
                names |= {each.name for each in part.names}
            case ast.Attribute(value=ast.Name(id=owner)) if owner == module:
                names.add(part.attr)
    return names


def replacement(module: str, folder: Path) -> ModuleType:
    """Import what stands in the place of `taskengine.<module>`, under another name."""
    path = folder / f"replaced{module}.py"
    path.write_text(REPLACED[f"taskengine/{module}.py"])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("module", ["_fastpath", "_socket"])
def test_the_modules_that_are_kept_take_only_what_is_there(module: str, tmp_path: Path) -> None:
    used = {path: names for path, data in client_files(FILES).items() if (names := taken(data, module))}
    assert {"_fastpath": "taskengine/client/calls.py", "_socket": "taskengine/client/connection.py"}[module] in used
    there = replacement(module, tmp_path)
    assert not {f"{path}: {name}" for path, names in used.items() for name in names if not hasattr(there, name)}


def test_what_is_for_checkers_of_types_is_not_taken() -> None:
    source = b"if TYPE_CHECKING:\n    from taskengine._socket import A\nfrom taskengine._socket import B\n_socket.C()\n"
    assert taken(source, "_socket") == {"B", "C"}
