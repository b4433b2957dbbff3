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
    """Connects `streams` with the router behind `router`. Batches that come are appended to `batches`, for later."""

    def __init__(
        self,
        streams: TaskStreams,
        router: RouterConnection,
        control: ControlChannel,
        log: LogBuffer,
        batches: deque[bytes],
        cancel: Callable[[UnwantedTasks], None],
    ) -> None:
        self._streams = streams
        self._router = router
        self._control = control
        self._log = log
        self._batches = batches
        self._cancel = cancel
        self._port = router.port
        self._waiter = Waiter(control.fileno(), router.port)

    def wait(self, seconds: float) -> None:
        """Take what comes within so many s, and return when something has come.

        An order of the supervisor stays where it is, for the worker's loop; the generators are closed for it.
        """
        if self._port is not self._router.port:
            self._port = self._router.port
            self._waiter = Waiter(self._control.fileno(), self._port)
        if seconds:
            self._log.flush()
        ready = self._waiter.wait(math.ceil(seconds * 1000))
        if ready & MESSAGE:
            self._router.collect(self._batches, self._cancel, self._streams.grant)
        if ready & ORDER:
            self._streams.end()
