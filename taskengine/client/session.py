"""A client's side of wire 0.2: turns requests into frames, and replies into results of futures. Pure."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from taskengine import _fastpath
from taskengine.client.calls import Call
from taskengine.client.clock import FRESH_NS, EngineClock, Estimate
from taskengine.client.gathering import Gathering
from taskengine.client.older_engines import plain_tasks
from taskengine.client.replies import outcomes, partial_outcomes
from taskengine.client.reports import Announcement, take_reports
from taskengine.client.requests import PRIORITIES, REPLIES, Options, OutgoingRequest, Pending
from taskengine.client.stream_requests import stamped_stream, take_values, too_old
from taskengine.client.task_future import Outcome, TaskFuture
from taskengine.errors import BadArguments, EngineUnreachable, ProtocolError, TaskEngineError, TaskTimeout, from_wire
from taskengine.protocol import arrays
from taskengine.protocol.limits import LONGEST_DEADLINE_S, MAX_HEAD, MAX_NAMES
from taskengine.protocol.messages import (
    NO_SERIAL,
    Info,
    PartialReply,
    Priority,
    ReplyMode,
    Request,
    RequestKind,
    StreamRequest,
    decode_reply,
    encode_request,
    stamped,
    wanting_each,
    wanting_progress,
)
from taskengine.protocol.release import foreign_reply

RETRACT_S = 5.0
"""How long to wait, in s, for the engine's confirmation of a cancellation."""
MAX_POSITIONS = 10_000
"""Positions in one CANCEL: they must fit into MAX_HEAD bytes."""
HELLO_S = 10.0
"""How long to wait, in s, for the answer to a hello before another one is sent."""
GREET_NS = 10**9
"""How often, in ns, to check whether another hello is due."""
SAMPLE_NS = 10**7
"""The shortest time, in ns, between two replies that are used to estimate the engine's clock."""
TIMED, STOPPABLE, GIVES_EACH, VALUES, STREAMS = "clock", "stop", "each", "values", "streams"
"""Capabilities of an engine: sending times and tokens; STOP; answers task by task; Python's other values; streams;"""
PROGRESS = "progress"
"""reports of what tasks say of their progress."""
CAPABILITIES = [TIMED, STOPPABLE, VALUES]
"""This client's capabilities, sent in its hello."""
LONGEST_STAMP = 64
"""The most bytes by which a head grows when its sending time and client token are added."""


