"""A client's side of wire 0.2: requests as frames, replies to futures. Pure; the I/O shells share it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from taskengine import _fastpath
from taskengine.errors import BadArguments, ProtocolError, TaskEngineError, from_wire
from taskengine.messages import Kind, Priority, Reply, ReplyMode, Request, decode_reply, encode_request

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
            if seconds is not None and not seconds > 0:
                raise BadArguments(f"{name} is a positive number of seconds or None, not {seconds!r}", name=name)


class Awaitable(Protocol):
    """What `concurrent.futures.Future` and `asyncio.Future` have in common."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


Outcome = tuple[Awaitable, Any]


class Pending(NamedTuple):
    """A request without its reply: each future takes its own entry, or the only one the list, or its first error."""

    futures: Sequence[Awaitable]
    each: bool
    raises: bool = False


class Session:
    """Numbers a client's requests and knows which are pending; `name` is what the engine calls the client."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._serials = itertools.count(1)
        self.pending: dict[int, Pending] = {}

    def package(
        self, calls: Iterable[Call], futures: Sequence[Awaitable], options: Options, *, each: bool
    ) -> list[bytes]:
        """The frames of a package of calls. Raises BadArguments for what cannot be sent."""
        names: dict[str, int] = {}
        index, body = _fastpath.pack_calls(calls, names)
        return [self._head(Kind.PACKAGE, Pending(futures, each), options, list(names)), index, body]

    def mapped(
        self, name: str, arguments: Iterable[tuple[Any, ...]], future: Awaitable, options: Options
    ) -> list[bytes]:
        """The frames of a package that calls one task with each of `arguments`."""
        index, body = _fastpath.pack_map(arguments)
        pending = Pending((future,), each=False, raises=options.errors == "raise")
        return [self._head(Kind.PACKAGE, pending, options, [name]), index, body]

    def request(self, kind: Kind, future: Awaitable, options: Options, value: Any = None) -> list[bytes]:
        """The frames of any other request; PUBLISH and LATEST have a value, a list that begins with the topic."""
        head = self._head(kind, Pending((future,), True), options, [])
        return [head] if value is None else [head, _fastpath.encode(value)]

    def receive(self, frames: Sequence[bytes]) -> list[Outcome]:
        """The futures that a reply resolves, each with its result or its exception.

        Raises ProtocolError for bytes that are no reply; a reply to nothing that is pending resolves nothing.
        """
        if not 1 <= len(frames) <= 2:
            raise ProtocolError(f"a reply has 1 or 2 frames, not {len(frames)}")
        reply = decode_reply(frames[0])
        pending = self.pending.pop(reply.serial, None)
        if pending is None:
            return []
        try:
            results = _results(reply, frames[1] if len(frames) > 1 else b"")
            if pending.each and len(results) != len(pending.futures):
                raise ProtocolError(f"a reply of {len(results)} entries to {len(pending.futures)} tasks")
        except TaskEngineError as error:
            return [(future, error) for future in pending.futures]
        if pending.each:
            return list(zip(pending.futures, results, strict=True))
        if pending.raises and reply.failed:
            # where no reply was wanted there is no error to be found
            first: Any = next((result for result in results if isinstance(result, TaskEngineError)), results)
            return [(pending.futures[0], first)]
        return [(pending.futures[0], results)]

    def fail(self, error: TaskEngineError) -> list[Outcome]:
        """Give up everything that is pending."""
        gone, self.pending = self.pending, {}
        return [(future, error) for pending in gone.values() for future in pending.futures]

    def forget(self, future: Awaitable) -> None:
        """Nobody waits for `future` any more."""
        gone = [serial for serial, pending in self.pending.items() if future in pending.futures]
        for serial in gone:
            del self.pending[serial]

    def _head(self, kind: Kind, pending: Pending, options: Options, names: list[str]) -> bytes:
        serial = next(self._serials)
        request = Request(
            kind,
            serial,
            self._name,
            names,
            ReplyMode[options.reply.upper()],
            Priority[options.priority.upper()],
            options.deadline or 0.0,
            options.idempotent,
        )
        head = encode_request(request)
        self.pending[serial] = pending
        return head


def settle(outcomes: Iterable[Outcome]) -> None:
    """Resolve futures; one that was cancelled, or gave up waiting, is passed over."""
    for future, value in outcomes:
        if future.done():
            continue
        if isinstance(value, TaskEngineError):
            future.set_exception(value)
        else:
            future.set_result(value)


def _results(reply: Reply, body: bytes) -> list[Any]:
    if reply.error is not None:
        raise from_wire(*reply.error)
    if reply.reply == ReplyMode.ALL:
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
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"an error entry that is none: {error}") from None
    return from_wire(code, message, fields)
