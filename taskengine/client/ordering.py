"""Yields the results of calls in the order of the calls, as they come, with a bounded number of calls under way."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Any

from taskengine.errors import BadArguments, TaskEngineError

BUFFERSIZE = 1000
"""How many calls of `imap` are under way at most, unless the caller says otherwise."""
Row = tuple[Any, ...]


def in_order(
    submit: Callable[..., Future[Any]], rows: Iterable[Row], buffersize: int | None, timeout: float | None = None
) -> Iterator[Any]:
    """Submit the first `buffersize` rows of arguments now, all with None, and each further one as a result is taken.

    An error is raised in the place of its result; then, and where the iterator is closed, the calls that are left are
    cancelled. Raises TimeoutError where a result is not there `timeout` s after the call of this function.
    """
    _check(buffersize)
    end = math.inf if timeout is None else time.monotonic() + timeout
    waiting = iter(rows)
    futures: deque[Future[Any]] = deque()
    try:
        futures.extend(submit(*row) for row in islice(waiting, buffersize))
    except BaseException:
        _cancel(futures)
        raise
    return _results(submit, waiting if buffersize else iter(()), futures, end)


async def in_order_async(
    submit: Callable[..., Awaitable[Any]], rows: Iterable[Row], buffersize: int | None
) -> AsyncIterator[Any]:
    """Do as `in_order` with futures of asyncio; the first rows are submitted when the first result is asked for."""
    _check(buffersize)
    waiting = iter(rows)
    futures: deque[Any] = deque()
    try:
        futures.extend(submit(*row) for row in islice(waiting, buffersize))
        while futures:
            futures.extend(submit(*row) for row in islice(waiting, 1))
            yield await futures.popleft()
    finally:
        _cancel(futures)


def flattened(chunks: Iterator[list[Any]]) -> Iterator[Any]:
    """Yield the entries of lists, and raise the first that is an error; then close the iterator of the lists."""
    try:
        for chunk in chunks:
            chunk.reverse()
            while chunk:  # each entry is let go before it is handed out
                if isinstance(chunk[-1], TaskEngineError):
                    raise chunk.pop()
                yield chunk.pop()
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


def _results(
    submit: Callable[..., Future[Any]], waiting: Iterator[Row], futures: deque[Future[Any]], end: float
) -> Iterator[Any]:
    try:
        while futures:
            futures.extend(submit(*row) for row in islice(waiting, 1))
            yield _result(futures.popleft(), end)
    finally:
        _cancel(futures)


def _result(future: Future[Any], end: float) -> Any:
    """Return the result of a future, waiting until `end`, monotonic s; cancel it where it does not come."""
    try:
        return future.result(None if end == math.inf else max(0.0, end - time.monotonic()))
    except BaseException:
        future.cancel()
        raise
    finally:
        del future  # its error would hold it by this frame


def _check(buffersize: int | None) -> None:
    if buffersize is not None and (not isinstance(buffersize, int) or isinstance(buffersize, bool) or buffersize < 1):
        raise BadArguments(f"buffersize is a positive int, not {buffersize!r}", name="buffersize")


def _cancel(futures: Iterable[Future[Any]]) -> None:
    for future in futures:
        future.cancel()
