"""The futures of calls.

A future of the standard library makes a condition, a lock and two lists, which takes longer than to queue its call.
Most calls have ended before anybody asks. So a `TaskFuture` is *bare* at first, without these. It gets them when
another thread may come to wait: when one waits, adds a callback, or looks at the state. One that is still bare then
ends by two stores. Both happen under one lock, so that no waiting thread is missed. Whoever holds that lock takes no
other, since the standard library takes those of several futures at once.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final

from taskengine.errors import BadArguments, Cancelled, TaskEngineError
from taskengine.protocol.conversion import Convert
from taskengine.protocol.messages import NO_SERIAL
from taskengine.protocol.progress import Progress

Outcome = tuple[Future[Any], Any]
PENDING: Final = "PENDING"
FINISHED: Final = "FINISHED"
_LISTS: Final = ("_waiters", "_done_callbacks")
_GUARD: Final = threading.RLock()
"""Guards `is_bare`, `is_sent` and `is_dropped` of all futures; a signal's handler may take it once more."""


class TaskFuture(Future[Any]):
    """The future result of a call; `ask` asks the engine to cancel it."""

    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    is_bare = True
    """Whether it has no condition yet, so that no thread can be waiting for it."""
    is_sent = False
    """Whether its call was packed, so that only the engine can cancel it."""
    is_dropped = False
    """Whether it was cancelled before that."""
    is_unwanted = False
    """Whether it was cancelled afterwards."""
    serial = NO_SERIAL
    """The serial of its package, once that is sent."""
    position: int | None = None
    """The position of its task in the package, None for all tasks."""
    convert: Convert | None = None
    """The function that converts its result to the type that the caller has named."""

    _progress: Progress | None = None
    _listeners: tuple[Callable[[Progress], object], ...] = ()

    def __init__(self, ask: Callable[[int, int | None], None]) -> None:
        self._ask = ask

    _done_callbacks: list[Callable[[Future[Any]], object]]

    def __getattr__(self, name: str) -> Any:
        """Return what a bare future lacks, and make it first."""
        if name != "_condition" and name not in _LISTS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _GUARD:
            condition = threading.Condition()
            if self.is_bare:  # not before: a signal's handler runs after a call, and may have looked at it
                self._waiters, self._done_callbacks = [], []
                self._condition = condition
                self.is_bare = False
        return self.__dict__[name]

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, waiting up to `timeout` s. Raises its exception, CancelledError or TimeoutError."""
        if self._state == FINISHED and self._exception is None:
            return self._result
        return super().result(timeout)

    def has_ended(self) -> bool:
        """Do as `done` does, without a lock, so that it stays bare."""
        return self._state != PENDING

    def progress(self) -> Progress | None:
        """Return what the task said last of its progress (`taskengine.progress`), None if it has said nothing."""
        return self._progress

    def add_progress_callback(self, listener: Callable[[Progress], object]) -> None:
        """Have a function called with each report of progress that comes, and with the last one now, if one has come.

        It is called in a thread of the client's, so it has to be brief. What it raises is printed.
        """
        with _GUARD:
            self._listeners = (*self._listeners, listener)
            last = self._progress
        if last is not None:
            listener(last)

    def hear(self, progress: Progress) -> tuple[Callable[[Progress], object], ...]:
        """Take a report of progress, unless it has ended; return the functions that are to be told."""
        if self._state != PENDING:
            return ()
        with _GUARD:
            self._progress = progress
            return self._listeners

    def running(self) -> bool:
        """Return whether its call was sent and has not ended."""
        return self.is_sent and not self.done()

    def set_running_or_notify_cancel(self) -> bool:
        """Note that its call is sent; return False if it was cancelled before. May be called again."""
        return bool(to_send([self]))

    def cancel(self) -> bool:
        """Cancel the call; return True if it was not sent yet.

        Otherwise the engine is asked to cancel. The future ends in `Cancelled` if nothing has begun, and in its normal
        result if it was too late.
        """
        with _GUARD:
            is_first = not (self.is_sent or self.is_dropped)
            self.is_dropped = not self.is_sent
        if self.is_dropped:
            is_cancelled = super().cancel()
            if is_first and is_cancelled:
                super().set_running_or_notify_cancel()
            return is_cancelled
        self.is_unwanted = True  # before its serial is read: another thread may just be packing it, and reads this flag
        if not self.has_ended() and self.serial != NO_SERIAL:
            self._ask(self.serial, self.position)
        return False

    def set_result(self, result: Any) -> None:
        """End in the result, or in the error of its conversion."""
        if self.convert is not None:
            try:
                result = self.convert(result)
            except BadArguments as error:
                self.set_exception(error)
                return
        super().set_result(result)

    def disown(self, error: TaskEngineError) -> None:
        """End it in a forked child, whose parent has the call, the threads that wait, and the callbacks."""
        if self._state == PENDING:
            self.is_bare = False
            super().__init__()
            self.set_exception(error)


def to_send(futures: Iterable[Future[Any]]) -> list[int]:
    """Return the places of the futures whose calls are to be sent; only the engine can cancel those afterwards.

    May be called again for the same futures.
    """
    futures = list(futures)
    with _GUARD:
        for future in futures:
            if isinstance(future, TaskFuture) and not future.is_dropped and future._state == PENDING:
                future.is_sent = True
    return [place for place, future in enumerate(futures) if _is_to_be_sent(future)]


def _is_to_be_sent(future: Future[Any]) -> bool:
    if isinstance(future, TaskFuture):
        return future.is_sent and future._state == PENDING
    return future.running() or (not future.done() and future.set_running_or_notify_cancel())


def settle(outcomes: deque[Outcome]) -> None:
    """Resolve futures in order; pass over those that were cancelled, or whose caller gave up.

    If it raises, because a callback raised something that is no Exception, the rest stays in `outcomes`.
    """
    while outcomes:
        _end_bare(outcomes)
        if not outcomes:
            return
        outcome = outcomes[0]
        future, value = outcome
        try:
            if isinstance(value, TaskEngineError):
                future.set_exception(value)
            else:
                future.set_result(value)
        except InvalidStateError:
            # or the code that resolved it was interrupted before it had woken the waiting threads
            with future._condition:
                future._condition.notify_all()
        # a callback may have called this function itself
        if outcomes and outcomes[0] is outcome:
            del outcomes[0]


def settle_all(outcomes: deque[Outcome]) -> None:
    """Resolve all futures, whatever their callbacks raise; on the main thread, raise the first of that at the end."""
    interrupt: BaseException | None = None
    while outcomes:
        try:
            settle(outcomes)
        except BaseException as error:
            if threading.current_thread() is not threading.main_thread():
                report(error)
            elif interrupt is None:
                interrupt = error
    if interrupt is not None:  # it may come from a signal, which belongs to the main thread
        raise interrupt


def report(error: BaseException) -> None:
    """Print an error that no code can catch, as Python does when it ends a thread."""
    threading.excepthook(
        threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
    )


def _end_bare(outcomes: deque[Outcome]) -> None:
    """End the futures at the front that nobody waits for, up to the first other one."""
    with _GUARD:
        while outcomes:
            future, value = outcomes[0]
            is_error = isinstance(value, TaskEngineError)
            if not isinstance(future, TaskFuture) or not future.is_bare or future._state != PENDING:
                return
            # these end in other ways
            if future.is_unwanted or future.convert is not None or isinstance(value, Cancelled):
                return
            # no call from here on: a signal's handler runs after one, and may look at the future
            if is_error:
                future._exception = value
            else:
                future._result = value
            future._state = FINISHED
            del outcomes[0]


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_GUARD.acquire, after_in_parent=_GUARD.release, after_in_child=_GUARD.release)
