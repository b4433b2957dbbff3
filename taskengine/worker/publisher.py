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
from taskengine.protocol.layouts import ENGINE_TOPICS, OWNED_TOPICS
from taskengine.protocol.limits import MAX_NAME_LENGTH
from taskengine.protocol.messages import Origin, SourceStats, write_overruns
from taskengine.runtime.clocks import MachineClock
from taskengine.runtime.control import Online, RejoinRouter, StartFailed, StopProcess
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.feed import receive
from taskengine.runtime.intervals import TURN_MESSAGES
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.runtime.memory import give_back_memory
from taskengine.runtime.rlimits import limit_files, limit_memory, router_memory
from taskengine.runtime.topology import Topology
from taskengine.worker.publisher_socket import PublisherSocket
from taskengine.worker.rhythm import overrunning
from taskengine.worker.router_connection import RouterConnection
from taskengine.worker.sampler import Samplers, sampling
from taskengine.worker.worker import as_failure, load_modules

CONTROL, SUBSCRIPTION, BATCH, FEED, SAMPLED, NEWS, QUESTION = 1, 2, 4, 8, 16, 32, 64
"""The bits of `Waiter.wait`: what is ready, in the order in which the waiter got it."""
LOOK_S = 0.5
"""The pause between two looks for sources that overrun."""


