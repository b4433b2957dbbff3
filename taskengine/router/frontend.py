"""The router's side towards clients: reads their requests, checks their rights, and replies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping

from taskengine._socket import Port
from taskengine.broker import binary, legacy_json
from taskengine.broker.broker import Broker
from taskengine.broker.origins import Origins, is_near
from taskengine.broker.package import DataRequest, Package, Sender, Urgency
from taskengine.broker.partials import PartialResults
from taskengine.broker.streams import StreamResults
from taskengine.config.machine import Machine
from taskengine.config.policy import ANONYMOUS, Entry, Policy
from taskengine.config.settings import Settings
from taskengine.errors import BadArguments, NotAllowed, Overloaded, ProtocolError, TaskEngineError, shortened
from taskengine.protocol.layouts import ENGINE_TOPICS, MAGIC, OWNED_TOPICS, SCHEDULE_TOPICS
from taskengine.protocol.limits import MAX_NAME_LENGTH
from taskengine.protocol.messages import (
    Origin,
    Priority,
    Request,
    RequestKind,
    Stamp,
    TaskInfo,
    decode_credit,
    decode_request,
    decode_stop,
    serial_of,
)
from taskengine.protocol.release import foreign_request
from taskengine.router.connection_monitor import ConnectionMonitor
from taskengine.router.connection_table import is_own_id
from taskengine.router.emergency import EmergencyStops, Route
from taskengine.router.package_lines import PackageLines
from taskengine.router.partial_replies import PartialReplies
from taskengine.router.permissions import ClientTable, KnownClient
from taskengine.router.progress_relay import ProgressRelay
from taskengine.router.questions import LATER, Asked, Questions
from taskengine.router.replies import ReplySender
from taskengine.router.stream_relay import StreamRelay
from taskengine.router.tuning import RUN_S
from taskengine.router.work_budget import WorkBudget
from taskengine.runtime.clocks import MachineClock
from taskengine.runtime.control import Report
from taskengine.runtime.intervals import KEYS_LOOK_MS
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.security.audit import Audit
from taskengine.security.authenticator import KeyAuthenticator
from taskengine.security.keys import fingerprint

NO_MEMORY = "the engine has no memory for this (ROUTER_MEMORY)"
TASKS_TOLD = 16
"""Names of refused tasks in one line of the audit log."""
EXEMPT_TASKS = 16
"""The most tasks of a package of urgent ones that no quota and no rate refuses,"""
EXEMPT_BYTES = 2**14
"""and the most bytes of them."""


class Frontend:
    """Gives `broker` the requests that clients send to `port`, a ROUTER; `authenticator` knows their keys, if any.

    `tell` tells the supervisor, and `machine` is stopped where a client asks for that. `has_answered` says whether a
    package has been answered. `connections` is told of each client that is heard.
    """

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        port: Port,
        authenticator: KeyAuthenticator | None,
        audit: Audit,
        log: LogBuffer,
        tell: Callable[[Report], None],
        machine: Machine | None = None,
        connections: ConnectionMonitor | None = None,
    ) -> None:
        self.clock = MachineClock()
        self.origins = Origins(os.urandom(8))
        self._connections = connections
        self._machine = machine
        self._pinned = machine.lanes if machine is not None else ()
        self.stops = EmergencyStops(machine, self.origins.next, audit.note)
        self._is_near = settings.on_loopback
        # an anonymous client has no name of its own
        self._names_clients = authenticator is not None or settings.policy is not None
        self._settings = settings
        self._broker = broker
        self._port = port
        self._replies = ReplySender(port, connections)
        self.partials = PartialReplies(broker, self._replies, connections, self._is_owed, self._stamp)
        self.streams = StreamRelay(broker, self._replies, self._is_owed, self._stamp)
        self.progress = ProgressRelay(broker, self._replies, connections, self._is_owed, self._stamp)
        self._authenticator = authenticator
        self.lines = PackageLines(log, settings.chunking_size if settings.chunking else None)
        self._audit = audit
        self._clients = ClientTable(None if settings.policy is None else Policy(settings.policy))
        self.questions = Questions(settings, broker, self.stops.names, audit, tell, lambda: self._replies.unread)
        self.questions.on(RequestKind.CREDIT, self._credit)
        self._takers: dict[RequestKind, Callable[[Route, Request, list[bytes], KnownClient, float], None]] = {
            RequestKind.PACKAGE: self._take_package,
            RequestKind.PUBLISH: self._take_package,
            RequestKind.LATEST: self._take_package,
            RequestKind.STOP: self._take_stop,
        }
        """The methods that take requests, by kind; all other kinds are questions."""
        self._next_look = 0.0
        self._work = WorkBudget()
        self._charged: str | bytes | None = None
        """The key or connection that the last message is charged to, None for a stop,"""
        self._later = 0.0
        """the time, in s, that it is going to take,"""
        self._sender: KnownClient | None = None
        """and the client that sent it, where that is known."""
        self._periodic: frozenset[str] = frozenset()
        self.has_answered = False

    def learn(self, tasks: list[TaskInfo]) -> None:
        """Replace the list of tasks."""
        self._tasks = tasks
        self._periodic = frozenset(task.name for task in tasks if task.schedule is not None)
        self.questions.learn(tasks)
        self.reroute()
        self._urgent = self.stops.names | {task.name for task in tasks if task.urgent}

    def reroute(self) -> None:
        """Send tasks by the lanes, or the parts of lanes, whose workers have them."""
        availability = self._broker.availability
        availability.has_changed = False
        self._clients.learn({task.name: availability.route(task) for task in self._tasks})

    @property
    def held(self) -> int:
        """The bytes that are held for clients: packages in flight, their results so far, and replies unread."""
        return self._broker.bytes_held + self._replies.unread

    def obey(self, policy: Mapping[str, Entry] | None) -> None:
        """Replace the policy."""
        self._clients.obey(None if policy is None else Policy(policy))

    def take(self, frames: list[bytes], index: bytes, body: bytes, now: float) -> None:
        """Take a message, as `Port.receive_request` gave it at `now`, monotonic s; `charge` tells what that took."""
        envelope = 2 if len(frames) > 1 and not frames[1] else 1
        route, frames = tuple(frames[:envelope]), frames[envelope:]
        self._charged, self._sender, self._later = self._port.user or route[0], None, 0.0
        is_itself = self._connections is None or self._connections.greet(route[0], self._port.user)
        if not frames or not frames[0].startswith(MAGIC):
            self._take_legacy(route, frames[0] if frames else b"", index, body, now, is_itself=is_itself)
            return
        try:
            if not is_itself:
                raise self._foreign_id()
            self._take_packed(route, decode_request(frames[0]), frames, now)
        except TaskEngineError as error:
            self._refuse(route, serial_of(frames[0]), error, self._port.user)
        except MemoryError:
            self._refuse(route, serial_of(frames[0]), Overloaded(NO_MEMORY, retry_after=None), self._port.user)

    def charge(self, seconds: float, now: float) -> None:
        """Charge the sender of the last message for the time that it took, in s, and is going to take."""
        if self._charged is not None:
            seconds += self._later
            self._work.charge(self._charged, seconds, now)
            if self._sender is not None:
                self._sender.spend(seconds)

    def _check_work(self, client: bytes, now: float, *, is_needed: bool = False) -> None:
        """Refuse the last message where its client leaves the router no time for others. Raises Overloaded.

        A message that `is_needed` is refused only where its client does not heed refusals.
        """
        excess = self._work.excess(self._port.user or client, now)
        if excess is None or (is_needed and not excess.is_stubborn):
            return
        if excess.is_news:
            name = self._sender.name if self._sender is not None and self._names_clients else ""
            about = {"client": name} if name else {"address": self._port.peer}
            event = "cut off" if excess.is_stubborn else "refused"
            self._audit.note(event, **about, reason="it keeps the router busy while others wait")
        if excess.is_stubborn and self._connections is not None:
            self._connections.cut_off(client)
        text = "this client keeps the router busy with what it sends, while others wait"
        raise Overloaded(text, retry_after=excess.retry_after)

    def deliver(self, packages: Iterable[Package]) -> None:
        """Reply with packages that are whole; clients that are not let in any more get none."""
        for package in packages:
            if package.taker is not None:
                package.taker(package)
                package.forget()
                self.lines.ended(package, is_shipped=False)
                continue
            self.has_answered = True
            sender = package.sender
            is_owed = self._is_owed(sender)
            if package.is_watched:
                self.progress.end(package)
            if is_owed:
                self._answer(package, sender)
            package.forget()
            self.lines.ended(package, is_shipped=is_owed)

    def _answer(self, package: Package, sender: Sender) -> None:
        size = package.results.held
        if isinstance(package.results, PartialResults):
            package.forget_tasks()
            self.partials.end(package)
        elif isinstance(package.results, StreamResults):
            self.streams.end(package)
        elif self._replies.is_full(sender.client, sender.key, size):
            # the package is answered all the same, in a few bytes
            error = Overloaded("the replies before this one were not read; the tasks have run", retry_after=None)
            self._replies.send(sender.route, package.refusal(error, self._stamp()), sender.key)
        else:
            package.forget_tasks()
            self._replies.send(sender.route, package.answer(self._stamp()), sender.key, size)

    def _is_owed(self, sender: Sender) -> bool:
        """Return whether the client with the sender's key is let in, and still has the connection by which it sent."""
        if not sender.key:
            return True
        if self._authenticator is not None and self._authenticator.name_of(sender.key) is None:
            return False
        return self._connections is None or self._connections.is_here(sender.client, sender.key)

    def look_at_keys(self, now: float) -> None:
        """Read the allow-list now and then, and cancel what clients have sent that are not on it any more."""
        if self._authenticator is None or now < self._next_look:
            return
        self._next_look = now + KEYS_LOOK_MS / 1000
        self._audit.summarise(now)
        change = self._authenticator.refresh()
        for event, keys in (("key allowed", change.added), ("key revoked", change.gone)):
            for key, name in keys.items():
                self._audit.note(event, client=name, fingerprint=fingerprint(key))
        if change.gone:
            self._broker.withdrawals.cancel_where(lambda package: package.sender.key in change.gone)

    def end_reload(self, problem: str) -> None:
        """Answer those who have asked for the reload that has ended, with a `problem` or ""."""
        for answer in self.questions.end_reload(problem):
            self._end(*answer)

    def answer_stops(self) -> None:
        """Answer the stops after which the machine is safe now, or is not for too long."""
        for answer in self.stops.answers(time.monotonic_ns()):
            self._end(*answer)

    def _end(self, route: Route, serial: int, error: TaskEngineError | None) -> None:
        """Answer a request with nil, or with the error."""
        if error is not None:
            self._refuse(route, serial, error)
        else:
            self._replies.send(route, binary.value_reply(serial, None, self._stamp()))

    def _refuse(self, route: Route, serial: int, error: TaskEngineError, key: str = "") -> None:
        self._replies.send(route, binary.refusal(serial, error, self._stamp()), key)

    def _stamp(self) -> Stamp:
        stop = self._machine.stop_number() if self._machine is not None else 0
        return Stamp(self.clock.told(), self.clock.boot, stop)

    def _origin(self, route: Route, client: KnownClient, request: Request | None) -> Origin:
        """Return where the last message came from."""
        is_local = self._is_near or is_near(self._port.peer)
        name = client.name if self._names_clients else ""
        return self.origins.of(name, route[0], self.clock.now(), request, is_local=is_local)

    def _client(self, route: Route) -> KnownClient:
        """Return the client that sent the last message, and is charged for it. Raises NotAllowed."""
        self._sender = self._found(route)
        return self._sender

    def _found(self, route: Route) -> KnownClient:
        """Return the client that sent the last message. Raises NotAllowed where its key was revoked."""
        if self._authenticator is None:
            return self._clients.of(ANONYMOUS)
        # a client that chooses its routing id may choose that of another, once that has left, and get its replies
        if not is_own_id(route[0]):
            raise NotAllowed("a connection that is encrypted may not set its routing id (ZMQ_ROUTING_ID)")
        if self._authenticator.is_watcher(self._port.user):
            return self._clients.own
        name = self._authenticator.name_of(self._port.user)
        if name is None:
            self._audit.note("refused", fingerprint=fingerprint(self._port.user), reason="its key was revoked")
            raise NotAllowed("the engine does not let this key in any more")
        return self._clients.of(name)

    def _foreign_id(self) -> NotAllowed:
        """Note, and return an error, that the last message has the routing id of another connection."""
        self._audit.note("refused", fingerprint=fingerprint(self._port.user), reason="another's routing id")
        return NotAllowed("another connection has this routing id")

    def _take_legacy(
        self, route: Route, meta: bytes, index: bytes, body: bytes, now: float, *, is_itself: bool
    ) -> None:
        try:
            if not is_itself:
                raise self._foreign_id()
            if not meta:
                raise ProtocolError("a message begins with a META frame")
            client = self._client(route)
            origin = self._origin(route, client, None)
            package = legacy_json.read_package(
                route, meta, index, body, client.lanes, self._settings.data_workers, origin
            )
        except MemoryError:
            told = Overloaded(NO_MEMORY, retry_after=None)
            self._replies.send(route, legacy_json.malformed(meta, told), self._port.user)
            return
        except TaskEngineError as error:  # by a second name it would keep this frame, and so the body
            self._replies.send(route, legacy_json.malformed(meta, foreign_request(meta) or error), self._port.user)
            return
        try:
            self._accept(package, client, now)
        except TaskEngineError as error:
            self._replies.send(route, package.refusal(error), self._port.user)

    def _take_packed(self, route: Route, request: Request, frames: list[bytes], now: float) -> None:
        client = self._client(route)
        take = self._takers.get(request.kind, self._take_question)
        take(route, request, frames, client, now)

    def _take_package(
        self, route: Route, request: Request, frames: list[bytes], client: KnownClient, now: float
    ) -> None:
        if max(len(frames[0]), len(frames[-1])) > EXEMPT_BYTES and self._urgent.isdisjoint(request.names):
            self._check_work(route[0], now)  # before it is read
        origin = self._origin(route, client, request)
        lanes, data_workers = client.lanes, self._settings.data_workers
        self._accept(binary.read_package(route, request, frames, lanes, data_workers, origin), client, now)

    def _take_stop(self, route: Route, request: Request, frames: list[bytes], client: KnownClient, now: float) -> None:
        self._charged = None
        asked = decode_stop(frames)
        try:
            for answer in self.stops.stop(route, request.serial, asked, client, time.monotonic_ns()):
                self._end(*answer)
        except NotAllowed:
            self._audit.note("refused", client=client.name, call=request.kind.name)
            raise

    def _take_question(
        self, route: Route, request: Request, frames: list[bytes], client: KnownClient, now: float
    ) -> None:
        """Take what concerns the engine itself, or packages that are in flight."""
        # a client is told who we are before it sends less
        is_needed = request.kind in (RequestKind.INFO, RequestKind.CANCEL, RequestKind.CREDIT)
        self._check_work(route[0], now, is_needed=is_needed)
        if not is_needed:
            client.check_rate(now)
        try:
            client.check_call(request.kind)
        except NotAllowed:
            self._audit.note("refused", client=client.name, call=request.kind.name)
            raise
        if request.kind == RequestKind.INFO:
            self._sender = None  # no rate is charged for it
        answer = self.questions.answer((route, request, frames, client))
        if answer is not LATER:
            self._reply(route, request, answer)

    def _credit(self, asked: Asked) -> None:
        """Take credit for a stream. Raises ProtocolError."""
        route, _, frames, _ = asked
        self.streams.grant(route[0], decode_credit(frames))

    def _reply(self, route: Route, request: Request, value: object) -> None:
        """Answer a request with a value. Raises Overloaded where the client leaves too much unread."""
        head, body = binary.value_reply(request.serial, value, self._stamp())
        if self._replies.is_full(route[0], self._port.user, len(body)):
            raise Overloaded("the replies before this one were not read", retry_after=None)
        self._replies.send(route, [head, body], self._port.user, len(body))

    def _accept(self, package: Package, client: KnownClient, now: float) -> None:
        if not self._urgent.isdisjoint(package.kind):
            # stops act first, even if the package is refused for another reason
            self._act_at_once(package, client)
        try:
            if package.urgency.is_exempt:
                self._charged = None
            else:
                self._check_work(package.sender.client, now)
            if self._pinned:
                package.check_small(self._pinned, self._settings.pin_bytes)
            most = self._settings.package_tasks
            if package.count > most:
                raise ProtocolError(f"a package has at most {most} tasks (PACKAGE_TASKS), not {package.count}")
            if package.data_request is not None:
                self._check_topic(package.data_request)
            if self._authenticator is not None:
                package.sender.show_key(self._port.user)
        except Overloaded:
            self._broker.counters.refused += package.count
            raise
        except NotAllowed as error:
            self._audit.note("refused", client=client.name, reason=str(error))
            raise
        self._admit(package, client, now)
        if len(package.lanes) > 1:
            self._later = RUN_S * (len(package.lanes) - 1)

    def _admit(self, package: Package, client: KnownClient, now: float) -> None:
        """Give the broker a package, as far as the policy lets its client. Raises NotAllowed, Overloaded."""
        try:
            if client.is_limited:
                client.admit(package, now)
            if package.urgency.is_urgent:
                package.priority = Priority.URGENT
            denied = package.denied() if client.is_limited else []
            is_whole = self._broker.accept(package)
            if client.is_limited:
                client.charge(package)
        except Overloaded:
            self._broker.counters.refused += package.count
            raise
        except NotAllowed as error:
            self._audit.note("refused", client=client.name, reason=str(error))
            raise
        if denied:
            told = [shortened(name, MAX_NAME_LENGTH) for name in denied[:TASKS_TOLD]]
            self._audit.note("refused", client=client.name, tasks=told)
        if client.is_limited and (noted := client.noted(package)):
            told = [shortened(name, MAX_NAME_LENGTH) for name in noted[:TASKS_TOLD]]
            self._audit.note("called", client=client.name, tasks=told, count=package.count)
        if is_whole:
            self.deliver([package])
        else:
            self.lines.accepted(package)

    def admit_own(self, read: Callable[[Mapping[str, str]], Package], name: str | None, now: float) -> None:
        """Take a package of the engine's own, as the client `name`, or, with None, as one that may do everything.

        `read` makes it, given the lanes of the tasks for that client. Raises NotAllowed, Overloaded.
        """
        client = self._clients.own if name is None else self._clients.of(name)
        package = read(client.lanes)
        if not self._urgent.isdisjoint(package.kind):
            self._act_at_once(package, client)
        self._admit(package, client, now)

    def _act_at_once(self, package: Package, client: KnownClient) -> None:
        """Have calls act at once that stop something, and find out how urgent the package is."""
        urgent = frozenset(filter(client.may_call, self._urgent.intersection(package.kind)))
        called = package.called() if urgent else ()
        self.stops.heed(package, called, client, time.monotonic_ns())
        if called and urgent.issuperset(called):
            is_small = package.count <= EXEMPT_TASKS and package.bytes <= EXEMPT_BYTES
            package.urgency = Urgency(is_urgent=True, is_exempt=is_small)

    def _check_topic(self, request: DataRequest) -> None:
        """Refuse topics on which only the engine publishes, and one without a name. Raises NotAllowed, BadArguments."""
        if request.publishes and not request.topic:
            raise BadArguments("a topic to publish on has a name: it is text of at least one byte")
        if request.publishes and self._machine is not None and request.topic.startswith(OWNED_TOPICS):
            raise NotAllowed(f"topics that begin with {OWNED_TOPICS} are the engine's own: nobody else publishes there")
        if request.publishes and request.topic.startswith(ENGINE_TOPICS):
            raise NotAllowed(
                f"topics that begin with {ENGINE_TOPICS} are the engine's own: nobody else publishes there"
            )
        start, _, task = request.topic.partition(SCHEDULE_TOPICS)
        if request.publishes and not start and task in self._periodic:
            raise NotAllowed(f"{request.topic} is the topic of a periodic task: the engine alone publishes there")
