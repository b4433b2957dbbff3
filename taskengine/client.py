"""The client that waits: verbs over a link that several threads may share."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from taskengine.connection import check_address, local_time
from taskengine.errors import BadArguments, TaskEngineError
from taskengine.keys import check_encrypted, find_membership
from taskengine.lease import Lease
from taskengine.link import Link
from taskengine.messages import NO_SERIAL, Info, Kind, Stats, TaskInfo
from taskengine.queue import Queue
from taskengine.samples import WAITING, Ages
from taskengine.session import HELLO_S, STOPPABLE, Call, Options, Parcel, Session, TaskFuture
from taskengine.stopping import STOP_S, Order, Stopping, Target, first_of, stops_machine
from taskengine.subscription import Subscription, Wish, reachable
from taskengine.wire import COUNT, DEFAULT_ADDRESS

LEAVE_S = 0.5
FAILED_S = 0.3
"""How long a `with` block that fails waits for replies to what was sent."""
TOKEN_BYTES = 16
"""Of what tells one client from others of the same name."""
ARM_TASK = "system.arm"
Posted = tuple[Parcel, Future[Any]]


class Caller:
    """What the client that waits and the one for asyncio have in common: options, requests, the queue."""

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
        self._membership = find_membership(address, None if keys is None else Path(keys), engine, insecure=insecure)
        check_encrypted(address, self._membership, insecure=insecure)
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
        """Queue a call whose result nobody wants; the engine discards it. What stops is never queued; see `submit`."""
        options = msgspec.structs.replace(self._options, reply="none")
        self._submit((task, args, kwargs), options)

    @property
    def stop_in_force(self) -> int:
        """The number of the stop that is in force, 0 for none, as the last reply of the engine said."""
        return self._session.stop_in_force

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

    def _ages(self) -> Ages:
        """How old publications are, by what this client learns of the engine's clock."""

        def ask() -> None:
            with contextlib.suppress(TaskEngineError):  # it is closed
                self._link.post(self._session.request(Kind.INFO, Future(), Options(timeout=HELLO_S)))

        return Ages(self._session.engine_time, ask)

    def _submit(self, call: Call, options: Options) -> Future[Any]:
        """Queue a call, or send it at once, past the queue, where it stops the machine or a device."""
        task = call[0]
        if stops_machine(task):
            return self._stop_by_task(call, options)
        if isinstance(task, str) and task in self._session.stop_tasks:
            return self._rest(call, options)
        future = TaskFuture(self._link.retract)
        self._link.enqueue(call, future, options)
        return future

    def _rest(self, call: Call, options: Options) -> Future[Any]:
        made, future = local_time(), self._sent_future()
        options = msgspec.structs.replace(options, priority="urgent")
        try:
            # behind what is queued, which comes to be refused so: ahead of it, it would be undone
            self._link.post(self._session.package([call], [future], options, each=True, made=made), flush=True)
        except BadArguments as error:
            future.set_exception(error)
        return future

    def _target(self) -> Target:
        """The engine, for a stop."""
        return Target(self.address, self._membership, self._name, self._session.info, insecure=self._insecure)

    def _stop_by_task(self, call: Call, options: Options) -> Future[Any]:
        """Stop the machine by every way, of which the task that was called is one."""
        _, args, kwargs = call
        made, order, future = local_time(), Order.new(kwargs.get("why", "")), self._sent_future()
        options = msgspec.structs.replace(options, priority="urgent")
        is_plain = not args and kwargs.keys() <= {"why"}

        def parcel() -> Parcel:
            if is_plain and self._session.can(STOPPABLE):
                return self._session.request(Kind.STOP, future, options, list(order))
            return self._session.package([call], [future], options, each=True, made=made)

        return self._stop_by_all(order, options, future, parcel, None)

    def _stop_by_all(
        self, order: Order, options: Options, future: Future[Any], parcel: Callable[[], Parcel], value: Any
    ) -> Future[Any]:
        """Stop the machine by every way, and by a parcel whose future this is; what succeeds first gives `value`."""
        stopping = Stopping(self._target(), order, min(STOP_S, options.timeout or STOP_S))
        outcome: Future[Any] = Future()
        outcome.set_running_or_notify_cancel()
        stopping.begin()
        try:
            self._link.post(parcel())
        except TaskEngineError as error:
            future.set_exception(error)
        first_of(outcome, value, [stopping.future, future], stopping.cease)
        return outcome

    def _urged(self, posted: Posted) -> Posted | Future[Any]:
        """A package as it is to be sent: urgent where it only stops; what stops the machine goes by every way as well.

        Where it does nothing but that, the outcome of all ways.
        """
        parcel, future = posted
        request, known = parcel.request, self._session.stop_tasks
        if known.isdisjoint(request.names) and not any(map(stops_machine, request.names)):
            return posted
        stops = [name for name in request.names if stops_machine(name)]
        if all(name in known or name in stops for name in request.names):
            parcel = self._session.urge(parcel)
        if not stops:
            return parcel, future
        if len(stops) == len(request.names) and not request.columns:
            count = len(parcel.body[0]) // COUNT.size
            return self._stop_by_all(Order.new(), self._options, future, lambda: parcel, [None] * count)
        Stopping(self._target(), Order.new()).begin()
        return parcel, future

    def _brief(self) -> Self:
        """This client for a call that is made on the way out, by a program that has failed or was interrupted."""
        timeout = self._options.timeout
        return self.options(timeout=LEAVE_S if timeout is None else min(timeout, LEAVE_S))

    def _arming(self, lane: str) -> tuple[str, dict[str, Any]]:
        """The task that arms, and how it is called."""
        task = f"{lane}.{ARM_TASK}" if lane else ARM_TASK
        return task, arming(task, self.stop_in_force)


