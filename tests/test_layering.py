"""Imports point one way. Reads the ASTs, imports nothing, and fails on a breach or on a module without a row here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Set
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the bottom up: a module imports from its own layer or one below. A new module gets its row here.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "spelling"),
    ("wire",),
    ("messages", "datatypes", "arrays"),
    ("_fastpath",),
    (
        "chunking",
        "quota",
        "work_budget",
        "handshakes",
        "fair",
        "unwanted",
        "policy",
        "package",
        "costs",
        "serials",
        "origins",
        "presence",
        "halting",
        "turns",
        "lane",
        "salvage",
        "counters",
        "packed",
        "visitor",
        "causes",
        "broker",
        "topics",
        "clock",
        "samples",
        "rhythm",
        "replies",
        "verdict",
        "session",
        "seedwire",
        "backoff",
        "liveness",
        "rollout",
        "disclosure",
        "budgets",
        "chain",
        "scrape",
        "pake",
        "reports",
        "subscribers",
        "discovery",
        "availability",
    ),
    ("hardware", "feed"),
    (
        "loading",
        "registry",
        "survey",
        "settings",
        "configuration",
        "confinement",
        "weaknesses",
        "journal",
        "queue",
        "outbox",
        "crew",
        "trust",
        "renewal",
    ),
    (
        "_socket",
        "_descendants",
        "rundir",
        "hosts",
        "memory",
        "procfs",
        "sockets",
        "moments",
        "identity",
        "orphan",
        "descendants",
    ),
    ("keys", "pairing", "audit", "gate", "outlet", "attendance", "inspection"),
    (
        "caller",
        "broadcast",
        "dealer",
        "reception",
        "router",
        "stop_listener",
        "worker",
        "sampler",
        "publisher",
        "connection",
        "link",
        "receiver",
        "subscription",
        "aio_subscription",
        "lease",
        "stopping",
        "client",
        "aio",
        "metrics",
    ),
    ("preflight", "process", "catalogue", "terminal", "top", "systemd", "roles", "reloading", "supervisor"),
    ("commandline", "cli_audit", "cli_engine", "cli_json", "cli_keys", "cli_policy", "cli"),
    ("__main__",),
)
PURE = {
    "outbox",
    "spelling",
    "arrays",
    "chunking",
    "package",
    "costs",
    "serials",
    "origins",
    "presence",
    "halting",
    "quota",
    "work_budget",
    "handshakes",
    "fair",
    "unwanted",
    "policy",
    "visitor",
    "turns",
    "lane",
    "salvage",
    "counters",
    "packed",
    "causes",
    "broker",
    "topics",
    "clock",
    "samples",
    "rhythm",
    "replies",
    "verdict",
    "session",
    "seedwire",
    "backoff",
    "liveness",
    "rollout",
    "crew",
    "disclosure",
    "budgets",
    "chain",
    "scrape",
    "pake",
    "reports",
    "subscribers",
    "discovery",
    "availability",
    "weaknesses",
    "renewal",
}
SHELLS = {
    "_socket",
    "keys",
    "gate",
    "broadcast",
    "outlet",
    "attendance",
    "inspection",
    "dealer",
    "procfs",
    "sockets",
    "router",
    "stop_listener",
    "worker",
    "publisher",
    "connection",
    "link",
    "receiver",
    "stopping",
    "client",
    "aio",
}
IMPURE = {"os", "time", "threading", "zmq", "asyncio", "multiprocessing", "select", "signal", "socket", "subprocess"}
# The package's door; what is written for it, as a user would write it, imports nothing else.
DOOR = "__init__"
USERS = {"tasks", "sources"}

LAYER = {module: number for number, modules in enumerate(LAYERS) for module in modules}
KNOWN = LAYER.keys() | USERS | {DOOR}


def imports(tree: ast.AST, package: str, modules: Set[str]) -> Iterator[str]:
    """Every imported module as its absolute name, wherever in the file: `taskengine.wire`, `zmq`, or `taskengine`
    for a name that the door offers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                source = f"{package}.{source}".rstrip(".")
            if source == "taskengine":
                yield from (f"{source}.{a.name}" if a.name in modules else source for a in node.names)
            else:
                yield source


def breaches(module: str, source: str, modules: Set[str]) -> list[str]:
    """What the imports of one module of taskengine break."""
    found = []
    for name in imports(ast.parse(source), "taskengine", modules):
        top, _, rest = name.partition(".")
        inner = rest.partition(".")[0]
        if top == "zmq" and module not in SHELLS:
            found.append(f"{module} imports {name}: only the shells use zmq")
        elif top in IMPURE and module in PURE:
            found.append(f"{module} imports {name}: it is pure")
        if top != "taskengine":
            continue
        if not inner:
            if module not in USERS:
                found.append(f"{module} imports the door")
        elif module in USERS:
            found.append(f"{module} imports {name}: it uses only the door")
        elif module == DOOR:
            if LAYER.get(inner, 0) > LAYER["aio"]:
                found.append(f"the door imports {name}")
        elif inner not in LAYER or LAYER[inner] > LAYER.get(module, -1):
            found.append(f"{module} imports {name}: against the order")
    return found