class Session:
    """Numbers the requests of client `name` to the engine at `address`, and tracks the pending ones.

    The secret `token` tells this client from others of its name; it was made at `since`. Such times, in ns, are of one
    clock of the client's that goes on while the machine sleeps. A new connection begins with a hello. Nothing else may
    be sent before its answer, because requests cannot say yet how old they are.

    Any thread may make, watch and forget requests; everything else is for the thread that has the socket. An outcome is
    put into `outcomes` before its request stops being pending. If an exception interrupts between the two (for example
    in a signal's handler), calling again loses nothing.
    """

    def __init__(self, name: str, address: str, token: bytes = b"", since: int = 0) -> None:
        self._name = name
        self._address = address
        self._doubt = ""
        self._token = token
        self._since = since
        self._since_told = 0
        self._clock = EngineClock()
        self._sample_at = 1
        """Replies before this moment are not used to estimate the engine's clock."""
        self._hello = NO_SERIAL
        self._greeted_at = 0
        self.is_ready = False
        """Whether the hello of this connection was answered."""
        self.greet_at = 0
        """The time before which no other hello is due."""
        self.info: Info | None = None
        """The engine's last answer to a hello, possibly over an earlier connection."""
        self.stop_tasks: frozenset[str] = frozenset()
        """Tasks that stop the machine or bring a device to its safe state, as far as the engine has named them."""
        self._capabilities: Sequence[str] = ()
        self._is_timed = False
        """Whether the engine takes sending times and tokens,"""
        self._gives_each = False
        """whether it answers task by task,"""
        self._gives_progress = False
        """whether it tells what tasks say of their progress,"""
        self._has_values = False
        """and whether it takes, and gives, Python's other values."""
        self.stop_in_force = 0
        """The number of the stop that is in force, as the last reply said; 0 for none."""
        self._serials = itertools.count(1)
        self._watched: deque[tuple[float, int]] = deque()  # from all threads, for the heap
        self._expiries: list[tuple[float, int]] = []
        self.pending: dict[int, Pending] = {}
        self.abandoned: deque[int] = deque()
        """Streams that nobody reads any more; any thread may append to it."""
        self.outcomes: deque[Outcome] = deque()
        """Outcomes that futures still have to get."""
        self.reports: deque[Announcement] = deque()
        """Progress that callbacks are still to be told."""
        self.retractions: dict[int, list[int] | None] = {}
        """Cancellations that the engine is still to be told: packages, and which of their tasks, None for all."""

    def package(
        self,
        calls: Iterable[Call],
        futures: Sequence[Future[Any]],
        options: Options,
        *,
        each: bool,
        made: int = 0,
        is_watched: bool = False,
    ) -> OutgoingRequest:
        """Pack calls that were made at `made`, whose callers may ask for their progress if it `is_watched`.

        Raises BadArguments for values that cannot be sent.
        """
        names: dict[str, int] = {}
        body = _fastpath.pack_calls(calls, names, True)
        pending = Pending(futures, each, False, options.timeout, is_watched=is_watched)
        return self._outgoing_request(RequestKind.PACKAGE, pending, options, names, body, made)

    def mapped(
        self, name: str, iterables: Iterable[Iterable[Any]], future: Future[Any], options: Options, made: int = 0
    ) -> OutgoingRequest:
        """Pack calls of one task as `map` makes them at `made`, with arrays of numbers as columns.

        Raises BadArguments for values that cannot be sent.
        """
        iterables = tuple(iterables)
        columns = arrays.columns(iterables)
        body = columns or _fastpath.pack_map(map(arrays.plain_rows, iterables), True)
        pending = Pending((future,), False, options.errors == "raise", options.timeout, columns is not None)
        return self._outgoing_request(RequestKind.PACKAGE, pending, options, [name], body, made)

    def request(self, kind: RequestKind, future: Future[Any], options: Options, value: Any = None) -> OutgoingRequest:
        """Make any other request; PUBLISH and LATEST have a value, a list that begins with the topic."""
        body = () if value is None else (_fastpath.encode(value),)
        return self._outgoing_request(kind, Pending((future,), True, False, options.timeout), options, [], body)

    def greet(self, now: int) -> OutgoingRequest | None:
        """Return the hello to send at `now`, if one is due; the caller then calls `greeted`.

        A hello is due on a new connection, and when the estimate of the engine's clock has become old.
        """
        is_fresh = not self._is_timed or now - self._greeted_at <= FRESH_NS or self._clock.is_fresh(now)
        if self.is_ready and is_fresh:
            self.greet_at = now + GREET_NS
            return None
        if self._hello in self.pending:
            return None
        return self.request(RequestKind.INFO, Future(), Options(timeout=HELLO_S), [CAPABILITIES])

    def greeted(self, hello: OutgoingRequest, now: int) -> None:
        """Note that the hello was sent: nothing else may be sent until it is answered."""
        self._hello, self._greeted_at, self.is_ready, self.greet_at = hello.serial, now, False, 0

    @property
    def is_awaited(self) -> bool:
        """Return whether anything is pending beside the hello."""
        return len(self.pending) > (self._hello in self.pending)

    def can(self, capability: str) -> bool:
        """Return whether the engine at the other end of this connection has that capability."""
        return self.is_ready and capability in self._capabilities

    def engine_time(self, now: int) -> Estimate | None:
        """Estimate the engine's clock at `now`; None if nothing is known of it."""
        return self._clock.estimate(now)

    def urge(self, outgoing: OutgoingRequest) -> OutgoingRequest:
        """Return the request with a priority before all others."""
        request = msgspec.structs.replace(outgoing.request, priority=Priority.URGENT)
        return self.replace(outgoing._replace(request=request, head=encode_request(request)))

    def replace(self, outgoing: OutgoingRequest) -> OutgoingRequest:
        """Return the request, which takes the place of that with its serial where that may be sent again."""
        pending = self.pending.get(outgoing.serial)
        if pending is not None and pending.outgoing is not None:
            pending.outgoing = outgoing
        return outgoing

    def write(self, outgoing: OutgoingRequest, now: int) -> list[bytes]:
        """Return the frames of a request that is sent at `now`, with its sending time if the engine takes one.

        There are none if the engine does not take its values: the request has failed then. Futures of several tasks get
        their results one by one if the engine can do that.
        """
        pending = self.pending.get(outgoing.serial)
        if pending is not None:
            pending.written = now
        if not self._has_values and pending is not None and outgoing.request.kind == RequestKind.PACKAGE:
            outgoing = self._plainly(outgoing, pending)
            if outgoing.serial not in self.pending:
                return []
        head = outgoing.head
        if pending is not None and self._gives_each and outgoing.request.reply is ReplyMode.ALL:
            is_parted = pending.gathering is not None or (pending.each and len(pending.futures) > 1)
            head = wanting_each(head) if is_parted else head
        if self._is_timed:
            sent, bound = (self._clock.at(outgoing.made) if outgoing.made else None) or (0, 0)
            if isinstance(outgoing.request, StreamRequest):
                stamp = {"sent": sent, "bound": bound, "token": self._token, "since": self._since_told, "values": True}
                head = stamped_stream(outgoing.request, stamp)
            else:
                head = stamped(head, sent, bound, self._token, self._since_told)
                if pending is not None and pending.is_watched and self._gives_progress:
                    head = wanting_progress(head)
        return [head, *outgoing.body]

    def _plainly(self, outgoing: OutgoingRequest, pending: Pending) -> OutgoingRequest:
        """Return a package as an older engine takes it; calls with values that such does not take fail alone."""
        if outgoing.request.columns:
            return outgoing
        index, body = outgoing.body
        frames, errors = plain_tasks(outgoing.request.names, index, body, self.info.release if self.info else "")
        outgoing = self.replace(outgoing._replace(body=frames))
        if errors and (not pending.each or len(errors) == len(pending.futures)):
            self.fail([outgoing.serial], next(iter(errors.values())))
        elif errors:
            self.outcomes.extend([(pending.futures[position], error) for position, error in errors.items()])
            pending.futures = [future for place, future in enumerate(pending.futures) if place not in errors]
            for position, future in enumerate(pending.futures):
                if isinstance(future, TaskFuture):
                    future.position = position
        return outgoing

    def watch(self, serial: int, now: float) -> None:
        """Have a request expire when its timeout, counted from `now`, is over."""
        pending = self.pending.get(serial)
        if pending is not None and pending.timeout is not None:
            self._watched.append((now + pending.timeout, serial))

    def due(self, now: float) -> float:
        """Return in how many seconds the next request may expire; inf if none is watched."""
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
        """Note that a package, or one of its tasks, is cancelled; the engine need not begin it."""
        positions = self.retractions.setdefault(serial, [])
        if position is None:
            self.retractions[serial] = None
        elif positions is not None:
            positions.append(position)

    def retract_all(self) -> None:
        """Cancel everything that is pending, also what would be sent again."""
        for pending in list(self.pending.values()):
            for future in pending.futures:
                if isinstance(future, TaskFuture):
                    future.is_unwanted = True

    def retracted(self) -> Iterator[OutgoingRequest]:
        """Yield the requests that tell the engine of the cancellations so far."""
        retractions, self.retractions = self.retractions, {}
        for serial, positions in retractions.items():
            starts = range(0, len(positions), MAX_POSITIONS) if positions else range(1)
            for start in starts:
                part = positions and positions[start : start + MAX_POSITIONS]
                yield self.request(RequestKind.CANCEL, Future(), Options(timeout=RETRACT_S), [serial, part])

    def no_reply(self, seconds: float, *, connected: bool) -> TaskEngineError:
        """Return the error for a request without a reply in so many seconds."""
        if connected:
            return TaskTimeout(f"no reply in {seconds:g} s", seconds=seconds)
        why = f": {self._doubt}" if self._doubt else ""
        text = f"no engine answers at {self._address} (waited {seconds:g} s){why}"
        return EngineUnreachable(text, address=self._address)

    def unsent(self, count: int, seconds: float) -> TaskEngineError:
        """Return the error for calls that were not sent before the client was closed."""
        why = self.no_reply(round(seconds, 1), connected=False)
        return EngineUnreachable(f"{count} call{'s'[: count > 1]} not sent: {why}", address=self._address)

    def doubt(self, why: str) -> None:
        """Note what is wrong with the engine's address, "" for nothing; any thread may call this."""
        self._doubt = why

    def lose(self, serials: Iterable[int]) -> list[OutgoingRequest]:
        """Handle the loss of the connection over which these requests were sent; return the requests to send again.

        The next connection begins with a hello, and the estimate of the engine's clock is forgotten.
        """
        self._hello, self.is_ready = NO_SERIAL, False
        self._is_timed, self._gives_each, self._has_values, self._gives_progress = False, False, False, False
        self._clock.forget()
        self._sample_at, self.greet_at = 1, 0
        again, lost = [], []
        for serial in serials:
            pending = self.pending.get(serial)
            outgoing = None if pending is None else pending.outgoing
            if pending is not None and outgoing is not None and pending.resends and self._is_wanted(serial, pending):
                pending.resends, pending.answered = pending.resends - 1, 0
                if pending.gathering is not None and (ended := pending.gathering.clear()):
                    self.reports.append((pending.gathering.tell, -ended))
                again.append(outgoing)
            else:
                lost.append(serial)
        text = f"the connection to {self._address} was lost before the reply came; the tasks may have run"
        self.fail(lost, EngineUnreachable(text, address=self._address))
        return again

    def _is_wanted(self, serial: int, pending: Pending) -> bool:
        """Return whether one of the futures still wants its result.

        Cancelled tasks are cancelled at the engine again.
        """
        unwanted = [future for future in pending.futures if isinstance(future, TaskFuture) and future.is_unwanted]
        if unwanted and len(unwanted) == len(pending.futures):
            return False
        for future in unwanted:
            self.retract(serial, future.position)
        return True

    def give_up(self, error: TaskEngineError) -> deque[Outcome]:
        """Fail everything that is pending."""
        return self.fail(list(self.pending), error)

    def receive(self, frames: Sequence[bytes], now: int = 0) -> deque[Outcome]:
        """Resolve a request by a reply that came at `now`, if that is known: each future gets a result or an exception.

        Raises ProtocolError for a malformed reply; a reply to a request that is not pending has no effect.
        """
        if not 1 <= len(frames) <= 2:
            raise ProtocolError(f"a reply has 1 or 2 frames, not {len(frames)}")
        try:
            reply = decode_reply(frames[0])
        except ProtocolError:
            if foreign := foreign_reply(frames[0], self._address):
                return self.give_up(foreign)
            raise
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
            if isinstance(reply, PartialReply) and reply.reply is ReplyMode.PROGRESS:
                self.reports.extend(take_reports(reply, body, pending.futures, pending.listener, each=pending.each))
                return self.outcomes
            if isinstance(reply, PartialReply) and pending.values is not None:
                self.outcomes.extend(take_values(reply, body, pending.values, takes=self._has_values))
                if not reply.last:
                    return self.outcomes
            elif isinstance(reply, PartialReply) and pending.gathering is not None:
                if not self._gather(reply, body, pending, pending.gathering):
                    return self.outcomes
            elif isinstance(reply, PartialReply):
                futures, values = pending.futures if pending.each else (), self._has_values
                self.outcomes.extend(partial_outcomes(reply, body, futures, pending.answered, values=values))
                pending.answered += reply.count
                if not reply.last:
                    return self.outcomes
            else:
                how = {"each": pending.each, "raises": pending.raises, "array": pending.array}
                self.outcomes.extend(outcomes(reply, body, pending.futures, **how, values=self._has_values))
                if reply.serial == self._hello:
                    self._learn(self.outcomes[-1][1])
            self.pending.pop(reply.serial, None)
        return self.outcomes

    def _gather(self, reply: PartialReply, body: bytes, pending: Pending, gathering: Gathering) -> bool:
        """Take a partial reply for a single future; return whether it is the last. Raises ProtocolError."""
        ended = gathering.ended
        gathering.take(reply, body)
        if gathering.ended > ended:
            self.reports.append((gathering.tell, gathering.ended - ended))
        if reply.last:
            try:
                whole, body = gathering.whole(reply.serial)
            except ProtocolError as error:
                self.fail([reply.serial], error)
            else:
                how = {"each": False, "raises": pending.raises, "array": pending.array}
                self.outcomes.extend(outcomes(whole, body, pending.futures, **how, values=self._has_values))
        return reply.last

    def _learn(self, value: Any) -> None:
        """Take the answer to the hello.

        After a refusal waiting requests are sent all the same, to get errors that explain.
        """
        self._capabilities = ()
        with contextlib.suppress(msgspec.ValidationError):
            self.info = msgspec.convert(value, Info)
            self._capabilities = self.info.capabilities
            self.stop_tasks = frozenset(self.info.stop_tasks)
        self._is_timed, self._gives_each = TIMED in self._capabilities, GIVES_EACH in self._capabilities
        self._has_values = self._is_timed and VALUES in self._capabilities
        self._gives_progress = PROGRESS in self._capabilities
        if STREAMS not in self._capabilities and self.info is not None:
            self.fail(self.streams(), too_old(self._address, self.info.release))
        since, bound = self._clock.at(self._since) or (0, 0)
        # the earliest possible moment: no client is to count as newer than it is
        self._since_told = since and max(1, since - bound)
        self.is_ready = True

    def streams(self) -> list[int]:
        """Return the serials of the streams that are pending."""
        return [serial for serial, pending in list(self.pending.items()) if pending.values is not None]

    def forget(self, serial: int) -> None:
        """Forget a request: its reply is not awaited any more."""
        self.pending.pop(serial, None)

    def fail(self, serials: Iterable[int], error: TaskEngineError) -> deque[Outcome]:
        """Fail these requests."""
        gone = {serial: pending for serial in serials if (pending := self.pending.get(serial)) is not None}
        self.outcomes.extend([(future, error) for pending in gone.values() for future in pending.futures])
        for serial in gone:
            self.pending.pop(serial, None)
        return self.outcomes

    def _outgoing_request(
        self,
        kind: RequestKind,
        pending: Pending,
        options: Options,
        names: Iterable[str],
        body: tuple[bytes, ...],
        made: int = 0,
    ) -> OutgoingRequest:
        serial = next(self._serials)
        deadline = options.deadline or 0.0
        request = Request(
            kind,
            serial,
            self._name,
            list(names),
            REPLIES[options.reply],
            PRIORITIES[options.priority],
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
        outgoing = OutgoingRequest(serial, request, head, body, made)
        for position, future in enumerate(pending.futures):
            if isinstance(future, TaskFuture):
                future.position = position if pending.each else None
                future.serial = serial
                if future.is_unwanted:
                    self.retract(serial, future.position)
        if options.idempotent:
            pending.outgoing = outgoing
        if options.progress is not None and kind == RequestKind.PACKAGE:
            pending.is_watched, pending.listener = True, options.progress
        self.pending[serial] = pending
        return outgoing
