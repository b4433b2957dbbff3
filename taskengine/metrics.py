"""The endpoint for Prometheus: a process of its own that asks the router as a client does, when it is asked.

Where the keys' folder holds a file `metrics.token`, only those are answered who show what is in it (`Authorization:
Bearer`); `taskengine keys metrics` makes one.
"""

from __future__ import annotations

import math
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from taskengine import scrape
from taskengine.errors import KeysError, TaskEngineError
from taskengine.gate import Security
from taskengine.journal import Journal
from taskengine.keys import KeyRing, Membership, known_folder
from taskengine.link import Link
from taskengine.messages import Kind, Latency, Stats
from taskengine.queue import Queue
from taskengine.session import Options, Session
from taskengine.settings import Settings

NAME = "METRICS"
PATIENCE_S = 2.0
"""How long the router may take to answer; meanwhile nobody else is answered."""
FRESH_S = 0.5
"""How long an answer is good, so that no crowd of scrapers is a burden to the router."""
GUESTS = 16
"""Connections at a time."""
GUEST_S = 5.0
"""How long one may last."""
BACKLOG = 128
"""Connections that wait to be let in; one more is dropped, and its client tries again after a second."""


class Counts(Collector):
    """What the router at `address` has counted, as metrics."""

    def __init__(self, address: str, membership: Membership | None) -> None:
        self._session = Session(NAME, address)
        self._link = Link(address, self._session, Queue(), membership)
        self._stats: Stats | None = None
        self._asked = -math.inf

    def collect(self) -> Iterable[Metric]:
        """All metrics; only that it is not up where no router answers."""
        if time.monotonic() - self._asked >= FRESH_S:
            self._stats = self._ask()
            self._asked = time.monotonic()
        stats = self._stats
        yield GaugeMetricFamily("taskengine_up", "Whether the router answers.", stats is not None)
        if stats is not None:
            yield from families(stats)

    def close(self) -> None:
        """Ask no more."""
        self._link.close(0.0)

    def _ask(self) -> Stats | None:
        answer: Future[Any] = Future()
        parcel = self._session.request(Kind.STATS, answer, Options(timeout=PATIENCE_S))
        try:
            return msgspec.convert(self._link.exchange(parcel, answer, PATIENCE_S), Stats)
        except TaskEngineError:
            return None


def families(stats: Stats) -> Iterator[Metric]:
    """The counts as metrics."""
    yield CounterMetricFamily("taskengine_tasks_accepted", "Tasks taken in.", stats.accepted)
    yield CounterMetricFamily("taskengine_tasks_answered", "Tasks that have a result or an error.", stats.answered)
    yield CounterMetricFamily("taskengine_tasks_retried", "Tasks run again since their worker died.", stats.retried)
    yield CounterMetricFamily("taskengine_tasks_refused", "Tasks that there was no room for.", stats.refused)
    yield CounterMetricFamily("taskengine_messages_late", "Messages of dead workers and of strangers.", stats.late)
    yield _by("error", CounterMetricFamily, "taskengine_task_errors", "Tasks that ended in an error.", stats.errors)
    yield _by("role", CounterMetricFamily, "taskengine_restarts", "Processes started anew.", stats.restarts)
    yield GaugeMetricFamily("taskengine_tasks_in_flight", "Tasks that wait or run.", stats.in_flight)
    yield GaugeMetricFamily("taskengine_packages_in_flight", "Packages that are not whole.", stats.packages)
    yield GaugeMetricFamily("taskengine_bytes_in_flight", "Bytes of these, and of results.", stats.bytes_in_flight)
    for field, text in (
        ("workers", "Workers that there should be."),
        ("online", "Workers that are there."),
        ("busy", "Workers that have something to do."),
        ("queued", "Tasks that wait."),
        ("running", "Tasks that workers have."),
    ):
        numbers = {lane.name: getattr(lane, field) for lane in stats.lanes}
        yield _by("lane", GaugeMetricFamily, f"taskengine_lane_{field}", text, numbers)
    slow = {source.topic: source.longest for source in stats.sources}
    text = "What samples of a source that overruns take, in s."
    yield _by("topic", GaugeMetricFamily, "taskengine_source_overrun_seconds", text, slow)
    seconds = HistogramMetricFamily("taskengine_task_seconds", "How long tasks took, by stage.", labels=["stage"])
    for stage, latency in (("waiting", stats.waiting), ("running", stats.running), ("total", stats.total)):
        seconds.add_metric([stage], _buckets(latency), latency.seconds)
    yield seconds


