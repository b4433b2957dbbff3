"""The router's side towards clients: reads what they say, lets in what they may, and replies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from taskengine import packed, seedwire
from taskengine._socket import Port
from taskengine.audit import Audit
from taskengine.broker import Broker
from taskengine.errors import NotAllowed, Overloaded, ProtocolError, TaskEngineError, TaskFailed, shortened
from taskengine.gate import Gate
from taskengine.hardware import Machine
from taskengine.journal import Journal
from taskengine.keys import fingerprint
from taskengine.messages import NO_SERIAL, Info, Kind, Priority, Request, TaskInfo, decode_cancel, decode_request
from taskengine.outlet import Outlet
from taskengine.package import Package
from taskengine.policy import ANONYMOUS, Entry, Policy
from taskengine.settings import Settings
from taskengine.visitor import Visitor, Visitors
from taskengine.wire import DENIED_LANES, KEYS_LOOK_MS, MAGIC, NAME_TOLD, VERSION

OWN_IDS = b"\0"
"""How routing ids begin that the ROUTER itself has given to its peers."""
NO_MEMORY = "the engine has no memory for this (ROUTER_MEMORY)"
RELOADS_ASKED = 256
"""Requests for a reload that wait for the next one."""
TASKS_TOLD = 16
"""Names of refused tasks in one line of the audit log."""
STOPS_LOOKED_FOR = 256
"""Tasks of a package among which a stop of the machine is looked for."""
Route = tuple[bytes, ...]


class Reception:
    """Gives `broker` what clients send to `port`, a ROUTER; `gate` knows their keys, where there are any.

    `tell` tells the supervisor, and `machine` is stopped where a client asks for that. `restarts` are as the supervisor
    counts them, `has_answered` whether a package has been answered.
    """

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        port: Port,
        gate: Gate | None,
        audit: Audit,
        journal: Journal,
        tell: Callable[[str], None],
        machine: Machine | None = None,
    ) -> None:
        self._machine = machine
        self._settings = settings
        self._broker = broker
        self._port = port
        self._outlet = Outlet(port)
        self._gate = gate
        self._journal = journal
        self._tell = tell
        self._audit = audit
        self._visitors = Visitors(None if settings.policy is None else Policy(settings.policy))
        self._reloads_asked: list[tuple[Route, int]] = []
        self._reloads_begun: list[tuple[Route, int]] = []
        self._next_look = 0.0
        self.restarts: dict[str, int] = {}
        self.has_answered = False

    def learn(self, tasks: list[TaskInfo]) -> None:
        """These are the tasks from here on."""
        self._tasks = tasks
        self._visitors.learn({task.name: task.lane for task in tasks})
        self._urgent = {task.name for task in tasks if task.urgent}

    def obey(self, policy: Mapping[str, Entry] | None) -> None:
        """This is the policy from here on."""
        self._visitors.obey(None if policy is None else Policy(policy))

    def take(self, frames: list[bytes], index: bytes, body: bytes, now: float) -> None:
        """A message, as `Port.receive_request` gave it at `now`, monotonic s."""
        envelope = 2 if len(frames) > 1 and not frames[1] else 1
        route, frames = tuple(frames[:envelope]), frames[envelope:]
        if not frames or not frames[0].startswith(MAGIC):
            self._take_seed(route, frames[0] if frames else b"", index, body, now)
            return
        serial = NO_SERIAL
        try:
            request = decode_request(frames[0])
            serial = request.serial
            self._take_packed(route, request, frames, now)
        except TaskEngineError as error:
            self._outlet.send(route, packed.refusal(serial, error))
        except MemoryError:
            self._outlet.send(route, packed.refusal(serial, Overloaded(NO_MEMORY, retry_after=None)))

    def deliver(self, packages: Iterable[Package]) -> None:
        """Reply with packages that are whole; who is not let in any more gets none."""
        for package in packages:
            self.has_answered = True
            if package.key and self._gate is not None and self._gate.name_of(package.key) is None:
                package.forget()
                continue
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

    def look_at_keys(self, now: float) -> None:
        """Read the allow-list, now and then, and want nothing any more of clients that are not on it."""
        if self._gate is None or now < self._next_look:
            return
        self._next_look = now + KEYS_LOOK_MS / 1000
        self._audit.summarise(now)
        change = self._gate.refresh()
        for event, keys in (("key allowed", change.added), ("key revoked", change.gone)):
            for key, name in keys.items():
                self._audit.note(event, client=name, fingerprint=fingerprint(key))
        if change.gone:
            self._broker.cancel_all(lambda package: package.key in change.gone)

    def begin_reload(self) -> None:
        """Who has asked for it so far is told how this one goes."""
        self._reloads_begun, self._reloads_asked = self._reloads_asked, []

    def end_reload(self, problem: str) -> None:
        """Tell them."""
        for route, serial in self._reloads_begun:
            error = TaskFailed(problem, type="TaskModuleError")
            self._outlet.send(route, packed.refusal(serial, error) if problem else packed.value_reply(serial, None))
        self._reloads_begun = []

    def _visitor(self, route: Route) -> Visitor:
        """Whoever sent what was received last, by this route. Raises NotAllowed where its key was revoked."""
        if self._gate is None:
            return self._visitors.of(ANONYMOUS)
        # whoever takes a name of its own choice may take another's, once that has left, and get its replies
        if not route[0].startswith(OWN_IDS):
            raise NotAllowed("a connection that is encrypted may not set its routing id (ZMQ_ROUTING_ID)")
        if self._gate.is_watcher(self._port.user):
            return self._visitors.own
        name = self._gate.name_of(self._port.user)
        if name is None:
            self._audit.note("refused", fingerprint=fingerprint(self._port.user), reason="its key was revoked")
            raise NotAllowed("the engine does not let this key in any more")
        return self._visitors.of(name)

    def _take_seed(self, route: Route, meta: bytes, index: bytes, body: bytes, now: float) -> None:
        began, visitor = time.monotonic(), None
        try:
            if not meta:
                raise ProtocolError("a message begins with a META frame")
            visitor = self._visitor(route)
            package = seedwire.read_package(route, meta, index, body, visitor.lanes, self._settings.data_workers)
        except (TaskEngineError, MemoryError) as error:
            told = Overloaded(NO_MEMORY, retry_after=None) if isinstance(error, MemoryError) else error
            self._outlet.send(route, seedwire.malformed(meta, told))
            if visitor is not None:
                visitor.spend(time.monotonic() - began)
            return
        try:
            self._accept(package, visitor, now)
        except TaskEngineError as error:
            self._outlet.send(route, package.refusal(error))
        finally:
            visitor.spend(time.monotonic() - began)

    def _take_packed(self, route: Route, request: Request, frames: list[bytes], now: float) -> None:
        visitor = self._visitor(route)
        if request.kind in (Kind.PACKAGE, Kind.PUBLISH, Kind.LATEST):
            began = time.monotonic()  # the turn may be long, and the deadline begins here
            try:
                package = packed.read_package(route, request, frames, visitor.lanes, self._settings.data_workers, began)
                self._accept(package, visitor, now)
            finally:
                visitor.spend(time.monotonic() - began)
            return
        try:
            visitor.check_call(request.kind)
        except NotAllowed:
            self._audit.note("refused", client=visitor.name, call=request.kind.name)
            raise
        if request.kind == Kind.INFO:
            self._reply(route, request, self._info())
        elif request.kind == Kind.TASKS:
            self._reply(route, request, visitor.tasks(self._tasks))
        elif request.kind == Kind.STATS:
            self._reply(route, request, self._broker.stats(self.restarts))
        elif request.kind == Kind.PROGRESS:
            self._reply(route, request, self._progress(route))
        elif request.kind == Kind.CANCEL:
            wanted = decode_cancel(frames)
            serial = None if wanted.serial == NO_SERIAL else str(wanted.serial)
            self._broker.cancel(route[0], serial, wanted.positions)
            self._reply(route, request, None)
        elif request.kind == Kind.RELOAD:
            if len(self._reloads_asked) >= RELOADS_ASKED:
                raise Overloaded("too many have asked for a reload that has not begun", retry_after=None)
            self._audit.note("called", client=visitor.name, call="RELOAD")
            self._reloads_asked.append((route, request.serial))
            if len(self._reloads_asked) == 1:
                self._tell("reload")
        else:
            raise ProtocolError(f"kind {request.kind} is unknown")

    def _reply(self, route: Route, request: Request, value: object) -> None:
        """Answer with a value. Raises Overloaded where the client leaves too much unread."""
        head, body = packed.value_reply(request.serial, value)
        if self._outlet.is_full(route[0], len(body)):
            raise Overloaded("the replies before this one were not read", retry_after=None)
        self._outlet.send(route, [head, body])

    def _accept(self, package: Package, visitor: Visitor, now: float) -> None:
        most = self._settings.package_tasks
        if package.count > most:
            raise ProtocolError(f"a package has at most {most} tasks (PACKAGE_TASKS), not {package.count}")
        try:
            if self._machine is not None and self._machine.is_concerned(package.kind):
                self._heed(self._machine, package, visitor)
            visitor.admit(package, now)
            if package.kind and self._urgent.issuperset(package.kind):
                package.priority = Priority.URGENT
            if self._gate is not None or self._settings.policy is not None:
                package.stamp(visitor.name, self._port.user)
            denied = package.denied() if visitor.is_limited else []
            is_whole = self._broker.accept(package)
            visitor.charge(package)
        except Overloaded:
            self._broker.counters.refused += package.count
            raise
        except NotAllowed as error:
            self._audit.note("refused", client=visitor.name, reason=str(error))
            raise
        if denied:
            told = [shortened(name, NAME_TOLD) for name in denied[:TASKS_TOLD]]
            self._audit.note("refused", client=visitor.name, tasks=told)
        if noted := visitor.noted(package):
            told = [shortened(name, NAME_TOLD) for name in noted[:TASKS_TOLD]]
            self._audit.note("called", client=visitor.name, tasks=told, count=package.count)
        if is_whole:
            self.deliver([package])
        elif self._journal.enabled:
            size = self._settings.chunking_size if self._settings.chunking else package.count
            self._journal.note(_chunking_lines, package, size)

    @staticmethod
    def _heed(machine: Machine, package: Package, visitor: Visitor) -> None:
        """Stop the machine where one of the package's first tasks does that, and its client may call it.

        That comes before what else the package is refused for, and before what waits in the lanes.
        """
        asked = map(package.name_of, range(min(package.count, STOPS_LOOKED_FOR)))
        allowed = (name for name in asked if not visitor.lanes.get(name, DENIED_LANES).startswith(DENIED_LANES))
        machine.heed(allowed, time.monotonic_ns())

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

    def _progress(self, route: Route) -> list[tuple[str, int, int]]:
        """Serial, tasks done and tasks in all of each package that the client has in flight."""
        mine = (package for package in self._broker.packages.values() if package.route == route)
        return [(package.serial, package.count - package.assembly.missing, package.count) for package in mine]


def _chunking_lines(package: Package, size: int) -> Iterator[str]:
    yield f"[ROUTER-{os.getpid()}(FRONTEND)] Chunking: {package.count}/{size}: {package.describe()}"


def _shipped_lines(serial: str) -> Iterator[str]:
    yield f"[ROUTER-{os.getpid()}(BACKEND)] Forwarding: Shipped: {serial}"
