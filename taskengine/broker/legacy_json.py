"""The legacy JSON protocol (wire 0.1): read by the router, run and answered by the worker. Pure."""

from __future__ import annotations

import contextlib
import itertools
import re
import uuid
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from taskengine import _fastpath
from taskengine.broker.binary import error_entry, error_of
from taskengine.broker.package import (
    CALL_BYTES,
    DEFAULT_LANE,
    Called,
    DataRequest,
    Message,
    Package,
    check_names,
    decode_head,
    lanes_of,
)
from taskengine.broker.topics import lane_of as topic_lane
from taskengine.errors import BadArguments, ProtocolError, TaskEngineError, text_of
from taskengine.protocol.arrays import listed
from taskengine.protocol.layouts import LEGACY_VERSION, Format
from taskengine.protocol.limits import MAX_BODY, MAX_CHANGES, MAX_HEAD, MAX_ID, MAX_LEGACY_DATA
from taskengine.protocol.messages import UNSTAMPED, Origin, Stamp

T = TypeVar("T")
_ENTRY = re.compile(rb'(?:^|,)( ?)"job-')
"""Finds where an entry begins in the bytes that a dead worker has left; a space marks an error (see `_seed.pxi`)."""
TASKS_TYPE = "REQ"
DATA_TYPES = ("PUB", "GET")


class LegacyMeta(msgspec.Struct):
    """The META frame of a request; fields that the legacy sample client leaves empty may be missing, null or empty."""

    id: str | None = ""
    role: str | None = ""
    version: float | str | None = None
    type: str = TASKS_TYPE
    pack: str | int | float = 0
    length: int | float | str | None = None
    serial: str | int | float | None = None


class LegacyTask(msgspec.Struct):
    """A TASK frame as the router checks it."""

    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    pack: str | int | float = ""


class _EchoTask(msgspec.Struct):
    """A TASK frame as the worker runs it; numbers in `pack` are echoed digit by digit."""

    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    pack: msgspec.Raw = msgspec.Raw(b'""')

    def label(self) -> str:
        raw = bytes(self.pack)
        return str(msgspec.json.decode(raw)) if raw.startswith(b'"') else raw.decode()


class _EchoMeta(msgspec.Struct):
    """The parts of a META frame that a reply repeats unchanged, even if the rest of the frame is malformed."""

    pack: msgspec.Raw = msgspec.Raw(b"0")
    serial: msgspec.Raw = msgspec.Raw(b'""')
    id: msgspec.Raw = msgspec.Raw(b'""')


class _Asked(msgspec.Struct):
    """The topic of a data request; only the data worker reads its value."""

    topic: msgspec.Raw = msgspec.Raw()
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class LegacyData(msgspec.Struct):
    """The DATA frame of a data request."""

    data: _Asked


class _Answer(msgspec.Struct):
    size: int
    data: Any
    pack: msgspec.Raw


class _Entries(_Answer):
    """Response entries; `errors` are the positions of those that are errors."""

    errors: list[int]


_encode = msgspec.json.Encoder(enc_hook=listed).encode
_decode_meta = msgspec.json.Decoder(LegacyMeta).decode
_decode_echo = msgspec.json.Decoder(_EchoMeta).decode
_decode_task = msgspec.json.Decoder(LegacyTask).decode
_decode_echo_task = msgspec.json.Decoder(_EchoTask).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_data = msgspec.json.Decoder(LegacyData).decode


def _read(decode: Callable[[bytes | msgspec.Raw], T], frame: bytes | msgspec.Raw, what: str) -> T:
    try:
        return decode(frame)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ProtocolError(f"{what}: {error}") from None


