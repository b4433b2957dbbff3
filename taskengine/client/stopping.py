"""Stops the machine from a client, by every route at once, until one is confirmed.

The routes are the guardian's Unix socket, if the engine runs on this machine as this user; the engine's stop port; and
the router, over connections that only stops use. They depend on nothing that a client shares: neither its transport,
nor the leading thread, nor its callbacks. Repetitions carry the same id, so that the machine is stopped once, and not
again after somebody has armed it.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import zmq

from taskengine.client.calls import MAX_WHY, STOP_TASK, Order
from taskengine.client.connection import Connection, check_address
from taskengine.client.requests import Options, OutgoingRequest
from taskengine.client.session import STOPPABLE, Session
from taskengine.client.subscription import reachable
from taskengine.client.task_future import settle
from taskengine.client.verdict import NOT_CONFIRMED, Verdict, most_telling
from taskengine.errors import (
    EngineUnreachable,
    NotAllowed,
    ProtocolError,
    TaskEngineError,
    TaskFailed,
    TaskTimeout,
    text_of,
)
from taskengine.protocol.messages import Info, RequestKind
from taskengine.runtime.hosts import Lookup, name_in
from taskengine.runtime.rundir import stop_path
from taskengine.security.keys import Membership, check_encrypted, is_loopback, not_let_in

ID_BYTES: Final = 16
STOP_S: Final = 5.0
"""How long, in s, a stop is repeated until it is confirmed."""
TRIES: Final = 8
"""Attempts by one route that may still be answered."""
_DEFAULT_PORTS: Final = re.compile(r"(tcp://.+):9000")
_STOP_PORT: Final = 9002


def new_id() -> bytes:
    """Return an id that no other stop has."""
    return os.urandom(ID_BYTES)


def new_order(why: object = "") -> Order:
    """Make a new stop."""
    return Order(new_id(), text_of(why)[:MAX_WHY])


class Target(NamedTuple):
    """The engine at `address`, as a client with this membership reaches it.

    `info` is its last answer to a hello, if any.

    `stop_address` is the stop port's; None derives it from `info`, or from the default ports. Without a membership a
    stop leaves this machine only if `insecure`.
    """

    address: str
    membership: Membership | None
    name: str = "CLIENT"
    info: Info | None = None
    stop_address: str | None = None
    insecure: bool = False

    def check(self) -> None:
        """Raise BadArguments for an invalid address, KeysError if the engine may not be talked to unencrypted."""
        for address in filter(None, (self.address, self.stop_address)):
            check_address(address)
            check_encrypted(address, self.membership, insecure=self.insecure)

    def may_reach(self, address: str) -> bool:
        """Return whether a stop may be sent there."""
        return self.membership is not None or self.insecure or is_loopback(address)

    def stop_port(self) -> str | None:
        """Return the address of the stop port, None if the engine is known to have none."""
        if self.stop_address is not None:
            return self.stop_address
        if self.info is not None:
            return reachable([self.info.stop_address], self.address)[0] if self.info.stop_address else None
        found = _DEFAULT_PORTS.fullmatch(self.address)
        return f"{found[1]}:{_STOP_PORT}" if found else None


class StopRoute(Protocol):
    """A route by which to stop the machine: `order` as often as needed, and `look` for answers."""

    def order(self) -> None:
        """Order the stop, or repeat it."""

    def sources(self) -> Iterable[zmq.Socket[bytes] | int]:
        """Return what is readable when there is something to look at."""

    def look(self) -> Iterator[TaskEngineError | None]:
        """Return the answers that have come: None confirms."""

    def close(self) -> None:
        """End all attempts."""


class GuardianRoute:
    """The route by the guardian's Unix socket."""

    def __init__(self, address: str, order: Order) -> None:
        self._address = address
        self._message = msgspec.msgpack.encode(tuple(order))
        self._tries: deque[socket.socket] = deque()

    def order(self) -> None:
        """Order the stop if the socket has a listener."""
        path = stop_path(self._address)
        if path is None:
            return
        attempt = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        attempt.setblocking(False)
        try:
            attempt.connect(os.fspath(path))
            attempt.send(self._message)
        except OSError:
            attempt.close()
            return
        self._tries.append(attempt)
        if len(self._tries) > TRIES:
            self._tries.popleft().close()

    def sources(self) -> Iterable[int]:
        """Return the sockets of attempts that were not answered."""
        return [attempt.fileno() for attempt in self._tries]

    def look(self) -> Iterator[TaskEngineError | None]:
        """Yield the guardian's answers: None confirms."""
        for attempt in list(self._tries):
            try:
                answer = attempt.recv(2**16)
            except BlockingIOError:
                continue
            except OSError:
                answer = b""
            self._tries.remove(attempt)
            attempt.close()
            if answer:
                yield _read(answer)

    def close(self) -> None:
        """End all attempts."""
        while self._tries:
            self._tries.popleft().close()


