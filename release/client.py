"""The client alone, for laptops: a wheel with nothing compiled, for any Python on Linux, macOS and Windows.

It has the client's API and commands, and no engine. What the client takes from compiled modules is in Python there.
"""

from __future__ import annotations

from collections.abc import Mapping

TAG = "py3-none-any"
LEFT_OUT = (
    "taskengine/broker/",
    "taskengine/doctor/",
    "taskengine/router/",
    "taskengine/runtime/memory.py",
    "taskengine/runtime/topology.py",
    "taskengine/supervisor/",
    "taskengine/templates/",
    "taskengine/worker/",
    "taskengine/_descendants.pyi",
    "taskengine/taskengine.service",
    "taskengine/testing.py",
    "taskengine_hardware/",
)
"""The engine's side."""
KEPT = (
    "taskengine/broker/__init__.py",
    "taskengine/broker/topics.py",
    "taskengine/worker/__init__.py",
    "taskengine/worker/context.py",
    "taskengine/worker/progress.py",
)
"""What a module of tasks takes from `taskengine`, with what that imports, so that it can be imported."""
REPLACED = {
    "taskengine/_fastpath.py": '''"""The client's part of the compiled module of this name, in Python."""

from taskengine._plain_codec import encode as encode
from taskengine._plain_codec import find_tasks as find_tasks
from taskengine._plain_codec import pack_calls as pack_calls
from taskengine._plain_codec import pack_map as pack_map
from taskengine._plain_codec import unpack as unpack
''',
    "taskengine/_socket.py": '''"""The compiled module of this name, by public methods of pyzmq."""

from taskengine._plain_socket import PlainDebt as Debt
from taskengine._plain_socket import PlainPort as Port
from taskengine._plain_socket import PlainWaiter as Waiter
from taskengine._plain_socket import seed_ids

__all__ = ["Debt", "Port", "Waiter", "seed_ids"]
''',
}


def client_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the client's files, of those of the whole package."""
    kept = {path: data for path, data in files.items() if path in KEPT or not path.startswith(LEFT_OUT)}
    return kept | {path: text.encode() for path, text in REPLACED.items()}
