"""The blocking client: methods over a transport that several threads may share."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, as_completed, wait
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

import msgspec
from msgspec import UNSET, UnsetType

from taskengine.client.bars import check_bar, drawn
from taskengine.client.call_queue import CallQueue
from taskengine.client.calls import Call, stops_machine
from taskengine.client.connection import check_address, local_time
from taskengine.client.futures import SubmittedFuture, convert_each, returning
from taskengine.client.gathering import Gathering
from taskengine.client.lease import Lease
from taskengine.client.open_streams import begin_stream
from taskengine.client.ordering import BUFFERSIZE, in_order
from taskengine.client.reports import Listener
from taskengine.client.requests import Options
from taskengine.client.samples import WAITING, Ages
from taskengine.client.session import HELLO_S, Session
from taskengine.client.stop_requests import Posted, StopRequests
from taskengine.client.stopping import STOP_S, Stopping, Target, new_order
from taskengine.client.streams import Stream, StreamBase, StreamControl
from taskengine.client.subscription import Subscription, Wish
from taskengine.client.task_future import TaskFuture
from taskengine.client.transport import Transport
from taskengine.client.values import ValueBuffer
from taskengine.errors import BadArguments, Cancelled, TaskEngineError
from taskengine.protocol.conversion import Convert
from taskengine.protocol.credit import DEFAULT_BYTES, Grant
from taskengine.protocol.limits import DEFAULT_ADDRESS
from taskengine.protocol.messages import NO_SERIAL, Info, RequestKind, Stats, TaskInfo
from taskengine.security.keys import Membership, check_encrypted, find_membership

LEAVE_S = 0.5
FAILED_S = 0.3
"""How long, in s, a `with` block that fails waits for replies to what was sent."""
TOKEN_BYTES = 16
"""Bytes of the token that tells one client from others of the same name."""
ARM_TASK = "system.arm"
S = TypeVar("S", bound=StreamBase)
T = TypeVar("T")
PriorityName = Literal["low", "normal", "high", "urgent"]
ReplyName = Literal["all", "errors", "none"]
ErrorsName = Literal["raise", "return"]


class Caller:
    """The shared base of the blocking client and the one for asyncio: options, requests, the queue."""

    _future_type: type[TaskFuture] = TaskFuture
    _submitted_type: type[TaskFuture] = SubmittedFuture
    _find_membership: Callable[..., Membership | None] = staticmethod(find_membership)

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        name: str = "CLIENT",
        timeout: float | None = 60.0,
        keys: str | os.PathLike[str] | None = None,
        engine: str = "",
        insecure: bool = False,
    ) -> None:
        if not (isinstance(address, str) and isinstance(name, str)):
            raise BadArguments(f"an address is text, tcp://HOST:PORT, and a name text, not {address!r} and {name!r}")
        check_address(address)
        self.address = address
        self._name = name
        self._insecure = insecure
        folder = None if keys is None else Path(keys)
        self._membership = self._find_membership(address, folder, engine, insecure=insecure)
        check_encrypted(address, self._membership, insecure=insecure)
        self._options = Options(timeout=timeout)
        self._session = Session(name, address, os.urandom(TOKEN_BYTES), local_time())
        self._queue = CallQueue()
        self._link = Transport(address, self._session, self._queue, self._membership)
        self._stops = StopRequests(self._session, self._link, self._target)

    def options(
        self,
        *,
        timeout: float | UnsetType | None = UNSET,
        deadline: float | UnsetType | None = UNSET,
        priority: PriorityName | UnsetType = UNSET,
        reply: ReplyName | UnsetType = UNSET,
        idempotent: bool | UnsetType = UNSET,
        errors: ErrorsName | UnsetType = UNSET,
        ahead: int | UnsetType = UNSET,
        progress: Listener | UnsetType | None = UNSET,
    ) -> Self:
        """Return this client with other options; those that are not given stay as they are.

        Args:
            timeout: how long a call waits, in s; None for ever.
            deadline: how long the engine may take to start a task, in s; None for any time.
            priority: "low", "normal", "high" or "urgent".
            reply: whether "all" results are sent back, "errors" only, or "none".
            idempotent: whether a task may run again where a worker dies in it.
            errors: whether `map` will "raise" the first error, or "return" each in the place of its result.
            ahead: how many values the task of a stream may be ahead of the loop that reads it.
            progress: a function that is called with each `Progress` that a task reports. A thread of the client's calls
                it, in `taskengine.aio` the event loop at hand; it has to be brief. None for no function.
        """
        given: dict[str, Any] = {
            "timeout": timeout,
            "deadline": deadline,
            "priority": priority,
            "reply": reply,
            "idempotent": idempotent,
            "errors": errors,
            "ahead": ahead,
            "progress": self._heard(progress) if callable(progress) else progress,
        }
        changes = {name: value for name, value in given.items() if value is not UNSET}
        view = copy.copy(self)
        view._options = msgspec.structs.replace(self._options, **changes)
        return view

    def _heard(self, listener: Listener) -> Listener:
        """Return a function, for any thread, that tells `listener`."""
        return listener

    def send(self, task: str, /, *args: Any, **kwargs: Any) -> None:
        """Queue a call without a result: the engine discards it. A task that stops is never queued; see `submit`."""
        options = msgspec.structs.replace(self._options, reply="none")
        self._submit((task, args, kwargs), options)

    @property
    def stop_in_force(self) -> int:
        """The number of the stop that is in force, 0 for none, according to the engine's last reply."""
        return self._session.stop_in_force

    def flush(self) -> None:
        """Send all queued calls now."""
        self._link.flush()

    def _call(self, call: Call) -> Posted:
        made, future = local_time(), self._sent_future()
        return self._session.package([call], [future], self._options, each=True, made=made), future

    def _map(self, task: str, iterables: tuple[Iterable[Any], ...]) -> Posted:
        made, future = local_time(), self._sent_future()
        return self._session.mapped(task, iterables, future, self._options, made), future

    @contextlib.contextmanager
    def _drawn(self, posted: Posted, progress: Any, hear: Callable[[Any], Any] = lambda tell: tell) -> Iterator[None]:
        """Draw a bar of the package, which has not been sent, until the block ends; see `drawn`.

        `hear` makes a function that any thread may call.
        """
        outgoing, _ = posted
        try:
            with drawn(progress, outgoing.request.names[0], outgoing.tasks) as tell:
                self._session.pending[outgoing.serial].gathering = Gathering(outgoing.tasks, hear(tell))
                yield
        except BaseException:
            self._session.forget(outgoing.serial)
            raise

    def _run(self, calls: Iterable[Call]) -> Posted:
        made, future = local_time(), self._sent_future()
        return self._session.package(calls, [future], self._options, each=False, made=made), future

    def _stream(self, kind: type[S], call: Call) -> S:
        """Send a call, and return the stream of its values."""
        options = self._options
        values = ValueBuffer(Grant(options.ahead, DEFAULT_BYTES))
        outgoing = begin_stream(self._session, self.address, call, values, options, local_time())
        self._link.post(outgoing, flush=True)
        return kind(
            StreamControl(self._grant, self._link.abandon, self._no_value), outgoing.serial, values, options.timeout
        )

    def _grant(self, serial: int, grant: Grant) -> None:
        with contextlib.suppress(Cancelled):  # the client is closed
            self._link.post(
                self._session.request(RequestKind.CREDIT, Future(), Options(timeout=HELLO_S), [serial, *grant])
            )

    def _no_value(self, seconds: float) -> TaskEngineError:
        return self._session.no_reply(seconds, connected=self._link.is_connected)

    def _sent_future(self) -> TaskFuture:
        """Return a future for a request that is sent at once; only the engine can cancel it."""
        future = self._future_type(self._link.retract)
        future.is_sent = True
        return future

    def _cancel_all(self) -> Posted:
        self._session.retract_all()
        return self._ask(RequestKind.CANCEL, [NO_SERIAL, None])

    def _ask(self, kind: RequestKind, value: Sequence[Any] | None = None) -> Posted:
        future: Future[Any] = Future()
        return self._session.request(kind, future, Options(timeout=self._options.timeout), value), future

    def _ages(self) -> Ages:
        """Return a calculator of the ages of publications, by this client's estimate of the engine's clock."""

        def ask() -> None:
            with contextlib.suppress(TaskEngineError):  # the client is closed
                self._link.post(self._session.request(RequestKind.INFO, Future(), Options(timeout=HELLO_S)))

        return Ages(self._session.engine_time, ask)

    def _returning(self, kind: Any, task: str) -> Convert | None:
        """Return what converts results of the task to the type that the caller names, if it names one."""
        return None if kind is UNSET or self._options.reply != "all" else returning(kind, task)

    def _submit(self, call: Call, options: Options, convert: Convert | None = None) -> TaskFuture:
        """Queue a call, or send it at once if it stops the machine or a device."""
        task = call[0]
        if stops_machine(task):
            return self._stops.call(call, options, self._sent_future())
        if isinstance(task, str) and task in self._session.stop_tasks:
            return self._rest(call, options)
        future = self._submitted_type(self._link.retract)
        if convert is not None:
            future.convert = convert
        self._link.enqueue(call, future, options)
        return future

    def _rest(self, call: Call, options: Options) -> TaskFuture:
        made, future = local_time(), self._sent_future()
        options = msgspec.structs.replace(options, priority="urgent")
        try:
            # behind queued calls, which are to be refused because of the stop; a call sent later would undo it
            self._link.post(self._session.package([call], [future], options, each=True, made=made), flush=True)
        except BadArguments as error:
            future.set_exception(error)
        return future

    def _target(self) -> Target:
        """Return the engine as the target of a stop."""
        return Target(self.address, self._membership, self._name, self._session.info, insecure=self._insecure)

    def _brief(self) -> Self:
        """Return a client with a short timeout, for a call at the end of a program that failed or was interrupted."""
        timeout = self._options.timeout
        return self.options(timeout=LEAVE_S if timeout is None else min(timeout, LEAVE_S))

    def _arming(self, lane: str) -> tuple[str, dict[str, Any]]:
        """Return the name of the task that arms, and its arguments."""
        task = f"{lane}.{ARM_TASK}" if lane else ARM_TASK
        return task, arming(task, self.stop_in_force)


