"""The router process: sockets on both sides of the broker, and nothing that decides."""

from __future__ import annotations

import contextlib
import math
import os
import select
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import TypeVar

import msgspec
import zmq

from taskengine import _fastpath, gate, packed, seedwire
from taskengine._socket import Port, Waiter
from taskengine.broker import Broker
from taskengine.crew import Crew
from taskengine.errors import Overloaded, ProtocolError, TaskEngineError, TaskFailed, TaskTimeout
from taskengine.gate import HEARTBEAT, HELLO, Backplane, Gate
from taskengine.journal import PAUSE_MS, Journal
from taskengine.liveness import Census
from taskengine.memory import give_back_memory
from taskengine.messages import NO_SERIAL, Info, Kind, Request, TaskInfo, decode_cancel, decode_request
from taskengine.outlet import Outlet
from taskengine.package import Package
from taskengine.procfs import is_stopped
from taskengine.quota import Limits
from taskengine.salvage import Answered
from taskengine.settings import Settings
from taskengine.topics import data_lane
from taskengine.wire import MAGIC, MAX_MESSAGE, NO_ANSWER, SLATE_KEPT, TICK_MS, TURN_MESSAGES, UNREAD_MESSAGES, VERSION

M = TypeVar("M")
LINGER_MS = 1000
CONTROL, FRONTEND, BACKEND, QUESTION = 1, 2, 4, 8
"""What is ready, by its place among the sources of the waiter."""


