"""The client for asyncio: the verbs of `taskengine.Client`, awaited."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from taskengine.errors import Cancelled, EngineUnreachable, ProtocolError, TaskTimeout
from taskengine.messages import Info, Kind, TaskInfo
from taskengine.presence import Presence
from taskengine.queue import Queue
from taskengine.session import Call, Options, Session, settle
from taskengine.subscription import Feed, Sample
from taskengine.wire import DEFAULT_ADDRESS

LINGER_MS = 1000


def _waits(future: asyncio.Future[Any]) -> bool:
    return not future.done()


def _unwanted(future: asyncio.Future[Any]) -> None:
    """Take the exception of a future that nobody looks at, so that asyncio does not report it."""
    if not future.cancelled():
        future.exception()


class _Core:
    """What all views of a client share: the socket, the session, the queue. Lives in one event loop."""

    def __init__(self, address: str, name: str) -> None:
        self.address = address
        self.session = Session(name)
        self.queue: Queue[asyncio.Future[Any]] = Queue(self.session, _waits)
        self.closed = False
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.sndhwm = 0
        self._socket.rcvhwm = 0
        self._socket.linger = LINGER_MS
        self._socket.ipv6 = "[" in address
        self._socket.connect(address)
        self.presence = Presence(self._socket)
        self._timer: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Future[Any]] = set()
        self._reader: asyncio.Task[None] | None = None

    def send(self, frames: list[bytes]) -> None:
        """Send a request; the reply comes by itself."""
        if self.closed:
            raise Cancelled("the client is closed")
        if self._reader is None:
            self._reader = asyncio.get_running_loop().create_task(self._read())
        sent = asyncio.ensure_future(self._socket.send_multipart(frames))
        self._sending.add(sent)
        sent.add_done_callback(self._sending.discard)

    def flush(self) -> None:
        """Send what is queued."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for frames in self.queue.take():
            self.send(frames)

    def schedule(self) -> None:
        """Send what is queued when it is due."""
        due = self.queue.due(time.monotonic())
        if due <= 0:
            self.flush()
        elif self._timer is None and due < math.inf:
            self._timer = asyncio.get_running_loop().call_later(due, self.flush)

    async def _read(self) -> None:
        while True:
            frames = await self._socket.recv_multipart()
            # what cannot be read answers nobody: its sender keeps waiting, up to its timeout
            with contextlib.suppress(ProtocolError):
                settle(self.session.receive(frames))

    async def close(self, timeout: float) -> None:
        """Send what is queued, wait up to `timeout` s for what is pending, and close."""
        if self.closed:
            return
        self.flush()
        self.closed = True
        waiting = [future for pending in self.session.pending.values() for future in pending.futures]
        if waiting:
            await asyncio.wait([future for future in waiting if isinstance(future, asyncio.Future)], timeout=timeout)
        settle(self.session.fail(Cancelled("the client was closed before the reply came")))
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        self.presence.close()
        self._socket.close()
        self._context.term()


