"""A task worker: receives a batch, runs its chunks, and sends one answer."""

from __future__ import annotations

import os
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from operator import attrgetter
from types import TracebackType
from typing import TYPE_CHECKING, Any

import zmq

from taskengine import _fastpath
from taskengine._fastpath import ProgressPage
from taskengine._socket import Waiter
from taskengine.broker import legacy_json
from taskengine.broker.binary import error_entry
from taskengine.broker.package import decode_head, is_watched, stream_of
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
from taskengine.registry.registry import Registry, Task
from taskengine.registry.survey import Module, Plan, load_code
from taskengine.runtime.control import Importing, NotImported, Online, RejoinRouter, StartFailed, StopProcess
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.feed import attach, publish_owned
from taskengine.runtime.log_buffer import PAUSE_MS, LogBuffer
from taskengine.runtime.orphan import orphan
from taskengine.runtime.rlimits import limit_memory, worker_memory
from taskengine.runtime.topology import Topology
from taskengine.security.redaction import discreet, without_folders
from taskengine.worker.command_log import CommandLog
from taskengine.worker.context import caller, coroutine_name, may_call, set_origin, set_policy
from taskengine.worker.progress import TaskProgress
from taskengine.worker.router_connection import RouterConnection
from taskengine.worker.stream_link import StreamLink
from taskengine.worker.streams import TaskStreams
from taskengine.worker.tuning import CANCEL_GRACE_S

if TYPE_CHECKING:
    from taskengine.worker.async_work import AsyncWork

CONTROL, BATCH = 1, 2
"""The bits of `Waiter.wait`: what is ready, in the order in which the waiter got it."""


class NoPins(Exception):
    """The worker of a lane cannot get the lane's pins."""


_function: Callable[[Task], Callable[..., Any]] = attrgetter("callable")


