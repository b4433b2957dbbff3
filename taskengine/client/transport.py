"""The socket of a client, shared by several threads (pattern: Leader/Followers).

One thread at a time leads: it owns the socket, sends the outbox of all threads, receives, and resolves all futures. A
thread that waits for a reply leads if no other does, so that a single call costs no switch of threads. A thread of the
transport's own leads while only futures are waiting.

Nothing is given to ZeroMQ before there is a connection. So cancelled requests are never sent, and requests sent over
a lost connection are known to be lost; those whose tasks may run twice are sent again. A connection begins with a
hello. Other requests wait for its answer, and can then say how old they are.

Signals and callbacks. Two kinds of code that is not ours run within these methods: callbacks of futures, in the leader,
and handlers of signals, in the main thread after any call that returns. Both may raise anything, and call the client
again. The following rules therefore hold; tests/integration/test_link.py tests them in one class:

1. A request or reply is removed from its old place only after it is at its new one; messages are received into the
   inbox in one call. So the next leader finishes what an interrupted one has begun (`outbox.unpack`, `_digest`).
2. A leader says that it leads no more before it calls anything else, and repeats the handing over where that was
   interrupted (`_take_part`).
3. An exception in the main thread is raised to the caller, because it may be a signal's. In any other thread it is
   printed, and everything that waits ends with it (`_fail`). Nothing is raised before every future is resolved
   (`task_future.settle_all`).
4. A callback is called without the lock, and leads again where it waits for a reply (`_depth`). Closing does not wait
   for it longer than GIVE_UP_S; its thread then closes the socket (`_end`).
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import zmq

from taskengine._socket import Waiter
from taskengine.client import wakeup
from taskengine.client.call_queue import CallQueue, Calls
from taskengine.client.calls import Call
from taskengine.client.connection import Connection, local_time
from taskengine.client.open_streams import drop_abandoned
from taskengine.client.outbox import awaited_futures, count_nobodys, fail_unsent, unpack
from taskengine.client.reports import announce
from taskengine.client.requests import Options, OutgoingRequest
from taskengine.client.session import Session
from taskengine.client.task_future import TaskFuture, report, settle_all
from taskengine.errors import BadArguments, Cancelled, NotAllowed, ProtocolError, TaskEngineError
from taskengine.runtime.hosts import Lookup
from taskengine.security.keys import Membership, not_let_in

LONGEST_POLL_S = 3600.0
LAST_REPLIES_S = 0.05
"""How long, in s, the last replies of a lost connection may still be on their way from ZeroMQ's own thread."""
RETRY_S = 0.2
"""How long to wait, in s, before retrying a connection that could not be made, for example without descriptors."""
CLOSE_S = 5.0
"""How long, in s, a client that closes waits for pending requests,"""
UNREACHED_S = 1.0
"""and for an engine that has never answered."""
GIVE_UP_S = 1.0
"""How long, in s, a closing client waits for the leader to stop; the leader may be in a callback without end."""
CLOSED = "the client was closed before the reply came"
CUTS = 2
"""Interrupted handshakes in a row before the engine counts as refusing us: an engine may be killed in the first."""
NOBODY = 0  # no thread has this identity
WAKEUP, REPLY, NEWS = 1, 2, 4
"""The events of the waiter, by place among its sources."""


