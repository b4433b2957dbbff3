"""A client's side of wire 0.2: requests as frames, replies to futures. Pure."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, NamedTuple

import msgspec

from taskengine import _fastpath, arrays
from taskengine.clock import FRESH_NS, Clock, Estimate
from taskengine.errors import (
    BadArguments,
    EngineUnreachable,
    ProtocolError,
    TaskEngineError,
    TaskTimeout,
    from_wire,
)
from taskengine.messages import (
    NO_SERIAL,
    Info,
    Kind,
    Priority,
    ReplyMode,
    Request,
    decode_reply,
    encode_request,
    stamped,
)
from taskengine.replies import Outcome, outcomes
from taskengine.wire import LONGEST_DEADLINE_S, MAX_HEAD, MAX_NAMES, REPEATS

RETRACT_S = 5.0
"""How long to wait for the engine's word that it knows what was retracted."""
POSITIONS_TOLD = 10_000
"""Positions in one CANCEL: they must fit into MAX_HEAD bytes."""
HELLO_S = 10.0
"""How long to wait for the answer to a hello until another one is sent."""
GREET_NS = 10**9
"""How often it is looked whether another one is due."""
SAMPLE_NS = 10**7
"""How long after a reply the next one is looked at for the engine's clock."""
TIMED, STOPPABLE = "clock", "stop"
"""Capabilities of an engine: it takes sending times and tokens; it takes STOP."""
CAPABILITIES = [TIMED, STOPPABLE]
"""What this client can, as its hello says."""
LONGEST_STAMP = 64
"""The most bytes by which a head grows where it says when its call was made, and by which client."""
_REPLIES = {kind.name.lower(): kind for kind in ReplyMode}
_PRIORITIES = {kind.name.lower(): kind for kind in Priority}
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
            "priority": (self.priority, list(_PRIORITIES)),
            "reply": (self.reply, list(_REPLIES)),
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
    """A request as it is sent; `head` is `request`, which says only when it goes out when it was called.

    `made` is when that was, in ns of the client's clock; 0 where that is of no account.
    """

    serial: int
    request: Request
    head: bytes
    body: tuple[bytes, ...]
    made: int = 0

    @property
    def frames(self) -> list[bytes]:
        """It without a sending time, as an engine of version 0.1.0 gets it."""
        return [self.head, *self.body]


class Pending(msgspec.Struct):
    """A request without its reply: each future takes its own entry, or the only one the list, or its first error.

    `timeout` is how long its sender waits, in s, or None for ever; with `array` the list is an array where it can be.
    `parcel` is kept of what may be sent again, where its connection is lost, so many `resends` at most. `written` is
    when it was sent last, in ns of the client's clock.
    """

    futures: Sequence[Future[Any]]
    each: bool
    raises: bool
    timeout: float | None
    array: bool = False
    parcel: Parcel | None = None
    resends: int = REPEATS
    written: int = 0


