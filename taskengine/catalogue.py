"""What the task modules register, found out in a process of its own: a module may crash it, and can be loaded again."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

import msgspec

from taskengine.errors import TaskModuleError
from taskengine.hardware import Machine
from taskengine.identity import Identity
from taskengine.messages import TaskInfo
from taskengine.process import Inquiry, ask
from taskengine.registry import Registry
from taskengine.wire import IMPORT_TIMEOUT_S


class Catalogue(msgspec.Struct, frozen=True):
    """The tasks that loaded, the topics of the sources, and a line for each module that did not load."""

    tasks: list[TaskInfo]
    topics: list[str]
    failures: list[str]


def load_catalogue(
    modules: list[str],
    stop: socket.socket | None = None,
    identity: Identity | None = None,
    machine: Machine | None = None,
) -> Catalogue:
    """Load the task modules aside, and list the tasks of a machine, as `identity`, or as who we are.

    Raises TaskModuleError where a module ends the process or never returns, InterruptedError where `stop` becomes
    readable meanwhile.
    """
    return _read(modules, lambda: ask(partial(_report, modules, machine), IMPORT_TIMEOUT_S, stop, identity))


class Reading:
    """The task modules are being loaded aside; `connection` is readable when the `result` is there."""

    def __init__(self, modules: list[str], identity: Identity | None = None, machine: Machine | None = None) -> None:
        self._modules = modules
        self._inquiry = Inquiry(partial(_report, modules, machine), identity)
        self.connection = self._inquiry.connection

    def result(self) -> Catalogue:
        """What was found. Raises TaskModuleError where a module has ended the process, or does not load."""
        catalogue = _read(self._modules, self._inquiry.answer)
        if catalogue.failures:
            raise TaskModuleError("; ".join(catalogue.failures))
        return catalogue

    def close(self) -> None:
        """Wait no longer."""
        self._inquiry.close()


def _read(modules: list[str], answer: Callable[[], bytes]) -> Catalogue:
    try:
        return msgspec.msgpack.decode(answer(), type=Catalogue)
    except (EOFError, TimeoutError, msgspec.MsgspecError) as error:
        reason = str(error) or "the process ended while it loaded them"
        raise TaskModuleError(f"the task modules {', '.join(modules)} cannot be loaded: {reason}") from None


def _report(modules: list[str], machine: Machine | None, answer: Connection) -> None:
    registry = Registry.load(modules, machine)
    catalogue = Catalogue(
        tasks=[task.info() for task in registry.tasks.values()],
        topics=list(registry.sources),
        failures=[str(failure) for failure in registry.failures],
    )
    answer.send_bytes(msgspec.msgpack.encode(catalogue))
