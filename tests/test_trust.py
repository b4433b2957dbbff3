"""Nothing that came over the wire is unpickled, evaluated, or imported by its name. Reads the sources only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for folder in ("taskengine", "hardware") for path in (ROOT / folder).rglob("*.py"))
COMPILED = sorted(path for suffix in ("pyx", "pxi") for path in (ROOT / "taskengine").glob(f"*.{suffix}"))

MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "jsonpickle",
    "yaml",
    "code",
}
NAMES = {"eval", "exec", "compile", "__import__", "execfile"}
# those of pyzmq and multiprocessing.Connection pickle; a socket's recv takes a number of bytes
METHODS = {"recv_pyobj", "send_pyobj", "recv_serialized", "send_serialized", "exec_module", "load_module"}
IMPORTERS = {"importlib", "runpy", "imp", "pkgutil", "zipimport"}
LOADERS = {"Registry.load", "Reading", "load_catalogue", "survey", "load_code", "load_modules"}
MAY_IMPORT = {
    "loading.py": "what TASKS names",
    "modules.py": "find_spec of what TASKS names",
    "preflight.py": "find_spec of one name of ours",
    "machine.py": "one name of ours",
    "version.py": "our compiled modules",
    "this_machine.py": "a list of ours, to see which of it loads",
}
BACKEND = "joblib.py", "joblib.parallel"
"""The file that is a backend of joblib, and the module that it imports for that; nothing there reads what came."""
MAY_LOAD = MAY_IMPORT.keys() - {"preflight.py", "modules.py"}


def breaches(name: str, source: str) -> Iterator[str]:
    """Return the calls of a file that could run text from a message."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                modules = {(node.module or "").partition(".")[0]}
            if (name, getattr(node, "module", None)) != BACKEND:
                yield from (f"imports {module}" for module in modules & MODULES)
            if name not in MAY_IMPORT:
                yield from (f"imports {module}" for module in modules & IMPORTERS)
        elif isinstance(node, ast.Name) and node.id in NAMES:
            yield f"names {node.id}"
        elif isinstance(node, ast.Attribute) and node.attr in METHODS | {"import_module"} and name not in MAY_LOAD:
            yield f"names {node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called, arguments = node.func.attr, node.args or node.keywords
            if called == "recv" and not arguments:
                yield "calls recv(), which unpickles"
            if (
                called in ("load", "loads")
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in ("np", "numpy")
            ):
                yield f"calls numpy.{called}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_runs_what_a_message_says(path: Path) -> None:
    assert list(breaches(path.name, path.read_text("utf-8"))) == []


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.name)
def test_nor_does_a_compiled_one(path: Path) -> None:
    words = "|".join(sorted(MODULES - {"code"} | NAMES - {"compile"} | {"import_module", "PyRun_\\w+"}))
    text = re.sub(r"#.*", "", path.read_text("utf-8"))
    assert re.findall(rf"\b(?:{words})\b", text) == []


def test_the_registry_imports_from_the_settings_alone() -> None:
    """Every caller that loads a registry hands it TASKS."""
    given = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in LOADERS:
                given.add((path.name, ast.unparse(node.args[0])))
    of_settings = {"settings.tasks", "self._settings.tasks"}
    read_aside = {"catalogue.py": {"entries"}, "survey.py": {"[module]"}}
    of_plan = {"worker.py": {"plan", "modules"}, "publisher.py": {"topology.plan"}}
    for name, texts in (read_aside | of_plan).items():
        assert {text for file, text in given if file == name} == texts
    assert {text for name, text in given if name not in read_aside | of_plan} == of_settings


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from marshal import loads",
        "eval(text)",
        "builtins.map(exec, texts)",
        "import importlib\n",
        "from importlib import import_module",
        "connection.recv()",
        "socket.recv_pyobj()",
        "numpy.load(file)",
    ],
)
def test_a_breach_is_found(source: str) -> None:
    assert list(breaches("worker.py", source))


def test_what_is_allowed() -> None:
    source = "import ast, json\nsocket.recv(64)\nconnection.recv_bytes()\nmsgspec.msgpack.decode(data)"
    assert list(breaches("worker.py", source)) == []
