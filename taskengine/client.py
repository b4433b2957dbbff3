"""The client that waits: verbs over a link that several threads may share."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from taskengine.connection import local_time
from taskengine.errors import BadArguments
from taskengine.keys import find_membership
from taskengine.lease import Lease
from taskengine.link import Link
from taskengine.messages import NO_SERIAL, Info, Kind, Stats, TaskInfo
from taskengine.queue import Queue
from taskengine.session import Call, Options, Parcel, Session, TaskFuture
from taskengine.subscription import Subscription, reachable
from taskengine.wire import DEFAULT_ADDRESS

CLOSE_S = 5.0
TOKEN_BYTES = 16
"""Of what tells one client from others of the same name."""
Posted = tuple[Parcel, Future[Any]]


class Caller:
    """What the client that waits and the one for asyncio have in common: options, requests, the queue."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        name: str = "CLIENT",
        timeout: float | None = 60.0,
        keys: str | os.PathLike[str] | None = None,
    ) -> None:
        if not (isinstance(address, str) and isinstance(name, str)):
            raise BadArguments(f"an address is text, tcp://HOST:PORT, and a name text, not {address!r} and {name!r}")
        self.address = address
        self._membership = find_membership(address, None if keys is None else Path(keys))
        self._options = Options(timeout=timeout)
        self._session = Session(name, address, os.urandom(TOKEN_BYTES), local_time())
        self._queue = Queue()
        self._link = Link(address, self._session, self._queue, self._membership)

    def options(self, **changes: Any) -> Self:
        """This client with other options: timeout, deadline, priority, reply, idempotent, errors."""
        view = copy.copy(self)
        view._options = msgspec.structs.replace(self._options, **changes)
        return view

    def send(self, task: str, /, *args: Any, **kwargs: Any) -> None:
        """Queue a call whose result nobody wants; the engine discards it."""
        self._enqueue(
            (task, args, kwargs), TaskFuture(self._link.retract), msgspec.structs.replace(self._options, reply="none")
        )

    def flush(self) -> None:
        """Send what is queued now."""
        self._link.flush()

    def _call(self, call: Call) -> Posted:
        made, future = local_time(), self._sent_future()
        return self._session.package([call], [future], self._options, each=True, made=made), future

    def _map(self, task: str, iterables: tuple[Iterable[Any], ...]) -> Posted:
        made, future = local_time(), self._sent_future()
        return self._session.mapped(task, iterables, future, self._options, made), future

    def _run(self, calls: Iterable[Call]) -> Posted:
        made, future = local_time(), self._sent_future()
        return self._session.package(calls, [future], self._options, each=False, made=made), future

    def _sent_future(self) -> TaskFuture:
        """A future of what is sent at once: from the start only the engine can cancel it."""
        future = TaskFuture(self._link.retract)
        future.set_running_or_notify_cancel()
        return future

    def _cancel_all(self) -> Posted:
        self._session.retract_all()
        return self._ask(Kind.CANCEL, [NO_SERIAL, None])

    def _ask(self, kind: Kind, value: Sequence[Any] | None = None) -> Posted:
        future: Future[Any] = Future()
        return self._session.request(kind, future, Options(timeout=self._options.timeout), value), future

    def _enqueue(self, call: Call, future: Future[Any], options: Options) -> None:
        self._link.enqueue(call, future, options)


