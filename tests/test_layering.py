"""Imports point one way between folders. Reads the ASTs and imports nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "taskengine"

# From the bottom up: a folder, or a module at the top, imports from its own row or from one above it in this list.
ROWS: tuple[tuple[str, ...], ...] = (
    ("errors", "datatypes"),
    ("protocol",),
    ("_fastpath", "_plain_codec", "_socket", "_plain_socket", "_descendants"),
    ("broker", "config"),
    ("registry", "security"),
    ("runtime",),
    ("client", "router", "worker"),
    ("aio", "joblib", "testing"),
    ("recording",),
    ("supervisor",),
    ("doctor",),
    ("cli",),
    ("__main__",),
)
# The package's door, and what is written as a user would write it, which imports nothing else.
DOOR = "__init__"
USERS = {"tasks", "sources"}
ENGINE = {"broker", "router", "worker", "supervisor", "doctor", "cli", "registry"}
"""Folders that a client has no use for."""
PURE = {
    "broker/availability",
    "broker/balancer",
    "broker/binary",
    "broker/broker",
    "broker/cancellation",
    "broker/chunking",
    "broker/costs",
    "broker/counters",
    "broker/deadlines",
    "broker/dispatch",
    "broker/failure_reasons",
    "broker/fair_queue",
    "broker/flight",
    "broker/in_flight",
    "broker/lane",
    "broker/lane_queue",
    "broker/legacy_json",
    "broker/losses",
    "broker/looks",
    "broker/origins",
    "broker/package",
    "broker/partials",
    "broker/places",
    "broker/quota",
    "broker/retries",
    "broker/recovery",
    "broker/results",
    "broker/serials",
    "broker/streams",
    "broker/topics",
    "broker/withdrawals",
    "broker/workers",
    "client/calls",
    "client/clock",
    "client/gathering",
    "client/older_engines",
    "client/outbox",
    "client/replies",
    "client/requests",
    "client/samples",
    "client/session",
    "client/stream_requests",
    "client/verdict",
    "config/changes",
    "config/places",
    "config/policy",
    "config/ranges",
    "config/spelling",
    "config/weaknesses",
    "doctor/board",
    "doctor/examination",
    "doctor/observation",
    "doctor/operation",
    "doctor/software",
    "protocol/arrays",
    "protocol/credit",
    "protocol/conversion",
    "protocol/marks",
    "protocol/progress",
    "protocol/publications",
    "protocol/values",
    "recording/channels",
    "recording/events",
    "recording/timeline",
    "registry/arguments",
    "registry/discovery",
    "registry/options",
    "registry/timetable",
    "router/connection_table",
    "router/emergency",
    "router/health",
    "router/partial_replies",
    "router/permissions",
    "router/progress_relay",
    "router/stream_relay",
    "router/unread_replies",
    "router/schedule",
    "router/work_budget",
    "router/worker_table",
    "runtime/control",
    "runtime/heartbeat",
    "security/audit_budgets",
    "security/audit_chain",
    "security/handshakes",
    "security/pake",
    "security/redaction",
    "supervisor/backoff",
    "supervisor/import_crashes",
    "supervisor/rollout",
    "supervisor/scrape",
    "supervisor/unit_file",
    "worker/rhythm",
    "worker/subscriptions",
}
SHELLS = {
    "_plain_socket",
    "_socket",
    "aio",
    "client/blocking",
    "client/connection",
    "client/receiver",
    "client/stop_requests",
    "client/stopping",
    "client/transport",
    "router/connection_monitor",
    "router/replies",
    "router/router",
    "router/process",
    "router/stop_port",
    "runtime/procfs",
    "runtime/sockets",
    "security/authenticator",
    "security/keys",
    "security/private_files",
    "supervisor/inspection",
    "worker/publisher",
    "worker/publisher_socket",
    "worker/router_connection",
    "worker/worker",
    "security/credentials",
}
IMPURE = {"os", "time", "threading", "zmq", "asyncio", "multiprocessing", "select", "signal", "socket", "subprocess"}
ROW = {place: number for number, places in enumerate(ROWS) for place in places}


def sources() -> dict[str, str]:
    """Each module of taskengine, as `broker/lane`, with its text; of compiled ones the import lines that are Python."""
    texts = {str(path.relative_to(PACKAGE).with_suffix("")): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    for path in PACKAGE.glob("*.pyx"):
        lines = re.findall(r"^((?:from[ \t]+\S+[ \t]+)?import[ \t].*)$", path.read_text("utf-8"), re.MULTILINE)
        texts[path.stem] = "\n".join(lines)
    return texts


SOURCES = sources()


def imported(source: str) -> Iterator[str]:
    """Every imported module by its dotted name, wherever in the file; `taskengine` for a name that the door offers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or "")
            elif (node.module or "").split(".")[0] == "taskengine":
                yield from (_module(f"{node.module}.{alias.name}") for alias in node.names)
            else:
                yield node.module or ""


