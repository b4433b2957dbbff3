"""Task Engine: a light-weight, secure task-queuing system for Raspberry Pi robots. This is its door."""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].endswith("taskengine") and not sys.flags.safe_path:
    # `python -m taskengine` puts the current folder first; from here on nothing there hides a module of Python
    sys.path.append(sys.path.pop(0))

from typing import TYPE_CHECKING, Any

from taskengine.caller import caller, caller_id, check_device, origin, position
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
from taskengine.messages import Origin
from taskengine.registry import source, task

if TYPE_CHECKING:
    from taskengine.client import Client
    from taskengine.feed import publish, publish_owned

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


def __getattr__(name: str) -> Any:
    # a worker that imports a task module has no use for the client
    if name == "Client":
        from taskengine.client import Client

        return Client
    # and a client none for the way from tasks to data workers
    if name in ("publish", "publish_owned"):
        from taskengine import feed

        return getattr(feed, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
