"""The client for asyncio, with the methods of `taskengine.Client`. A thread of its transport has the socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self, overload

import msgspec
from msgspec import UNSET

from taskengine.client.async_future import AsyncTaskFuture, in_loop
from taskengine.client.async_stream import AsyncStream
from taskengine.client.async_subscription import AsyncSubscription
from taskengine.client.bars import check_bar
from taskengine.client.blocking import Caller, T, patience
from taskengine.client.calls import Call, stops_machine
from taskengine.client.futures import convert_each
from taskengine.client.lease import AsyncLease
from taskengine.client.ordering import BUFFERSIZE, in_order_async
from taskengine.client.receiver import Receiver
from taskengine.client.reports import Listener
from taskengine.client.samples import WAITING
from taskengine.client.stop_requests import Posted
from taskengine.client.stopping import STOP_S, Stopping, new_order
from taskengine.client.subscription import Wish
from taskengine.protocol.messages import Info, RequestKind, Stats, TaskInfo


class AsyncClient(Caller):
    """Calls tasks of the engine at `address`, as `name`; a call waits `timeout` s, for ever with None.

    `keys`, `engine` and `insecure` as for `taskengine.Client`. May be used in any event loop, and in several. Close it,
    or use it in `async with`; where that ends by an exception, what is still queued is not sent. Raises BadArguments
    for what is no address, KeysError for keys that cannot be used, or are missing.
    """

    @overload
    async def call(self, task: str, /, *args: Any, returns: type[T], **kwargs: Any) -> T: ...
    @overload
    async def call(self, task: str, /, *args: Any, returns: Any = ..., **kwargs: Any) -> Any: ...
    async def call(self, task: str, /, *args: Any, returns: Any = UNSET, **kwargs: Any) -> Any:
        """Call a task and wait for its result, as a value of the type `returns` if one is named.

        Raises the task's error, TaskTimeout or EngineUnreachable; BadArguments if the result is not of that type.
        """
        convert = self._returning(returns, task)
        if stops_machine(task):
            result = await asyncio.wrap_future(
                self._stops.call((task, args, kwargs), self._options, self._sent_future())
            )
        else:
            result = await self._wait(self._call((task, args, kwargs)))
        return result if convert is None else convert(result)

    async def map(self, task: str, /, *iterables: Iterable[Any], returns: Any = UNSET, progress: Any = None) -> Any:
        """Call a task once for each tuple of arguments, as one package; see `taskengine.Client.map`."""
        convert = self._returning(returns, task)
        if not progress:
            return convert_each(await self._wait(self._map(task, iterables)), convert)
        check_bar(progress)
        posted = self._map(task, iterables)
        with self._drawn(posted, progress, in_loop):
            results = await self._wait(posted)
        return convert_each(results, convert)

    async def run(self, calls: Iterable[Call]) -> list[Any]:
        """Call many tasks, each as (name, args, kwargs), as one package; results and errors come in order."""
        results: list[Any] = await self._wait(self._run(calls))
        return results

    def submit(self, task: str, /, *args: Any, returns: Any = UNSET, **kwargs: Any) -> AsyncTaskFuture:
        """Queue a call and give its future; see `taskengine.Client.submit`."""
        convert = self._returning(returns, task)
        return AsyncTaskFuture(self._submit((task, args, kwargs), self._options, convert))

    def imap(self, task: str, /, *iterables: Iterable[Any], buffersize: int = BUFFERSIZE) -> AsyncIterator[Any]:
        """Iterate over the results, in order, as they come; see `taskengine.Client.imap`."""
        return in_order_async(partial(self.submit, task), zip(*iterables, strict=False), buffersize)

    def stream(self, task: str, /, *args: Any, **kwargs: Any) -> AsyncStream:
        """Call a task that is a generator; give its values, for `async for`; see `taskengine.Client.stream`."""
        return self._stream(AsyncStream, (task, args, kwargs))

    async def stop(self, why: str = "", timeout: float = STOP_S) -> None:
        """Stop the machine by the shortest way; see `taskengine.Client.stop`."""
        stopping = Stopping(self._target(), new_order(why), timeout)
        stopping.begin()
        await asyncio.wrap_future(stopping.future)

    async def arm(self, lane: str = "") -> None:
        """Undo the stop that is in force, and no later one; see `taskengine.Client.arm`."""
        await self.info()
        task, number = self._arming(lane)
        await self.call(task, **number)

    async def cancel(self) -> None:
        """Cancel everything that this client has sent; to cancel a single call, cancel the task that awaits it.

        Calls that have not begun end in `Cancelled`.
        """
        await self._wait(self._cancel_all())

    async def tasks(self) -> list[TaskInfo]:
        """The tasks that the engine knows: names, signatures, docs, lanes."""
        return msgspec.convert(await self._wait(self._ask(RequestKind.TASKS)), list[TaskInfo])

    async def info(self) -> Info:
        """The engine's version, settings and data ports."""
        return msgspec.convert(await self._wait(self._ask(RequestKind.INFO)), Info)

    async def stats(self) -> Stats:
        """Return the engine's counters: tasks, errors, restarts, the load of each lane, and latencies."""
        return msgspec.convert(await self._wait(self._ask(RequestKind.STATS)), Stats)

    async def progress(self) -> list[tuple[str, int, int]]:
        """Serial, tasks done and tasks in all of each package that this client has in flight."""
        return [(serial, done, count) for serial, done, count in await self._wait(self._ask(RequestKind.PROGRESS))]

    async def reload(self) -> None:
        """Have the engine load its task modules anew; see `taskengine.Client.reload`."""
        await self._wait(self._ask(RequestKind.RELOAD))

    async def publish(self, topic: str, value: Any) -> None:
        """Publish a value on a topic."""
        await self._wait(self._ask(RequestKind.PUBLISH, [topic, value]))

    async def latest(self, topic: str) -> Any:
        """The last value on a topic. Raises TaskFailed, type LookupError, where there is none yet."""
        return await self._wait(self._ask(RequestKind.LATEST, [topic]))

    def subscribe(
        self, topic: str, *, newest: bool = False, waiting: int = WAITING, binary: bool = False
    ) -> AsyncSubscription:
        """The values on a topic from the last one on; see `taskengine.Client.subscribe`."""
        wish = Wish(topic, waiting, newest=newest, binary=binary)

        async def begin() -> Receiver:
            addresses = wish.addresses(await self.info(), self.address)
            return await asyncio.to_thread(wish.receive, addresses, self._membership)

        return AsyncSubscription(begin, self._ages())

    async def lease(
        self, *devices: str, exclusive: bool = False, take_over: bool = False, lane: str = ""
    ) -> AsyncLease:
        """Begin the leases of devices; see `taskengine.Client.lease`."""
        return await AsyncLease(self.call, devices, lane, self._brief().call).acquire(
            exclusive=exclusive, take_over=take_over
        )

    async def close(self, timeout: float | None = None) -> None:
        """Send what is queued, wait up to `timeout` s for what is pending, and close; see `taskengine.Client.close`.

        If this call is cancelled, it waits no longer.
        """
        await self._close(timeout, flush=True)

    async def _close(self, timeout: float | None, *, flush: bool) -> None:
        try:
            await asyncio.to_thread(self._link.close, timeout, flush=flush)
        except asyncio.CancelledError:
            self._link.hurry()  # the thread, for which the end of the program would wait
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close(patience(kind), flush=kind is None)

    def _heard(self, listener: Listener) -> Listener:
        """Return a function that has the event loop at hand, if there is one, tell `listener`."""
        try:
            return in_loop(listener)
        except RuntimeError:  # no loop runs
            return listener

    async def _wait(self, posted: Posted) -> Any:
        urged = self._stops.urged(posted, self._options.timeout)
        if isinstance(urged, Future):
            return await asyncio.wrap_future(urged)
        outgoing, future = urged
        self._link.post(outgoing, flush=True)
        return await asyncio.wrap_future(future)


Client = AsyncClient
"""The name that programs use: `taskengine.aio.Client`."""