def _module(name: str) -> str:
    """The module that holds an imported name: the name itself where it is one."""
    path = "/".join(name.split(".")[1:])
    is_module = path in SOURCES or f"{path}/__init__" in SOURCES
    return name if is_module else name.rpartition(".")[0]


def place(module: str) -> str:
    """The folder of a module, or the module where it lies at the top."""
    return module.split("/")[0]


def breaches(module: str, source: str) -> list[str]:
    """Return the rules that the imports of one module break."""
    found = []
    for name in imported(source):
        top, *rest = name.split(".")
        if not top:
            found.append(f"{module} imports {name}: relative")
        elif top == "zmq" and module not in SHELLS:
            found.append(f"{module} imports {name}: only the shells use zmq")
        elif top in IMPURE and module in PURE:
            found.append(f"{module} imports {name}: it is pure")
        elif top == "taskengine":
            found += _breach(module, name, rest)
    return found


def _breach(module: str, name: str, rest: list[str]) -> list[str]:
    if module in USERS:
        return [f"{module} imports {name}: it uses only the door"] if rest else []
    if not rest:
        return [f"{module} imports the door"]
    if module == DOOR:
        return [f"the door imports {name}"] if ROW.get(rest[0], 99) > ROW["aio"] else []
    if ROW.get(rest[0], 99) > ROW.get(place(module), -1):
        return [f"{module} imports {name}: against the order"]
    return []


def graph(names: dict[str, str]) -> dict[str, set[str]]:
    """For each place those that its modules import."""
    found: dict[str, set[str]] = {}
    for module, source in names.items():
        inner = {name.split(".")[1] for name in imported(source) if name.startswith("taskengine.")}
        found.setdefault(place(module), set()).update(inner - {place(module)})
    return found


def test_every_place_has_its_row() -> None:
    assert {place(module) for module in SOURCES} == ROW.keys() | USERS | {DOOR}


def test_lists_name_modules_that_exist() -> None:
    assert sorted((PURE | SHELLS) - SOURCES.keys()) == []


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_point_one_way(module: str) -> None:
    assert breaches(module, SOURCES[module]) == []


def test_no_circle_of_imports_between_folders() -> None:
    TopologicalSorter({key: value - {DOOR} for key, value in graph(SOURCES).items() if key != DOOR}).prepare()


def test_a_client_imports_nothing_of_the_engine() -> None:
    """Also not by a detour, but for the names that the door gives to whoever asks for them."""
    reached: set[str] = set()
    waiting = ["client/blocking", "aio"]
    while waiting:
        here = waiting.pop()
        if here in SOURCES and here not in reached:
            reached.add(here)
            waiting += ["/".join(name.split(".")[1:]) for name in imported(SOURCES[here])]
    assert sorted(module for module in reached if place(module) in ENGINE) == []


def test_a_client_loads_nothing_of_the_engine() -> None:
    script = "import sys; from taskengine import Client, aio; print(*(name for name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[1] for name in ran.stdout.split() if name.startswith("taskengine.")}
    assert "client" in loaded
    assert loaded & ENGINE == set()


def test_folders_say_what_they_are_in_three_lines_and_hold_nothing_else() -> None:
    for path in PACKAGE.glob("*/__init__.py"):
        text = path.read_text("utf-8")
        assert ast.get_docstring(ast.parse(text)), path
        assert len(ast.parse(text).body) == 1, path
        assert len(text.splitlines()) <= 3, path