def _read(answer: bytes) -> TaskEngineError | None:
    """Read the guardian's answer.

    The number of the stop and the lanes that are late, or 0 and the reason of a refusal.
    """
    try:
        number, texts = msgspec.msgpack.decode(answer, type=tuple[int, list[str]])
    except (msgspec.MsgspecError, ValueError) as error:
        return ProtocolError(f"malformed answer of the guardian: {error}")
    if number == 0:
        return NotAllowed("; ".join(texts))
    if texts:
        return TaskFailed(f"stopped, but not safe yet: lane {', '.join(texts)}", type=NOT_CONFIRMED, traceback="")
    return None


class _Attempt:
    """A connection that carries one stop once it is up; `is_known` says that the engine knows STOP."""

    def __init__(self, connection: Connection, target: Target, order: Order, *, is_known: bool) -> None:
        self.connection = connection
        self._target = target
        self._session = Session(target.name, target.address)
        self._order = order
        self._is_known = is_known
        self._future: Future[Any] | None = None
        self._is_package = False

    def look(self) -> Iterator[TaskEngineError | None]:
        """Send if that is possible now; yield the answers that have come."""
        if self.connection.lost():
            self.connection.close(0)
        if self.connection.refused or self.connection.is_cut:
            self.connection.refused = self.connection.is_cut = False
            self.connection.close(0)
            yield NotAllowed(not_let_in(self._target.address, self._target.membership))
        if self.connection.connected and self._future is None:
            self._send()
        while not self.connection.socket.closed and (frames := self.connection.port.receive()) is not None:
            with contextlib.suppress(ProtocolError):
                settle(self._session.receive(frames))
            if self._future is not None and self._future.done():
                yield from self._answer(self._future)

    def _answer(self, future: Future[Any]) -> Iterator[TaskEngineError | None]:
        error = future.exception(0)
        if isinstance(error, ProtocolError) and not (self._is_known or self._is_package):
            self._is_package = True  # an engine of 0.1.0
            self._send()
            return
        self.connection.close(0)
        yield error if isinstance(error, TaskEngineError) else None

    def _send(self) -> None:
        self._future = Future()
        self.connection.port.send(self._outgoing_request(self._future).frames)

    def _outgoing_request(self, future: Future[Any]) -> OutgoingRequest:
        if self._is_package:
            return self._session.package([(STOP_TASK, (), {})], [future], Options(priority="urgent"), each=True)
        return self._session.request(RequestKind.STOP, future, Options(priority="urgent"), list(self._order))


class StopPortRoute:
    """A route by ZeroMQ, to the engine's stop port or to its router; `is_known` says that it knows STOP."""

    def __init__(
        self, context: zmq.Context[Any], address: str, target: Target, order: Order, *, is_known: bool
    ) -> None:
        self._context = context
        self._address = address
        self._target = target
        self._order = order
        self._is_known = is_known
        self._tries: deque[_Attempt] = deque()

    def order(self) -> None:
        """Order the stop by a new connection: the last one may be dead."""
        with contextlib.suppress(zmq.ZMQError, OSError):  # such as no descriptors: the next attempt may succeed
            for by_ipv6 in (False, True) if name_in(self._address) else (False,):
                connection = Connection(self._context, self._address, self._target.membership, by_ipv6=by_ipv6)
                self._tries.append(_Attempt(connection, self._target, self._order, is_known=self._is_known))
        while len(self._tries) > TRIES:
            self._tries.popleft().connection.close(0)

    def sources(self) -> Iterable[zmq.Socket[bytes]]:
        """Yield the route's connections, and the sockets that tell their events."""
        for attempt in self._tries:
            yield attempt.connection.socket
            yield attempt.connection.monitor

    def look(self) -> Iterator[TaskEngineError | None]:
        """Send over each connection that is up now; yield the answers that have come."""
        for attempt in list(self._tries):
            yield from attempt.look()
            if attempt.connection.socket.closed:
                self._tries.remove(attempt)

    @property
    def is_connected(self) -> bool:
        """Return whether one of the connections is up."""
        return any(attempt.connection.connected for attempt in self._tries)

    def close(self) -> None:
        """End all attempts."""
        while self._tries:
            self._tries.popleft().connection.close(0)