def door_breaches(file: str, source: str, modules: Set[str]) -> list[str]:
    """What the imports of a file of hardware/ break: of the engine it uses only the door."""
    return [
        f"hardware/{file} imports {name}: it uses only the door"
        for name in imports(ast.parse(source), "taskengine_hardware", modules)
        if name.startswith("taskengine.") or name.partition(".")[0] in {"zmq", "hardware"}
    ]


def sources() -> dict[str, str]:
    """Each module of taskengine with its text; of compiled ones the import lines, as far as they are Python."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "taskengine").glob("*.py")}
    for path in (ROOT / "taskengine").glob("*.pyx"):
        lines = re.findall(r"^[ \t]*((?:from[ \t]+\S+[ \t]+)?c?import[ \t].*)$", path.read_text("utf-8"), re.MULTILINE)
        python = (re.sub(r"\bcimport\b", "import", line).partition("#")[0].strip() for line in lines)
        texts[path.stem] = "\n".join(line + "x)" if line.endswith("(") else line for line in python)
    return texts


SOURCES = sources()
MODULES = SOURCES.keys() | KNOWN


def test_folders_are_flat() -> None:
    nested = [path for folder in ("taskengine", "hardware") for path in (ROOT / folder).glob("*/*.py")]
    assert nested == []


def test_every_module_has_its_row() -> None:
    assert sorted(SOURCES.keys() - KNOWN) == []


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_point_one_way(module: str) -> None:
    assert breaches(module, SOURCES[module], MODULES) == []


def test_no_circle_of_imports() -> None:
    graph = {}
    for module, text in SOURCES.items():
        inner = (name.split(".") for name in imports(ast.parse(text), "taskengine", MODULES))
        graph[module] = {parts[1] for parts in inner if parts[0] == "taskengine" and parts[1:]} & SOURCES.keys()
    TopologicalSorter(graph).prepare()


def test_hardware_uses_only_the_door() -> None:
    files = sorted((ROOT / "hardware").glob("*.py"))
    assert files
    assert [breach for path in files for breach in door_breaches(path.name, path.read_text("utf-8"), MODULES)] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("wire", "from .messages import Request"),
        ("wire", "from taskengine.messages import Request"),
        ("wire", "from taskengine import messages"),
        ("wire", "from . import messages"),
        ("wire", "import taskengine.messages"),
        ("wire", "def late():\n    from .messages import Request"),
        ("messages", "import msgspec\nfrom .broker import Broker"),
        ("broker", "from .settings import Settings"),
        ("broker", "import time"),
        ("broker", "import os.path"),
        ("broker", "from threading import Lock"),
        ("broker", "import zmq"),
        ("settings", "import zmq"),
        ("registry", "from zmq import Context"),
        ("cli", "import zmq.asyncio"),
        ("router", "from .supervisor import serve"),
        ("router", "import taskengine"),
        ("router", "from . import task"),
        ("router", "from .unheard import of"),
        ("tasks", "from .registry import task"),
        ("__init__", "from .supervisor import serve"),
    ],
)
def test_a_breach_is_found(module: str, source: str) -> None:
    assert len(breaches(module, source, MODULES)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("messages", "import time\nfrom . import errors, wire"),
        ("broker", "import math\nfrom collections import deque\nfrom .chunking import sizes"),
        ("router", "import os, time, zmq\nfrom . import _fastpath\nfrom .settings import Settings"),
        ("aio", "from .client import Client"),
        ("tasks", "import time\nfrom taskengine import task"),
        ("__init__", "from .client import Client\nfrom . import aio"),
        ("cli", "from .supervisor import serve\nimport click"),
    ],
)
def test_what_is_allowed(module: str, source: str) -> None:
    assert breaches(module, source, MODULES) == []


@pytest.mark.parametrize(
    "source",
    [
        "from taskengine.errors import TaskFailed",
        "from taskengine import errors",
        "import zmq",
        "import hardware.servo",
    ],
)
def test_a_breach_of_hardware_is_found(source: str) -> None:
    assert len(door_breaches("servo.py", source, MODULES)) == 1


def test_what_hardware_may_import() -> None:
    source = (
        "import gpiozero\nfrom taskengine import task\nfrom .devices import Device\nimport taskengine_hardware.gpio"
    )
    assert door_breaches("servo.py", source, MODULES) == []


def test_nobody_goes_by_a_clock_that_may_be_set() -> None:
    """Everything that waits uses the monotonic clock; what time it is stands only in publications and the audit log."""
    wall = re.compile(r"\btime\.(time|time_ns|localtime|gmtime)\b|\bdatetime\b|\bCLOCK_REALTIME\b")
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "taskengine").glob("*.p[yx]*")}
    found = {(name, line.strip()) for name, text in texts.items() for line in text.splitlines() if wall.search(line)}
    assert found == {
        ("publisher.py", "wall = time.time() - (now - made) / NS"),
        ("audit.py", 'when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())'),
    }
