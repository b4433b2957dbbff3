"""The socket of a client that several threads share.

One thread at a time leads: it owns the socket, sends what all threads have put in the outbox, receives, and resolves
the futures of all. A thread that waits for a reply leads itself when nobody does, so that a single call costs no
switch of threads; a thread of the link's own leads while only futures are waiting.

Nothing is given to ZeroMQ before there is a connection: what nobody waits for any more is never sent, and what was sent
over a connection that was lost is known to be lost with it. That is sent again where its tasks may run twice. The first
message over a connection is a hello; the others wait for its answer, by which they can say how old they are.
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
from taskengine.connection import Connection, local_time
from taskengine.errors import BadArguments, Cancelled, NotAllowed, ProtocolError, TaskEngineError
from taskengine.hosts import Lookup
from taskengine.keys import Membership, not_let_in
from taskengine.outbox import count_nobodys, fail_unsent
from taskengine.queue import Calls, Queue
from taskengine.session import Call, Options, Parcel, Session, TaskFuture, settle

LONGEST_POLL_S = 3600.0
LAST_REPLIES_S = 0.05
"""How long the last replies of a lost connection may still be on their way from ZeroMQ's own thread."""
RETRY_S = 0.2
"""How long until a connection that could not be made is tried again, such as for want of file descriptors."""
CLOSE_S = 5.0
"""How long a client that closes waits for what is pending,"""
UNREACHED_S = 1.0
"""and for an engine that has never answered."""
GIVE_UP_S = 1.0
"""How long a client that closes waits for one that leads and is told to go; it may be in a callback without end."""
CLOSED = "the client was closed before the reply came"
CUTS = 2
"""Handshakes that are cut, in a row, until an engine is said not to let us in: one may be killed in the first."""
NOBODY = 0  # no thread has this identity
WAKEUP, REPLY, NEWS = 1, 2, 4
"""What is ready, by its place among the sources of the waiter."""