def arming(task: str, stop: int) -> dict[str, Any]:
    """The arguments of a task that arms: the number of the stop that it undoes, where one is in force; else none.

    An engine of version 0.1.0 has no numbers.
    """
    return {"stop": stop} if stop and (task == ARM_TASK or task.endswith("." + ARM_TASK)) else {}


def patience(kind: type[BaseException] | None) -> float | None:
    """How long, in s, the end of a `with` block waits for replies where this kind of exception ends it; None as ever.

    An interrupted program, or one whose time was over, has stopped waiting. One that fails waits shortly for what it
    has sent, which happens anyway.
    """
    if kind is None:
        return None
    return 0.0 if not issubclass(kind, Exception) or issubclass(kind, TimeoutError) else FAILED_S


class Client(Caller):
    """Calls tasks of the engine at `address`, as `name`; a call waits up to `timeout` s, or for ever with None.

    `keys` is the folder of the keys, None for the platform's own; where it has one for this engine, the connection is
    encrypted. Off loopback that is the only engine that it has a key for, whatever its address; of several, `engine`
    says which: its host, or the fingerprint of its key. Without a key a client speaks in clear on loopback, elsewhere
    only if `insecure`, where anybody may play the engine.

    May be used from several threads, and reconnects by itself. Close it, or use it in `with`; where that ends by an
    exception, what is still queued is not sent, and nothing is waited for. Raises BadArguments for what is no address,
    KeysError for keys that cannot be used, or are missing.
    """

    def call(self, task: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a task and wait for its result. Raises the task's error, TaskTimeout or EngineUnreachable."""
        if stops_machine(task):
            return self._outcome(self._stop_by_task((task, args, kwargs), self._options))
        posted = self._call((task, args, kwargs))
        if task in self._session.stop_tasks:
            return self._wait(posted)
        return self._link.exchange(*posted, self._options.timeout)

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

        The future ends in TaskTimeout or EngineUnreachable when the option `timeout` is over. What stops the machine,
        or brings a device to its safe state, is never queued, by whatever verb, and goes first.
        """
        return self._submit((task, args, kwargs), self._options)

    def stop(self, why: str = "", timeout: float = STOP_S) -> None:
        """Stop the machine by the shortest way: its outputs go to their safe states, and nothing moves until `arm`.

        All ways are taken at once, past the router too, and again until one confirms that every output is safe, or
        `timeout` s are over. Nothing that this client does meanwhile delays it. Raises NotAllowed, UnknownTask where
        the engine has no hardware, TaskFailed, type NotConfirmed, where the machine was stopped and a lane is not safe
        yet, EngineUnreachable.
        """
        Stopping(self._target(), Order.new(why), timeout).run()

    def arm(self, lane: str = "") -> None:
        """Undo the stop that is in force, and no later one, so that things may move again once they are told to.

        Raises NotAllowed where the machine was stopped again meanwhile. `lane` is as for `lease`.
        """
        self.info()
        task, number = self._arming(lane)
        self.call(task, **number)

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

    def subscribe(self, topic: str, *, newest: bool = False, waiting: int = WAITING) -> Subscription:
        """The values on a topic from the last one on; a topic that ends in `*` takes all that begin so.

        Values that are not taken wait, so many at most, and the oldest give way; with `newest` only the last one of
        each topic does. `dropped` counts those that gave way. Raises Overloaded where the engine runs no data worker.
        """
        wish = Wish(topic, waiting, newest=newest)
        addresses = reachable(self.info().data_addresses, self.address)
        return Subscription(addresses, wish, self._ages(), self._membership)

    def lease(self, *devices: str, exclusive: bool = False, take_over: bool = False, lane: str = "") -> Lease:
        """Begin the leases of devices of the table [hardware], in `with`, and `renew` them in the loop that drives.

        With `exclusive` other clients may not command them while it runs, and other programs of the same key neither,
        unless they `take_over`. `lane` is the devices' own, if they have one. Raises BadArguments for a device that has
        no lease, NotAllowed where another client has one for itself.
        """
        return Lease(self.call, devices, exclusive=exclusive, lane=lane, take_over=take_over, leave=self._brief().call)

    def close(self, timeout: float | None = None) -> None:
        """Send what is queued, wait up to `timeout` s for what is pending, and close. May be called twice.

        Without a `timeout` that is 5 s, or 1 s where no engine has ever answered. Raises EngineUnreachable where what
        was given to `send` was not sent.
        """
        self._link.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # what failed did not mean what is still queued to happen
        self._link.close(patience(kind), flush=kind is None)

    def _wait(self, posted: Posted) -> Any:
        urged = self._urged(posted)
        if isinstance(urged, Future):
            return self._outcome(urged)
        return self._link.exchange(*urged, self._options.timeout)

    def _outcome(self, future: Future[Any]) -> Any:
        """Wait for a stop, which the link need not get anywhere for."""
        timeout = self._options.timeout
        wait([future], timeout)
        if timeout is not None and not future.done():
            raise self._session.no_reply(timeout, connected=True)
        return future.result()
