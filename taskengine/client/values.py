"""The values of a stream that have come and were not read."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from taskengine.errors import ProtocolError
from taskengine.protocol.credit import Grant, Window


class ValueBuffer:
    """Values between the thread that has the socket, which calls `put`, and the thread that reads the stream.

    `size` is how far the task may be ahead of its reader. `end` is done when the stream is over, after its last value.
    """

    def __init__(self, size: Grant) -> None:
        self.window = Window(size)
        self.end: Future[Any] = Future()
        self._came = 0
        self._values: deque[tuple[Any, int]] = deque()
        self._is_closed = False
        self._change = threading.Event()
        self._notify: Callable[[], None] | None = None
        self.end.add_done_callback(lambda _: self._tell())

    @property
    def is_empty(self) -> bool:
        """Return whether no value waits to be read."""
        return not self._values

    def put(self, first: int, values: Sequence[Any], size: int) -> None:
        """Take values, the first of which has the number `first`; `size` bytes came with them.

        Values that have come before are passed over. Raises ProtocolError where values are missing before them.
        """
        if first > self._came:
            raise ProtocolError(f"value {first} of a stream has come, and value {self._came} has not")
        fresh = values[self._came - first :]
        if not fresh:
            return
        # the bytes count as read with the last value of their message
        waiting = [(value, 0) for value in fresh[:-1]] + [(fresh[-1], size)]
        self._came += len(fresh)
        if not self._is_closed:
            self._values.extend(waiting)
        self._tell()

    def pop(self) -> tuple[Any, Grant | None]:
        """Return the next value, and what to grant the task now, if anything."""
        value, size = self._values.popleft()
        return value, self.window.read(1, size)

    def clear(self) -> None:
        """Forget the values, and all that will come."""
        self._is_closed = True
        self._values.clear()

    def wait(self, seconds: float | None) -> bool:
        """Wait until a value or the end is here; return whether that was within so many s."""
        while not self._values and not self.end.done():
            self._change.clear()
            if self._values or self.end.done():
                break
            if not self._change.wait(seconds):
                return bool(self._values) or self.end.done()
        return True

    def notify(self, tell: Callable[[], None] | None) -> None:
        """Have `tell` called, by any thread, when a value or the end comes."""
        self._notify = tell

    def _tell(self) -> None:
        self._change.set()
        notify = self._notify
        if notify is not None:
            notify()