class Stopping:
    """A stop that is being ordered; `run` does so, `begin` in a thread of its own, with `future` as its outcome."""

    def __init__(self, target: Target, order: Order, timeout: float = STOP_S) -> None:
        self._target = target
        self._order = order
        self._timeout = timeout
        self._enough = threading.Event()
        self._doubts: list[str] = []
        self.future: Future[None] = Future()

    def begin(self) -> None:
        """Order the stop in a thread; the end of the program waits for it."""
        self.future.set_running_or_notify_cancel()
        threading.Thread(target=self._serve, name="taskengine-stop").start()

    def cease(self) -> None:
        """End the attempts, because the stop is confirmed."""
        self._enough.set()

    def run(self) -> None:
        """Order the stop until one route confirms it. Raises the error that tells the most."""
        self._target.check()
        began = time.monotonic()
        guardian = GuardianRoute(self._target.address, self._order)
        guardian.order()  # before anything that takes time
        Lookup(self._target.address, self._doubts.append).begin()
        context = zmq.Context()
        ways: dict[str, StopRoute] = {"guardian": guardian}
        try:
            self._add_ports(context, ways)
            verdict = Verdict(ways, began, self._timeout)
            verdict.due(began)
            for way in [*ways.values()][1:]:
                way.order()
            self._await(ways, verdict)
            if not verdict.is_confirmed and not self._enough.is_set():
                raise verdict.error() or self._silence(ways)
        finally:
            for way in ways.values():
                way.close()
            context.term()

    def _add_ports(self, context: zmq.Context[Any], ways: dict[str, StopRoute]) -> None:
        target, info = self._target, self._target.info
        port = target.stop_port()
        if port is not None and target.may_reach(port):
            ways["stop port"] = StopPortRoute(context, port, target, self._order, is_known=True)
        is_known = info is not None and STOPPABLE in info.capabilities
        ways["router"] = StopPortRoute(context, target.address, target, self._order, is_known=is_known)

    def _await(self, ways: dict[str, StopRoute], verdict: Verdict) -> None:
        while not (self._enough.is_set() or verdict.is_over(now := time.monotonic())):
            _poll(ways.values(), verdict.left(now))
            now = time.monotonic()
            if self._enough.is_set():
                return
            for name, way in ways.items():
                for error in way.look():
                    verdict.take(name, error, now)
            if not verdict.is_over(now):
                for name in verdict.due(now):
                    ways[name].order()

    def _silence(self, ways: dict[str, StopRoute]) -> TaskEngineError:
        seconds = self._timeout
        if any(isinstance(way, StopPortRoute) and way.is_connected for way in ways.values()):
            return TaskTimeout(f"the stop was not confirmed in {seconds:g} s", seconds=seconds)
        address = self._target.address
        why = "".join(f": {doubt}" for doubt in self._doubts[-1:] if doubt)
        return EngineUnreachable(f"no engine answers at {address} (waited {seconds:g} s){why}", address=address)

    def _serve(self) -> None:
        try:
            self.run()
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(None)


def _poll(ways: Iterable[StopRoute], seconds: float) -> None:
    """Wait until a route has something to look at, for so many seconds at most."""
    poller = zmq.Poller()
    for way in ways:
        for source in way.sources():
            poller.register(source, zmq.POLLIN)
    poller.poll(math.ceil(seconds * 1000))


def first_of(outcome: Future[Any], value: Any, sources: Iterable[Future[Any]], then: Callable[[], None]) -> None:
    """End `outcome` with `value`, and call `then`, when one of the futures succeeds; with an error when all fail."""
    waiting, lock = set(sources), threading.Lock()
    errors: list[TaskEngineError] = []

    def take(source: Future[Any]) -> None:
        error = None if source.cancelled() else source.exception()
        with lock:
            waiting.discard(source)
            if isinstance(error, TaskEngineError):
                errors.append(error)
            is_last = not waiting
        with contextlib.suppress(InvalidStateError):
            if error is None:
                outcome.set_result(value)
                then()
            elif is_last:
                outcome.set_exception(most_telling(errors) or error)

    for source in list(waiting):
        source.add_done_callback(take)
