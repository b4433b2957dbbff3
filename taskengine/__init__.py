"""Task Engine: a light-weight, secure task-queuing system for Raspberry Pi robots. This is its door."""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].endswith("taskengine") and not sys.flags.safe_path:
    # `python -m taskengine` puts the current folder first; from here on nothing there hides a module of Python
    sys.path.append(sys.path.pop(0))

import importlib
from typing import TYPE_CHECKING, Any

from taskengine.errors import (
    BadArguments,
    Cancelled,
    EngineUnreachable,
    KeysError,
    NotAllowed,
    Overloaded,
    ProtocolError,
    SettingsError,
    TaskEngineError,
    TaskFailed,
    TaskModuleError,
    TaskTimeout,
    UnknownTask,
    WorkerLost,
)
from taskengine.protocol.messages import Origin

if TYPE_CHECKING:
    from taskengine.client.blocking import Client
    from taskengine.registry.registry import source, task
    from taskengine.runtime.feed import publish, publish_owned
    from taskengine.worker.context import caller, caller_id, check_device, origin, position

__version__ = "0.1.0"
__all__ = [
    "BadArguments",
    "Cancelled",
    "Client",
    "EngineUnreachable",
    "KeysError",
    "NotAllowed",
    "Origin",
    "Overloaded",
    "ProtocolError",
    "SettingsError",
    "TaskEngineError",
    "TaskFailed",
    "TaskModuleError",
    "TaskTimeout",
    "UnknownTask",
    "WorkerLost",
    "caller",
    "caller_id",
    "check_device",
    "origin",
    "position",
    "publish",
    "publish_owned",
    "source",
    "task",
]


_HOMES = {
    "Client": "taskengine.client.blocking",
    **dict.fromkeys(("source", "task"), "taskengine.registry.registry"),
    **dict.fromkeys(("publish", "publish_owned"), "taskengine.runtime.feed"),
    **dict.fromkeys(("caller", "caller_id", "check_device", "origin", "position"), "taskengine.worker.context"),
}
"""Names imported when they are asked for: a client has no use for the engine, nor a worker for a client."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value