class Router:
    """Frontend and backend at these addresses, and the broker between them.

    `control` leads to the supervisor: it says who died and when to stop.
    """

    def __init__(
        self,
        settings: Settings,
        frontends: list[str],
        backends: list[str],
        backplane: Backplane,
        tasks: list[TaskInfo],
        control: Connection,
        journal: Journal,
    ) -> None:
        lanes = settings.lanes_with(task.lane for task in tasks)
        lanes |= {data_lane(number): 1 for number in range(settings.data_workers)}
        self._settings = settings
        # milliseconds since the machine's start: no router before this one had them
        epoch = int(time.monotonic() * 1000) & 0x7FFFFFFF
        limits = Limits(settings.client_tasks, settings.client_bytes, settings.queue_tasks, settings.queue_bytes)
        self._broker = Broker(settings.chunking_size if settings.chunking else None, lanes, (), epoch, limits)
        self._learn(tasks)
        self._retiring: set[str] = set()
        self._reloads_asked: list[tuple[tuple[bytes, ...], int]] = []
        self._reloads_begun: list[tuple[tuple[bytes, ...], int]] = []
        self._crew = Crew(backplane.slates)
        self._overdue: set[str] = set()
        self._interval = settings.heartbeat_interval
        self._interval_ms = math.ceil(self._interval * 1000)
        self._census = Census(self._interval, settings.heartbeat_limit, time.monotonic())
        self._next_look = 0.0
        self._has_answered = False
        self._now = time.monotonic()
        """When something was received last."""
        self._restarts: dict[str, int] = {}
        self._control = control
        self._journal = journal
        self._context = zmq.Context()
        self._backplane = backplane
        self._gate = Gate(self._context, backplane.security, journal.say) if backplane.security else None
        self._sockets: list[zmq.Socket[bytes]] = []
        # what it does not take of a client waits at the client, not in our memory
        self._frontend = self._bind(gate.FRONTEND, frontends, UNREAD_MESSAGES, TURN_MESSAGES)
        self._outlet = Outlet(self._frontend)
        # at its high-water mark a ROUTER drops, or refuses; what workers get is bounded by their credit
        self._backend = self._bind(gate.BACKEND, backends, 0, 0)
        self._stop_at = float("inf")

    def _learn(self, tasks: list[TaskInfo]) -> None:
        """These are the tasks from here on."""
        self._tasks = tasks
        self._lane_of = {task.name: task.lane for task in tasks}
        self._timeouts = {task.name: task.timeout for task in tasks if task.timeout}
        self._broker.learn({task.name for task in tasks if task.idempotent})

    def _bind(self, domain: str, addresses: list[str], unsent: int, untaken: int) -> Port:
        socket = self._context.socket(zmq.ROUTER)
        self._sockets.append(socket)
        socket.sndhwm = unsent
        socket.rcvhwm = untaken
        socket.router_mandatory = 1
        socket.linger = LINGER_MS
        socket.maxmsgsize = MAX_MESSAGE
        if self._backplane.security:
            self._backplane.security.serve(socket, domain)
        for address in addresses:
            socket.ipv6 = "[" in address
            socket.bind(address)
        return Port(socket)

    def serve(self) -> None:
        """Route until the supervisor says stop, or is gone."""
        questions = [self._gate.port] if self._gate else []
        waiter = Waiter(self._control.fileno(), self._frontend, self._backend, *questions)
        while not self._stopped():
            ready = waiter.wait(PAUSE_MS if self._journal.pending else self._wait_ms())
            self._now = time.monotonic()
            self._broker.counters.tick(self._now)
            if not ready:
                self._journal.flush()
            if ready & CONTROL:
                self._obey()
            if ready & QUESTION and self._gate:
                self._gate.handle()
            if ready & BACKEND:
                for frames in _received(self._backend.receive):
                    self._from_worker(frames)
            if ready & FRONTEND:
                for request in _received(partial(self._frontend.receive_request, MAGIC)):
                    self._from_client(*request)
            if self._broker.timed:
                self._deliver(self._broker.expire(self._now))
            if self._timeouts:
                self._stop_the_overdue()
            if self._next_look <= self._now:
                self._look_around(self._now)
            self._deliver(self._broker.revoke())
            self._dispatch()
            if self._retiring:
                self._let_go()
        self._deliver(self._broker.abandon(Overloaded("the engine stopped before the task ended", retry_after=None)))
        self._journal.flush()
        for socket in self._sockets:
            socket.close()
        if self._gate:
            self._gate.stop()
        self._context.term()

    def _wait_ms(self) -> int:
        """Until something is to happen by itself."""
        limited = self._timeouts and not self._broker.idle()
        timed = self._broker.timed or self._broker.stopping or limited
        return min(TICK_MS, self._interval_ms) if timed else self._interval_ms

    def _stopped(self) -> bool:
        return self._broker.stopping and (self._broker.idle() or time.monotonic() >= self._stop_at)

    def _obey(self) -> None:
        try:
            order, argument = msgspec.msgpack.decode(self._control.recv_bytes())
        except EOFError:
            order, argument = "stop", 0.0
        if order == "lost":
            self._bury(argument)
            if self._broker.stopping:
                self._deliver(self._broker.forsake())
        elif order == "retire":
            self._retiring.add(argument)
            self._broker.retire(argument)
        elif order == "tasks":
            self._learn(msgspec.convert(argument, list[TaskInfo]))
        elif order == "reloading":
            self._reloads_begun, self._reloads_asked = self._reloads_asked, []
        elif order == "reloaded":
            self._end_reload(argument)
        elif order == "stop":
            self._broker.stopping = True
            self._stop_at = time.monotonic() + argument
            self._deliver(self._broker.forsake())
        elif order == "restarts":
            self._restarts = argument

    def _from_worker(self, frames: list[bytes]) -> None:
        name = self._crew.name_of(frames[0])
        try:
            if len(frames) == 4 and frames[1] == HELLO:
                self._enlist(frames[0], frames[2], frames[3])
                return
            if name is None:
                if frames[1:] != [HEARTBEAT]:
                    raise ProtocolError("it has not said who it is, or is dead")
                return
            self._census.heard(name, self._now)
            if frames[1] == HEARTBEAT:
                with contextlib.suppress(zmq.ZMQError):  # it is gone
                    self._backend.send([frames[0], HEARTBEAT])
                return
            if len(frames) != 2:
                raise ProtocolError(f"an answer is 1 frame, not {len(frames) - 1}")
            if frames[1] == NO_ANSWER:
                error = TaskFailed("the results of the tasks that ran together do not fit into one message")
                self._deliver(self._broker.give_up(name, error))
                return
            held = self._broker.held(name)
            if not held:
                raise ProtocolError("it answers what nobody asked")
            if len(frames[1]) > SLATE_KEPT:
                self._crew.release(name, held[0])
            answers = _fastpath.read_answer(frames[1])
            if self._journal.enabled:
                self._note_answers(name, answers)
            self._deliver(self._broker.finish(name, answers))
        except ProtocolError as malformed:
            self._broker.counters.late += 1
            self._journal.say(
                f"[ROUTER-{os.getpid()}(BACKEND)] Dropped a message of {name or 'a stranger'}: {malformed}"
            )
            if name is not None:
                self._expel(name)

    def _enlist(self, identity: bytes, token: bytes, said: bytes) -> None:
        """A worker says hello. Raises ProtocolError."""
        hello = self._backplane.read_hello(token, said)
        if self._crew.name_of_place(hello.place) == hello.name:
            self._bury(hello.name)  # it has dropped what it held and not begun
        # its predecessor's end was told before it was started
        while not self._crew.is_free(hello.place) and self._control.poll():
            self._obey()
        self._broker.join(hello.name, hello.lane)
        self._crew.enlist(hello.name, identity, hello.place, hello.pid)
        self._census.heard(hello.name, self._now)
        if hello.name in self._retiring:
            self._broker.retire(hello.name)

    def _expel(self, name: str) -> None:
        """Have a worker killed; once it is dead, what it held is seen to."""
        self._broker.condemn(name)
        self._census.leave(name)
        self._tell("kill", name)

    def _bury(self, name: str) -> None:
        """A worker is dead: answer, keep or give to others what it held."""
        self._census.leave(name)
        member = self._crew.dismiss(name)
        error = self._timed_out if name in self._overdue else None
        self._overdue.discard(name)
        self._retiring.discard(name)
        if member is not None:
            accounts = [member.account(number) for number in self._broker.held(name)]
            self._deliver(self._broker.leave(name, accounts, error))

    def _timed_out(self, task: str) -> TaskTimeout:
        seconds = self._timeouts.get(task)
        limit = f" of {seconds:g} s" if seconds else ""
        return TaskTimeout(
            f"{task} took longer than its timeout{limit}, and was ended with its worker", seconds=seconds
        )

    def _stop_the_overdue(self) -> None:
        """Have workers killed whose task takes longer than it may."""
        if not self._timeouts or self._broker.idle():
            return
        for name in self._crew.overdue(time.monotonic_ns()):
            if name not in self._overdue:
                self._overdue.add(name)
                self._expel(name)

    def _let_go(self) -> None:
        """Tell the supervisor who is to be renewed and has nothing to do any more."""
        for name in [name for name in self._retiring if self._broker.is_free(name)]:
            self._retiring.discard(name)
            self._tell("retired", name)

    def _end_reload(self, problem: str) -> None:
        """Tell those who asked for it how it went."""
        for route, serial in self._reloads_begun:
            error = TaskFailed(problem, type="TaskModuleError")
            self._outlet.send(route, packed.refusal(serial, error) if problem else packed.value_reply(serial, None))
        self._reloads_begun = []

    def _tell(self, report: str, argument: str | bool = "") -> None:
        self._control.send_bytes(msgspec.msgpack.encode((report, argument)))

    def _look_around(self, now: float) -> None:
        """Tell the supervisor that we live, and have workers killed that have stood still for too long."""
        self._next_look = now + self._interval
        # where it does not read, it is stopped itself, and we go on
        if select.select([], [self._control], [], 0)[1]:
            self._tell("alive", self._has_answered)
        for name in self._census.silent(now):
            if self._crew.has_progressed(name):
                self._census.heard(name, now)
                continue
            at_task = self._crew.is_at_task(name)
            if at_task and not self._census.is_frozen(name, now, stopped=is_stopped(self._crew.pid_of(name))):
                continue
            what = "stopped in a task" if at_task else "silent"
            limit = self._settings.heartbeat_limit
            self._journal.say(f"[ROUTER-{os.getpid()}(BACKEND)] {name} has been {what} for more than {limit:g} s")
            self._expel(name)

    def _from_client(self, frames: list[bytes], index: bytes, body: bytes) -> None:
        envelope = 2 if len(frames) > 1 and not frames[1] else 1
        route, frames = tuple(frames[:envelope]), frames[envelope:]
        if not frames or not frames[0].startswith(MAGIC):
            self._accept_seed(route, frames[0] if frames else b"", index, body)
            return
        try:
            request = decode_request(frames[0])
        except ProtocolError as error:
            self._outlet.send(route, packed.refusal(NO_SERIAL, error))
            return
        try:
            self._accept_packed(route, request, frames)
        except TaskEngineError as error:
            self._outlet.send(route, packed.refusal(request.serial, error))

    def _accept_seed(self, route: tuple[bytes, ...], meta: bytes, index: bytes, body: bytes) -> None:
        try:
            if not meta:
                raise ProtocolError("a message begins with a META frame")
            package = seedwire.read_package(route, meta, index, body, self._lane_of, self._settings.data_workers)
        except TaskEngineError as error:
            self._outlet.send(route, seedwire.malformed(meta, error))
            return
        try:
            self._accept(package)
        except TaskEngineError as error:
            self._outlet.send(route, package.refusal(error))

    def _accept_packed(self, route: tuple[bytes, ...], request: Request, frames: list[bytes]) -> None:
        if request.kind in (Kind.PACKAGE, Kind.PUBLISH, Kind.LATEST):
            now = time.monotonic()
            self._accept(packed.read_package(route, request, frames, self._lane_of, self._settings.data_workers, now))
        elif request.kind == Kind.INFO:
            self._reply(route, request, self._info())
        elif request.kind == Kind.TASKS:
            self._reply(route, request, self._tasks)
        elif request.kind == Kind.STATS:
            self._reply(route, request, self._broker.stats(self._restarts))
        elif request.kind == Kind.PROGRESS:
            self._reply(route, request, self._progress(route))
        elif request.kind == Kind.CANCEL:
            wanted = decode_cancel(frames)
            serial = None if wanted.serial == NO_SERIAL else str(wanted.serial)
            self._broker.cancel(route[0], serial, wanted.positions)
            self._reply(route, request, None)
        elif request.kind == Kind.RELOAD:
            self._reloads_asked.append((route, request.serial))
            self._tell("reload")
        else:
            raise ProtocolError(f"kind {request.kind} is unknown")

    def _reply(self, route: tuple[bytes, ...], request: Request, value: object) -> None:
        """Answer with a value. Raises Overloaded where the client leaves too much unread."""
        head, body = packed.value_reply(request.serial, value)
        if self._outlet.is_full(route[0], len(body)):
            raise Overloaded("the replies before this one were not read", retry_after=None)
        self._outlet.send(route, [head, body])

    def _accept(self, package: Package) -> None:
        try:
            is_whole = self._broker.accept(package)
        except Overloaded:
            self._broker.counters.refused += package.count
            raise
        if is_whole:
            self._deliver([package])
        elif self._journal.enabled:
            size = self._settings.chunking_size if self._settings.chunking else package.count
            self._journal.note(_chunking_lines, package, size)

    def _info(self) -> Info:
        settings = self._settings
        return Info(
            version=VERSION,
            response_time=settings.response_time,
            chunking_size=settings.chunking_size,
            task_workers=settings.task_workers,
            data_addresses=settings.data_addresses(),
            pid=os.getpid(),
        )

    def _progress(self, route: tuple[bytes, ...]) -> list[tuple[str, int, int]]:
        """Serial, tasks done and tasks in all of each package that the client has in flight."""
        mine = (package for package in self._broker.packages.values() if package.route == route)
        return [(package.serial, package.count - package.assembly.missing, package.count) for package in mine]

    def _dispatch(self) -> None:
        for worker, number, slices, slice_ns in self._broker.dispatch():
            message = _fastpath.pack_batch(number, slice_ns, [slice.section() for slice in slices])
            try:
                self._backend.send([self._crew.identity_of(worker), message])
            except zmq.ZMQError:  # its connection is gone before its process
                self._expel(worker)
        for worker, number in self._broker.recalls():
            self._crew.recall(worker, number)

    def _deliver(self, packages: Iterable[Package]) -> None:
        for package in packages:
            self._has_answered = True
            if self._outlet.is_full(package.client, package.assembly.held):
                # the package is answered all the same, in a few bytes
                error = Overloaded("the replies before this one were not read; the tasks have run", retry_after=None)
                self._outlet.send(package.route, package.refusal(error))
            else:
                package.forget_tasks()
                self._outlet.send(package.route, package.answer())
            package.forget()
            if self._journal.enabled:
                self._journal.note(_shipped_lines, package.serial)

    def _note_answers(self, worker: str, entries: list[Answered]) -> None:
        for job, first, stop, *_ in entries:
            package = self._broker.packages.get(job)
            if package is not None:
                parts = [part for part, _, _ in package.chunks(first, stop)]
                package.parts_told += len(parts)
                self._journal.note(_forwarding_lines, package, parts, worker, package.parts - package.parts_told)