class Session:
    """Numbers the requests of client `name` to the engine at `address` and knows which are pending.

    The client is told from others of its name by its `token`, which nobody logs, and was made at `since`. Times as
    these, in ns, are of one clock of the client's that goes on while the machine sleeps. A new connection begins with
    a hello: before it is answered nothing else is to be sent, since nothing can say yet how old it is.

    Requests may be made, watched and forgotten by any thread; all else is for the one that has the socket. What it
    decides is put into `outcomes` before it is pending no more: one that an exception stops between the two, such as
    that of a signal's handler, loses nothing when it is asked again.
    """

    def __init__(self, name: str, address: str, token: bytes = b"", since: int = 0) -> None:
        self._name = name
        self._address = address
        self._doubt = ""
        self._token = token
        self._since = since
        self._since_told = 0
        self._clock = Clock()
        self._sample_at = 1
        """Replies before this moment tell nothing new of the engine's clock."""
        self._hello = NO_SERIAL
        self._greeted_at = 0
        self.is_ready = False
        """The hello of this connection was answered,"""
        self.greet_at = 0
        """and no other is due before this moment."""
        self.info: Info | None = None
        """What the engine said of itself last, be it over an earlier connection."""
        self.stop_tasks: frozenset[str] = frozenset()
        """Tasks that stop the machine or bring a device to its safe state, as far as the engine has said."""
        self._capabilities: Sequence[str] = ()
        self._is_timed = False
        """It takes sending times and tokens."""
        self.stop_in_force = 0
        """The number of the stop that is in force, as the last reply said; 0 for none."""
        self._serials = itertools.count(1)
        self._watched: deque[tuple[float, int]] = deque()  # from all threads, for the heap
        self._expiries: list[tuple[float, int]] = []
        self.pending: dict[int, Pending] = {}
        self.outcomes: deque[Outcome] = deque()
        """What is to be settled."""
        self.retractions: dict[int, list[int] | None] = {}
        """Packages, and which of their tasks, None for all, that the engine is to be told that nobody wants."""

    def package(
        self, calls: Iterable[Call], futures: Sequence[Future[Any]], options: Options, *, each: bool, made: int = 0
    ) -> Parcel:
        """A package of calls that were made at `made`. Raises BadArguments for what cannot be sent."""
        names: dict[str, int] = {}
        body = _fastpath.pack_calls(calls, names)
        return self._parcel(Kind.PACKAGE, Pending(futures, each, False, options.timeout), options, names, body, made)

    def mapped(
        self, name: str, iterables: Iterable[Iterable[Any]], future: Future[Any], options: Options, made: int = 0
    ) -> Parcel:
        """A package that calls one task as `map` would at `made`, over arrays of numbers as columns.

        Raises BadArguments for what cannot be sent.
        """
        iterables = tuple(iterables)
        columns = arrays.columns(iterables)
        body = columns or _fastpath.pack_map(map(arrays.plain_rows, iterables))
        pending = Pending((future,), False, options.errors == "raise", options.timeout, columns is not None)
        return self._parcel(Kind.PACKAGE, pending, options, [name], body, made)

    def request(self, kind: Kind, future: Future[Any], options: Options, value: Any = None) -> Parcel:
        """Any other request; PUBLISH and LATEST have a value, a list that begins with the topic."""
        body = () if value is None else (_fastpath.encode(value),)
        return self._parcel(kind, Pending((future,), True, False, options.timeout), options, [], body)

    def greet(self, now: int) -> Parcel | None:
        """The hello that goes first at `now`, if one is due; its sender says `greeted` behind it.

        It is on a new connection, and where the estimate of the engine's clock has become old.
        """
        is_fresh = not self._is_timed or now - self._greeted_at <= FRESH_NS or self._clock.is_fresh(now)
        if self.is_ready and is_fresh:
            self.greet_at = now + GREET_NS
            return None
        if self._hello in self.pending:
            return None
        return self.request(Kind.INFO, Future(), Options(timeout=HELLO_S), [CAPABILITIES])

    def greeted(self, hello: Parcel, now: int) -> None:
        """The hello was sent: nothing else is to be until it is answered."""
        self._hello, self._greeted_at, self.is_ready, self.greet_at = hello.serial, now, False, 0

    @property
    def is_awaited(self) -> bool:
        """Something is pending beside the hello."""
        return len(self.pending) > (self._hello in self.pending)

    def can(self, capability: str) -> bool:
        """Return whether the engine at the other end of this connection has said that it can do that."""
        return self.is_ready and capability in self._capabilities

    def engine_time(self, now: int) -> Estimate | None:
        """What the engine's clock shows at `now`; None where nothing is known of it."""
        return self._clock.estimate(now)

    def urge(self, parcel: Parcel) -> Parcel:
        """The parcel as one that goes before all others."""
        request = msgspec.structs.replace(parcel.request, priority=Priority.URGENT)
        urgent = parcel._replace(request=request, head=encode_request(request))
        pending = self.pending.get(parcel.serial)
        if pending is not None and pending.parcel is not None:
            pending.parcel = urgent
        return urgent

    def write(self, parcel: Parcel, now: int) -> list[bytes]:
        """The frames of a parcel that goes out at `now`, with its age where the engine asks for it."""
        pending = self.pending.get(parcel.serial)
        if pending is not None:
            pending.written = now
        if not self._is_timed:
            return parcel.frames
        sent, bound = (self._clock.at(parcel.made) if parcel.made else None) or (0, 0)
        return [stamped(parcel.head, sent, bound, self._token, self._since_told), *parcel.body]

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
                self.fail([serial], self.no_reply(pending.timeout, connected=connected))
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
        why = f": {self._doubt}" if self._doubt else ""
        text = f"no engine answers at {self._address} (waited {seconds:g} s){why}"
        return EngineUnreachable(text, address=self._address)

    def unsent(self, count: int, seconds: float) -> TaskEngineError:
        """What it means that calls were not sent when the client was closed."""
        why = self.no_reply(round(seconds, 1), connected=False)
        return EngineUnreachable(f"{count} call{'s'[: count > 1]} not sent: {why}", address=self._address)

    def doubt(self, why: str) -> None:
        """Know what is wrong with the engine's address, "" for nothing; any thread may say so."""
        self._doubt = why

    def lose(self, serials: Iterable[int]) -> list[Parcel]:
        """The connection over which these requests were sent is gone; the parcels that are to be sent again.

        The next one begins with a hello, and what was known of the engine's clock is forgotten.
        """
        self._hello, self.is_ready, self._is_timed = NO_SERIAL, False, False
        self._clock.forget()
        self._sample_at, self.greet_at = 1, 0
        again, lost = [], []
        for serial in serials:
            pending = self.pending.get(serial)
            parcel = None if pending is None else pending.parcel
            if pending is not None and parcel is not None and pending.resends and self._is_wanted(serial, pending):
                pending.resends -= 1
                again.append(parcel)
            else:
                lost.append(serial)
        text = f"the connection to {self._address} was lost before the reply came; the tasks may have run"
        self.fail(lost, EngineUnreachable(text, address=self._address))
        return again

    def _is_wanted(self, serial: int, pending: Pending) -> bool:
        """Whether one of the futures is; those that are not are retracted once more."""
        unwanted = [future for future in pending.futures if isinstance(future, TaskFuture) and future.is_unwanted]
        if unwanted and len(unwanted) == len(pending.futures):
            return False
        for future in unwanted:
            self.retract(serial, future.position)
        return True

    def give_up(self, error: TaskEngineError) -> deque[Outcome]:
        """Nothing that is pending will be answered."""
        return self.fail(list(self.pending), error)

    def receive(self, frames: Sequence[bytes], now: int = 0) -> deque[Outcome]:
        """Decide what a reply does that came at `now`, if that is known: each future gets its result or its exception.

        Raises ProtocolError for bytes that are no reply; a reply to nothing that is pending resolves nothing.
        """
        if not 1 <= len(frames) <= 2:
            raise ProtocolError(f"a reply has 1 or 2 frames, not {len(frames)}")
        reply = decode_reply(frames[0])
        if reply.serial == NO_SERIAL and reply.error is not None:
            # the engine could not read which request it refuses
            return self.give_up(from_wire(*reply.error))
        pending = self.pending.get(reply.serial)
        if reply.clock > 0:
            self.stop_in_force = reply.stop
            if pending is not None and pending.written and now >= self._sample_at:
                self._sample_at = now + SAMPLE_NS
                self._clock.take(pending.written, now, reply.clock, reply.boot)
        if pending is not None:
            body = frames[1] if len(frames) > 1 else b""
            self.outcomes.extend(
                outcomes(reply, body, pending.futures, each=pending.each, raises=pending.raises, array=pending.array)
            )
            if reply.serial == self._hello:
                self._learn(self.outcomes[-1][1])
            self.pending.pop(reply.serial, None)
        return self.outcomes

    def _learn(self, value: Any) -> None:
        """Take the answer to the hello. After a refusal what waits is sent all the same, for errors that say why."""
        self._capabilities = ()
        with contextlib.suppress(msgspec.ValidationError):
            self.info = msgspec.convert(value, Info)
            self._capabilities = self.info.capabilities
            self.stop_tasks = frozenset(self.info.stop_tasks)
        self._is_timed = TIMED in self._capabilities
        since, bound = self._clock.at(self._since) or (0, 0)
        # the earliest moment: nobody is to count as newer than it is
        self._since_told = since and max(1, since - bound)
        self.is_ready = True

    def forget(self, serial: int) -> None:
        """Nobody waits for the reply any more."""
        self.pending.pop(serial, None)

    def fail(self, serials: Iterable[int], error: TaskEngineError) -> deque[Outcome]:
        """These requests will not be answered."""
        gone = {serial: pending for serial in serials if (pending := self.pending.get(serial)) is not None}
        self.outcomes.extend([(future, error) for pending in gone.values() for future in pending.futures])
        for serial in gone:
            self.pending.pop(serial, None)
        return self.outcomes

    def _parcel(
        self,
        kind: Kind,
        pending: Pending,
        options: Options,
        names: Iterable[str],
        body: tuple[bytes, ...],
        made: int = 0,
    ) -> Parcel:
        serial = next(self._serials)
        deadline = options.deadline or 0.0
        request = Request(
            kind,
            serial,
            self._name,
            list(names),
            _REPLIES[options.reply],
            _PRIORITIES[options.priority],
            0.0 if deadline > LONGEST_DEADLINE_S else deadline,
            options.idempotent,
            pending.array,
        )
        try:
            head = encode_request(request)
        except (UnicodeEncodeError, TypeError) as error:
            raise BadArguments(f"a name that cannot be sent: {error}") from None
        if len(request.names) > MAX_NAMES:
            raise BadArguments(f"a package names at most {MAX_NAMES} tasks, not {len(request.names)}")
        size = len(head) + LONGEST_STAMP
        if size > MAX_HEAD:
            raise BadArguments(f"the names in a package take {size} bytes, and at most {MAX_HEAD} can be sent")
        parcel = Parcel(serial, request, head, body, made)
        for position, future in enumerate(pending.futures):
            if isinstance(future, TaskFuture):
                future.position = position if pending.each else None
                future.serial = serial
                if future.is_unwanted:
                    self.retract(serial, future.position)
        if options.idempotent:
            pending.parcel = parcel
        self.pending[serial] = pending
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
