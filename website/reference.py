"""The pages of the API reference: which public names each has. The texts are the docstrings. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple


class Page(NamedTuple):
    """A page of the reference, and the full names of what it describes."""

    title: str
    text: str
    names: tuple[str, ...]


def _ours(names: str) -> tuple[str, ...]:
    return tuple(f"taskengine.{name}" for name in names.split())


REFERENCE = {
    "api/client.md": Page(
        "Client",
        "Calls tasks, from a program. [Calling tasks](../clients.md) shows how.",
        _ours(
            "Client client.task_future.TaskFuture client.lease.Lease client.subscription.Subscription "
            "client.samples.Sample client.streams.Stream"
        ),
    ),
    "api/aio.md": Page(
        "Client for asyncio",
        "`taskengine.aio.Client` is the class `AsyncClient`: the same methods, to be awaited.",
        _ours(
            "aio.AsyncClient client.async_future.AsyncTaskFuture client.lease.AsyncLease "
            "client.async_subscription.AsyncSubscription client.async_stream.AsyncStream"
        ),
    ),
    "api/executor.md": Page(
        "Executor and joblib",
        "An engine's workers behind the interfaces of `concurrent.futures` and joblib.",
        _ours("Executor joblib.TaskEngineBackend"),
    ),
    "api/tasks.md": Page(
        "Tasks and sources",
        "For modules that the engine loads. [Writing tasks](../tasks.md) shows how.",
        _ours(
            "task source publish publish_owned caller caller_id check_device origin position progress Progress Origin "
            "undervoltage"
        ),
    ),
    "api/samples.md": Page(
        "Sample tasks and sources",
        "What an engine serves that was given no tasks.",
        _ours(
            "tasks.task_count tasks.task_echo tasks.task_sleep tasks.task_fail sources.cpu_temperature sources.cpu_load"
        ),
    ),
    "api/hardware.md": Page(
        "Hardware",
        "Commands of devices, in a task that runs in a lane with pins. [Servos, pins and sensors](../hardware.md) "
        "describes the devices.",
        ("taskengine_hardware.robot", "taskengine_hardware.commands.Commands"),
    ),
    "api/testing.md": Page(
        "Testing",
        "Fixtures of pytest for the tests of your own tasks.",
        _ours("testing.engine testing.client testing.EngineUnderTest"),
    ),
    "api/errors.md": Page(
        "Errors",
        "[Calling tasks](../clients.md#errors) says when a client gets which.",
        _ours(
            "TaskEngineError TaskFailed UnknownTask BadArguments TaskTimeout Cancelled NotAllowed WorkerLost "
            "Overloaded EngineUnreachable ProtocolError SettingsError TaskModuleError KeysError"
        ),
    ),
    "api/datatypes.md": Page(
        "Frames of wire 0.1",
        "For clients of the legacy JSON protocol.",
        _ours("datatypes.MetaFrame datatypes.TaskFrame datatypes.DataFrame datatypes.prepare"),
    ),
}
"""The pages by their places on the site."""
HIDDEN = {"taskengine_hardware.commands.Commands": ("start", "stop_called")}
"""What the engine alone calls, by the class that has it."""


def markdown(page: Page) -> str:
    """Return the text of a page, in which mkdocstrings puts each docstring into its place."""
    return "\n\n".join([f"# {page.title}", page.text, *map(_directive, page.names)]) + "\n"


def _directive(name: str) -> str:
    if name not in HIDDEN:
        return f"::: {name}"
    filters = ["!^_", *(f"!^{hidden}$" for hidden in HIDDEN[name])]
    return f"::: {name}\n    options:\n      filters: {json.dumps(filters)}"


def names() -> Iterator[str]:
    """Yield every full name that the reference has."""
    for page in REFERENCE.values():
        yield from page.names