class BatchRunner:
    """Runs batches of tasks, and does in Python what the compiled loop asks for: functions, and entries of errors.

    The loop notes its progress on `page`, and `callable_of` returns the function to call for a task. `streams` runs the
    generators, and `progress` takes the reports of all tasks. With `tells_all` clients get tracebacks and whole paths.
    """

    def __init__(
        self,
        registry: Registry,
        page: ProgressPage | None = None,
        *,
        tells_all: bool = True,
        callable_of: Callable[[Task], Callable[..., Any]] = _function,
        streams: TaskStreams | None = None,
        progress: TaskProgress | None = None,
    ) -> None:
        self._registry = registry
        self._streams = streams or TaskStreams(lambda: None)
        self._progress = progress or TaskProgress(lambda: None)
        self._callables = {name: callable_of(self._streams.listed(task)) for name, task in registry.tasks.items()}
        self._senders = {name: callable_of(self._streams.sent(task)) for name, task in registry.tasks.items()}
        self._tells_all = tells_all
        self._page = page
        self._limited = any(task.timeout for task in registry.tasks.values())
        has_retries = any(task.retry for task in registry.tasks.values())
        self._retry_check = self._may_retry if has_retries else None
        # slices that follow each other are mostly of one package
        self._head = b""
        self._origin = NOWHERE
        self._functions: list[Callable[..., Any] | None] = []
        self._task_names: list[str] = []
        self._legacy_name = ""
        """The current task, if it came by wire 0.1."""
        self._thread = threading.get_ident()
        self._frames = legacy_json.TaskFrames(
            *(self._find_legacy, self._failure, self._limit, page.limit if page else None, set_origin),
            may_retry=self._runs_again if has_retries else None,
        )

    def run(self, batch: bytes) -> bytes:
        """Run a batch and return its answer. Raises ProtocolError for a batch that no router wrote."""
        limits = self._limits if self._limited else None
        try:
            extras = self._page, limits, self._retry_check
            return _fastpath.run_batch(batch, self._resolve, self._failed, _foreign, self._frames, *extras)
        finally:
            self._legacy_name = ""

    def answer(self, batch: bytes) -> bytes:
        """Run a batch; return the answer, or NO_ANSWER where that does not fit into one message."""
        try:
            return self.run(batch)
        except BadArguments:
            return NO_ANSWER

    def running(self) -> tuple[str, str]:
        """Return the names of the task that runs in this thread, and of the client that called it; "" for none."""
        if coroutine_name.get():
            return coroutine_name.get(), caller()
        if threading.get_ident() != self._thread:
            return "", caller()
        index = _fastpath.running_index()
        if self._legacy_name or index < 0:
            return self._legacy_name, caller() if self._legacy_name else ""
        return (self._task_names[index] if index < len(self._task_names) else ""), caller()

    def _resolve(self, head: bytes) -> list[Callable[..., Any] | None]:
        if head != self._head:
            _, names, self._origin = decode_head(head)
            self._progress.is_wanted = is_watched(head)
            stream = stream_of(head)
            if stream is not None:
                self._streams.grant_at_hand, self._streams.takes_values = stream
            self._functions = list(map((self._callables if stream is None else self._senders).get, names))
            self._task_names = names
            self._head = head
        self._legacy_name = ""
        set_origin(self._origin)
        return self._functions

    def _failed(self, head: bytes, i: int, position: int, error: BaseException | None) -> bytes:
        names = _names(head)
        name = names[i] if 0 <= i < len(names) else "?"
        return error_entry(self._failure(name, error))

    def _may_retry(self, head: bytes, i: int, error: BaseException) -> bool:
        names = _names(head)
        return i < len(names) and self._runs_again(names[i], error)

    def _runs_again(self, name: str, error: BaseException) -> bool:
        """Return whether a task that raised may run again; one that did not begin may not."""
        task = self._registry.tasks.get(name)
        if task is None or task.retry is None or isinstance(error, ProtocolError) or did_not_begin(error):
            return False
        return isinstance(error, task.retry_on)

    def _find(self, name: str) -> Callable[..., Any] | None:
        return self._callables.get(name)

    def _find_legacy(self, name: str) -> Callable[..., Any] | None:
        self._legacy_name = name
        return self._find(name)

    def _limits(self, head: bytes) -> list[int] | None:
        limits = [self._limit(name) for name in _names(head)]
        return limits if any(limits) else None

    def _limit(self, name: str) -> int:
        """Return how long a task may run until its worker is killed, in ns, 0 for any time."""
        task = self._registry.tasks.get(name)
        return kill_limit_ns(task) if task else 0

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


def kill_limit_ns(task: Task) -> int:
    """Return how long a task may run until its worker is killed, in ns, 0 for any time.

    A coroutine is cancelled first, and a generator closed.
    """
    return int((task.timeout + CANCEL_GRACE_S * task.can_end_early) * 1e9) if task.timeout else 0


def _foreign(format: int, head: bytes, first: int, ends: list[int], body: bytes, room: int) -> tuple[bytes, int]:
    raise ProtocolError(f"a task worker does not serve format {format}")


def _names(head: bytes) -> list[str]:
    names: list[str] = decode_head(head)[1]
    return names


def did_not_begin(error: BaseException) -> bool:
    """Return whether the arguments of a task did not get into its function."""
    # the call itself is the only frame
    return isinstance(error, TypeError) and _in_task(error.__traceback__) is None


def as_failure(name: str, error: BaseException, *, tells_all: bool = True) -> TaskEngineError:
    """Return the error that a client gets for an exception of task `name`; see `BatchRunner` for `tells_all`."""
    if isinstance(error, TaskEngineError) and error.code:
        return error if tells_all else discreet(error)
    said = text_of(error)
    said = shortened(said if tells_all else without_folders(said), MAX_ERROR_TEXT)
    where = _in_task(error.__traceback__)
    if did_not_begin(error):
        return BadArguments(f"{name}: {said}", name=name)
    kind, text = type(error).__name__, ""
    if tells_all:
        text = text_of("".join(traceback.format_exception(type(error), error, where)))
    return TaskFailed(f"{kind}: {said}" if said else kind, type=kind, traceback=shortened(text, MAX_TRACEBACK))


