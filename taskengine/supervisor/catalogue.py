"""Finds what the task modules register. Each is imported in a process of its own, which it may crash."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

import msgspec

from taskengine.config.machine import Machine
from taskengine.errors import TaskModuleError
from taskengine.registry.survey import Module, TaskCode, check_pins, read_by_import, survey
from taskengine.runtime.intervals import IMPORT_TIMEOUT_S
from taskengine.security.identity import Identity
from taskengine.supervisor.inquiry import Inquiry, ask

_SPARE_S = 5.0
"""The imports end so many s before the whole answer is due."""


def load_catalogue(
    modules: list[str],
    stop: socket.socket | None = None,
    identity: Identity | None = None,
    machine: Machine | None = None,
    *,
    imports_all: bool = False,
) -> TaskCode:
    """Return what the task modules register, and the tasks of a machine, read in another process.

    The process runs as `identity`, or as our own user. A module is imported, in a process that then ends, if its text
    does not tell what it registers, or with `imports_all`. Raises TaskModuleError if that takes too long,
    InterruptedError if `stop` becomes readable first.
    """
    report = partial(_report, modules, machine, imports_all)
    return _read(modules, lambda: ask(report, IMPORT_TIMEOUT_S, stop, identity))


class Reading:
    """Reads the task modules in another process; `connection` is readable when the `result` is there."""

    def __init__(self, modules: list[str], identity: Identity | None = None, machine: Machine | None = None) -> None:
        self._modules = modules
        self._inquiry = Inquiry(partial(_report, modules, machine, False), identity)
        self.connection = self._inquiry.connection

    def result(self) -> TaskCode:
        """Return the tasks that were found. Raises TaskModuleError if a module cannot be loaded."""
        code = _read(self._modules, self._inquiry.answer)
        failures = [f"task module {module.name}: {module.failure}" for module in code.modules if module.failure]
        if failures:
            raise TaskModuleError("; ".join(failures))
        return code

    def close(self) -> None:
        """End the process, whether it has answered or not."""
        self._inquiry.close()


def _read(modules: list[str], answer: Callable[[], bytes]) -> TaskCode:
    try:
        return msgspec.msgpack.decode(answer(), type=TaskCode)
    except (EOFError, TimeoutError, msgspec.MsgspecError) as error:
        reason = str(error) or "the process ended while it read them"
        raise TaskModuleError(f"the task modules {', '.join(modules)} cannot be loaded: {reason}") from None


def _report(entries: list[str], machine: Machine | None, imports_all: bool, answer: Connection) -> None:
    end = time.monotonic() + IMPORT_TIMEOUT_S - _SPARE_S
    code = survey(entries, machine)
    open_ones = [i for i, m in enumerate(code.modules) if m.module and not m.failure and (m.doubt or imports_all)]
    for done, i in enumerate(open_ones):
        share = max(1.0, (end - time.monotonic()) / (len(open_ones) - done))
        code.modules[i] = _read_apart(code.modules[i], code, share)
    for module in code.modules:
        check_pins(module, machine)
    code.settle()
    answer.send_bytes(msgspec.msgpack.encode(code))


def _read_apart(module: Module, code: TaskCode, seconds: float) -> Module:
    """Import a module in a process of its own, within `seconds`; the result says why if that failed."""
    try:
        return msgspec.msgpack.decode(ask(partial(_import, module, code), seconds), type=Module)
    except TimeoutError:
        module.failure = f"its import takes longer than {seconds:.0f} s"
    except (EOFError, msgspec.MsgspecError) as error:
        module.failure = f"it ended the process that loaded it ({error})"
    module.tasks, module.topics = [], []
    return module


def _import(module: Module, code: TaskCode, answer: Connection) -> None:
    answer.send_bytes(msgspec.msgpack.encode(read_by_import(module, code)))
