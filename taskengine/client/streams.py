"""A client's streams: the values of a task as it yields them, in a loop with `for`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from taskengine.client.values import ValueBuffer
from taskengine.errors import TaskEngineError
from taskengine.protocol.credit import Grant


class StreamControl(NamedTuple):
    """The functions of its client that a stream needs."""

    grant: Callable[[int, Grant], None]
    """Lets the engine send more of the stream with this serial."""
    abandon: Callable[[int], None]
    """Cancels the stream; any thread may call this, also in a finalizer."""
    no_reply: Callable[[float], TaskEngineError]
    """Returns the error for a value that has not come in so many s."""


class StreamBase:
    """The common part of both kinds of stream: the values that have come, and the ways to end."""

    def __init__(self, link: StreamControl, serial: int, values: ValueBuffer, timeout: float | None) -> None:
        self._link = link
        self._serial = serial
        self._values = values
        self._timeout = timeout
        self._is_over = False
        """Whether the end was given, or the stream was closed."""

    def _take(self) -> tuple[bool, Any]:
        """Return (True, the next value), or (False, None) where none is here yet; raise what ends the stream."""
        if self._is_over:
            raise self._stop()
        is_ended = self._values.end.done()  # asked first: all values come before the end
        if not self._values.is_empty:
            value, grant = self._values.pop()
            if grant is not None and not is_ended:
                self._link.grant(self._serial, grant)
            return True, value
        if not is_ended:
            return False, None
        self._is_over = True
        raise self._values.end.exception() or self._stop()

    def _stop(self) -> Exception:
        raise NotImplementedError

    def _abandon(self) -> None:
        """Have the engine close the generator, if it has not ended."""
        if not self._is_over:
            self._is_over = True
            if not self._values.end.done():
                self._link.abandon(self._serial)
            self._values.clear()

    def _no_value(self) -> TaskEngineError:
        """Close the stream; return the error for a value that has not come in time."""
        error = self._link.no_reply(self._timeout or 0.0)
        self._abandon()
        return error

    def __del__(self) -> None:
        self._abandon()


class Stream(StreamBase, Iterator[Any]):
    """The values that a task yields, for one thread; `Client.stream` makes it.

    The generator is closed, and its `finally` runs, when the loop is left and nothing else holds the stream, at the end
    of a `with` block, by `close`, and when the client ends.
    """

    def __next__(self) -> Any:
        """Return the next value.

        Raises:
            TaskTimeout, EngineUnreachable: no value came within the option `timeout`; the stream is closed.
            TaskEngineError: the task's error, after all values that it yielded before.
        """
        end = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            is_here, value = self._take()
            if is_here:
                return value
            if not self._values.wait(None if end is None else end - time.monotonic()):
                raise self._no_value()

    def close(self) -> None:
        """Close the generator, without waiting for its `finally`. May be called twice."""
        self._abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stop(self) -> Exception:
        return StopIteration()