def _in_task(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback behind the call of the task, and behind what a worker does for a coroutine."""
    trace = trace and trace.tb_next
    while trace is not None and (trace.tb_frame.f_globals.get("__package__") == __package__ or _converts(trace)):
        trace = trace.tb_next
    return trace


def _converts(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code is CALL


class TaskWorker:
    """A worker of `lane`, connected to the router and the supervisor."""

    def __init__(
        self,
        settings: Settings,
        topology: Topology,
        place: int,
        lane: str,
        control: ControlChannel,
        log: LogBuffer,
    ) -> None:
        plan = topology.plan
        registry, missing = load_modules(plan, place, plan.code.of_lane(lane), control, topology.machine, lane)
        for failure in registry.failures:
            log.warn(f"[WORKER-{os.getpid()}(TASK)] Left out: {failure}")
        attach(topology.feeds, has_machine=topology.machine is not None)
        self._commands = CommandLog(lane, publish_owned) if settings.record_commands or settings.record else None
        if self._commands is not None:
            registry.tasks.update({task.name: self._commands.told(task) for task in registry.tasks.values()})
        self._release_pins = _take_pins(topology.machine, lane, log)
        page, most = topology.pages[place], settings.lane(lane).concurrency
        self._batches: deque[bytes] = deque()
        """Batches that came while a generator ran."""
        self._streams = TaskStreams(lambda: page.running_task)
        self._progress = TaskProgress(lambda: self._streams.task_at_hand())
        self._async = _async_work(registry, lane, most, control, log, page, self._streams, self._progress)
        account = page if most == 1 else None
        callable_of = self._async.callable_of if self._async else _function
        self._runner = BatchRunner(
            *(registry, account),
            tells_all=settings.has_tracebacks,
            callable_of=callable_of,
            streams=self._streams,
            progress=self._progress,
        )
        log.running = self._runner.running
        set_policy(None if settings.policy is None else Policy(settings.policy), page)
        self._control = control
        self._log = log
        self._context = zmq.Context()
        who = f"TASK-{os.getpid()}", lane, place, missing
        cancels = any(task.can_end_early for task in registry.tasks.values())
        self._router = RouterConnection(self._context, settings, topology, *who, cancels=cancels)
        log.say(f"Starting worker[TASK] on socket: {settings.backend.removeprefix('tcp://')}")
        log.say(f"[WORKER-{os.getpid()}(TASK)] Listener online")

    def serve(self) -> None:
        """Work until the supervisor says stop or is gone, then release the pins."""
        try:
            if self._async is None:
                self._work()
            else:
                self._async.work(self._router, self._runner.answer, self._note)
        finally:
            self._release_pins()
        self._log.flush()
        self._router.close()
        self._context.term()

    def _work(self) -> None:
        what = self._streams, self._router, self._control, self._log, self._batches, self._streams.cancel
        self._streams.connect(self._router.send_value, StreamLink(*what).wait)
        self._progress.connect(self._router.send_progress)
        waiter = self._waiter()
        while True:
            pause = PAUSE_MS if self._log.pending else self._router.interval_ms
            ready = waiter.wait(0 if self._batches else pause)
            # before a batch, which may be from a router that is gone
            if ready & CONTROL:
                order = self._control.next_order()
                if isinstance(order, StopProcess):
                    break
                if isinstance(order, RejoinRouter):
                    self._batches.clear()
                    self._router.rejoin()
                    waiter = self._on_new_connection()
            elif ready & BATCH or self._batches:
                self._run()
            else:
                self._log.flush()
                if self._router.beat():
                    waiter = self._on_new_connection()

    def _on_new_connection(self) -> Waiter:
        """Take no report for one of the new router's jobs that is of an earlier one; return a new waiter."""
        self._progress.rejoined()
        return self._waiter()

    def _waiter(self) -> Waiter:
        return Waiter(self._control.fileno(), self._router.port)

    def _run(self) -> None:
        batch = self._batches.popleft() if self._batches else self._router.receive()
        if batch is None:
            return
        answer = self._runner.answer(batch)
        self._router.send(answer)
        self._note(batch, answer)

    def _note(self, batch: bytes, answer: bytes) -> None:
        if self._commands is not None:
            self._commands.flush()
        if self._log.enabled and answer != NO_ANSWER:
            self._log.note(_received_lines, batch, answer)


def _async_work(
    registry: Registry,
    lane: str,
    most: int,
    control: ControlChannel,
    log: LogBuffer,
    page: ProgressPage,
    streams: TaskStreams,
    progress: TaskProgress,
) -> AsyncWork | None:
    """Return how the worker of a lane works, of which each runs up to `most` tasks at once; None for the usual way.

    That is where no task of the lane is an `async def`; asyncio is not even imported then.
    """
    tasks = [task for task in registry.tasks.values() if task.lane == lane]
    if most == 1 and not any(task.is_async for task in tasks):
        return None
    from taskengine.worker.async_work import AsyncWork
    from taskengine.worker.concurrent_work import ConcurrentWork
    from taskengine.worker.event_loop import EventLoop

    loop = EventLoop(lambda line: log.warn(f"[WORKER-{os.getpid()}(TASK)] {line}"), progress)
    if most == 1:
        return AsyncWork(loop, control, log, page, streams)
    for task in tasks:
        if not task.is_async:
            said = f"{task.name} is no `async def`: while it runs, all other tasks of its worker wait"
            log.warn(f"[WORKER-{os.getpid()}(TASK)] {said}")
    return ConcurrentWork(loop, control, log, page, streams, most)


def load_modules(
    plan: Plan,
    place: int,
    modules: list[Module],
    control: ControlChannel,
    machine: Machine | None = None,
    lane: str | None = None,
) -> tuple[Registry, list[str]]:
    """Import the modules of the worker at a place; return the registry, and the modules that could not be imported.

    Each is reported to the supervisor before its import, which may end the process, and again if the import fails.
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


def _take_pins(machine: Machine | None, lane: str, log: LogBuffer) -> Callable[[], None]:
    """Get the pins of the lane, if it has any; return a function that releases them. Raises NoPins."""
    if machine is None or lane not in machine.lanes:
        return lambda: None
    try:
        owner = machine.own(lane, log.warn)
    except (RuntimeError, SettingsError) as error:
        raise NoPins(f"lane {lane} cannot get its pins: {error}") from error
    orphan.first(owner.rest_at_once)
    return owner.close


def _received_lines(batch: bytes, answer: bytes) -> Iterator[str]:
    """Yield a line for each chunk that was run. Chunks that it handed back are logged by another worker."""
    ran: Counter[int] = Counter()
    for job, first, stop, *_ in _fastpath.read_answer(answer):
        ran[job] += stop - first
    for job, _, head, parts in _fastpath.read_batch(batch):
        serial = decode_head(head)[0]
        for part, tasks in parts:
            if ran[job] > 0:
                yield f"[WORKER-{os.getpid()}(TASK)] Received task: Package {serial}, Chunk {part}"
            ran[job] -= tasks


def run(settings: Settings, topology: Topology, place: int, lane: str, control: ControlChannel, log: LogBuffer) -> None:
    """Run a task worker. Reports Online to the supervisor, or StartFailed with the reason."""
    limit_memory(worker_memory(settings))
    _fastpath.limit_depth(settings.value_depth)
    try:
        worker = TaskWorker(settings, topology, place, lane, control, log)
    except NoPins as error:
        control.send(StartFailed(str(error)))
        return
    control.send(Online())
    worker.serve()
