"""A data worker: samples its sources, publishes, and answers data requests."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import zmq

from taskengine import _fastpath
from taskengine._socket import Waiter
from taskengine.broker.binary import error_entry
from taskengine.broker.legacy_json import latest_entry, published
from taskengine.broker.origins import NS
from taskengine.broker.package import decode_head
from taskengine.broker.topics import ENGINE, SOURCE, TASK, TopicTable, data_lane, owner, publisher_of
from taskengine.config.settings import Settings
from taskengine.errors import NotAllowed, TaskEngineError, shortened, text_of
from taskengine.protocol.layouts import OWNED_TOPICS
from taskengine.protocol.limits import MAX_NAME_LENGTH
from taskengine.protocol.messages import Origin, SourceStats, write_overruns
from taskengine.runtime.clocks import MachineClock
from taskengine.runtime.control import Online, RejoinRouter, StartFailed, StopProcess
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.feed import receive
from taskengine.runtime.intervals import TURN_MESSAGES
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.runtime.rlimits import limit_files, limit_memory, router_memory
from taskengine.runtime.topology import Topology
from taskengine.worker.publisher_socket import PublisherSocket
from taskengine.worker.rhythm import overrunning
from taskengine.worker.router_connection import RouterConnection
from taskengine.worker.sampler import Samplers, sampling
from taskengine.worker.worker import as_failure, load_modules

CONTROL, SUBSCRIPTION, BATCH, FEED, SAMPLED, NEWS, QUESTION = 1, 2, 4, 8, 16, 32, 64
"""What is ready, by its place among the sources of the waiter."""
LOOK_S = 0.5
"""How often it is looked which sources overrun."""


class Publisher:
    """Data worker `number`, from 0: an XPUB for subscribers, a connection to the router, a pipe to the supervisor."""

    def __init__(
        self,
        settings: Settings,
        backplane: Topology,
        place: int,
        number: int,
        control: ControlChannel,
        journal: LogBuffer,
    ) -> None:
        name = f"DATA-{os.getpid()}"
        self._page = backplane.pages[place]
        self._page.busy(busy=False)  # where another one has died in a source
        self._control = control
        self._journal = journal
        journal.running = sampling
        self._clock = MachineClock()
        self._board = TopicTable(name, self._clock.boot)
        self._tells_all = settings.has_tracebacks
        self._failing: set[str] = set()
        self._ear = backplane.feeds[number].ear
        modules = backplane.plan.code.of_data_worker(number, settings.data_workers)
        registry, _ = load_modules(backplane.plan, place, modules, control)
        for failure in registry.failures:
            journal.warn(f"[WORKER-{os.getpid()}(DATA)] Left out: {failure}")
        sources = [each for each in registry.sources.values() if owner(each.topic, settings.data_workers) == number]
        if backplane.machine is not None:
            taken = [source.topic for source in sources if source.topic.startswith(OWNED_TOPICS)]
            sources = [source for source in sources if source.topic not in taken]
            for topic in taken:
                journal.warn(f"[WORKER-{os.getpid()}(DATA)] Left out: source {topic}: its topic is the engine's own")
        self._sources = {source.topic for source in sources}
        self._samplers = Samplers(sources, self._page)
        self._next_look = 0.0
        self._told: list[SourceStats] = []
        """What this router was told of them."""
        self._overrunning: set[str] = set()
        self._has_machine = backplane.machine is not None
        self._context = zmq.Context()
        security = backplane.security
        self.address = settings.data_addresses()[number]
        self._broadcast = PublisherSocket(self._context, settings, security, self.address, self._board, journal)
        self._dealer = RouterConnection(self._context, settings, backplane, name, data_lane(number), place)

    def serve(self) -> None:
        """Publish until the supervisor says stop, or is gone."""
        for topic in self._samplers.start():
            self._journal.warn(
                f"[WORKER-{os.getpid()}(DATA)] Left out: source {topic}: the system has no thread for it"
            )
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
                order = self._control.next_order()
                if isinstance(order, StopProcess):
                    break
                if isinstance(order, RejoinRouter):
                    self._dealer.rejoin()
                    self._told = []
                    waiter = self._waiter()
            elif ready & BATCH:
                self._serve_batch()
            if ready & FEED:
                self._take_fed()
            if ready & SAMPLED:
                self._take_sampled()
            if self._dealer.beat():
                self._told = []
                waiter = self._waiter()
            now = time.monotonic()
            self._broadcast.look(now)
            if self._next_look <= now:
                self._next_look = now + LOOK_S
                self._look_at_sources(now)
            self._journal.flush()
        self._broadcast.close()
        self._dealer.close()
        self._context.term()

    def _waiter(self) -> Waiter:
        questions = [self._broadcast.gate.port] if self._broadcast.gate else []
        ours = self._ear.fileno(), self._samplers.descriptor, self._broadcast.news
        return Waiter(self._control.fileno(), self._broadcast.port, self._dealer.port, *ours, *questions)

    def _serve_batch(self) -> None:
        batch = self._dealer.receive()
        if batch is not None:
            self._dealer.send(_fastpath.run_batch(batch, _no_tasks, _no_entry, self._answer, None, self._page))

    def _take_fed(self) -> None:
        """Publish what tasks have, but no more than a turn's worth."""
        for _ in range(TURN_MESSAGES):
            try:
                fed = receive(self._ear)
                if fed is None:
                    return
                topic, value, made = fed
                self._publish(topic, value, self._teller(topic), made)
                self._failing.discard("tasks")
            except Exception as error:  # a value may have any make, and there may be too many topics
                self._complain("tasks", error, "A publication of")

    def _wait_ms(self) -> int:
        due = min(self._dealer.due(), self._broadcast.due(time.monotonic()))
        return math.ceil(due * 1000)

    def _take_sampled(self) -> None:
        for topic, value, error, made, taken in self._samplers.take():
            if error is None and value is not None:
                try:
                    self._publish(topic, value, SOURCE, made)
                except Exception as failure:  # a value may have any make, and there may be too many topics
                    error = failure
            taken.set()
            if error is None:
                self._failing.discard(topic)
            else:
                self._complain(topic, error, "Source")

    def _look_at_sources(self, now: float) -> None:
        """Say which sources overrun: in a line, once until they do no more, and to the router, who tells clients."""
        found = overrunning(self._samplers.rhythms, now)
        for source in found:
            if source.topic not in self._overrunning:
                took = f"it takes {source.longest:.3g} s, and its period is {source.period:g} s"
                self._journal.warn(f"[WORKER-{os.getpid()}(DATA)] Source {source.topic} overruns: {took}")
        self._overrunning = {source.topic for source in found}
        if found != self._told:
            self._told = found
            self._dealer.tell(write_overruns(found))

    def _complain(self, name: str, error: BaseException, what: str) -> None:
        """Say that something fails, once until it works again."""
        if name not in self._failing:
            self._failing.add(name)
            why = f"{type(error).__name__}: {text_of(error)}"
            self._journal.warn(f"[WORKER-{os.getpid()}(DATA)] {what} {name} fails: {why}")

    def _teller(self, topic: str) -> str:
        """Who has told by the feed: on some topics only the owners of pins and their guardian do."""
        return ENGINE if self._has_machine and topic.startswith(OWNED_TOPICS) else TASK

    def _publish(self, topic: str, value: Any, publisher: str, made: int) -> None:
        """Publish what was made at this moment, in ns of the engine's clock."""
        now = self._clock.told()
        made = min(made, now)
        wall = time.time() - (now - made) / NS
        self._broadcast.publish(topic, self._board.publish(topic, value, wall, publisher, made))

    def _received(self, origin: Origin) -> int:
        """When the router had it, by the clock that clients are told."""
        now = self._clock.now()
        return now.boottime - (now.monotonic - origin.received) if origin.received else now.boottime

    def _answer(
        self, format: int, head: bytes, first: int, ends: list[int], body: bytes, room: int
    ) -> tuple[bytes, int]:
        topic = "?"
        try:
            topic, *value = _fastpath.unpack(body, 1, bytes)[0]
            if not value:
                return latest_entry(head, self._board.latest(topic), room), 0
            if topic in self._sources:
                raise NotAllowed(f"topic {shortened(topic, MAX_NAME_LENGTH)} is a source's: no client publishes there")
            origin: Origin = decode_head(head)[2]
            value = published(head, value[0])
            self._publish(topic, value, publisher_of(origin.client), self._received(origin))
            return _fastpath.encode(None), 0
        except TaskEngineError as error:
            return error_entry(error), 1
        except Exception as error:  # a value may have any make, and its text too: numpy even raises SystemError
            return error_entry(as_failure(topic, error, tells_all=self._tells_all)), 1


def _no_tasks(head: bytes) -> list[Any]:
    return []


def _no_entry(head: bytes, i: int, position: int, error: BaseException | None) -> bytes:
    return error_entry(TaskEngineError("a data worker runs no tasks"))


def run(
    settings: Settings, backplane: Topology, place: int, number: int, control: ControlChannel, journal: LogBuffer
) -> None:
    """The data worker's process. Tells the supervisor `online`, or `failed` with the reason."""
    limit_files(settings)
    limit_memory(router_memory(settings))
    _fastpath.limit_depth(settings.value_depth)
    try:
        publisher = Publisher(settings, backplane, place, number, control, journal)
    except zmq.ZMQError as error:
        control.send(StartFailed(f"data worker {number} cannot publish: {error}"))
        return
    journal.say(f"Starting worker[DATA] on socket: {publisher.address.removeprefix('tcp://')}")
    journal.say(f"[WORKER-{os.getpid()}(DATA)] Listener online")
    control.send(Online())
    publisher.serve()
