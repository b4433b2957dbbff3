"""A worker's connection to the router: joins it, sends heartbeats, and joins again when the router is a new one."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence

import zmq

from taskengine._socket import Port
from taskengine.broker.workers import UnwantedTasks
from taskengine.config.settings import Settings
from taskengine.protocol.credit import Grant
from taskengine.runtime.descendants import Adopted
from taskengine.runtime.heartbeat import Heartbeat
from taskengine.runtime.topology import ANSWER, CANCEL, CREDIT, HEARTBEAT, Topology

LINGER_MS = 1000
TIDY_BATCHES = 256
"""After so many batches without a pause, a worker reaps the ended processes of its tasks."""


class RouterConnection:
    """A DEALER for the worker `name` of `lane`, at `place` in the topology, which lacks the modules `missing`.

    If the router is silent for too long, `beat` joins again, and replaces `port`. A worker that `cancels` running tasks
    takes what comes by `collect`.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: Settings,
        topology: Topology,
        name: str,
        lane: str,
        place: int,
        missing: Sequence[str] = (),
        *,
        cancels: bool = False,
    ) -> None:
        self._context = context
        self.interval_ms = math.ceil(settings.heartbeat_interval * 1000)
        self._times = settings.heartbeat_interval, settings.heartbeat_limit
        self._topology = topology
        self._hello = topology.hello(name, lane, place, missing, cancels=cancels)
        self._adopted = Adopted()
        self._batches = 0
        self._connect()

    def _connect(self) -> None:
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.sndhwm = 0
        self._socket.rcvhwm = 0
        self._socket.linger = LINGER_MS
        if self._topology.security:
            self._topology.security.join(self._socket)
        self._socket.connect(self._topology.address)
        self.port = Port(self._socket)
        self._heartbeat = Heartbeat(*self._times, time.monotonic())
        self._is_busy = False
        self.port.send(self._hello)

    def rejoin(self) -> None:
        """Join another router, and drop the batches of the last one that were not begun."""
        self._socket.close(0)
        self._connect()

    def receive(self) -> bytes | None:
        """Return a batch, None if there is none."""
        message = self.port.receive()
        if message is None:
            return None
        if message == [HEARTBEAT]:
            self._heartbeat.heard(time.monotonic())
            return None
        if len(message) > 1:  # about a task that has ended
            return None
        self._begin()
        return message[0]

    def collect(
        self,
        batches: deque[bytes],
        cancel: Callable[[UnwantedTasks], None],
        grant: Callable[[int, Grant], None],
    ) -> None:
        """Take all that has come: append the batches, and call `cancel` with tasks that are to be cancelled.

        `grant` is called with the credit of streams.
        """
        while (message := self.port.receive()) is not None:
            if message == [HEARTBEAT]:
                self._heartbeat.heard(time.monotonic())
            elif message[0] == CANCEL:
                cancel(self._topology.read_cancel(message[1]))
            elif message[0] == CREDIT:
                grant(*self._topology.read_credit(message[1]))
            else:
                self._begin()
                batches.append(message[0])

    @property
    def descriptor(self) -> int:
        """A descriptor that becomes readable when something comes; afterwards `collect` has to be called."""
        return self._socket.fileno()

    def _begin(self) -> None:
        """A batch has come."""
        self._is_busy = True
        self._batches += 1
        if self._batches % TIDY_BATCHES == 0:
            self._adopted.tidy()

    def send(self, answer: bytes) -> None:
        """Send the answer to the last batch."""
        self.port.send([answer])

    def send_numbered(self, number: int, answer: bytes) -> None:
        """Answer a batch that others may overtake, by its number."""
        self.port.send([ANSWER, number.to_bytes(8, "little"), answer])

    def send_value(self, job: int, number: int, body: bytes) -> None:
        """Send the value `number`, from 0, of the stream of a job."""
        self.port.send(self._topology.stream_frames(job, number, body))

    def send_progress(self, job: int, position: int, report: bytes) -> None:
        """Send a report on the task at a position of a job."""
        self.port.send(self._topology.progress_frames(job, position, report))

    def tell(self, news: bytes) -> None:
        """Send the router news for it to keep; that counts as a heartbeat."""
        self.port.send([HEARTBEAT, news])

    def due(self) -> float:
        """Return in how many s the next beat is due."""
        now = time.monotonic()
        self._note(now)
        return self._heartbeat.due(now)

    def beat(self) -> bool:
        """Send a heartbeat if one is due, and check the router's; return whether `port` was replaced.

        Only an idle worker has to: each answer counts as a heartbeat too.
        """
        now = time.monotonic()
        self._note(now)
        if self._heartbeat.due(now) > 0:
            return False
        self._adopted.tidy()
        if self._heartbeat.is_silent(now):
            self.rejoin()
            return True
        self.port.send([HEARTBEAT])
        self._heartbeat.sent(now)
        return False

    def _note(self, now: float) -> None:
        """Note that batches were received and answered since the last call: a batch itself reads no clock."""
        if self._is_busy:
            self._is_busy = False
            self._heartbeat.heard(now)
            self._heartbeat.sent(now)

    def close(self) -> None:
        """Close, after all messages are sent."""
        self._socket.close()