def _by(
    label: str,
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    text: str,
    numbers: Mapping[str, float],
) -> Metric:
    family = kind(name, text, labels=[label])
    for value, number in numbers.items():
        family.add_metric([value], number)
    return family


def _buckets(latency: Latency) -> list[tuple[str, float]]:
    return [("+Inf" if math.isinf(bound) else repr(bound), below) for bound, below in latency.below()]


class _Guest:
    """A connection: what it has sent, and what it is still to be sent."""

    def __init__(self, connection: socket.socket, end: float) -> None:
        self.connection = connection
        self.end = end
        self.received = bytearray()
        self.answer = memoryview(b"")
        self.is_answered = False


class Server:
    """Answers scrapers at `listener` in the thread that calls `serve`.

    It has at most `GUESTS` connections, each for at most `GUEST_S`; where one more comes, the oldest that has not been
    answered goes, so that those who connect and stay silent keep nobody out.
    """

    def __init__(self, listener: socket.socket, page: scrape.Page, token: str | None) -> None:
        self._listener = listener
        self._page = page
        self._token = token
        self._guests: dict[int, _Guest] = {}
        """By descriptor, the oldest first."""
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    def serve(self, control: Connection, is_over: Callable[[], bool]) -> None:
        """Answer until `control` has something to say and `is_over()` then."""
        self._selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select(self._wait(time.monotonic())):
                if key.fileobj is control:
                    if is_over():
                        return
                elif key.fileobj is self._listener:
                    self._let_in(time.monotonic())
                elif key.fd in self._guests:  # else it has made room this turn
                    self._go_on(self._guests[key.fd])
            now = time.monotonic()
            for guest in [guest for guest in self._guests.values() if guest.end <= now]:
                self._part(guest)

    def close(self) -> None:
        """Close all connections."""
        for guest in list(self._guests.values()):
            self._part(guest)
        self._selector.close()
        self._listener.close()

    def _wait(self, now: float) -> float | None:
        return max(0.0, min(guest.end for guest in self._guests.values()) - now) if self._guests else None

    def _let_in(self, now: float) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone already, or there are no descriptors: the next turn sees
            return
        connection.setblocking(False)
        if len(self._guests) >= GUESTS:
            waiting = (guest for guest in self._guests.values() if not guest.is_answered)
            self._part(next(waiting, next(iter(self._guests.values()))))
        self._guests[connection.fileno()] = _Guest(connection, now + GUEST_S)
        self._selector.register(connection, selectors.EVENT_READ)

    def _go_on(self, guest: _Guest) -> None:
        try:
            if not guest.is_answered:
                data = guest.connection.recv(scrape.LONGEST_HEAD)
                if not data:
                    self._part(guest)
                    return
                guest.received += data
                if not scrape.is_whole(guest.received):
                    return
                guest.answer = memoryview(scrape.answer(bytes(guest.received), self._page, self._token))
                guest.is_answered = True
                self._selector.modify(guest.connection, selectors.EVENT_WRITE)
            guest.answer = guest.answer[guest.connection.send(guest.answer) :]
        except BlockingIOError:
            return
        except OSError:
            self._part(guest)
            return
        if not guest.answer:
            self._part(guest)

    def _part(self, guest: _Guest) -> None:
        fd = guest.connection.fileno()
        self._selector.unregister(guest.connection)
        del self._guests[fd]
        guest.connection.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def run(settings: Settings, address: str, security: Security | None, control: Connection, journal: Journal) -> None:
    """The endpoint's process, until the supervisor says stop, or is gone."""
    try:
        folder = known_folder(settings.keys_folder)
        token = KeyRing(folder).metrics_token() if folder else None
        listener = listen(settings.host, settings.metrics_port)
    except (OSError, KeysError) as error:
        control.send_bytes(msgspec.msgpack.encode(("failed", f"the metrics cannot be served: {error}")))
        return
    membership = Membership(address, security.engine.public, NAME, security.watcher) if security else None
    counts = Counts(address, membership)
    registry = CollectorRegistry()
    registry.register(counts)

    def page(accept: str) -> tuple[bytes, str]:
        encode, kind = choose_encoder(accept)
        return encode(registry), kind

    def is_over() -> bool:
        try:
            return bool(msgspec.msgpack.decode(control.recv_bytes())[0] == "stop")  # the rest is for workers
        except EOFError:
            return True

    server = Server(listener, page, token)
    journal.say(f"Starting [METRICS] on {settings.metrics_page}")
    control.send_bytes(msgspec.msgpack.encode(("online", "")))
    try:
        server.serve(control, is_over)
    finally:
        server.close()
        counts.close()