def test_no_class_name_stands_for_two_things() -> None:
    seen: dict[str, str] = {}
    twice = []
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.glob("*.p[yx][xi]"), *(ROOT / "hardware").glob("*.py")]):
        if path.suffix == ".pyi":
            continue
        for name in re.findall(r"^(?:cdef )?class (\w+)", path.read_text("utf-8"), re.MULTILINE):
            if name in seen:
                twice.append((name, seen[name], path.name))
            seen[name] = path.name
    assert twice == []


def test_hardware_uses_only_the_door() -> None:
    files = sorted((ROOT / "hardware").glob("*.py"))
    assert files
    assert [breach for path in files for breach in door_breaches(path.name, path.read_text("utf-8"))] == []


def door_breaches(file: str, source: str) -> list[str]:
    """Return the rules that the imports of a file of hardware/ break: of the engine it uses only the door."""
    return [
        f"hardware/{file} imports {name}: it uses only the door"
        for name in imported(source)
        if name.startswith("taskengine.") or name.split(".")[0] in {"zmq", "hardware", "taskengine_hardware"}
    ]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("protocol/layouts", "from taskengine.broker.broker import Broker"),
        ("protocol/layouts", "from taskengine.broker import broker"),
        ("protocol/layouts", "import taskengine.broker.broker"),
        ("protocol/layouts", "def late():\n    from taskengine.broker import broker"),
        ("broker/broker", "from .lane import Lane"),
        ("broker/broker", "import time"),
        ("broker/broker", "import os.path"),
        ("broker/broker", "import zmq"),
        ("config/settings", "import zmq"),
        ("registry/registry", "from zmq import Context"),
        ("cli/main", "import zmq.asyncio"),
        ("router/router", "from taskengine.supervisor.supervisor import serve"),
        ("router/router", "import taskengine"),
        ("router/router", "from taskengine import task"),
        ("router/router", "from taskengine.unheard import of"),
        ("tasks", "from taskengine.registry.registry import task"),
        ("__init__", "from taskengine.supervisor.supervisor import serve"),
    ],
)
def test_a_breach_is_found(module: str, source: str) -> None:
    assert len(breaches(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("protocol/messages", "import time\nfrom taskengine import errors\nfrom taskengine.protocol import layouts"),
        ("broker/broker", "import math\nfrom collections import deque\nfrom taskengine.broker.chunking import cut"),
        (
            "router/router",
            "import os, time, zmq\nfrom taskengine import _fastpath\nfrom taskengine.config.settings import S",
        ),
        ("aio", "from taskengine.client.blocking import Client"),
        ("tasks", "import time\nfrom taskengine import task"),
        ("__init__", "from taskengine.client.blocking import Client\nfrom taskengine import aio"),
        ("cli/main", "from taskengine.supervisor.supervisor import serve\nimport click"),
    ],
)
def test_what_is_allowed(module: str, source: str) -> None:
    assert breaches(module, source) == []


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
    assert len(door_breaches("servo.py", source)) == 1


def test_what_hardware_may_import() -> None:
    assert door_breaches("servo.py", "import gpiozero\nfrom taskengine import task\nfrom .devices import Device") == []


def test_nobody_goes_by_a_clock_that_may_be_set() -> None:
    """What waits uses the monotonic clock, but for tasks with `at` or `cron`.

    What time it is stands in publications, the audit log and JSON lines.
    """
    wall = re.compile(
        r"\btime\.(time|time_ns|localtime|gmtime)\b|\b(datetime|date)\.(now|utcnow|today)\b|\bCLOCK_REALTIME\b"
    )
    paths = (path for path in PACKAGE.rglob("*.p[yx]*") if path.suffix != ".pyc")
    texts = {path.name: path.read_text(encoding="utf-8") for path in paths}
    del texts["timetable.py"], texts["schedule.py"], texts["wall_clock.py"]  # of tasks with `at` or `cron`
    found = {(name, line.strip()) for name, text in texts.items() for line in text.splitlines() if wall.search(line)}
    assert found == {
        ("publisher.py", "wall = time.time() - (now - made) / NS"),
        ("recorder.py", "wall = time.time_ns()"),
        ("writing.py", 'stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(at // 10**9))'),
        ("audit.py", 'when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())'),
        ("log_format.py", "return time.time() if self.is_json else 0.0"),
        (
            "log_format.py",
            "return f\"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at * 1000) % 1000:03}Z\"",
        ),
    }
