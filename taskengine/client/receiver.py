"""A subscriber's socket, read by a thread of its own, so that waiting values are counted here and none is late.

Without the thread, values that a subscriber does not take in time would wait in ZeroMQ and in TCP, thousands deep, with
the newest behind all others.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence

import zmq

from taskengine._socket import Port, Waiter
from taskengine.client import wakeup
from taskengine.client.samples import Backlog, Publication, SubscriptionFilter
from taskengine.errors import Cancelled, ProtocolError, TaskEngineError
from taskengine.runtime.hosts import needs_ipv6
from taskengine.security.credentials import introduce
from taskengine.security.keys import Membership

TURN = 100
"""Publications received before a waiting caller gets the first of them."""
LONGEST_POLL_MS = 3_600_000
PUBLISHED = 2
"""The events of the waiter, by place among its sources."""


class Receiver:
    """A SUB socket connected to these addresses; what the `feed` wants goes to the `backlog`. Close it."""

    def __init__(
        self, addresses: Sequence[str], feed: SubscriptionFilter, backlog: Backlog, membership: Membership | None = None
    ) -> None:
        self._feed = feed
        self._backlog = backlog
        self._arrived = threading.Condition()
        self._on_arrival: Callable[[], object] | None = None
        self._is_closed = False
        self._failure: BaseException | None = None
        self._pid = os.getpid()
        self._context = zmq.Context()
        with contextlib.ExitStack() as undo:
            undo.callback(self._context.term)
            self._socket: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
            undo.callback(self._socket.close, 0)
            self._socket.linger = 0
            self._socket.ipv6 = any(map(needs_ipv6, addresses))
            introduce(self._socket, membership)
            self._socket.subscribe(feed.start)
            for address in addresses:
                self._socket.connect(address)
            self._wakeup = wakeup.make()
            undo.callback(wakeup.close, self._wakeup)
            self._thread = threading.Thread(target=self._serve, name="taskengine-subscription", daemon=True)
            self._thread.start()
            undo.pop_all()

    def take(self, timeout: float | None) -> Publication | None:
        """Return the next publication; None if none comes in `timeout` s.

        Raises ProtocolError, Cancelled when closed.
        """
        self._check()
        with self._arrived:
            self._arrived.wait_for(lambda: len(self._backlog) or self._is_closed or self._failure, timeout)
            self._check()
            return self._backlog.take()

    def poll(self, on_arrival: Callable[[], object]) -> Publication | None:
        """Return the next publication; None if there is none yet, and `on_arrival` is called once when there may be.

        Another thread calls it. Raises as `take`.
        """
        self._check()
        with self._arrived:
            self._check()
            publication = self._backlog.take()
            self._on_arrival = on_arrival if publication is None else None
            return publication

    @property
    def dropped(self) -> int:
        """The number of publications that gave way to newer ones, here or on their way."""
        return self._feed.missed + self._backlog.dropped

    def close(self) -> None:
        """Close the socket, and wake waiting callers. May be called twice, and does nothing in a forked child."""
        if self._pid != os.getpid():
            return
        with self._arrived:
            if self._is_closed:
                return
            self._is_closed = True
            self._tell()
            if self._wakeup >= 0:
                wakeup.ring(self._wakeup)
        if threading.current_thread() is not self._thread:  # the thread itself may run garbage collection
            self._thread.join()

    def _check(self) -> None:
        if self._is_closed:
            raise Cancelled("the subscription is closed")
        if self._failure is not None:
            raise TaskEngineError(f"the subscription failed: {self._failure!r}") from self._failure
        if self._pid != os.getpid():
            raise Cancelled("the subscription was made before the process was forked: make one in the child")

    def _serve(self) -> None:
        """Run the thread."""
        try:
            port = Port(self._socket)
            waiter = Waiter(self._wakeup, port)
            while not self._is_closed:
                if waiter.wait(LONGEST_POLL_MS) & PUBLISHED:
                    self._receive(port)
        except BaseException as error:  # otherwise the error would be lost
            with self._arrived:
                self._failure = error
                self._tell()
        finally:
            with self._arrived:
                ours, self._wakeup = self._wakeup, -1
            wakeup.close(ours)
            self._socket.close()
            self._context.term()

    def _receive(self, port: Port) -> None:
        with self._arrived:
            for _ in range(TURN):
                frames = port.receive()
                if frames is None:
                    break
                try:
                    publication = self._feed.read(frames)
                except ProtocolError as malformed:
                    self._backlog.add(malformed)
                else:
                    if publication is not None:
                        self._backlog.add(publication)
            if len(self._backlog):
                self._tell()

    def _tell(self) -> None:
        self._arrived.notify_all()
        on_arrival, self._on_arrival = self._on_arrival, None
        if on_arrival is not None:
            on_arrival()
