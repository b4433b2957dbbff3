"""A client's side of wire 0.2: requests as frames, replies to futures. Pure."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, NamedTuple

import msgspec

from taskengine import _fastpath, arrays
from taskengine.errors import (
    BadArguments,
    EngineUnreachable,
    NotAllowed,
    ProtocolError,
    TaskEngineError,
    TaskTimeout,
    from_wire,
)
from taskengine.messages import NO_SERIAL, Kind, Priority, Reply, ReplyMode, Request, decode_reply, encode_request
from taskengine.wire import LONGEST_DEADLINE_S, MAX_HEAD, REPEATS

RETRACT_S = 5.0
"""How long to wait for the engine's word that it knows what was retracted."""
POSITIONS_TOLD = 10_000
"""Positions in one CANCEL: they must fit into MAX_HEAD bytes."""
Call = tuple[str, Sequence[Any], Mapping[str, Any]]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a package is sent.

    `timeout` is how long the client waits, `deadline` how long the engine may take to start a task, both in s; of the
    replies, `reply` asks for all, errors or none; with `errors` "return", `map` gives errors as values.
    """

    timeout: float | None = 60.0
    deadline: float | None = None
    priority: str = "normal"
    reply: str = "all"
    idempotent: bool = False
    errors: str = "raise"

    def __post_init__(self) -> None:
        choices = {
            "priority": (self.priority, [kind.name.lower() for kind in Priority]),
            "reply": (self.reply, [kind.name.lower() for kind in ReplyMode]),
            "errors": (self.errors, ["raise", "return"]),
        }
        for name, (value, known) in choices.items():
            if value not in known:
                raise BadArguments(f"{name} is one of {', '.join(known)}, not {value!r}", name=name)
        for name, seconds in (("timeout", self.timeout), ("deadline", self.deadline)):
            is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
            if seconds is not None and not (is_number and seconds > 0):
                raise BadArguments(f"{name} is a positive number of seconds or None, not {seconds!r}", name=name)
        if not isinstance(self.idempotent, bool):
            raise BadArguments(f"idempotent is True or False, not {self.idempotent!r}", name="idempotent")


class TaskFuture(Future[Any]):
    """What a call will give; `ask` asks the engine to cancel it."""

    def __init__(self, ask: Callable[[int, int | None], None]) -> None:
        super().__init__()
        self._ask = ask
        self.is_unwanted = False
        """It was cancelled too late for nobody to notice."""
        self.serial = NO_SERIAL
        """Its package's, once it is sent."""
        self.position: int | None = None
        """Its task's in the package, None where it waits for all of them."""

    def cancel(self) -> bool:
        """Cancel. True where it was not sent yet; otherwise the engine is asked, and it ends in `Cancelled` as far as
        nothing has begun, and in what it would have been where that was too late.
        """
        if super().cancel():
            return True
        self.is_unwanted = True  # before its serial is read: it may just be packed by another thread, which reads this
        if not self.done() and self.serial != NO_SERIAL:
            self._ask(self.serial, self.position)
        return False


class Parcel(NamedTuple):
    """A request as it is sent."""

    serial: int
    frames: list[bytes]


Outcome = tuple[Future[Any], Any]


class Pending(NamedTuple):
    """A request without its reply: each future takes its own entry, or the only one the list, or its first error.

    `timeout` is how long its sender waits, in s, or None for ever; with `array` the list is an array where it can be.
    `frames` are kept of what may be sent again, where its connection is lost, so many `resends` at most.
    """

    futures: Sequence[Future[Any]]
    each: bool
    raises: bool
    timeout: float | None
    array: bool = False
    frames: Sequence[bytes] = ()
    resends: int = REPEATS


