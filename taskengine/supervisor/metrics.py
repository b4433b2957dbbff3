"""The endpoint for Prometheus: a process of its own, which asks the router as a client does, once a scrape.

If the folder of keys has a file `metrics.token`, a scraper has to send its content (`Authorization: Bearer`).
`taskengine keys metrics` makes the file.
"""

from __future__ import annotations

import math
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from taskengine.client.call_queue import CallQueue
from taskengine.client.requests import Options
from taskengine.client.session import Session
from taskengine.client.transport import Transport
from taskengine.config.settings import Settings
from taskengine.errors import KeysError, TaskEngineError
from taskengine.protocol.messages import Latency, RequestKind, Stats
from taskengine.runtime.control import Online, StartFailed, StopProcess
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.security.credentials import Credentials
from taskengine.security.keys import KeyRing, Membership, known_folder
from taskengine.supervisor import scrape

NAME = "METRICS"
PATIENCE_S = 2.0
"""How long the router may take to answer. Meanwhile no other scraper is answered."""
FRESH_S = 0.5
"""How long an answer is used again, so that many scrapers are no burden to the router."""
MAX_CONNECTIONS = 16
"""The most connections at a time."""
CONNECTION_S = 5.0
"""How long a connection may last."""
BACKLOG = 128
"""Connections that wait to be accepted. One more is dropped, and its client tries again after a second."""


class Counts(Collector):
    """Collects the counts of the router at `address` as metrics."""

    def __init__(self, address: str, membership: Membership | None) -> None:
        self._session = Session(NAME, address)
        self._transport = Transport(address, self._session, CallQueue(), membership)
        self._stats: Stats | None = None
        self._asked = -math.inf

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics; only `taskengine_up` 0 if no router answers."""
        if time.monotonic() - self._asked >= FRESH_S:
            self._stats = self._ask()
            self._asked = time.monotonic()
        stats = self._stats
        yield GaugeMetricFamily("taskengine_up", "Whether the router answers.", stats is not None)
        if stats is not None:
            yield from families(stats)

    def close(self) -> None:
        """Close the connection to the router."""
        self._transport.close(0.0)

    def _ask(self) -> Stats | None:
        answer: Future[Any] = Future()
        request = self._session.request(RequestKind.STATS, answer, Options(timeout=PATIENCE_S))
        try:
            return msgspec.convert(self._transport.exchange(request, answer, PATIENCE_S), Stats)
        except TaskEngineError:
            return None


def families(stats: Stats) -> Iterator[Metric]:
    """Yield the counts as metrics."""
    yield CounterMetricFamily("taskengine_tasks_accepted", "Tasks taken in.", stats.accepted)
    yield CounterMetricFamily("taskengine_tasks_answered", "Tasks that have a result or an error.", stats.answered)
    yield CounterMetricFamily("taskengine_tasks_retried", "How often tasks ran again.", stats.retried)
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


class _Scraper:
    """A connection of a scraper: its request so far, and the rest of its answer."""

    def __init__(self, connection: socket.socket, end: float) -> None:
        self.connection = connection
        self.end = end
        self.received = bytearray()
        self.answer = memoryview(b"")
        self.is_answered = False


class Server:
    """Answers scrapers at `listener` in the thread that calls `serve`.

    It has at most `MAX_CONNECTIONS` connections, each for at most `CONNECTION_S`. One more closes the oldest that is
    not answered, so that silent connections keep no scraper out.
    """

    def __init__(self, listener: socket.socket, page: scrape.Page, token: str | None) -> None:
        self._listener = listener
        self._page = page
        self._token = token
        self._scrapers: dict[int, _Scraper] = {}
        """The connections by descriptor, the oldest first."""
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    def serve(self, control: ControlChannel, is_over: Callable[[], bool]) -> None:
        """Answer until `control` is readable and `is_over()` is true."""
        self._selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select(self._wait(time.monotonic())):
                if key.fileobj is control:
                    if is_over():
                        return
                elif key.fileobj is self._listener:
                    self._accept(time.monotonic())
                elif key.fd in self._scrapers:  # else it has made room this turn
                    self._serve_connection(self._scrapers[key.fd])
            now = time.monotonic()
            for scraper in [scraper for scraper in self._scrapers.values() if scraper.end <= now]:
                self._close_connection(scraper)

    def close(self) -> None:
        """Close all connections."""
        for scraper in list(self._scrapers.values()):
            self._close_connection(scraper)
        self._selector.close()
        self._listener.close()

    def _wait(self, now: float) -> float | None:
        return max(0.0, min(scraper.end for scraper in self._scrapers.values()) - now) if self._scrapers else None

    def _accept(self, now: float) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone already, or there are no descriptors: the next turn sees
            return
        connection.setblocking(False)
        if len(self._scrapers) >= MAX_CONNECTIONS:
            waiting = (scraper for scraper in self._scrapers.values() if not scraper.is_answered)
            self._close_connection(next(waiting, next(iter(self._scrapers.values()))))
        self._scrapers[connection.fileno()] = _Scraper(connection, now + CONNECTION_S)
        self._selector.register(connection, selectors.EVENT_READ)

    def _serve_connection(self, scraper: _Scraper) -> None:
        try:
            if not scraper.is_answered:
                data = scraper.connection.recv(scrape.MAX_HEAD_BYTES)
                if not data:
                    self._close_connection(scraper)
                    return
                scraper.received += data
                if not scrape.is_whole(scraper.received):
                    return
                scraper.answer = memoryview(scrape.answer(bytes(scraper.received), self._page, self._token))
                scraper.is_answered = True
                self._selector.modify(scraper.connection, selectors.EVENT_WRITE)
            scraper.answer = scraper.answer[scraper.connection.send(scraper.answer) :]
        except BlockingIOError:
            return
        except OSError:
            self._close_connection(scraper)
            return
        if not scraper.answer:
            self._close_connection(scraper)

    def _close_connection(self, scraper: _Scraper) -> None:
        fd = scraper.connection.fileno()
        self._selector.unregister(scraper.connection)
        del self._scrapers[fd]
        scraper.connection.close()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on this address. Raises OSError."""
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


def run(
    settings: Settings, address: str, security: Credentials | None, control: ControlChannel, log: LogBuffer
) -> None:
    """Run the endpoint until the supervisor says stop, or is gone."""
    try:
        folder = known_folder(settings.keys_folder)
        token = KeyRing(folder).metrics_token() if folder else None
        listener = listen(settings.host, settings.metrics_port)
    except (OSError, KeysError) as error:
        control.send(StartFailed(f"the metrics cannot be served: {error}"))
        return
    membership = Membership(address, security.engine.public, NAME, security.watcher) if security else None
    counts = Counts(address, membership)
    registry = CollectorRegistry()
    registry.register(counts)

    def page(accept: str) -> tuple[bytes, str]:
        encode, kind = choose_encoder(accept)
        return encode(registry), kind

    def is_over() -> bool:
        return isinstance(control.next_order(), StopProcess)

    server = Server(listener, page, token)
    log.say(f"Starting [METRICS] on {settings.metrics_page}")
    control.send(Online())
    try:
        server.serve(control, is_over)
    finally:
        server.close()
        counts.close()