def arming(task: str, stop: int) -> dict[str, Any]:
    """Return the arguments of a task that arms: the number of the stop that it undoes, if one is in force.

    An engine of version 0.1.0 has no such numbers.
    """
    return {"stop": stop} if stop and (task == ARM_TASK or task.endswith("." + ARM_TASK)) else {}


def patience(kind: type[BaseException] | None) -> float | None:
    """Return how long, in s, the end of a `with` block waits for replies after this kind of exception.

    None means the default. An interrupted program, or one whose time is over, does not wait. One that fails waits
    briefly for calls that it has sent, because those run anyway.
    """
    if kind is None:
        return None
    return 0.0 if not issubclass(kind, Exception) or issubclass(kind, TimeoutError) else FAILED_S


class Client(Caller):
    """Calls tasks of the engine at `address`, as `name`; a call waits up to `timeout` s, or for ever with None.

    `keys` is the folder of the keys, None for the platform's own. If it has a key for this engine, the connection is
    encrypted. Off loopback the folder's only engine is meant, whatever its address. If the folder has several, `engine`
    selects one by its host or by the fingerprint of its key. Without a key a client talks unencrypted: on loopback
    always, elsewhere only if `insecure`, because any program could pose as the engine there.

    A client may be used from several threads, and reconnects by itself. Close it, or use it in `with`. If the block
    ends by an exception, queued calls are not sent, and nothing is waited for. Raises BadArguments for an invalid
    address, KeysError for keys that are missing or cannot be used.
    """

    @overload
    def call(self, task: str, /, *args: Any, returns: type[T], **kwargs: Any) -> T: ...
    @overload
    def call(self, task: str, /, *args: Any, returns: Any = ..., **kwargs: Any) -> Any: ...
    def call(self, task: str, /, *args: Any, returns: Any = UNSET, **kwargs: Any) -> Any:
        """Call a task and wait for its result, as a value of the type `returns` if one is named.

        Raises the task's error, TaskTimeout or EngineUnreachable; BadArguments if the result is not of that type.
        """
        convert = self._returning(returns, task)
        result = self._called((task, args, kwargs))
        return result if convert is None else convert(result)

    def _called(self, call: Call) -> Any:
        task = call[0]
        if stops_machine(task):
            return self._outcome(self._stops.call(call, self._options, self._sent_future()))
        posted = self._call(call)
        if task in self._session.stop_tasks:
            return self._wait(posted)
        return self._link.exchange(*posted, self._options.timeout)

    def map(self, task: str, /, *iterables: Iterable[Any], returns: Any = UNSET, progress: Any = None) -> Any:
        """Call a task once for each tuple of arguments, like the builtin `map`, as one package.

        The results come in order, as a list. They come as an array if all iterables are one-dimensional numpy arrays of
        numbers and all results are floats, or all are ints. The first error among them is raised; with the option
        `errors="return"`, errors take the places of results. `returns` is the type of each result, as for `call`.

        With `progress=True` a bar on standard error shows how many calls have ended. A bar of tqdm's does as well, or
        any object with a method `update(n)`; or `tqdm` itself, or another function that makes one of the `total`.
        """
        convert = self._returning(returns, task)
        if not progress:
            return convert_each(self._wait(self._map(task, iterables)), convert)
        check_bar(progress)
        posted = self._map(task, iterables)
        with self._drawn(posted, progress):
            results = self._wait(posted)
        return convert_each(results, convert)

    def run(self, calls: Iterable[Call]) -> list[Any]:
        """Call many tasks, each as (name, args, kwargs), as one package; results and errors come in order."""
        results: list[Any] = self._wait(self._run(calls))
        return results

    @overload
    def submit(self, task: str, /, *args: Any, returns: type[T], **kwargs: Any) -> Future[T]: ...
    @overload
    def submit(self, task: str, /, *args: Any, returns: Any = ..., **kwargs: Any) -> TaskFuture: ...
    def submit(self, task: str, /, *args: Any, returns: Any = UNSET, **kwargs: Any) -> Future[Any]:
        """Queue a call and return its future; the queue is sent every RESPONSE_TIME, or when it holds a full load.

        `returns` is the type of the result, as for `call`. `future.progress()` returns what the task said last of its
        progress, and `future.add_progress_callback(function)` has a function called with each report.

        The future ends in TaskTimeout or EngineUnreachable when the option `timeout` is over. A call that stops the
        machine, or brings a device to its safe state, is never queued, whichever method makes it, and goes first.
        """
        return self._submit((task, args, kwargs), self._options, self._returning(returns, task))

    def submit_all(self, calls: Iterable[Call]) -> Future[list[Any]]:
        """Send many calls, each as (name, args, kwargs), as one package now; return the future of the list of results.

        Errors take the places of results, as with `run`. Cancelling the future cancels all that has not begun.
        """
        urged = self._stops.urged(self._run(calls), self._options.timeout)
        if isinstance(urged, Future):
            return urged
        outgoing, future = urged
        self._link.post(outgoing, flush=True)
        return future

    def imap(self, task: str, /, *iterables: Iterable[Any], buffersize: int = BUFFERSIZE) -> Iterator[Any]:
        """Call a task once for each tuple of arguments; return an iterator of the results, in order, as they come.

        At most `buffersize` calls are under way: the iterables are read as results are taken, and may be endless. A
        task's error is raised in the place of its result, and ends the iterator. Calls that have not begun by then are
        cancelled, and so they are where the iterator is closed.
        """
        return in_order(partial(self.submit, task), zip(*iterables, strict=False), buffersize)

    def as_completed(self, futures: Iterable[Future[Any]], timeout: float | None = None) -> Iterator[Future[Any]]:
        """Send queued calls now; yield the futures as they end.

        Raises TimeoutError where one has not ended `timeout` s after the first was asked for.
        """
        self.flush()
        return as_completed(futures, timeout)

    def stream(self, task: str, /, *args: Any, **kwargs: Any) -> Stream:
        """Call a task that is a generator; return its values, to be read in a loop as the task yields them.

        The task is at most `ahead` values ahead of the loop (an option, by default 64), and pauses then. It is closed
        when the loop is left, so that its `finally` runs. The option `timeout` is how long the loop waits for each
        value; `deadline` is for the beginning. Errors of the task are raised after the values before them.

        Raises BadArguments for arguments that cannot be sent, ProtocolError for an engine without streams.
        """
        return self._stream(Stream, (task, args, kwargs))

    def stop(self, why: str = "", timeout: float = STOP_S) -> None:
        """Stop the machine by the fastest route: its outputs go to their safe states, and nothing moves until `arm`.

        All routes are taken at once, also those past the router, and repeated until one confirms that every output is
        safe, or `timeout` s are over. Nothing else that this client does delays it. Raises NotAllowed; UnknownTask if
        the engine has no hardware; TaskFailed, type NotConfirmed, if the machine was stopped but a lane is not safe
        yet; EngineUnreachable.
        """
        Stopping(self._target(), new_order(why), timeout).run()

    def arm(self, lane: str = "") -> None:
        """Undo the stop that is in force, and no later one; outputs then move again when they are told to.

        Raises NotAllowed if the machine was stopped again meanwhile. `lane` is as for `lease`.
        """
        self.info()
        task, number = self._arming(lane)
        self.call(task, **number)

    def cancel(self, future: Future[Any] | None = None) -> None:
        """Cancel the task of a submitted future if it has not begun; with None, cancel everything this client has sent.

        An `async def` task is cancelled also while it runs. The future ends in `Cancelled`, or, if it was too late, in
        the result; `future.cancel()` does the same.
        """
        if future is not None:
            future.cancel()
        else:
            self._wait(self._cancel_all())

    def tasks(self) -> list[TaskInfo]:
        """Return the tasks that the engine knows: names, signatures, docs, lanes."""
        return msgspec.convert(self._wait(self._ask(RequestKind.TASKS)), list[TaskInfo])

    def info(self) -> Info:
        """Return the engine's version, settings and data ports."""
        return msgspec.convert(self._wait(self._ask(RequestKind.INFO)), Info)

    def stats(self) -> Stats:
        """Return the engine's counters: tasks, errors, restarts, load of the lanes, and latencies."""
        return msgspec.convert(self._wait(self._ask(RequestKind.STATS)), Stats)

    def progress(self) -> list[tuple[str, int, int]]:
        """Return serial, tasks done and tasks in all of each package that this client has in flight."""
        return [(serial, done, count) for serial, done, count in self._wait(self._ask(RequestKind.PROGRESS))]

    def reload(self) -> None:
        """Have the engine load its task modules anew, worker by worker, and wait until it has.

        Raises TaskFailed, type TaskModuleError, if they do not load: the engine then keeps the old ones.
        """
        self._wait(self._ask(RequestKind.RELOAD))

    def publish(self, topic: str, value: Any) -> None:
        """Publish a value on a topic."""
        self._wait(self._ask(RequestKind.PUBLISH, [topic, value]))

    def latest(self, topic: str) -> Any:
        """Return the last value on a topic. Raises TaskFailed, type LookupError, if there is none yet."""
        return self._wait(self._ask(RequestKind.LATEST, [topic]))

    def subscribe(
        self, topic: str, *, newest: bool = False, waiting: int = WAITING, binary: bool = False
    ) -> Subscription:
        """Return the values on a topic, from the last one on; a topic that ends in `*` matches all that begin so.

        At most `waiting` values wait, or with `newest` the last one of each topic; `dropped` counts the lost ones. With
        `binary` they come as they are, not as JSON has them. Raises Overloaded if the engine has no data worker.
        """
        wish = Wish(topic, waiting, newest=newest, binary=binary)
        return Subscription(wish.addresses(self.info(), self.address), wish, self._ages(), self._membership)

    def lease(self, *devices: str, exclusive: bool = False, take_over: bool = False, lane: str = "") -> Lease:
        """Begin the leases of devices of the table [hardware], in `with`; `renew` them in the loop that drives.

        With `exclusive` no other client may command the devices while the lease runs, nor may other programs of the
        same key, unless they `take_over`. `lane` is the devices' own lane, if they have one. Raises BadArguments for a
        device without leases, NotAllowed if another client holds one exclusively.
        """
        return Lease(self.call, devices, exclusive=exclusive, lane=lane, take_over=take_over, leave=self._brief().call)

    def close(self, timeout: float | None = None) -> None:
        """Send queued calls, wait up to `timeout` s for pending ones, and close. May be called twice.

        The default `timeout` is 5 s, or 1 s if no engine has ever answered. Raises EngineUnreachable if calls of `send`
        were not sent.
        """
        self._link.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # a program that failed did not mean its queued calls to run
        self._link.close(patience(kind), flush=kind is None)

    def _wait(self, posted: Posted) -> Any:
        urged = self._stops.urged(posted, self._options.timeout)
        if isinstance(urged, Future):
            return self._outcome(urged)
        return self._link.exchange(*urged, self._options.timeout)

    def _outcome(self, future: Future[Any]) -> Any:
        """Wait for a stop; this needs no progress of the transport."""
        timeout = self._options.timeout
        wait([future], timeout)
        if timeout is not None and not future.done():
            raise self._session.no_reply(timeout, connected=True)
        return future.result()
