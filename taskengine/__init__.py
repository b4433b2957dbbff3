"""Task Engine: a light-weight, secure task-queuing system for Raspberry Pi robots. This is its door."""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].endswith("taskengine") and not sys.flags.safe_path:
    # `python -m taskengine` puts the current folder first; from here on nothing there hides a module of Python
    sys.path.append(sys.path.pop(0))

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
from taskengine.protocol.progress import Progress

if TYPE_CHECKING:
    from taskengine.client.blocking import Client
    from taskengine.client.executor import Executor
    from taskengine.registry.registry import source, task
    from taskengine.runtime.feed import publish, publish_owned
    from taskengine.runtime.firmware import undervoltage
    from taskengine.worker.context import caller, caller_id, check_device, origin, position
    from taskengine.worker.progress import progress

__version__ = "0.2.0"
__all__ = [
    "BadArguments",
    "Cancelled",
    "Client",
    "EngineUnreachable",
    "Executor",
    "KeysError",
    "NotAllowed",
    "Origin",
    "Overloaded",
    "Progress",
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
    "progress",
    "publish",
    "publish_owned",
    "source",
    "task",
    "undervoltage",
]


def __getattr__(name: str) -> Any:
    # imported when they are asked for: a client has no use for the engine's side, nor a worker for a client
    if name == "Client":
        from taskengine.client import blocking

        return getattr(blocking, name)
    if name == "Executor":
        from taskengine.client import executor

        return getattr(executor, name)
    if name in ("source", "task"):
        from taskengine.registry import registry

        return getattr(registry, name)
    if name in ("publish", "publish_owned"):
        from taskengine.runtime import feed

        return getattr(feed, name)
    if name == "undervoltage":
        from taskengine.runtime import firmware

        return firmware.undervoltage
    if name == "progress":
        from taskengine.worker import progress

        return progress.progress
    if name in __all__:
        from taskengine.worker import context

        return getattr(context, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