class Transport:
    """A DEALER to `address` for `session`, which also sends the `queue` when due. Raises BadArguments: the address."""

    def __init__(self, address: str, session: Session, queue: CallQueue, membership: Membership | None = None) -> None:
        self._session = session
        self._queue = queue
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._outbox: deque[OutgoingRequest | Calls] = deque()  # from all threads, for the leader
        self._outgoing: deque[OutgoingRequest] = deque()  # the leader's, in the order of sending
        self._inbox: deque[list[bytes]] = deque()  # the leader's, in the order of arrival
        self._leader = NOBODY
        self._depth = 0  # how often the leader leads: a callback's call leads again
        self._closing = False
        self._giving_up = False
        self._is_hurried = False
        self._dropping = False
        self._info = session.info
        self.window = 0
        """Queued calls are sent at once while fewer requests than this are under way."""
        self._closed = False
        self._refusal = "the client is closed"
        self._cuts = 0
        """Handshakes in a row that the other side has interrupted."""
        self._thread: threading.Thread | None = None
        self._address = address
        self._membership = membership
        self._by_ipv6 = True
        self._lookup = Lookup(address, session.doubt)
        self._context = zmq.Context()
        self._wakeup = wakeup.make()
        try:
            self._connect()
        except (BadArguments, zmq.ZMQError):
            wakeup.close(self._wakeup)
            self._context.term()
            raise
        _links.add(self)

    def _connect(self) -> None:
        self._by_ipv6 = not self._by_ipv6  # the address families of a name by turns: one may lead nowhere
        self._connection = Connection(self._context, self._address, self._membership, by_ipv6=self._by_ipv6)
        self._waiter = Waiter(self._wakeup, self._connection.port, self._connection.news)
        self._reconnect_at = math.inf

    def post(self, outgoing: OutgoingRequest, *, flush: bool = False) -> None:
        """Send soon, with `flush` behind queued calls; the request expires by itself."""
        with self._lock:
            self._check_open(outgoing)
            if flush:
                self._queue.move(self._outbox)
            self._session.watch(outgoing.serial, time.monotonic())
            self._outbox.append(outgoing)
            self._call_leader()

    def enqueue(self, call: Call, future: Future[Any], options: Options) -> None:
        """Queue a call; it expires by itself."""
        is_due = False
        with self._lock:
            self._check_open()
            if not self._queue.join(call, future, options):
                is_due = self._queue.add(call, future, options, time.monotonic(), local_time())
            if len(self._session.pending) + len(self._outbox) < self.window:
                self._queue.move(self._outbox)
                is_due = True
            if is_due:
                self._call_leader()

    def awaited(self) -> list[Future[Any]]:
        """Return the futures of all calls that have no outcome yet, the oldest last."""
        with self._lock:
            unsent = [*self._outbox, *self._queue.queued]
        return awaited_futures(self._session, unsent)

    @property
    def is_connected(self) -> bool:
        """Return whether there is a connection, as far as is known."""
        return self._connection.connected

    def flush(self) -> None:
        """Send queued calls soon."""
        with self._lock:
            self._check_open()
            self._queue.move(self._outbox)
            self._call_leader()

    def exchange(self, outgoing: OutgoingRequest, future: Future[Any], timeout: float | None) -> Any:
        """Send, behind queued calls, and return the result. Raises its error, TaskTimeout or EngineUnreachable."""
        try:
            end = math.inf if timeout is None else time.monotonic() + timeout
            done = future.has_ended if isinstance(future, TaskFuture) else future.done
            self._take_part(outgoing, done, end)
            if done():
                return future.result()
            with contextlib.suppress(TimeoutError):
                future.exception(None if timeout is None else max(0.0, end - time.monotonic()))
            if future.done() or timeout is None:
                return future.result()
            raise self._session.no_reply(timeout, connected=self._connection.connected)
        except BaseException:
            self._session.forget(outgoing.serial)
            if not future.done() and isinstance(future, TaskFuture) and self._connection.connected:
                self.retract(outgoing.serial, None)
            raise

    def retract(self, serial: int, position: int | None) -> None:
        """Tell the engine soon that a package, or a task of it, is cancelled; a closed client has done so already."""
        with self._lock:
            if not self._closing:
                self._session.retract(serial, position)
                self._call_leader()

    def abandon(self, serial: int) -> None:
        """Cancel a stream that nobody reads; without a lock, because a finalizer may call this at any point."""
        self._session.abandoned.append(serial)
        if not self._closed:
            wakeup.ring(self._wakeup)

    def close(self, timeout: float | None = None, *, flush: bool = True) -> None:
        """Wait up to `timeout` s for pending requests, give up the rest, and close. May be called twice.

        The default `timeout` is CLOSE_S, or UNREACHED_S if no engine has ever answered. Without `flush` unsent requests
        are cancelled. Raises EngineUnreachable if calls without a result were not sent.
        """
        began = time.monotonic()
        with self._lock:
            if self._closing:
                return
            self._closing, self._dropping = True, not flush
        unsent = 0
        try:
            if self._take_over(CLOSE_S if timeout is None else timeout):
                # the engine closes their tasks when the connection ends
                self._session.fail(self._session.streams(), Cancelled(CLOSED))
                if timeout is None and self._session.info is None:
                    self._lead(lambda: self._is_done() or self._connection.connected, began + UNREACHED_S)
                if timeout is not None or self._connection.connected:
                    self._lead(self._is_done, began + (CLOSE_S if timeout is None else timeout))
            if flush:
                with self._lock:
                    unsent = count_nobodys(self._session, [*self._outbox, *self._outgoing])
        finally:
            self._end()
        if unsent:
            raise self._session.unsent(unsent, time.monotonic() - began)

    def hurry(self) -> None:
        """End the waiting of a `close` in another thread."""
        with self._lock:
            self._is_hurried = True
            self._wake()
            self._idle.notify_all()

    def _is_done(self) -> bool:
        return self._is_hurried or not (self._outbox or self._session.is_awaited)

    def _take_part(self, outgoing: OutgoingRequest, done: Callable[[], bool], end: float) -> None:
        """Send, and lead if no thread does, or if this is a callback of the leader."""
        leading, me = False, threading.get_ident()
        try:
            with self._lock:
                self._check_open()
                self._queue.move(self._outbox)
                self._outbox.append(outgoing)
                if self._leader == NOBODY or (self._leader == me and not self._depth):
                    leading, self._leader = True, me
                elif self._leader != me:
                    self._wake()
            if self._leader == me:
                self._lead(done, end)
        finally:
            if leading:
                self._leader = NOBODY
                try:
                    self._hand_over()
                except BaseException:
                    self._hand_over()
                    raise

    def _take_over(self, timeout: float) -> bool:
        """Lead from now on, once the present leader has gone; return whether it has."""
        me = threading.get_ident()
        with self._lock:
            if self._leader == me and self._depth:  # called by a callback of this thread
                self._queue.move(self._outbox)
                return True
            self._wake()
            self._idle.notify_all()
            self._idle.wait_for(lambda: self._leader in (NOBODY, me) or self._is_hurried, timeout)
            if self._leader not in (NOBODY, me):
                self._giving_up = True
                self._wake()
                if not self._idle.wait_for(lambda: self._leader in (NOBODY, me), GIVE_UP_S):
                    return False
            self._giving_up, self._leader = False, me
            self._queue.move(self._outbox)
            return True

    def _end(self) -> None:
        """Resolve what is left, and close the socket; if another thread still has the socket, that thread does so."""
        me = threading.get_ident()
        with self._lock:
            self._wake()
            if self._leader == NOBODY:
                self._leader = me
            self._closed = True
        try:
            self._abandon(Cancelled(CLOSED))
        finally:
            if self._leader == me:
                self._release()

    def _release(self) -> None:
        ours, self._wakeup = self._wakeup, -1
        if ours >= 0:  # not created yet
            self._connection.close()
            self._context.term()
            wakeup.close(ours)

    def _disown(self) -> None:
        """Give up in a forked child: the socket is the parent's, and a thread that is not here may hold the lock."""
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._leader, self._wakeup = NOBODY, -1
        if not self._closing:
            self._refusal = "the client was made before the process was forked: make one in the child"
        self._closing = self._closed = True

    def _abandon(self, error: TaskEngineError) -> None:
        """Fail everything that is queued or pending."""
        with self._lock:
            self._queue.move(self._outbox)
            unsent = list(self._outbox)
            if self._leader == threading.get_ident():
                self._outbox.clear()
                self._outgoing.clear()
                self._inbox.clear()
        fail_unsent(self._session, unsent, error)
        self._session.give_up(error)
        settle_all(self._session.outcomes)

    def _drop(self) -> None:
        """Cancel all unsent requests."""
        with self._lock:
            self._queue.move(self._outbox)
        for waiting in (self._outbox, self._outgoing):
            fail_unsent(self._session, waiting, Cancelled(CLOSED))
            waiting.clear()

    def _fail(self, error: BaseException) -> None:
        """Handle an unexpected error: end all waiting with it, rather than waiting without end."""
        report(error)
        failure = TaskEngineError(f"the client's connection failed: {error!r}")
        failure.__cause__ = error
        self._reconnect_at = -math.inf
        self._abandon(failure)

    def _check_open(self, outgoing: OutgoingRequest | None = None) -> None:
        if self._closing:
            if outgoing is not None:
                self._session.forget(outgoing.serial)
            raise Cancelled(self._refusal)

    def _call_leader(self) -> None:
        if self._leader != NOBODY:
            self._wake()
            return
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._serve, name="taskengine-link", daemon=True)
            self._thread.start()
        self._idle.notify_all()

    def _wake(self) -> None:
        if not self._closed:
            wakeup.ring(self._wakeup)

    def _hand_over(self) -> None:
        """Stop leading, and see to it that another thread does if work is left."""
        with self._lock:
            if self._closing:
                self._idle.notify_all()
            elif self._leader == NOBODY and self._busy():
                self._call_leader()
        if self._closed and self._leader == NOBODY:
            self._release()

    def _busy(self) -> bool:
        session = self._session
        owed = self._outbox or self._outgoing or self._inbox or session.pending or session.outcomes
        unsaid = session.retractions and self._connection.connected
        return bool(owed or unsaid) or self._queue.due(time.monotonic()) < math.inf

    def _serve(self) -> None:
        """Run the transport's own thread: lead while no other does and work is left."""
        while True:
            with self._lock:
                self._idle.wait_for(lambda: self._closing or (self._leader == NOBODY and self._busy()))
                if self._closing:
                    return
                self._leader = threading.get_ident()
            try:
                self._lead(lambda: self._closing or not self._busy(), math.inf)
            finally:
                self._leader = NOBODY
                self._hand_over()

    def _lead(self, done: Callable[[], bool], end: float) -> None:
        """Own the socket until `done()`, or until the monotonic time `end` in s."""
        self._depth += 1
        try:
            # while no thread led, so nothing was pending
            if not self._closed and self._connection.has_news() and self._connection.lost():
                self._reconnect_at = -math.inf
            if self._inbox or self._session.outcomes:  # of a leader that was interrupted
                self._digest()
            while not self._closed:
                now = time.monotonic()
                due = self._turn(now)
                if self._closed or done() or self._giving_up or now >= end:
                    return
                ready = self._waiter.wait(math.ceil(max(0.0, min(due, end - now, LONGEST_POLL_S)) * 1000))
                if ready & WAKEUP:
                    wakeup.hush(self._wakeup)
                if ready & REPLY:
                    self._receive()
                    if done() and not self._outbox:
                        return
                if ready & NEWS and not self._closed:
                    self._take_news()
        except BaseException as error:
            if threading.current_thread() is threading.main_thread():
                raise
            self._fail(error)
        finally:
            self._depth -= 1

    def _take_news(self) -> None:
        if self._connection.lost():
            self._reconnect_at = time.monotonic() + (RETRY_S if self._by_ipv6 else LAST_REPLIES_S)
            self._lookup.begin()
        self._cuts = 0 if self._connection.connected else self._cuts + self._connection.is_cut
        refused = self._connection.refused or self._cuts >= CUTS
        self._connection.refused = self._connection.is_cut = False
        if refused:
            self._session.give_up(NotAllowed(not_let_in(self._address, self._membership)))
            settle_all(self._session.outcomes)

    def _turn(self, now: float) -> float:
        """Do what is due, and return in how many seconds something will be."""
        if self._session.abandoned:
            drop_abandoned(self._session)
        if self._reconnect_at <= now:
            self._reconnect(now)
        if self._queue.due(now) <= 0 or (self._queue.queued and len(self._session.pending) < self.window):
            with self._lock:
                self._queue.move(self._outbox)
        self._send(now)
        if self._session.due(now) <= 0:
            self._session.expire(now, connected=self._connection.connected)
            self._send(now)
        if self._session.outcomes:
            settle_all(self._session.outcomes)
        return min(self._queue.due(now), self._session.due(now), max(self._reconnect_at - now, 0.0))

    def _reconnect(self, now: float) -> None:
        """Handle a lost connection: fail or resend what was sent over it, and connect anew."""
        with self._lock:
            unsent = {
                outgoing.serial
                for outgoing in (*self._outbox, *self._outgoing)
                if isinstance(outgoing, OutgoingRequest)
            }
        self._connection.close(0)
        again = self._session.lose([serial for serial in list(self._session.pending) if serial not in unsent])
        self._outgoing.extendleft(reversed(again))
        try:
            self._connect()
        except (BadArguments, OSError, zmq.ZMQError):
            self._waiter = Waiter(self._wakeup)
            self._reconnect_at = now + RETRY_S

    def _send(self, now: float) -> None:
        """Send from the outbox while there is a connection to take it and the engine has answered the hello."""
        if self._dropping:
            self._drop()
        unpack(self._outbox, self._outgoing, self._session, now)
        is_owed = self._outgoing or self._session.retractions or self._queue.due(now) < math.inf
        if not (is_owed and self._connection.connected):
            return
        local = local_time()  # one time for the whole turn: a round trip may be overestimated, but not underestimated
        if local >= self._session.greet_at and not self._greet(now, local):
            return
        if self._session.retractions:
            with self._lock:
                retracted = list(self._session.retracted())
            for outgoing in retracted:
                self._session.watch(outgoing.serial, now)
            self._outgoing.extend(retracted)
        while self._outgoing:
            outgoing = self._outgoing[0]
            del self._outgoing[0]
            if outgoing.serial in self._session.pending and (frames := self._session.write(outgoing, local)):
                self._connection.port.send(frames)

    def _greet(self, now: float, local: int) -> bool:
        """Send a hello if one is due; return whether the engine has answered the last one."""
        hello = self._session.greet(local)
        if hello is not None:
            self._session.watch(hello.serial, now)
            self._connection.port.send(self._session.write(hello, local))
            self._session.greeted(hello, local)
        return self._session.is_ready

    def _receive(self) -> None:
        self._inbox.extend(iter(self._connection.port.receive, None))
        self._digest()

    def _digest(self) -> None:
        """Take all messages that have come, whichever thread received them, and resolve the futures."""
        while self._inbox:
            frames = self._inbox[0]
            # a malformed message answers no request: its sender keeps waiting, up to its timeout
            with contextlib.suppress(ProtocolError):
                self._session.receive(frames, local_time())
            if self._inbox and self._inbox[0] is frames:
                del self._inbox[0]
            if self._session.info is not self._info:
                self._info = self._session.info
                self._queue.learn(self._info)
            if self._session.reports:
                announce(self._session.reports)
            settle_all(self._session.outcomes)
        if self._session.outcomes:
            settle_all(self._session.outcomes)


def _disown_all() -> None:
    for link in _links:
        link._disown()


_links: weakref.WeakSet[Transport] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_disown_all)
