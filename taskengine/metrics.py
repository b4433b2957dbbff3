"""The endpoint for Prometheus: a process of its own that asks the router as a client does, when it is asked."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from taskengine.errors import TaskEngineError
from taskengine.gate import Security
from taskengine.journal import Journal
from taskengine.keys import Membership
from taskengine.link import Link
from taskengine.messages import Kind, Latency, Stats
from taskengine.queue import Queue
from taskengine.session import Options, Session
from taskengine.settings import Settings

NAME = "METRICS"
PATIENCE_S = 5.0
"""How long the router may take to answer."""
FRESH_S = 0.5
"""How long an answer is good, so that no crowd of scrapers is a burden to the router."""


class Counts(Collector):
    """What the router at `address` has counted, as metrics."""

    def __init__(self, address: str, membership: Membership | None) -> None:
        self._session = Session(NAME, address)
        self._link = Link(address, self._session, Queue(), membership)
        self._lock = threading.Lock()
        self._stats: Stats | None = None
        self._asked = -math.inf

    def collect(self) -> Iterable[Metric]:
        """All metrics; only that it is not up where no router answers."""
        with self._lock:
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
    seconds = HistogramMetricFamily("taskengine_task_seconds", "How long tasks took, by stage.", labels=["stage"])
    for stage, latency in (("waiting", stats.waiting), ("running", stats.running), ("total", stats.total)):
        seconds.add_metric([stage], _buckets(latency), latency.seconds)
    yield seconds


def _by(
    label: str,
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    text: str,
    numbers: dict[str, int],
) -> Metric:
    family = kind(name, text, labels=[label])
    for value, number in numbers.items():
        family.add_metric([value], number)
    return family


def _buckets(latency: Latency) -> list[tuple[str, float]]:
    return [("+Inf" if math.isinf(bound) else repr(bound), below) for bound, below in latency.below()]


def run(settings: Settings, address: str, security: Security | None, control: Connection, journal: Journal) -> None:
    """The endpoint's process, until the supervisor says stop, or is gone."""
    membership = Membership(address, security.engine.public, NAME, security.watcher) if security else None
    counts = Counts(address, membership)
    registry = CollectorRegistry()
    registry.register(counts)
    try:
        server, _ = start_http_server(settings.metrics_port, settings.host, registry)
    except OSError as error:
        control.send_bytes(msgspec.msgpack.encode(("failed", f"the metrics cannot be served: {error}")))
        return
    journal.say(f"Starting [METRICS] on http://{settings.host}:{settings.metrics_port}/metrics")
    control.send_bytes(msgspec.msgpack.encode(("online", "")))
    with contextlib.suppress(EOFError):
        while msgspec.msgpack.decode(control.recv_bytes())[0] != "stop":
            continue  # the rest is for workers
    server.shutdown()
    server.server_close()
    counts.close()