class Client(Caller):
    """Calls tasks of the engine at `address`, as `name`; a call waits up to `timeout` s, or for ever with None.

    `keys` is the folder of the keys, None for the platform's own; where it has one for this engine, the connection is
    encrypted. May be used from several threads, and reconnects by itself. Close it, or use it in `with`; where that
    ends by an exception, what is still queued is not sent. Raises BadArguments for what is no address, KeysError for
    keys that cannot be used.
    """

    def call(self, task: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a task and wait for its result. Raises the task's error, TaskTimeout or EngineUnreachable."""
        return self._wait(self._call((task, args, kwargs)))

    def map(self, task: str, /, *iterables: Iterable[Any]) -> Any:
        """Call a task once for each tuple of arguments, like the builtin `map`, as one package.

        The results come in order, as a list; where all iterables are numpy arrays of numbers, of one dimension, and
        all results floats, or all ints, as an array. The first error among them is raised, or, with the option
        `errors="return"`, stands in its place.
        """
        return self._wait(self._map(task, iterables))

    def run(self, calls: Iterable[Call]) -> list[Any]:
        """Call many tasks, each as (name, args, kwargs), as one package; results and errors come in order."""
        results: list[Any] = self._wait(self._run(calls))
        return results

    def submit(self, task: str, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call and give its future; the queue is flushed every RESPONSE_TIME, or when a full load is in it.

        The future ends in TaskTimeout or EngineUnreachable when the option `timeout` is over.
        """
        future = TaskFuture(self._link.retract)
        self._enqueue((task, args, kwargs), future, self._options)
        return future

    def cancel(self, future: Future[Any] | None = None) -> None:
        """Have the task of a submitted future not begin, if it has not; with None, all that this client has sent.

        The future ends in `Cancelled`, or, where that was too late, in the result; `future.cancel()` does the same.
        """
        if future is not None:
            future.cancel()
        else:
            self._wait(self._cancel_all())

    def tasks(self) -> list[TaskInfo]:
        """The tasks that the engine knows: names, signatures, docs, lanes."""
        return msgspec.convert(self._wait(self._ask(Kind.TASKS)), list[TaskInfo])

    def info(self) -> Info:
        """The engine's version, settings and data ports."""
        return msgspec.convert(self._wait(self._ask(Kind.INFO)), Info)

    def stats(self) -> Stats:
        """What the engine has counted: tasks, errors, restarts, who waits and works where, and how long it took."""
        return msgspec.convert(self._wait(self._ask(Kind.STATS)), Stats)

    def progress(self) -> list[tuple[str, int, int]]:
        """Serial, tasks done and tasks in all of each package that this client has in flight."""
        return [(serial, done, count) for serial, done, count in self._wait(self._ask(Kind.PROGRESS))]

    def reload(self) -> None:
        """Have the engine load its task modules anew, worker by worker, and wait until it has.

        Raises TaskFailed, type TaskModuleError, where they do not load: it goes on with what it had.
        """
        self._wait(self._ask(Kind.RELOAD))

    def publish(self, topic: str, value: Any) -> None:
        """Publish a value on a topic."""
        self._wait(self._ask(Kind.PUBLISH, [topic, value]))

    def latest(self, topic: str) -> Any:
        """The last value on a topic. Raises TaskFailed, type LookupError, where there is none yet."""
        return self._wait(self._ask(Kind.LATEST, [topic]))

    def subscribe(self, topic: str) -> Subscription:
        """The values on a topic from the last one on; a topic that ends in `*` takes all that begin so.

        Raises Overloaded where the engine runs no data worker.
        """
        addresses = reachable(self.info().data_addresses, self.address)
        return Subscription(addresses, topic, self._membership)

    def lease(self, *devices: str, exclusive: bool = False, lane: str = "") -> Lease:
        """Begin the leases of devices of the table [hardware], in `with`, and `renew` them in the loop that drives.

        With `exclusive` other clients may not command them while it runs. `lane` is the devices' own, if they have one.
        Raises BadArguments for a device that has no lease, NotAllowed where another client has one for itself.
        """
        return Lease(self.call, devices, exclusive=exclusive, lane=lane)

    def close(self, timeout: float = CLOSE_S) -> None:
        """Send what is queued, wait up to `timeout` s for what is pending, and close. May be called twice."""
        self._link.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # who presses ctrl-c has stopped waiting; what failed did not mean what is still queued to happen
        self._link.close(0.0 if kind is KeyboardInterrupt else CLOSE_S, flush=kind is None)

    def _wait(self, posted: Posted) -> Any:
        return self._link.exchange(*posted, self._options.timeout)
