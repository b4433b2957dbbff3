"""A task worker: one message in, its chunks run, one message out."""

from __future__ import annotations

import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import zmq

from taskengine import _fastpath
from taskengine._fastpath import ProgressPage
from taskengine._socket import Waiter
from taskengine.broker import legacy_json
from taskengine.broker.binary import error_entry
from taskengine.broker.package import decode_head
from taskengine.config.machine import Machine
from taskengine.config.policy import Policy
from taskengine.config.settings import Settings
from taskengine.errors import (
    BadArguments,
    ProtocolError,
    SettingsError,
    TaskEngineError,
    TaskFailed,
    UnknownTask,
    shortened,
    text_of,
)
from taskengine.protocol.layouts import NO_ANSWER
from taskengine.protocol.limits import MAX_ERROR_TEXT, MAX_NAME_LENGTH, MAX_TRACEBACK
from taskengine.protocol.messages import NOWHERE
from taskengine.registry.arguments import CALL
from taskengine.registry.registry import Registry
from taskengine.registry.survey import Module, Plan, load_code
from taskengine.runtime.control import Importing, NotImported, Online, RejoinRouter, StartFailed, StopProcess
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.feed import attach
from taskengine.runtime.log_buffer import PAUSE_MS, LogBuffer
from taskengine.runtime.orphan import orphan
from taskengine.runtime.rlimits import limit_memory, worker_memory
from taskengine.runtime.topology import Topology
from taskengine.security.redaction import discreet, without_folders
from taskengine.worker.context import begin, may_call, obey
from taskengine.worker.router_connection import RouterConnection

CONTROL, BATCH = 1, 2
"""What is ready, by its place among the sources of the waiter."""


class NoPins(Exception):
    """The worker of a lane with pins cannot have them."""


class Turn:
    """What the compiled worker turn asks of Python: names to functions, exceptions to entries, foreign formats.

    `page` is where it keeps its account; with `tells_all` clients get tracebacks and whole paths.
    """

    def __init__(self, registry: Registry, page: ProgressPage | None = None, *, tells_all: bool = True) -> None:
        self._registry = registry
        self._tells_all = tells_all
        self._page = page
        self._limited = any(task.timeout for task in registry.tasks.values())
        # neighbouring slices are mostly of one package
        self._head = b""
        self._origin = NOWHERE
        self._functions: list[Callable[..., Any] | None] = []
        self._frames = legacy_json.TaskFrames(
            self._find, self._failure, self._limit, page.limit if page else None, begin
        )

    def run(self, batch: bytes) -> bytes:
        """Run a batch and give the answer to it. Raises ProtocolError for a batch that no router wrote."""
        limits = self._limits if self._limited else None
        return _fastpath.run_batch(batch, self._resolve, self._failed, _foreign, self._frames, self._page, limits)

    def _resolve(self, head: bytes) -> list[Callable[..., Any] | None]:
        if head != self._head:
            _, names, self._origin = decode_head(head)
            self._functions = [self._find(name) for name in names]
            self._head = head
        begin(self._origin)
        return self._functions

    def _failed(self, head: bytes, i: int, position: int, error: BaseException | None) -> bytes:
        names = _names(head)
        name = names[i] if 0 <= i < len(names) else "?"
        return error_entry(self._failure(name, error))

    def _find(self, name: str) -> Callable[..., Any] | None:
        task = self._registry.tasks.get(name)
        return None if task is None else task.call or task.function

    def _limits(self, head: bytes) -> list[int] | None:
        limits = [self._limit(name) for name in _names(head)]
        return limits if any(limits) else None

    def _limit(self, name: str) -> int:
        """A task's timeout in ns, 0 for none."""
        task = self._registry.tasks.get(name)
        return int(task.timeout * 1e9) if task and task.timeout else 0

    def _failure(self, name: str, error: BaseException | None) -> TaskEngineError:
        return self._unknown(name) if error is None else as_failure(name, error, tells_all=self._tells_all)

    def _unknown(self, name: str) -> TaskEngineError:
        reason = self._registry.lacking.get(name)
        if reason is not None:
            said = shortened(reason if self._tells_all else without_folders(reason), MAX_ERROR_TEXT)
            return TaskFailed(said, type="TaskModuleError")
        name = shortened(name, MAX_NAME_LENGTH)
        nearest = self._registry.nearest(name, may_call)
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        return UnknownTask(f"no task is named {name!r}{hint}", name=name, nearest=nearest)


def _foreign(format: int, head: bytes, first: int, ends: list[int], body: bytes, room: int) -> tuple[bytes, int]:
    raise ProtocolError(f"a task worker does not serve format {format}")


def _names(head: bytes) -> list[str]:
    names: list[str] = decode_head(head)[1]
    return names


def as_failure(name: str, error: BaseException, *, tells_all: bool = True) -> TaskEngineError:
    """What the client is told of an exception that came out of task `name`; see `Turn` for `tells_all`."""
    if isinstance(error, TaskEngineError) and error.code:
        return error if tells_all else discreet(error)
    said = text_of(error)
    said = shortened(said if tells_all else without_folders(said), MAX_ERROR_TEXT)
    where = error.__traceback__
    if where is not None and where.tb_next is not None and where.tb_next.tb_frame.f_code is CALL:
        where = where.tb_next
    # the call itself is the only frame: the arguments did not get into the function
    if isinstance(error, TypeError) and (where is None or where.tb_next is None):
        return BadArguments(f"{name}: {said}", name=name)
    kind, text = type(error).__name__, ""
    if tells_all:
        text = text_of("".join(traceback.format_exception(type(error), error, where.tb_next if where else None)))
    return TaskFailed(f"{kind}: {said}" if said else kind, type=kind, traceback=shortened(text, MAX_TRACEBACK))


