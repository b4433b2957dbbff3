"""A worker's connection to the router: says who it is, shows that it lives, and joins again when the router is new."""

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
"""How often a worker without a pause looks whether processes of its tasks are to be reaped."""


class RouterConnection:
    """A DEALER for the worker `name` of `lane`, which has `place` in the backplane and not the modules `missing`.

    A router that is silent for too long is gone: `beat` joins again, and `port` is another one then. The router is told
    whether the worker `cancels` running tasks; it then has to `collect` what comes.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: Settings,
        backplane: Topology,
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
        self._backplane = backplane
        self._hello = backplane.hello(name, lane, place, missing, cancels=cancels)
        self._adopted = Adopted()
        self._batches = 0
        self._connect()

    def _connect(self) -> None:
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.sndhwm = 0
        self._socket.rcvhwm = 0
        self._socket.linger = LINGER_MS
        if self._backplane.security:
            self._backplane.security.join(self._socket)
        self._socket.connect(self._backplane.address)
        self.port = Port(self._socket)
        self._pulse = Heartbeat(*self._times, time.monotonic())
        self._is_busy = False
        self.port.send(self._hello)

    def rejoin(self) -> None:
        """There is another router, and what the last one sent and was not begun is not wanted any more."""
        self._socket.close(0)
        self._connect()

    def receive(self) -> bytes | None:
        """A batch, None where there is none."""
        message = self.port.receive()
        if message is None:
            return None
        if message == [HEARTBEAT]:
            self._pulse.heard(time.monotonic())
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
                self._pulse.heard(time.monotonic())
            elif message[0] == CANCEL:
                cancel(self._backplane.read_cancel(message[1]))
            elif message[0] == CREDIT:
                grant(*self._backplane.read_credit(message[1]))
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
        """Answer the batch that was received."""
        self.port.send([answer])

    def send_numbered(self, number: int, answer: bytes) -> None:
        """Answer a batch that others may overtake, by its number."""
        self.port.send([ANSWER, number.to_bytes(8, "little"), answer])

    def send_value(self, job: int, number: int, body: bytes) -> None:
        """Send the value `number`, from 0, of the stream of a job."""
        self.port.send(self._backplane.stream_frames(job, number, body))

    def tell(self, news: bytes) -> None:
        """Tell the router what only it keeps, which shows that we live as well."""
        self.port.send([HEARTBEAT, news])

    def due(self) -> float:
        """In how many seconds the next beat is due."""
        now = time.monotonic()
        self._note(now)
        return self._pulse.due(now)

    def beat(self) -> bool:
        """Show that we live, if that is due, and see whether the router does; True where `port` is another one now.

        Only who has nothing to do has to: each answer shows it too.
        """
        now = time.monotonic()
        self._note(now)
        if self._pulse.due(now) > 0:
            return False
        self._adopted.tidy()
        if self._pulse.is_silent(now):
            self.rejoin()
            return True
        self.port.send([HEARTBEAT])
        self._pulse.sent(now)
        return False

    def _note(self, now: float) -> None:
        """Something was received, and answered, since we looked at the clock last; a batch needs no look of its own."""
        if self._is_busy:
            self._is_busy = False
            self._pulse.heard(now)
            self._pulse.sent(now)

    def close(self) -> None:
        """Close, after what is still to be sent."""
        self._socket.close()