class Session:
    """Numbers the requests of client `name` to the engine at `address` and knows which are pending.

    Requests may be made, watched and forgotten by any thread; all else is for the one that has the socket. What it
    decides is put into `outcomes` before it is pending no more: one that an exception stops between the two, such as
    that of a signal's handler, loses nothing when it is asked again.
    """

    def __init__(self, name: str, address: str) -> None:
        self._name = name
        self._address = address
        self._serials = itertools.count(1)
        self._watched: deque[tuple[float, int]] = deque()  # from all threads, for the heap
        self._expiries: list[tuple[float, int]] = []
        self.pending: dict[int, Pending] = {}
        self.outcomes: deque[Outcome] = deque()
        """What is to be settled."""
        self.retractions: dict[int, list[int] | None] = {}
        """Packages, and which of their tasks, None for all, that the engine is to be told that nobody wants."""

    def package(self, calls: Iterable[Call], futures: Sequence[Future[Any]], options: Options, *, each: bool) -> Parcel:
        """A package of calls. Raises BadArguments for what cannot be sent."""
        names: dict[str, int] = {}
        index, body = _fastpath.pack_calls(calls, names)
        return self._parcel(Kind.PACKAGE, Pending(futures, each, False, options.timeout), options, names, index, body)

    def mapped(self, name: str, iterables: Iterable[Iterable[Any]], future: Future[Any], options: Options) -> Parcel:
        """A package that calls one task as `map` would, over arrays of numbers as columns.

        Raises BadArguments for what cannot be sent.
        """
        iterables = tuple(iterables)
        columns = arrays.columns(iterables)
        index, body = columns or _fastpath.pack_map(map(arrays.plain_rows, iterables))
        pending = Pending((future,), False, options.errors == "raise", options.timeout, columns is not None)
        return self._parcel(Kind.PACKAGE, pending, options, [name], index, body)

    def request(self, kind: Kind, future: Future[Any], options: Options, value: Any = None) -> Parcel:
        """Any other request; PUBLISH and LATEST have a value, a list that begins with the topic."""
        frames = [] if value is None else [_fastpath.encode(value)]
        return self._parcel(kind, Pending((future,), True, False, options.timeout), options, [], *frames)

    def watch(self, serial: int, now: float) -> None:
        """Have a request expire when its timeout, from `now` on, is over."""
        pending = self.pending.get(serial)
        if pending is not None and pending.timeout is not None:
            self._watched.append((now + pending.timeout, serial))

    def due(self, now: float) -> float:
        """In how many seconds the next request may expire; inf where none is watched."""
        while self._watched:
            heapq.heappush(self._expiries, self._watched[0])
            del self._watched[0]
        while self._expiries and self._expiries[0][1] not in self.pending:
            heapq.heappop(self._expiries)
        return max(0.0, self._expiries[0][0] - now) if self._expiries else math.inf

    def expire(self, now: float, *, connected: bool) -> deque[Outcome]:
        """Give up the watched requests whose timeout is over."""
        while self.due(now) <= 0:
            serial = self._expiries[0][1]
            pending = self.pending.get(serial)
            if pending is not None and pending.timeout is not None:
                self._fail([serial], self.no_reply(pending.timeout, connected=connected))
                if any(isinstance(future, TaskFuture) for future in pending.futures[:1]):
                    self.retract(serial, None)
        return self.outcomes

    def retract(self, serial: int, position: int | None) -> None:
        """Nobody wants a package of ours any more, or one of its tasks: what has not begun need not."""
        positions = self.retractions.setdefault(serial, [])
        if position is None:
            self.retractions[serial] = None
        elif positions is not None:
            positions.append(position)

    def retract_all(self) -> None:
        """Nobody wants anything that is pending: what is sent again need not be."""
        for pending in list(self.pending.values()):
            for future in pending.futures:
                if isinstance(future, TaskFuture):
                    future.is_unwanted = True

    def retracted(self) -> Iterator[Parcel]:
        """What tells the engine of the retractions so far."""
        retractions, self.retractions = self.retractions, {}
        for serial, positions in retractions.items():
            starts = range(0, len(positions), POSITIONS_TOLD) if positions else range(1)
            for start in starts:
                part = positions and positions[start : start + POSITIONS_TOLD]
                yield self.request(Kind.CANCEL, Future(), Options(timeout=RETRACT_S), [serial, part])

    def no_reply(self, seconds: float, *, connected: bool) -> TaskEngineError:
        """What it means that nothing came in so many seconds."""
        if connected:
            return TaskTimeout(f"no reply in {seconds:g} s", seconds=seconds)
        return EngineUnreachable(f"no engine answers at {self._address} (waited {seconds:g} s)", address=self._address)

    def lose(self, serials: Iterable[int]) -> list[Parcel]:
        """The connection over which these requests were sent is gone; the parcels that are to be sent again."""
        again, lost = [], []
        for serial in serials:
            pending = self.pending.get(serial)
            if pending is not None and pending.frames and pending.resends and self._is_wanted(serial, pending):
                self.pending[serial] = pending._replace(resends=pending.resends - 1)
                again.append(Parcel(serial, [*pending.frames]))
            else:
                lost.append(serial)
        text = f"the connection to {self._address} was lost before the reply came; the tasks may have run"
        self._fail(lost, EngineUnreachable(text, address=self._address))
        return again

    def _is_wanted(self, serial: int, pending: Pending) -> bool:
        """Whether one of the futures is; those that are not are retracted once more."""
        unwanted = [future for future in pending.futures if isinstance(future, TaskFuture) and future.is_unwanted]
        if unwanted and len(unwanted) == len(pending.futures):
            return False
        for future in unwanted:
            self.retract(serial, future.position)
        return True

    def refuse(self) -> deque[Outcome]:
        """The engine does not let us in."""
        text = (
            f"the engine at {self._address} does not let this client in: it wants a key that it knows "
            "(`taskengine keys pair NAME` there, `taskengine keys accept LINE` here), or it is not encrypted "
            f"and this client has a key for it (`taskengine keys forget {self._address}` here)"
        )
        return self.give_up(NotAllowed(text))

    def give_up(self, error: TaskEngineError) -> deque[Outcome]:
        """Nothing that is pending will be answered."""
        return self._fail(list(self.pending), error)

    def receive(self, frames: Sequence[bytes]) -> deque[Outcome]:
        """Decide what a reply does: each future gets its result or its exception.

        Raises ProtocolError for bytes that are no reply; a reply to nothing that is pending resolves nothing.
        """
        if not 1 <= len(frames) <= 2:
            raise ProtocolError(f"a reply has 1 or 2 frames, not {len(frames)}")
        reply = decode_reply(frames[0])
        if reply.serial == NO_SERIAL and reply.error is not None:
            # the engine could not read which request it refuses
            return self.give_up(from_wire(*reply.error))
        pending = self.pending.get(reply.serial)
        if pending is not None:
            self.outcomes.extend(_outcomes(reply, frames[1] if len(frames) > 1 else b"", pending))
            self.pending.pop(reply.serial, None)
        return self.outcomes

    def forget(self, serial: int) -> None:
        """Nobody waits for the reply any more."""
        self.pending.pop(serial, None)

    def _fail(self, serials: Iterable[int], error: TaskEngineError) -> deque[Outcome]:
        gone = {serial: pending for serial in serials if (pending := self.pending.get(serial)) is not None}
        self.outcomes.extend([(future, error) for pending in gone.values() for future in pending.futures])
        for serial in gone:
            self.pending.pop(serial, None)
        return self.outcomes

    def _parcel(self, kind: Kind, pending: Pending, options: Options, names: Iterable[str], *frames: bytes) -> Parcel:
        serial = next(self._serials)
        deadline = options.deadline or 0.0
        request = Request(
            kind,
            serial,
            self._name,
            list(names),
            ReplyMode[options.reply.upper()],
            Priority[options.priority.upper()],
            0.0 if deadline > LONGEST_DEADLINE_S else deadline,
            options.idempotent,
            pending.array,
        )
        try:
            head = encode_request(request)
        except (UnicodeEncodeError, TypeError) as error:
            raise BadArguments(f"a name that cannot be sent: {error}") from None
        if len(head) > MAX_HEAD:
            raise BadArguments(f"the names in a package take {len(head)} bytes, and at most {MAX_HEAD} can be sent")
        parcel = Parcel(serial, [head, *frames])
        for position, future in enumerate(pending.futures):
            if isinstance(future, TaskFuture):
                future.position = position if pending.each else None
                future.serial = serial
                if future.is_unwanted:
                    self.retract(serial, future.position)
        self.pending[serial] = pending._replace(frames=parcel.frames) if options.idempotent else pending
        return parcel