class TaskWorker:
    """The process around the turn: a connection to the router, a pipe to the supervisor."""

    def __init__(
        self,
        settings: Settings,
        backplane: Topology,
        place: int,
        lane: str,
        control: ControlChannel,
        journal: LogBuffer,
    ) -> None:
        plan = backplane.plan
        registry, missing = load_modules(plan, place, plan.code.of_lane(lane), control, backplane.machine, lane)
        for failure in registry.failures:
            journal.say(f"[WORKER-{os.getpid()}(TASK)] Left out: {failure}")
        attach(backplane.feeds, has_machine=backplane.machine is not None)
        self._let_go = _own(backplane.machine, lane, journal)
        self._turn = Turn(registry, backplane.pages[place], tells_all=settings.has_tracebacks)
        obey(None if settings.policy is None else Policy(settings.policy), backplane.pages[place])
        self._control = control
        self._journal = journal
        self._context = zmq.Context()
        self._dealer = RouterConnection(self._context, settings, backplane, f"TASK-{os.getpid()}", lane, place, missing)
        journal.say(f"Starting worker[TASK] on socket: {settings.backend.removeprefix('tcp://')}")
        journal.say(f"[WORKER-{os.getpid()}(TASK)] Listener online")

    def serve(self) -> None:
        """Work until the supervisor says stop, or is gone; then let go of the pins."""
        try:
            self._work()
        finally:
            self._let_go()
        self._journal.flush()
        self._dealer.close()
        self._context.term()

    def _work(self) -> None:
        waiter = self._waiter()
        while True:
            ready = waiter.wait(PAUSE_MS if self._journal.pending else self._dealer.interval_ms)
            # before a batch, which may be one of a router that is gone
            if ready & CONTROL:
                order = self._control.next_order()
                if isinstance(order, StopProcess):
                    break
                if isinstance(order, RejoinRouter):
                    self._dealer.rejoin()
                    waiter = self._waiter()
            elif ready & BATCH:
                self._run()
            else:
                self._journal.flush()
                if self._dealer.beat():
                    waiter = self._waiter()

    def _waiter(self) -> Waiter:
        return Waiter(self._control.fileno(), self._dealer.port)

    def _run(self) -> None:
        batch = self._dealer.receive()
        if batch is None:
            return
        try:
            answer = self._turn.run(batch)
        except BadArguments:
            self._dealer.send(NO_ANSWER)
            return
        self._dealer.send(answer)
        if self._journal.enabled:
            self._journal.note(_received_lines, batch, answer)


def load_modules(
    plan: Plan,
    place: int,
    modules: list[Module],
    control: ControlChannel,
    machine: Machine | None = None,
    lane: str | None = None,
) -> tuple[Registry, list[str]]:
    """Load what the worker at a place is to; the registry, and the modules that could not be loaded.

    The supervisor is told of each before it is loaded, since it may end the process, and of each that does not load.
    """
    excluded = plan.excluded.get(place, {})

    def began(module: Module) -> None:
        if module.name not in excluded:
            control.send(Importing(module.name))

    registry, failed = load_code(modules, plan.code, began, machine=machine, excluded=excluded, lane=lane)
    control.send(Importing(""))
    for module, reason in failed:
        control.send(NotImported(module.name, shortened(reason, MAX_ERROR_TEXT)))
    return registry, [module.module for module, _ in failed]


def _own(machine: Machine | None, lane: str, journal: LogBuffer) -> Callable[[], None]:
    """Get the pins of the lane, where it has some; how to let go of them. Raises NoPins."""
    if machine is None or lane not in machine.lanes:
        return lambda: None
    try:
        owner = machine.own(lane, journal.say)
    except (RuntimeError, SettingsError) as error:
        raise NoPins(f"lane {lane} cannot have its pins: {error}") from error
    orphan.first(owner.rest_at_once)
    return owner.close


def _received_lines(batch: bytes, answer: bytes) -> Iterator[str]:
    """A line for each chunk that was run; what was handed back is received again, by whom it is run."""
    ran: Counter[int] = Counter()
    for job, first, stop, *_ in _fastpath.read_answer(answer):
        ran[job] += stop - first
    for job, _, head, parts in _fastpath.read_batch(batch):
        serial = decode_head(head)[0]
        for part, tasks in parts:
            if ran[job] > 0:
                yield f"[WORKER-{os.getpid()}(TASK)] Received task: Package {serial}, Chunk {part}"
            ran[job] -= tasks


def run(
    settings: Settings, backplane: Topology, place: int, lane: str, control: ControlChannel, journal: LogBuffer
) -> None:
    """The task worker's process."""
    limit_memory(worker_memory(settings))
    _fastpath.limit_depth(settings.value_depth)
    try:
        worker = TaskWorker(settings, backplane, place, lane, control, journal)
    except NoPins as error:
        control.send(StartFailed(str(error)))
        return
    control.send(Online())
    worker.serve()
