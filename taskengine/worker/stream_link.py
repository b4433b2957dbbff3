"""A worker's way to the router while a generator runs in it: sends its values, and takes what comes meanwhile."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from taskengine._socket import Waiter
from taskengine.broker.workers import UnwantedTasks
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.worker.router_connection import RouterConnection
from taskengine.worker.streams import TaskStreams

ORDER, MESSAGE = 1, 2
"""What is ready, by its place among the sources of the waiter."""


class StreamLink:
    """Connects `streams` with the router behind `dealer`. Batches that come are appended to `batches`, for later."""

    def __init__(
        self,
        streams: TaskStreams,
        dealer: RouterConnection,
        control: ControlChannel,
        journal: LogBuffer,
        batches: deque[bytes],
        cancel: Callable[[UnwantedTasks], None],
    ) -> None:
        self._streams = streams
        self._dealer = dealer
        self._control = control
        self._journal = journal
        self._batches = batches
        self._cancel = cancel
        self._port = dealer.port
        self._waiter = Waiter(control.fileno(), dealer.port)

    def wait(self, seconds: float) -> None:
        """Take what comes within so many s, and return when something has come.

        An order of the supervisor stays where it is, for the worker's loop; the generators are closed for it.
        """
        if self._port is not self._dealer.port:
            self._port = self._dealer.port
            self._waiter = Waiter(self._control.fileno(), self._port)
        if seconds:
            self._journal.flush()
        ready = self._waiter.wait(math.ceil(seconds * 1000))
        if ready & MESSAGE:
            self._dealer.collect(self._batches, self._cancel, self._streams.grant)
        if ready & ORDER:
            self._streams.end()
