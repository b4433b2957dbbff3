"""The values of a task as it yields them, awaited."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from types import TracebackType
from typing import Any, Self

from taskengine.client.streams import StreamBase


class AsyncStream(StreamBase):
    """The values that a task yields, for `async for`; `AsyncClient.stream` makes it. See `Stream`."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """Return the next value; see `Stream.__next__`."""
        is_here, value = self._take()
        if is_here:
            return value
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    news = loop.create_future()
                    self._values.notify(functools.partial(_tell, loop, news))
                    is_here, value = self._take()
                    if is_here:
                        return value
                    await news
        except TimeoutError:
            raise self._no_value() from None
        finally:
            self._values.notify(None)

    async def aclose(self) -> None:
        """Close the generator, without waiting for its `finally`. May be called twice."""
        self._abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandon()

    def _stop(self) -> Exception:
        return StopAsyncIteration()


def _tell(loop: asyncio.AbstractEventLoop, news: asyncio.Future[None]) -> None:
    """Wake a coroutine, from any thread."""
    with contextlib.suppress(RuntimeError):  # its loop is closed
        loop.call_soon_threadsafe(_wake, news)


def _wake(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)