def settle(outcomes: deque[Outcome]) -> None:
    """Resolve futures, first come, first served; one that was cancelled, or gave up waiting, is passed over.

    Where it raises, because a callback raised what is no Exception, the rest stays in `outcomes`.
    """
    while outcomes:
        outcome = outcomes[0]
        future, value = outcome
        try:
            if isinstance(value, TaskEngineError):
                future.set_exception(value)
            else:
                future.set_result(value)
        except InvalidStateError:
            # or whoever resolved it was stopped before it had woken those who wait
            with future._condition:
                future._condition.notify_all()
        # a callback may have come here itself
        if outcomes and outcomes[0] is outcome:
            del outcomes[0]


def _outcomes(reply: Reply, body: bytes, pending: Pending) -> Iterable[Outcome]:
    try:
        results = _results(reply, body, array=pending.array)
        if pending.each and len(results) != len(pending.futures):
            raise ProtocolError(f"a reply of {len(results)} entries to {len(pending.futures)} tasks")
    except TaskEngineError as error:
        return [(future, error) for future in pending.futures]
    if pending.each:
        return zip(pending.futures, results, strict=True)
    if pending.raises and reply.failed:
        # where no reply was wanted there is no error to be found
        first: Any = next((result for result in results if isinstance(result, TaskEngineError)), results)
        return [(pending.futures[0], first)]
    return [(pending.futures[0], results)]


def _results(reply: Reply, body: bytes, *, array: bool) -> Any:
    if reply.error is not None:
        raise from_wire(*reply.error)
    if reply.reply == ReplyMode.ALL:
        as_array = arrays.results(body, reply.count) if array and not reply.failed else None
        if as_array is not None:
            return as_array
        return _fastpath.unpack(body, reply.count, _entry_error)
    results: list[Any] = [None] * reply.count
    if reply.reply == ReplyMode.ERRORS:
        values = _fastpath.unpack(body, 2 * reply.failed, _entry_error)
        for position, error in zip(values[::2], values[1::2], strict=True):
            if not (isinstance(position, int) and 0 <= position < reply.count and isinstance(error, TaskEngineError)):
                raise ProtocolError("a reply of errors is positions and error entries in turn")
            results[position] = error
    return results


def _entry_error(data: bytes) -> TaskEngineError:
    try:
        code, message, fields = msgspec.msgpack.decode(data, type=tuple[int, str, dict[str, Any]])
    except (msgspec.MsgspecError, ValueError) as error:
        return ProtocolError(f"an error entry that is none: {error}")
    return from_wire(code, message, fields)