def _received(receive: Callable[[], M | None]) -> Iterator[M]:
    """What is queued, but no more than a turn's worth, so that neither side starves the other."""
    for _ in range(TURN_MESSAGES):
        message = receive()
        if message is None:
            return
        yield message


def _chunking_lines(package: Package, size: int) -> Iterator[str]:
    yield f"[ROUTER-{os.getpid()}(FRONTEND)] Chunking: {package.count}/{size}: {package.describe()}"


def _forwarding_lines(package: Package, parts: list[int], worker: str, left: int) -> Iterator[str]:
    for before, part in zip(range(len(parts) - 1, -1, -1), parts, strict=True):
        yield f"[ROUTER-{os.getpid()}(BACKEND)] Forwarding: {package.describe_part(part, worker)}"
        yield f"[ROUTER-{os.getpid()}(BACKEND)] Forwarding: Assembling: {package.serial}, Part: {left + before:.1f}"


def _shipped_lines(serial: str) -> Iterator[str]:
    yield f"[ROUTER-{os.getpid()}(BACKEND)] Forwarding: Shipped: {serial}"


def run(
    settings: Settings,
    frontends: list[str],
    backends: list[str],
    backplane: Backplane,
    tasks: list[TaskInfo],
    control: Connection,
    journal: Journal,
) -> None:
    """The router's process. Tells the supervisor `online`, or `failed` with the reason."""
    give_back_memory()
    try:
        router = Router(settings, frontends, backends, backplane, tasks, control, journal)
    except zmq.ZMQError as error:
        control.send_bytes(msgspec.msgpack.encode(("failed", f"the router cannot listen: {error}")))
        return
    journal.say(f"Starting [ROUTER] on socket: {settings.host}:{settings.router_frontend}")
    journal.say(f"[ROUTER-{settings.router_frontend}(FRONTEND)] Listener online")
    journal.say(f"[ROUTER-{settings.router_backend}(BACKEND)] Listener online")
    journal.say("[ROUTER-MASTER] Routing started")
    control.send_bytes(msgspec.msgpack.encode(("online", "")))
    router.serve()
