"""The socket of a client that several threads share.

One thread at a time leads: it owns the socket, sends what all threads have put in the outbox, receives, and resolves
the futures of all. A thread that waits for a reply leads itself when nobody does, so that a single call costs no
switch of threads; a thread of the link's own leads while only futures are waiting.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import zmq

from taskengine.errors import Cancelled, ProtocolError
from taskengine.presence import Presence
from taskengine.queue import Queue
from taskengine.session import Session, settle

LINGER_MS = 1000
LONGEST_POLL_S = 3600.0
NOBODY = 0  # no thread has this identity


class Link:
    """A DEALER to `address` for `session`, which also sends what is due in `queue`."""

    def __init__(self, address: str, session: Session, queue: Queue[Future[Any]]) -> None:
        self._session = session
        self._queue = queue
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._outbox: deque[list[bytes]] = deque()
        self._leader = NOBODY
        self._closing = False
        self._giving_up = False
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.sndhwm = 0
        self._socket.rcvhwm = 0
        self._socket.linger = LINGER_MS
        self._socket.ipv6 = "[" in address
        self._socket.connect(address)
        self._presence = Presence(self._socket)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wakeup, zmq.POLLIN)
        self._thread: threading.Thread | None = None

    def post(self, frames: list[bytes]) -> None:
        """Send soon, from whichever thread leads."""
        with self._lock:
            self._check_open()
            self._outbox.append(frames)
            self._call_leader()

    def poke(self) -> None:
        """Have the leading thread look at the queue."""
        with self._lock:
            self._check_open()
            self._call_leader()

    def exchange(self, frames: list[bytes], future: Future[Any], timeout: float | None) -> Any:
        """Send and wait for the future. Raises its exception, or TimeoutError after `timeout` s."""
        with self._lock:
            self._check_open()
            self._outbox.append(frames)
            leader, me = self._leader, threading.get_ident()
            if leader == NOBODY:
                self._leader = me
            elif leader != me:
                self._wake()
        end = math.inf if timeout is None else time.monotonic() + timeout
        if leader == me:  # called by the callback of a future that this thread has just resolved
            self._lead(future.done, end)
        elif leader == NOBODY:
            try:
                self._lead(future.done, end)
            finally:
                self._resign()
        return future.result(None if timeout is None else max(0.0, end - time.monotonic()))

    def connected(self) -> bool:
        """The connection stands, as far as is known."""
        with self._lock:
            return self._presence.connected()

    def close(self, timeout: float) -> None:
        """Wait up to `timeout` s for what is pending, give up the rest, and close the socket. May be called twice."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._wake()
            self._idle.notify_all()
            end = time.monotonic() + timeout
            if not self._idle.wait_for(lambda: self._leader == NOBODY, timeout):
                self._giving_up = True
                self._wake()
                self._idle.wait_for(lambda: self._leader == NOBODY)
            self._giving_up, self._leader = False, threading.get_ident()
            self._outbox.extend(self._queue.take())
        self._lead(lambda: not self._session.pending, end)
        settle(self._session.fail(Cancelled("the client was closed before the reply came")))
        self._presence.close()
        self._socket.close()
        self._context.term()
        os.close(self._wakeup)

    def _check_open(self) -> None:
        if self._closing:
            raise Cancelled("the client is closed")

    def _call_leader(self) -> None:
        if self._leader != NOBODY:
            self._wake()
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="taskengine-link", daemon=True)
            self._thread.start()
        self._idle.notify_all()

    def _wake(self) -> None:
        os.eventfd_write(self._wakeup, 1)

    def _resign(self) -> None:
        with self._lock:
            self._leader = NOBODY
            if self._closing:
                self._idle.notify_all()
            elif self._busy():
                self._call_leader()

    def _busy(self) -> bool:
        return bool(self._outbox or self._session.pending) or self._queue.due(time.monotonic()) < math.inf

    def _serve(self) -> None:
        """The link's own thread: leads while nobody else does and something is owed."""
        while True:
            with self._lock:
                self._idle.wait_for(lambda: self._closing or (self._leader == NOBODY and self._busy()))
                if self._closing:
                    return
                self._leader = threading.get_ident()
            try:
                self._lead(lambda: self._closing or not self._busy(), math.inf)
            finally:
                self._resign()

    def _lead(self, done: Callable[[], bool], end: float) -> None:
        """Own the socket until `done()`, or until the monotonic time `end` in s."""
        while True:
            now = time.monotonic()
            due = self._queue.due(now)
            if due <= 0:
                self._outbox.extend(self._queue.take())
                due = math.inf
            while self._outbox:
                self._socket.send_multipart(self._outbox.popleft(), zmq.NOBLOCK)
            if done() or self._giving_up or now >= end:
                return
            ready = dict(self._poller.poll(math.ceil(max(0.0, min(due, end - now, LONGEST_POLL_S)) * 1000)))
            if self._wakeup in ready:
                os.eventfd_read(self._wakeup)
            if self._socket in ready:
                self._receive()

    def _receive(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
                # what cannot be read answers nobody: its sender keeps waiting, up to its timeout
                with contextlib.suppress(ProtocolError):
                    settle(self._session.receive(frames))