class Link:
    """A DEALER to `address` for `session`, which also sends what is due in `queue`. Raises BadArguments: no address."""

    def __init__(self, address: str, session: Session, queue: Queue, membership: Membership | None = None) -> None:
        self._session = session
        self._queue = queue
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._outbox: deque[Parcel | Calls] = deque()  # from all threads, for the one that leads
        self._parcels: deque[Parcel] = deque()  # of the one that leads, in the order in which they are sent
        self._inbox: deque[list[bytes]] = deque()  # likewise, in the order in which they came
        self._leader = NOBODY
        self._depth = 0  # how often the one that leads does, a callback in a call of its own
        self._closing = False
        self._giving_up = False
        self._is_hurried = False
        self._dropping = False
        self._info = session.info
        self._closed = False
        self._refusal = "the client is closed"
        self._cuts = 0
        """Handshakes in a row that the other side has cut."""
        self._thread: threading.Thread | None = None
        self._address = address
        self._membership = membership
        self._by_ipv6 = True
        self._lookup = Lookup(address, session.doubt)
        self._context = zmq.Context()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._connect()
        except (BadArguments, zmq.ZMQError):
            os.close(self._wakeup)
            self._context.term()
            raise
        _links.add(self)

    def _connect(self) -> None:
        self._by_ipv6 = not self._by_ipv6  # the families of a name by turns: one may lead nowhere
        self._connection = Connection(self._context, self._address, self._membership, by_ipv6=self._by_ipv6)
        self._waiter = Waiter(self._wakeup, self._connection.port, self._connection.news)
        self._reconnect_at = math.inf

    def post(self, parcel: Parcel, *, flush: bool = False) -> None:
        """Send soon, behind what is queued with `flush`, from whichever thread leads; it expires by itself."""
        with self._lock:
            self._check_open(parcel)
            if flush:
                self._queue.move(self._outbox)
            self._session.watch(parcel.serial, time.monotonic())
            self._outbox.append(parcel)
            self._call_leader()

    def enqueue(self, call: Call, future: Future[Any], options: Options) -> None:
        """Queue a call; it expires by itself."""
        with self._lock:
            self._check_open()
            if self._queue.add(call, future, options, time.monotonic(), local_time()):
                self._call_leader()

    def flush(self) -> None:
        """Send what is queued soon."""
        with self._lock:
            self._check_open()
            self._queue.move(self._outbox)
            self._call_leader()

    def exchange(self, parcel: Parcel, future: Future[Any], timeout: float | None) -> Any:
        """Send, behind what is queued, and wait for the future.

        Raises its exception, TaskTimeout or EngineUnreachable after `timeout` s.
        """
        try:
            end = math.inf if timeout is None else time.monotonic() + timeout
            self._take_part(parcel, future.done, end)
            if future.done():
                return future.result()
            with contextlib.suppress(TimeoutError):
                future.exception(None if timeout is None else max(0.0, end - time.monotonic()))
            if future.done() or timeout is None:
                return future.result()
            raise self._session.no_reply(timeout, connected=self._connection.connected)
        except BaseException:
            self._session.forget(parcel.serial)
            if not future.done() and isinstance(future, TaskFuture) and self._connection.connected:
                self.retract(parcel.serial, None)
            raise

    def retract(self, serial: int, position: int | None) -> None:
        """Tell the engine soon that nobody wants a package any more, or a task of it; what is closed has told."""
        with self._lock:
            if not self._closing:
                self._session.retract(serial, position)
                self._call_leader()

    def close(self, timeout: float | None = None, *, flush: bool = True) -> None:
        """Wait up to `timeout` s for what is pending, give up the rest, and close the socket. May be called twice.

        Without a `timeout` that is CLOSE_S, or UNREACHED_S where no engine has ever answered. Without `flush` what is
        not sent yet is cancelled. Raises EngineUnreachable where calls were not sent whose result nobody waits for.
        """
        began = time.monotonic()
        with self._lock:
            if self._closing:
                return
            self._closing, self._dropping = True, not flush
        unsent = 0
        try:
            if self._take_over(CLOSE_S if timeout is None else timeout):
                if timeout is None and self._session.info is None:
                    self._lead(lambda: self._is_done() or self._connection.connected, began + UNREACHED_S)
                if timeout is not None or self._connection.connected:
                    self._lead(self._is_done, began + (CLOSE_S if timeout is None else timeout))
            if flush:
                with self._lock:
                    unsent = count_nobodys(self._session, [*self._outbox, *self._parcels])
        finally:
            self._end()
        if unsent:
            raise self._session.unsent(unsent, time.monotonic() - began)

    def hurry(self) -> None:
        """Have a `close` that waits in another thread wait no longer."""
        with self._lock:
            self._is_hurried = True
            self._wake()
            self._idle.notify_all()

    def _is_done(self) -> bool:
        return self._is_hurried or not (self._outbox or self._session.is_awaited)

    def _take_part(self, parcel: Parcel, done: Callable[[], bool], end: float) -> None:
        """Send, and lead if nobody does, or if this is a callback of the thread that does."""
        leading, me = False, threading.get_ident()
        try:
            with self._lock:
                self._check_open()
                self._queue.move(self._outbox)
                self._outbox.append(parcel)
                if self._leader == NOBODY or (self._leader == me and not self._depth):
                    leading, self._leader = True, me
                elif self._leader != me:
                    self._wake()
            if self._leader == me:
                self._lead(done, end)
        finally:
            if leading:
                self._leader = NOBODY  # before any call, for behind one a signal's handler may raise
                try:
                    self._hand_over()
                except BaseException:
                    self._hand_over()
                    raise

    def _take_over(self, timeout: float) -> bool:
        """Lead from now on, once the one that does has gone; whether it has."""
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
        """Resolve what is left, and close the socket, unless another thread still has it, which then does."""
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
        wakeup, self._wakeup = self._wakeup, -1
        if wakeup >= 0:  # not yet
            self._connection.close()
            self._context.term()
            os.close(wakeup)

    def _disown(self) -> None:
        """In a forked child: the socket is the parent's, and the lock may be held by a thread that is not here."""
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._leader, self._wakeup = NOBODY, -1
        if not self._closing:
            self._refusal = "the client was made before the process was forked: make one in the child"
        self._closing = self._closed = True

    def _abandon(self, error: TaskEngineError) -> None:
        """Nothing that is queued or pending will be answered."""
        with self._lock:
            self._queue.move(self._outbox)
            unsent = list(self._outbox)
            if self._leader == threading.get_ident():
                self._outbox.clear()
                self._parcels.clear()
                self._inbox.clear()
        fail_unsent(self._session, unsent, error)
        self._session.give_up(error)
        self._settle()

    def _drop(self) -> None:
        """Cancel what is not sent yet."""
        with self._lock:
            self._queue.move(self._outbox)
        for waiting in (self._outbox, self._parcels):
            fail_unsent(self._session, waiting, Cancelled(CLOSED))
            waiting.clear()

    def _fail(self, error: BaseException) -> None:
        """An error that nobody has thought of: better for all who wait than a wait without end."""
        _report(error)
        failure = TaskEngineError(f"the client's connection failed: {error!r}")
        failure.__cause__ = error
        self._reconnect_at = -math.inf
        self._abandon(failure)

    def _check_open(self, parcel: Parcel | None = None) -> None:
        if self._closing:
            if parcel is not None:
                self._session.forget(parcel.serial)
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
            os.eventfd_write(self._wakeup, 1)

    def _hand_over(self) -> None:
        """Nobody leads any more: see to it that somebody does where something is owed."""
        with self._lock:
            if self._closing:
                self._idle.notify_all()
            elif self._leader == NOBODY and self._busy():
                self._call_leader()
        if self._closed and self._leader == NOBODY:
            self._release()

    def _busy(self) -> bool:
        session = self._session
        owed = self._outbox or self._parcels or self._inbox or session.pending or session.outcomes
        unsaid = session.retractions and self._connection.connected
        return bool(owed or unsaid) or self._queue.due(time.monotonic()) < math.inf

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
                self._leader = NOBODY
                self._hand_over()

    def _lead(self, done: Callable[[], bool], end: float) -> None:
        """Own the socket until `done()`, or until the monotonic time `end` in s."""
        self._depth += 1
        try:
            if not self._closed and self._connection.lost():  # while nobody led, so nothing was pending
                self._reconnect_at = -math.inf
            if self._inbox or self._session.outcomes:  # of one that led before and was interrupted
                self._digest()
            while not self._closed:
                now = time.monotonic()
                due = self._turn(now)
                if self._closed or done() or self._giving_up or now >= end:
                    return
                ready = self._waiter.wait(math.ceil(max(0.0, min(due, end - now, LONGEST_POLL_S)) * 1000))
                if ready & WAKEUP:
                    os.eventfd_read(self._wakeup)
                if ready & REPLY:
                    self._receive()
                    if done() and not self._outbox:
                        return
                if ready & NEWS and not self._closed:
                    self._take_news()
        except BaseException as error:
            if threading.current_thread() is threading.main_thread():  # it may be a signal's
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
            self._settle()

    def _turn(self, now: float) -> float:
        """Do what is due, and say in how many seconds something will be."""
        if self._reconnect_at <= now:
            self._reconnect(now)
        if self._queue.due(now) <= 0:
            with self._lock:
                self._queue.move(self._outbox)
        self._send(now)
        if self._session.due(now) <= 0:
            self._session.expire(now, connected=self._connection.connected)
            self._send(now)
        if self._session.outcomes:
            self._settle()
        return min(self._queue.due(now), self._session.due(now), max(self._reconnect_at - now, 0.0))

    def _reconnect(self, now: float) -> None:
        """The connection is gone, and with it what was sent over it; not what still waits for a connection."""
        with self._lock:
            unsent = {parcel.serial for parcel in (*self._outbox, *self._parcels) if isinstance(parcel, Parcel)}
        self._connection.close(0)
        again = self._session.lose([serial for serial in list(self._session.pending) if serial not in unsent])
        self._parcels.extendleft(reversed(again))
        try:
            self._connect()
        except (BadArguments, OSError, zmq.ZMQError):
            self._waiter = Waiter(self._wakeup)
            self._reconnect_at = now + RETRY_S

    def _send(self, now: float) -> None:
        """Send what is in the outbox, as long as there is a connection to take it and the engine has said hello."""
        if self._dropping:
            self._drop()
        # a signal's handler runs behind a call: what is taken with `del` is where it goes before one can
        while self._outbox:
            item = self._outbox[0]
            if isinstance(item, Parcel):
                del self._outbox[0]
                self._parcels.append(item)
                continue
            parcels = item.pack(self._session)
            for parcel in parcels:
                self._session.watch(parcel.serial, now)
            del self._outbox[0]
            self._parcels.extend(parcels)
        is_owed = self._parcels or self._session.retractions or self._queue.due(now) < math.inf
        if not (is_owed and self._connection.connected):
            return
        local = local_time()  # of the whole turn: a reply's way may only be taken for a longer one
        if local >= self._session.greet_at and not self._greet(now, local):
            return
        if self._session.retractions:
            with self._lock:
                retracted = list(self._session.retracted())
            for parcel in retracted:
                self._session.watch(parcel.serial, now)
            self._parcels.extend(retracted)
        while self._parcels:
            parcel = self._parcels[0]
            del self._parcels[0]
            if parcel.serial in self._session.pending:
                self._connection.port.send(self._session.write(parcel, local))

    def _greet(self, now: float, local: int) -> bool:
        """Send a hello where one is due; whether the engine has answered the last one."""
        hello = self._session.greet(local)
        if hello is not None:
            self._session.watch(hello.serial, now)
            self._connection.port.send(self._session.write(hello, local))
            self._session.greeted(hello, local)
        return self._session.is_ready

    def _receive(self) -> None:
        # in one call, so that no signal's handler comes between a reply and the inbox
        self._inbox.extend(iter(self._connection.port.receive, None))
        self._digest()

    def _digest(self) -> None:
        """Take what has come, whoever received it, and resolve the futures."""
        while self._inbox:
            frames = self._inbox[0]
            # what cannot be read answers nobody: its sender keeps waiting, up to its timeout
            with contextlib.suppress(ProtocolError):
                self._session.receive(frames, local_time())
            if self._inbox and self._inbox[0] is frames:
                del self._inbox[0]
            if self._session.info is not self._info:
                self._info = self._session.info
                self._queue.learn(self._info)
            self._settle()
        if self._session.outcomes:
            self._settle()

    def _settle(self) -> None:
        """Resolve all futures whose outcome is known, whatever their callbacks raise."""
        interrupt: BaseException | None = None
        while self._session.outcomes:
            try:
                settle(self._session.outcomes)
            except BaseException as error:
                if threading.current_thread() is not threading.main_thread():
                    _report(error)
                elif interrupt is None:
                    interrupt = error
        if interrupt is not None:  # it may be a signal's, which is for the main thread
            raise interrupt


def _report(error: BaseException) -> None:
    """Print what nobody can catch, as Python does where it ends a thread."""
    threading.excepthook(
        threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
    )


def _disown_all() -> None:
    for link in _links:
        link._disown()


_links: weakref.WeakSet[Link] = weakref.WeakSet()
os.register_at_fork(after_in_child=_disown_all)
