"""Values of a topic as they are published, awaited."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from taskengine.errors import Cancelled
from taskengine.receiver import Receiver
from taskengine.samples import Ages, Publication, Sample
from taskengine.subscription import aged


class AsyncSubscription:
    """Iterates over samples, in one task at a time. Close it, or use it in `async with`.

    It begins with the first sample that is asked for, or with `async with`.
    """

    def __init__(self, begin: Callable[[], Awaitable[Receiver]], ages: Ages) -> None:
        self._begin = begin
        self._ages = ages
        self._receiver: Receiver | None = None
        self._is_closed = False

    async def get(self) -> Sample:
        """The next sample; `async with asyncio.timeout(…)` bounds how long that takes, and loses none."""
        receiver = await self._started()
        arrived = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits in it
                loop.call_soon_threadsafe(arrived.set)

        publication: Publication | None
        while (publication := receiver.poll(wake)) is None:
            await arrived.wait()
            arrived.clear()
        return aged(publication, self._ages)

    @property
    def dropped(self) -> int:
        """How many publications were not handed out; see `taskengine.subscription.Subscription.dropped`."""
        return self._receiver.dropped if self._receiver else 0

    async def _started(self) -> Receiver:
        if self._is_closed:
            raise Cancelled("the subscription is closed")
        if self._receiver is None:
            receiver = await self._begin()
            self._end = weakref.finalize(self, receiver.close)
            self._receiver = receiver
        return self._receiver

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sample:
        return await self.get()

    async def aclose(self) -> None:
        """Close the socket. May be called twice."""
        self._is_closed = True
        if self._receiver is not None:
            await asyncio.to_thread(self._end)

    async def __aenter__(self) -> Self:
        await self._started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
