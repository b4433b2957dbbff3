"""A data worker: samples its sources, publishes, and answers data requests."""

from __future__ import annotations

import heapq
import math
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import zmq

from taskengine import _fastpath
from taskengine._socket import Waiter
from taskengine.broadcast import Broadcast
from taskengine.confinement import limit_files, limit_memory, router_memory
from taskengine.dealer import Dealer
from taskengine.errors import NotAllowed, TaskEngineError, shortened, text_of
from taskengine.feed import receive
from taskengine.gate import Backplane
from taskengine.journal import Journal
from taskengine.package import decode_head
from taskengine.packed import error_entry
from taskengine.registry import Registry, Source
from taskengine.seedwire import latest_entry, published
from taskengine.settings import Settings
from taskengine.topics import ENGINE, SOURCE, TASK, Board, data_lane, owner, publisher_of
from taskengine.wire import NAME_TOLD, OWNED_TOPICS, TURN_MESSAGES
from taskengine.worker import as_failure, is_over

CONTROL, SUBSCRIPTION, BATCH, FEED, NEWS, QUESTION = 1, 2, 4, 8, 16, 32
"""What is ready, by its place among the sources of the waiter."""


class Publisher:
    """Data worker `number`, from 0: an XPUB for subscribers, a connection to the router, a pipe to the supervisor."""

    def __init__(
        self, settings: Settings, backplane: Backplane, place: int, number: int, control: Connection, journal: Journal
    ) -> None:
        name = f"DATA-{os.getpid()}"
        self._slate = backplane.slates[place]
        self._slate.busy(busy=False)  # where another one has died in a source
        self._control = control
        self._journal = journal
        self._board = Board(name)
        self._tells_all = settings.has_tracebacks
        self._failing: set[str] = set()
        self._ear = backplane.feeds[number].ear
        registry = Registry.load(settings.tasks)
        for failure in registry.failures:
            journal.say(f"[WORKER-{os.getpid()}(DATA)] Left out: {failure}")
        self._due = list(_owned(registry, number, settings.data_workers))
        if backplane.machine is not None:
            taken = [source.topic for _, _, source in self._due if source.topic.startswith(OWNED_TOPICS)]
            self._due = [due for due in self._due if due[2].topic not in taken]
            for topic in taken:
                journal.say(f"[WORKER-{os.getpid()}(DATA)] Left out: source {topic}: its topic is the engine's own")
        self._sources = {source.topic for _, _, source in self._due}
        self._has_machine = backplane.machine is not None
        self._context = zmq.Context()
        security = backplane.security
        self.address = settings.data_addresses()[number]
        self._broadcast = Broadcast(self._context, settings, security, self.address, self._board, journal)
        self._dealer = Dealer(self._context, settings, backplane, name, data_lane(number), place)

    def serve(self) -> None:
        """Publish until the supervisor says stop, or is gone."""
        waiter = self._waiter()
        while True:
            ready = waiter.wait(self._wait_ms())
            if ready & QUESTION and self._broadcast.gate:
                self._broadcast.gate.handle()
            if ready & NEWS:
                self._broadcast.meet()
            if ready & SUBSCRIPTION:
                self._broadcast.greet(time.monotonic())
            if ready & CONTROL:
                if is_over(self._control):
                    break
                self._dealer.rejoin()
                waiter = self._waiter()
            elif ready & BATCH:
                self._serve_batch()
            if ready & FEED:
                self._take_fed()
            if self._dealer.beat():
                waiter = self._waiter()
            self._broadcast.look(time.monotonic())
            self._sample(time.monotonic())
            self._journal.flush()
        self._broadcast.close()
        self._dealer.close()
        self._context.term()

    def _waiter(self) -> Waiter:
        questions = [self._broadcast.gate.port] if self._broadcast.gate else []
        own = (self._control.fileno(), self._broadcast.port, self._dealer.port, self._ear.fileno())
        return Waiter(*own, self._broadcast.news, *questions)

    def _serve_batch(self) -> None:
        batch = self._dealer.receive()
        if batch is not None:
            self._dealer.send(_fastpath.run_batch(batch, _no_tasks, _no_entry, self._answer, None, self._slate))

    def _take_fed(self) -> None:
        """Publish what tasks have, but no more than a turn's worth."""
        for _ in range(TURN_MESSAGES):
            try:
                fed = receive(self._ear)
                if fed is None:
                    return
                self._publish(*fed, self._teller(fed[0]))
                self._failing.discard("tasks")
            except Exception as error:  # a value may have any make, and there may be too many topics
                self._complain("tasks", error, "A publication of")

    def _wait_ms(self) -> int:
        due = min(self._dealer.due(), self._broadcast.due(time.monotonic()))
        if self._due:
            due = min(due, max(0.0, self._due[0][0] - time.monotonic()))
        return math.ceil(due * 1000)

    def _sample(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            due, order, source = self._due[0]
            self._slate.busy(busy=True)
            try:
                value = source.function()
                if value is not None:
                    self._publish(source.topic, value, SOURCE)
                self._failing.discard(source.topic)
            except (Exception, SystemExit) as error:
                self._complain(source.topic, error, "Source")
            finally:
                self._slate.busy(busy=False)
            # a source that is slower than its period skips beats, it does not pile them up
            beats = max(1, math.ceil((time.monotonic() - due) / source.period))
            heapq.heapreplace(self._due, (due + beats * source.period, order, source))

    def _complain(self, name: str, error: BaseException, what: str) -> None:
        """Say that something fails, once until it works again."""
        if name not in self._failing:
            self._failing.add(name)
            why = f"{type(error).__name__}: {text_of(error)}"
            self._journal.say(f"[WORKER-{os.getpid()}(DATA)] {what} {name} fails: {why}")

    def _teller(self, topic: str) -> str:
        """Who has told by the feed: on some topics only the owners of pins and their guardian do."""
        return ENGINE if self._has_machine and topic.startswith(OWNED_TOPICS) else TASK

    def _publish(self, topic: str, value: Any, publisher: str) -> None:
        self._broadcast.publish(topic, self._board.publish(topic, value, time.time(), publisher))

    def _answer(
        self, format: int, head: bytes, first: int, ends: list[int], body: bytes, room: int
    ) -> tuple[bytes, int]:
        topic = "?"
        try:
            topic, *value = _fastpath.unpack(body, 1, bytes)[0]
            if not value:
                return latest_entry(head, self._board.latest(topic), room), 0
            if topic in self._sources:
                raise NotAllowed(f"topic {shortened(topic, NAME_TOLD)} is a source's: no client publishes there")
            self._publish(topic, published(head, value[0]), publisher_of(decode_head(head)[2].client))
            return _fastpath.encode(None), 0
        except TaskEngineError as error:
            return error_entry(error), 1
        except Exception as error:  # a value may have any make, and its text too: numpy even raises SystemError
            return error_entry(as_failure(topic, error, tells_all=self._tells_all)), 1


def _owned(registry: Registry, number: int, data_workers: int) -> Iterator[tuple[float, int, Source]]:
    now = time.monotonic()
    for order, source in enumerate(registry.sources.values()):
        if owner(source.topic, data_workers) == number:
            yield now, order, source


def _no_tasks(head: bytes) -> list[Any]:
    return []


def _no_entry(head: bytes, i: int, position: int, error: BaseException | None) -> bytes:
    return error_entry(TaskEngineError("a data worker runs no tasks"))


def run(
    settings: Settings, backplane: Backplane, place: int, number: int, control: Connection, journal: Journal
) -> None:
    """The data worker's process. Tells the supervisor `online`, or `failed` with the reason."""
    limit_files(settings)
    limit_memory(router_memory(settings))
    _fastpath.limit_depth(settings.value_depth)
    try:
        publisher = Publisher(settings, backplane, place, number, control, journal)
    except zmq.ZMQError as error:
        control.send_bytes(msgspec.msgpack.encode(("failed", f"data worker {number} cannot publish: {error}")))
        return
    journal.say(f"Starting worker[DATA] on socket: {publisher.address.removeprefix('tcp://')}")
    journal.say(f"[WORKER-{os.getpid()}(DATA)] Listener online")
    control.send_bytes(msgspec.msgpack.encode(("online", "")))
    publisher.serve()