class Client:
    """Calls tasks of the engine at `address`, as `name`; a call waits `timeout` s, for ever with None.

    Belongs to the event loop in which it is used. Close it, or use it in `async with`.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, name: str = "CLIENT", timeout: float | None = 60.0) -> None:
        self.address = address
        self._options = Options(timeout=timeout)
        self._core = _Core(address, name)

    def options(self, **changes: Any) -> Client:
        """This client with other options, as `taskengine.Client.options`."""
        view = copy.copy(self)
        view._options = msgspec.structs.replace(self._options, **changes)
        return view

    async def call(self, task: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a task and wait for its result. Raises the task's error, TaskTimeout or EngineUnreachable."""
        future = self._future()
        frames = self._core.session.package([(task, args, kwargs)], [future], self._options, each=True)
        return await self._exchange(frames, future)

    async def map(self, task: str, /, *iterables: Iterable[Any]) -> list[Any]:
        """Call a task once for each tuple of arguments, as one package; see `taskengine.Client.map`."""
        future = self._future()
        frames = self._core.session.mapped(task, zip(*iterables, strict=False), future, self._options)
        results: list[Any] = await self._exchange(frames, future)
        return results

    async def run(self, calls: Iterable[Call]) -> list[Any]:
        """Call many tasks, each as (name, args, kwargs), as one package; results and errors come in order."""
        future = self._future()
        frames = self._core.session.package(calls, [future], self._options, each=False)
        results: list[Any] = await self._exchange(frames, future)
        return results

    def submit(self, task: str, /, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """Queue a call and give its future; the queue is flushed every RESPONSE_TIME, or when a full load is in it."""
        future = self._future()
        self._enqueue((task, args, kwargs), future, self._options)
        return future

    def send(self, task: str, /, *args: Any, **kwargs: Any) -> None:
        """Queue a call whose result nobody wants; the engine discards it."""
        future = self._future()
        future.add_done_callback(_unwanted)
        self._enqueue((task, args, kwargs), future, msgspec.structs.replace(self._options, reply="none"))

    def flush(self) -> None:
        """Send what is queued now."""
        self._core.flush()

    async def tasks(self) -> list[TaskInfo]:
        """The tasks that the engine knows: names, signatures, docs, lanes."""
        return msgspec.convert(await self._ask(Kind.TASKS), list[TaskInfo])

    async def info(self) -> Info:
        """The engine's version, settings and data ports."""
        return msgspec.convert(await self._ask(Kind.INFO), Info)

    async def progress(self) -> list[tuple[str, int, int]]:
        """Serial, tasks done and tasks in all of each package that this client has in flight."""
        return [(serial, done, parts) for serial, done, parts in await self._ask(Kind.PROGRESS)]

    async def publish(self, topic: str, value: Any) -> None:
        """Publish a value on a topic."""
        await self._ask(Kind.PUBLISH, [topic, value])

    async def latest(self, topic: str) -> Any:
        """The last value on a topic. Raises TaskFailed, type LookupError, where there is none yet."""
        return await self._ask(Kind.LATEST, [topic])

    async def subscribe(self, topic: str) -> AsyncIterator[Sample]:
        """The values on a topic from the last one on; a topic that ends in `*` takes all that begin so."""
        addresses = (await self.info()).data_addresses
        feed = Feed(topic)
        with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as socket:
            socket.linger = 0
            socket.ipv6 = any("[" in address for address in addresses)
            socket.subscribe(feed.prefix)
            for address in addresses:
                socket.connect(address)
            while True:
                sample = feed.take(await socket.recv_multipart())
                if sample is not None:
                    yield sample

    async def close(self, timeout: float = 5.0) -> None:
        """Send what is queued, wait up to `timeout` s for what is pending, and close. May be called twice."""
        await self._core.close(timeout)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @staticmethod
    def _future() -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    async def _ask(self, kind: Kind, value: Sequence[Any] | None = None) -> Any:
        future = self._future()
        return await self._exchange(self._core.session.request(kind, future, Options(), value), future)

    async def _exchange(self, frames: list[bytes], future: asyncio.Future[Any]) -> Any:
        timeout = self._options.timeout
        self._core.send(frames)
        done, _ = await asyncio.wait([future], timeout=timeout)
        if done:
            return future.result()
        self._core.session.forget(future)
        if self._core.presence.connected():
            raise TaskTimeout(f"no reply in {timeout:g} s", seconds=timeout)
        raise EngineUnreachable(f"no engine answers at {self.address} (waited {timeout:g} s)", address=self.address)

    def _enqueue(self, call: Call, future: asyncio.Future[Any], options: Options) -> None:
        if not self._core.queue.asked:
            self._core.queue.asked = True
            known = self._future()
            known.add_done_callback(self._learned)
            self._core.send(self._core.session.request(Kind.INFO, known, Options()))
        if self._core.queue.add(call, future, options, time.monotonic()):
            self._core.schedule()

    def _learned(self, future: asyncio.Future[Any]) -> None:
        if future.exception() is None:
            self._core.queue.learn(msgspec.convert(future.result(), Info))