class Publisher:
    """Data worker `number`, from 0: an XPUB for subscribers, connected to the router and the supervisor."""

    def __init__(
        self,
        settings: Settings,
        topology: Topology,
        place: int,
        number: int,
        control: ControlChannel,
        log: LogBuffer,
    ) -> None:
        name = f"DATA-{os.getpid()}"
        self._page = topology.pages[place]
        self._page.busy(busy=False)  # its predecessor may have died in a source
        self._control = control
        self._log = log
        log.running = sampling
        self._clock = MachineClock()
        self._topics = TopicTable(name, self._clock.boot)
        self._tells_all = settings.has_tracebacks
        self._failing: set[str] = set()
        self._feed = topology.feeds[number].read_end
        modules = topology.plan.code.of_data_worker(number, settings.data_workers)
        registry, _ = load_modules(topology.plan, place, modules, control)
        for failure in registry.failures:
            log.warn(f"[WORKER-{os.getpid()}(DATA)] Left out: {failure}")
        sources = [each for each in registry.sources.values() if owner(each.topic, settings.data_workers) == number]
        self._owned = (ENGINE_TOPICS,) if topology.machine is None else (ENGINE_TOPICS, OWNED_TOPICS)
        for taken in (source.topic for source in sources if source.topic.startswith(self._owned)):
            log.warn(f"[WORKER-{os.getpid()}(DATA)] Left out: source {taken}: its topic is the engine's own")
        sources = [source for source in sources if not source.topic.startswith(self._owned)]
        self._sources = {source.topic for source in sources}
        self._samplers = Samplers(sources, self._page)
        self._next_look = 0.0
        self._reported: list[SourceStats] = []
        """The overruns that the router knows."""
        self._overrunning: set[str] = set()
        self._context = zmq.Context()
        security = topology.security
        self.address = settings.data_addresses()[number]
        self._socket = PublisherSocket(self._context, settings, security, self.address, self._topics, log)
        self._router = RouterConnection(self._context, settings, topology, name, data_lane(number), place)

    def serve(self) -> None:
        """Publish until the supervisor says stop or is gone."""
        for topic in self._samplers.start():
            self._log.warn(f"[WORKER-{os.getpid()}(DATA)] Left out: source {topic}: the system has no thread for it")
        waiter = self._waiter()
        while True:
            ready = waiter.wait(self._wait_ms())
            if ready & QUESTION and self._socket.authenticator:
                self._socket.authenticator.handle()
            if ready & NEWS:
                self._socket.handle_connections()
            if ready & SUBSCRIPTION:
                self._socket.handle_subscriptions(time.monotonic())
            if ready & CONTROL:
                order = self._control.next_order()
                if isinstance(order, StopProcess):
                    break
                if isinstance(order, RejoinRouter):
                    self._router.rejoin()
                    self._reported = []
                    waiter = self._waiter()
            elif ready & BATCH:
                self._answer_batch()
            if ready & FEED:
                self._publish_fed()
            if ready & SAMPLED:
                self._publish_samples()
            if self._router.beat():
                self._reported = []
                waiter = self._waiter()
            now = time.monotonic()
            self._socket.look(now)
            if self._next_look <= now:
                self._next_look = now + LOOK_S
                self._report_overruns(now)
            self._log.flush()
        self._socket.close()
        self._router.close()
        self._context.term()

    def _waiter(self) -> Waiter:
        questions = [self._socket.authenticator.port] if self._socket.authenticator else []
        ours = self._feed.fileno(), self._samplers.descriptor, self._socket.news
        return Waiter(self._control.fileno(), self._socket.port, self._router.port, *ours, *questions)

    def _answer_batch(self) -> None:
        batch = self._router.receive()
        if batch is not None:
            self._router.send(_fastpath.run_batch(batch, _no_tasks, _no_entry, self._answer, None, self._page))

    def _publish_fed(self) -> None:
        """Publish what tasks have sent, at most TURN_MESSAGES values."""
        for _ in range(TURN_MESSAGES):
            try:
                fed = receive(self._feed)
                if fed is None:
                    return
                topic, value, made = fed
                self._publish(topic, value, self._publisher_of(topic), made)
                self._failing.discard("tasks")
            except Exception as error:  # a value may have any make, and there may be too many topics
                self._log_failure("tasks", error, "A publication of")

    def _wait_ms(self) -> int:
        due = min(self._router.due(), self._socket.due(time.monotonic()))
        return math.ceil(due * 1000)

    def _publish_samples(self) -> None:
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
                self._log_failure(topic, error, "Source")

    def _report_overruns(self, now: float) -> None:
        """Report sources that overrun: when they begin to, in a line of the log, and to the router, for `stats`."""
        found = overrunning(self._samplers.rhythms, now)
        for source in found:
            if source.topic not in self._overrunning:
                took = f"it takes {source.longest:.3g} s, and its period is {source.period:g} s"
                self._log.warn(f"[WORKER-{os.getpid()}(DATA)] Source {source.topic} overruns: {took}")
        self._overrunning = {source.topic for source in found}
        if found != self._reported:
            self._reported = found
            self._router.tell(write_overruns(found))

    def _log_failure(self, name: str, error: BaseException, what: str) -> None:
        """Log a failure, once until it works again."""
        if name not in self._failing:
            self._failing.add(name)
            why = f"{type(error).__name__}: {text_of(error)}"
            self._log.warn(f"[WORKER-{os.getpid()}(DATA)] {what} {name} fails: {why}")

    def _publisher_of(self, topic: str) -> str:
        """Return the kind of publisher: only the engine itself feeds its own topics."""
        return ENGINE if topic.startswith(self._owned) else TASK

    def _publish(self, topic: str, value: Any, publisher: str, made: int) -> None:
        """Publish a value that was `made` at this time, in ns of the engine's clock."""
        now = self._clock.told()
        made = min(made, now)
        wall = time.time() - (now - made) / NS
        self._topics.keep(topic, value, wall, publisher, made)
        self._socket.publish(topic)

    def _received(self, origin: Origin) -> int:
        """Return when the router received a message, in ns of the engine's clock."""
        now = self._clock.now()
        return now.boottime - (now.monotonic - origin.received) if origin.received else now.boottime

    def _answer(
        self, format: int, head: bytes, first: int, ends: list[int], body: bytes, room: int
    ) -> tuple[bytes, int]:
        topic = "?"
        try:
            topic, *value = _fastpath.unpack(body, 1, bytes)[0]
            if not value:
                return latest_entry(head, self._topics.latest(topic), room), 0
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
    settings: Settings, topology: Topology, place: int, number: int, control: ControlChannel, log: LogBuffer
) -> None:
    """Run a data worker. Reports Online to the supervisor, or StartFailed with the reason."""
    give_back_memory()
    limit_files(settings)
    limit_memory(router_memory(settings))
    _fastpath.limit_depth(settings.value_depth)
    try:
        publisher = Publisher(settings, topology, place, number, control, log)
    except zmq.ZMQError as error:
        control.send(StartFailed(f"data worker {number} cannot publish: {error}"))
        return
    log.say(f"Starting worker[DATA] on socket: {publisher.address.removeprefix('tcp://')}")
    log.say(f"[WORKER-{os.getpid()}(DATA)] Listener online")
    control.send(Online())
    publisher.serve()