class LegacyPackage(Package):
    """A package that came by wire 0.1."""

    format = Format.LEGACY_JSON

    def __init__(
        self, route: tuple[bytes, ...], frame: bytes, meta: LegacyMeta, index: bytes, body: bytes, origin: Origin
    ) -> None:
        echo = _read(_decode_echo, frame, "META frame")
        for name, raw in (("pack", echo.pack), ("serial", echo.serial), ("id", echo.id)):
            if len(raw) > MAX_ID:
                raise ProtocolError(f"META frame: {name} has at most {MAX_ID} bytes, not {len(raw)}")
        self.pack = echo.pack
        serial = meta.serial if meta.serial not in (None, "") else uuid.uuid4().hex
        super().__init__(route, str(serial), bytes(self.pack), (), index, body, origin)
        self.meta = meta
        self.echo_serial = serial
        self.names: Collection[str] = ()

    def pieces_of(self, error: TaskEngineError, first: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        for _, start, end in self.flight.chunks.between(first, stop):
            tasks = [_decode_echo_task(self._frame(position)) for position in range(start, end)]
            entries = [_error_text(task.label(), error) for task in tasks]
            yield start, end, _encode(_Entries(len(entries), entries, self.pack, list(range(len(entries)))))

    def mend(self, tasks: int, body: bytes) -> bytes:
        # within an entry a quote has a backslash before it, so this matches only where an entry begins
        marks = (mark for _, mark in zip(range(tasks), _ENTRY.finditer(body), strict=False))
        errors = ",".join(str(position) for position, mark in enumerate(marks) if mark[1])
        return b'{"size":%d,"data":[%b],"pack":%b,"errors":[%b]}' % (tasks, body, bytes(self.pack), errors.encode())

    def check_tasks(self, first: int, stop: int, most: int) -> None:
        for position in range(first, stop):
            size = len(self._frame(position))
            if size > most:
                raise BadArguments(f"task {position} has {size} bytes, and a lane with pins takes {most} (PIN_BYTES)")

    def called(self) -> Collection[str]:
        return self.names

    def calls(self, names: Container[str], most: int) -> Iterator[Called]:
        runs = _fastpath.frame_names(self.index, self.body, _name_in, names.__contains__, 2 * most + 1)
        wanted = (position for first, stop, is_wanted in runs if is_wanted for position in range(first, stop))
        for position in itertools.islice(wanted, most):
            frame = self._frame(position)
            if len(frame) > CALL_BYTES:
                continue
            with contextlib.suppress(ProtocolError):  # such a task fails at the worker
                task = _read(_decode_task, frame, "TASK frame")
                yield Called(task.task, position, task.args, task.kwargs)

    def name_of(self, position: int) -> str:
        return _decode_echo_task(self._frame(position)).task

    def _frame(self, position: int) -> bytes:
        """Return the TASK frame at a position."""
        ends = memoryview(self.index).cast("I")
        return self.body[ends[position - 1] if position else 0 : ends[position]]

    def answer(self, stamp: Stamp = UNSTAMPED) -> Message:
        return self._answer([body for _, _, body in self.results.pieces()])

    def _answer(self, frames: list[bytes]) -> Message:
        parts = len(frames)
        meta = self.meta_of(1, "assembler", parts, "ACK", self.results.worker or "TASK-0")
        return [msgspec.json.encode({**meta, "size": parts}), *frames]

    def refusal(self, error: TaskEngineError, stamp: Stamp = UNSTAMPED) -> Message:
        return [_refusal(self.echo_serial, self.pack, error)]

    def meta_of(self, length: int, role: str, part: int, kind: str, who: Any) -> dict[str, Any]:
        """Return a META frame that belongs to this package."""
        return _meta(self.echo_serial, self.pack, length, role, part, kind, who)


class LegacyDataRequest(LegacyPackage):
    """A data request that came by wire 0.1; the data worker is asked in MessagePack."""

    format = Format.DATA

    def __init__(
        self,
        route: tuple[bytes, ...],
        frame: bytes,
        meta: LegacyMeta,
        index: bytes,
        body: bytes,
        data_workers: int,
        origin: Origin,
    ) -> None:
        super().__init__(route, frame, meta, index, body, origin)
        if self.count != 1:
            raise ProtocolError(f"a data request has 2 frames, META and DATA, not {1 + self.count}")
        if len(body) > MAX_LEGACY_DATA:
            raise ProtocolError(f"DATA frame: a data request has at most {MAX_LEGACY_DATA} bytes, not {len(body)}")
        data = _read(_decode_data, body, "DATA frame").data
        if not bytes(data.topic).startswith(b'"'):
            raise ProtocolError("DATA frame: a data request names its topic, a string")
        topic = _read(_decode_text, data.topic, "DATA frame")
        self.data_request = DataRequest(topic, self.meta.type == "PUB")
        if not self.data_request.publishes:
            request = _fastpath.encode([topic])
        elif isinstance(data.value, msgspec.Raw):
            request = _fastpath.encode([topic, bytes(data.value)])
        else:
            raise ProtocolError("DATA frame: PUB needs a value")
        self.hold(len(request).to_bytes(4, "little"), request)
        self.lanes = [(topic_lane(topic, data_workers), 1)]

    def pieces_of(self, error: TaskEngineError, first: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        yield first, stop, error_entry(error)

    def mend(self, tasks: int, body: bytes) -> bytes:
        return body

    def name_of(self, position: int) -> str:
        return ""

    def answer(self, stamp: Stamp = UNSTAMPED) -> Message:
        body = self.results.join()
        if self.results.failed:
            return self.refusal(error_of(body))
        # the data worker has made the frame already, so that the router need not
        return self._answer([] if self.meta.type == "PUB" else [body])


def read_package(
    route: tuple[bytes, ...],
    frame: bytes,
    index: bytes,
    body: bytes,
    lane_of: Mapping[str, str],
    data_workers: int,
    origin: Origin,
) -> LegacyPackage:
    """Read a message of wire 0.1: `frame` is its META, the others lie in `body` and end at `index`.

    `lane_of` maps each registered task to its lane, `origin` is where the message came from. Raises ProtocolError.
    """
    if len(frame) > MAX_HEAD:
        raise ProtocolError(f"a META frame has at most {MAX_HEAD} bytes, not {len(frame)}")
    meta = _read(_decode_meta, frame, "META frame")
    if meta.type in DATA_TYPES:
        return LegacyDataRequest(route, frame, meta, index, body, data_workers, origin)
    package = LegacyPackage(route, frame, meta, index, body, origin)
    given = None if isinstance(meta.length, str) else meta.length
    if isinstance(meta.length, str) and meta.length:
        raise ProtocolError(f"META frame: length is a number, not {meta.length!r}")
    if package.count and meta.type != TASKS_TYPE:
        raise ProtocolError(f"META frame: type {meta.type!r} takes no frames; tasks come with {TASKS_TYPE}")
    if meta.type == TASKS_TYPE and given is not None and given != package.count:
        raise ProtocolError(f"META frame: length is {given}, and {package.count} TASK frames came")
    lanes: dict[str, str] = {}

    def lane(name: str) -> str:
        check_names(len(lanes) + 1)
        lanes[name] = found = lane_of.get(name, DEFAULT_LANE)
        return found

    runs = _fastpath.frame_names(index, body, _name_in, lane, MAX_CHANGES + 1)
    package.names = sorted(lanes)
    package.names_held = len(lanes)
    package.kind = tuple(name for name in package.names if name in lane_of)
    package.lanes = lanes_of((lane, stop - first) for first, stop, lane in runs)
    return package


def _name_in(frame: bytes, position: int) -> str:
    return _read(_decode_task, frame, f"TASK frame {position + 1}").task


def malformed(frame: bytes, error: TaskEngineError) -> Message:
    """Return the `[META]` that answers a malformed message, with as much of its own META, `frame`, as can be read."""
    try:
        echo = _read(_decode_echo, frame, "META frame")
    except ProtocolError:
        echo = _EchoMeta()
    serial = echo.serial if _is_scalar(echo.serial) and len(echo.serial) > 2 else uuid.uuid4().hex
    return [_refusal(serial, echo.pack if _is_scalar(echo.pack) else 0, error)]


def _is_scalar(raw: msgspec.Raw) -> bool:
    try:
        return len(raw) <= MAX_ID and isinstance(msgspec.json.decode(raw), (str, int, float))
    except (msgspec.MsgspecError, ValueError):
        return False


def _refusal(serial: Any, pack: Any, error: TaskEngineError) -> bytes:
    meta = _meta(serial, pack, 1, "assembler", 0, "ACK", "ROUTER")
    return msgspec.json.encode({**meta, "size": 0, "error": str(error)})


def _meta(serial: Any, pack: Any, length: int, role: str, part: int, kind: str, who: Any) -> dict[str, Any]:
    return {
        "length": length,
        "version": LEGACY_VERSION,
        "role": role,
        "part": part,
        "serial": serial,
        "type": kind,
        "id": who,
        "pack": pack,
    }


def data_frame(data: Any, pack: msgspec.Raw) -> bytes:
    """Return a DATA frame with a topic's value."""
    return _encode(_Answer(len(data) if isinstance(data, list) else 1, data, pack))


def published(head: bytes, value: Any) -> Any:
    """Return the value that a data request publishes, as it came to the data worker; `head` is that of its slice.

    By wire 0.1 that is JSON. Raises BadArguments.
    """
    _, pack, _ = decode_head(head)
    if not isinstance(pack, bytes):
        return value
    try:
        read = msgspec.json.decode(value)
        _fastpath.encode(read)  # JSON has numbers that MessagePack has not
    except (BadArguments, msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise BadArguments(f"DATA frame: {text_of(error)}") from None
    return read


def latest_entry(head: bytes, entry: bytes, room: int) -> bytes:
    """Return the answer to a data request for the value of a topic: MessagePack, or a DATA frame for wire 0.1.

    `head` is that of its slice. Raises BadArguments for a value that takes more than `room` bytes, or that JSON cannot
    hold.
    """
    _, pack, _ = decode_head(head)
    if not isinstance(pack, bytes):
        return entry
    try:
        frame = data_frame(_fastpath.unpack(entry, 1, bytes)[0], msgspec.Raw(pack))
    except Exception as error:  # whatever a value raises that JSON has not
        raise BadArguments(f"the value has no JSON: {text_of(error)}") from None
    if len(frame) > room:
        raise BadArguments(f"as JSON the value takes {len(frame)} bytes, more than {room}: ask by wire 0.2")
    return frame


class TaskFrames:
    """The functions by which compiled code has a worker run TASK frames; see `_fastpath.run_batch`.

    `find` returns the function of a task's name, and `limit` its timeout in ns, 0 for none. `failure` converts an
    exception that a task raised, or an unknown name, to an error. `begin` is called with a task's timeout when the task
    starts, and `admit` with the origin of the tasks that follow. `may_retry` says whether a task that raised may be run
    again.
    """

    def __init__(
        self,
        find: Callable[[str], Callable[..., Any] | None],
        failure: Callable[[str, BaseException | None], TaskEngineError],
        limit: Callable[[str], int] = lambda name: 0,
        begin: Callable[[int], None] | None = None,
        admit: Callable[[Origin], None] | None = None,
        may_retry: Callable[[str, BaseException], bool] | None = None,
    ) -> None:
        self._may_retry = may_retry
        self.find = find
        self.limit = limit
        self._failure = failure
        self._begin = begin
        self._admit = admit

    def pack(self, head: bytes) -> bytes:
        """Return the `pack` of the package whose tasks are next, unchanged."""
        pack: bytes
        _, pack, origin = decode_head(head)
        if self._admit:
            self._admit(origin)
        return pack

    def run(self, frame: bytes, room: int) -> tuple[bytes, int]:
        """Run the task in a frame; return its entry, of at most `room` bytes, and whether the task failed (`fail`)."""
        task = _decode_echo_task(frame)
        function = self.find(task.task)
        if function is None:
            return self.fail(task.label(), task.task, None)
        if self._begin:
            self._begin(self.limit(task.task))
        try:
            result = function(*task.args, **task.kwargs)
        except BaseException as error:
            return self.fail(task.label(), task.task, error)
        return self.tell(task.label(), result, room)

    def tell(self, label: str, result: Any, room: int) -> tuple[bytes, bool]:
        """Return the entry of a task that ended, of at most `room` bytes, and whether its result made it fail."""
        try:
            entry = _encode(f"job-{label}: {result_text(result)}")
            if len(entry) > room:
                raise BadArguments(f"the results of this answer take more than {MAX_BODY} bytes")
        except BadArguments as error:
            return _encode(_error_text(label, self._failure("", BadArguments(error.message)))), True
        return entry, False

    def fail(self, label: str, name: str, error: BaseException | None) -> tuple[bytes, int]:
        """Return the entry of a task that raised `error`, or whose name is unknown; and 2 where it may be run again."""
        is_retried = error is not None and self._may_retry is not None and self._may_retry(name, error)
        return _encode(_error_text(label, self._failure(name, error))), 1 + is_retried


def _error_text(label: str, error: TaskEngineError) -> str:
    return f"job-{label}: ERROR: {text_of(error)}"


def result_text(value: Any) -> str:
    """Return a result as wire 0.1 writes it: plain values as `str()`, lists and objects as JSON.

    Raises BadArguments.
    """
    try:
        if value is None or isinstance(value, (str, int, float, bytes)):
            return str(value).encode(errors="backslashreplace").decode()
        return _encode(value).decode()
    except Exception as error:  # whatever a value of the task's own making raises
        raise BadArguments(f"a result of type {type(value).__name__} cannot be sent: {text_of(error)}") from None
