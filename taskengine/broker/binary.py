"""Wire 0.2 at the engine: reads and answers packages without decoding a task. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from taskengine import _fastpath
from taskengine.broker.origins import latest_sending
from taskengine.broker.package import (
    CALL_BYTES,
    DEFAULT_LANE,
    Called,
    DataRequest,
    Message,
    Package,
    TaskKind,
    check_names,
    encode_head,
    lanes_of,
)
from taskengine.broker.partials import Part, PartialResults
from taskengine.broker.results import Results
from taskengine.broker.streams import StreamResults
from taskengine.broker.topics import lane_of as topic_lane
from taskengine.errors import ProtocolError, TaskEngineError, TaskFailed, from_wire, text_of, to_wire
from taskengine.protocol.layouts import ERROR_EXT, VALUES_FLAG, Format
from taskengine.protocol.limits import LONGEST_DEADLINE_S, MAX_CHANGES
from taskengine.protocol.messages import (
    UNSTAMPED,
    Origin,
    PartialReply,
    Reply,
    ReplyMode,
    Request,
    RequestKind,
    Stamp,
    StreamRequest,
    WatchedRequest,
    WatchedStream,
    encode_reply,
)


def error_entry(error: TaskEngineError) -> bytes:
    """Encode the error as the MessagePack extension that takes the place of a result."""
    try:
        data = _fastpath.encode(list(to_wire(error)))
    except Exception:  # a task may raise our errors with fields, or of a make, that cannot be sent
        data = _fastpath.encode(list(to_wire(TaskFailed(text_of(error), type=type(error).__name__))))
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(ERROR_EXT, data))


def error_of(entry: bytes) -> TaskEngineError:
    """Decode an entry of `error_entry`."""
    errors: list[TaskEngineError] = []
    _fastpath.unpack(entry, 1, lambda data: errors.append(from_wire(*msgspec.msgpack.decode(data))))
    return errors[0]


def refusal(serial: int, error: TaskEngineError, stamp: Stamp = UNSTAMPED) -> Message:
    """Return the reply that refuses a whole message."""
    return [encode_reply(Reply(serial, 0, ReplyMode.ALL, to_wire(error), 0, *stamp))]


def value_reply(serial: int, value: object, stamp: Stamp = UNSTAMPED) -> Message:
    """Return the reply that holds one value."""
    return [encode_reply(Reply(serial, 1, ReplyMode.ALL, None, 0, *stamp)), _fastpath.encode(value)]


class BinaryPackage(Package):
    """A package, or a data request, that came by wire 0.2."""

    def __init__(self, route: tuple[bytes, ...], request: Request, index: bytes, body: bytes, origin: Origin) -> None:
        super().__init__(route, str(request.serial), request.names, (), index, body, origin)
        self.request = request
        self.names_held = len(request.names)
        self.reply_mode = request.reply
        self.values_flag = VALUES_FLAG if request.values else 0
        if request.reply >= ReplyMode.EACH:
            self.reply_mode = ReplyMode.ALL  # to workers it is the same
            if isinstance(request, StreamRequest):
                self._begin_stream(request)
            elif request.kind == RequestKind.PACKAGE:
                self.results = PartialResults(self.count)
        self.priority = request.priority
        self.idempotent = request.idempotent
        self.is_awaited = request.kind == RequestKind.PACKAGE and request.reply != ReplyMode.NONE
        if isinstance(request, (WatchedRequest, WatchedStream)) and request.progress and self.is_awaited:
            self.is_watched = True
            stream = (*request.grant, request.values) if isinstance(request, WatchedStream) else None
            self.head = encode_head(self.serial, request.names, origin, stream, is_watched=True)

    def _begin_stream(self, request: StreamRequest) -> None:
        """Take a package whose client wants the values of its only task. Raises ProtocolError."""
        if request.kind != RequestKind.PACKAGE:
            return
        if self.count != 1 or request.columns:
            raise ProtocolError(f"a stream is of one task, not {self.count}, and has no columns")
        self.head = encode_head(self.serial, request.names, self.sender.origin, (*request.grant, request.values))
        self.results = StreamResults(request.grant)

    def pieces_of(self, error: TaskEngineError, first: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        entry = error_entry(error)
        if self.reply_mode == ReplyMode.ALL:
            yield first, stop, entry * (stop - first)
        elif self.reply_mode == ReplyMode.ERRORS:
            yield first, stop, b"".join(_fastpath.encode(position) + entry for position in range(first, stop))
        else:
            yield first, stop, b""

    def check_tasks(self, first: int, stop: int, most: int) -> None:
        _fastpath.check_tasks(self.index, self.body, first, stop, most, self.request.values)

    def called(self) -> Collection[str]:
        names = self.request.names
        return {names[i] if i < len(names) else "" for i in _fastpath.used_names(self.index, self.body)}

    def calls(self, names: Container[str], most: int) -> Iterator[Called]:
        wanted = bytes(name in names for name in self.request.names)
        for position, start, end in _fastpath.find_tasks(self.index, self.body, wanted, most):
            task = self.body[start:end]
            call = _read_call(task, values=self.request.values) if end - start <= CALL_BYTES else None
            if call is not None:
                yield Called(self.request.names[call[0]], position, call[1], call[2])

    def name_of(self, position: int) -> str:
        names, ends = self.request.names, memoryview(self.index).cast("I")
        start = ends[position - 1] if position else 0
        task = self.body[start : ends[position]]
        [(_, _, i)] = _fastpath.task_names(len(task).to_bytes(4, "little"), task)
        return names[i] if i < len(names) else ""

    def answer(self, stamp: Stamp = UNSTAMPED) -> Message:
        head = encode_reply(
            Reply(self.request.serial, self.count, self.request.reply, None, self.results.failed, *stamp)
        )
        return [head] if self.reply_mode == ReplyMode.NONE else [head, self.results.bodies()]

    def partial_answer(
        self, part: Part, error: TaskEngineError | None, *, is_last: bool, stamp: Stamp = UNSTAMPED
    ) -> Message:
        first, stop, failed, bodies = part
        count, told = stop - first, None
        if error is not None:
            failed, told = count, to_wire(error)
        head = PartialReply(self.request.serial, count, ReplyMode.EACH, told, failed, *stamp, first, is_last)
        return [encode_reply(head)] if error is not None else [encode_reply(head), bodies]

    def stream_answer(
        self, first: int, count: int, bodies: list[bytes], error: TaskEngineError | None, *, is_last: bool, stamp: Stamp
    ) -> Message:
        if is_last and error is None and self.results.failed:
            error = error_of(self.results.join())
        told = None if error is None else to_wire(error)
        head = PartialReply(
            self.request.serial, count, ReplyMode.STREAM, told, int(error is not None), *stamp, first, is_last
        )
        return [encode_reply(head), bodies] if count else [encode_reply(head)]

    def progress_answer(self, reports: list[bytes], stamp: Stamp) -> Message:
        head = PartialReply(self.request.serial, len(reports), ReplyMode.PROGRESS, None, 0, *stamp, 0, last=False)
        return [encode_reply(head), reports]

    def refusal(self, error: TaskEngineError, stamp: Stamp = UNSTAMPED) -> Message:
        return refusal(self.request.serial, error, stamp)


class _DataRequest(BinaryPackage):
    """A PUBLISH or LATEST request. Its client knows no package, so it is answered like the other requests."""

    format = Format.DATA

    def __init__(self, route: tuple[bytes, ...], request: Request, index: bytes, body: bytes, origin: Origin) -> None:
        super().__init__(route, request, index, body, origin)
        self.reply_mode = ReplyMode.ALL
        self.values_flag = 0  # what is published is JSON

    def answer(self, stamp: Stamp = UNSTAMPED) -> Message:
        if self.results.failed:
            return self.refusal(error_of(self.results.join()), stamp)
        return [encode_reply(Reply(self.request.serial, 1, ReplyMode.ALL, None, 0, *stamp)), self.results.bodies()]

    def called(self) -> Collection[str]:
        return ()

    def name_of(self, position: int) -> str:
        return ""


class _ColumnPackage(BinaryPackage):
    """Calls of one task whose arguments are columns of numbers."""

    format = Format.COLUMNS

    def hold(self, index: bytes, body: bytes) -> None:
        self.index = index
        self.body = body
        self.count = _fastpath.check_columns(index, len(body))
        self.results = Results(self.count)

    def check_tasks(self, first: int, stop: int, most: int) -> None:
        """Accept all: numbers are small."""

    def called(self) -> Collection[str]:
        return self.request.names if self.count else ()

    def calls(self, names: Container[str], most: int) -> Iterator[Called]:
        # a task that only stops something takes no number
        return iter(())

    def name_of(self, position: int) -> str:
        return self.request.names[0]


def _read_call(task: bytes, *, values: bool) -> tuple[int, list[Any], dict[str, Any]] | None:
    """Return the name index, arguments and keywords of a call; None where the call will fail at the worker anyway."""
    try:
        i, args, *rest = _fastpath.unpack(task, 1, bytes, values)[0]
    except ProtocolError:
        return None
    kwargs = rest[0] if rest else {}
    return (i, args, kwargs) if isinstance(args, list) and isinstance(kwargs, dict) else None


def read_package(
    route: tuple[bytes, ...],
    request: Request,
    frames: Sequence[bytes],
    lanes: Mapping[str, str],
    data_workers: int,
    origin: Origin,
) -> BinaryPackage:
    """Read a PACKAGE, PUBLISH or LATEST message whose first frame was `request`.

    `lane_of` maps each registered task to its lane, `origin` is where the message came from. Raises ProtocolError.
    """
    if request.kind == RequestKind.PACKAGE:
        package = _read_tasks(route, request, frames, lanes, origin)
    else:
        package = _read_data(route, request, frames, data_workers, origin)
    if not request.deadline >= 0:
        raise ProtocolError(f"a deadline is a number of seconds, 0 for none, not {request.deadline}")
    if 0 < request.deadline <= LONGEST_DEADLINE_S:
        package.deadline = latest_sending(origin) + request.deadline
    return package


def _read_tasks(
    route: tuple[bytes, ...], request: Request, frames: Sequence[bytes], lane_of: Mapping[str, str], origin: Origin
) -> BinaryPackage:
    if len(frames) != 3:
        raise ProtocolError(f"a package has 3 frames, head, index and body, not {len(frames)}")
    _, index, body = frames
    check_names(len(request.names))
    if request.columns:
        if len(request.names) != 1:
            raise ProtocolError(f"columns call one task, not {len(request.names)}")
        columns = _ColumnPackage(route, request, index, body, origin)
        columns.kind = _known(request.names, lane_of)
        columns.lanes = [(lane_of.get(request.names[0], DEFAULT_LANE), columns.count)] if columns.count else []
        return columns
    count = _fastpath.check_index(index, len(body))
    package = BinaryPackage(route, request, index, body, origin)
    package.kind = _known(request.names, lane_of)
    lanes = [lane_of.get(name, DEFAULT_LANE) for name in request.names]
    nameless = lane_of.get("", DEFAULT_LANE)
    first = lanes[0] if lanes else nameless
    if lanes.count(first) == len(lanes):
        package.lanes = [(first, count)] if count else []
        return package
    numbers: dict[str, int] = {}
    marks = array("I", [numbers.setdefault(lane, len(numbers)) for lane in (*lanes, nameless)]).tobytes()
    names = list(numbers)
    runs = _fastpath.task_names(index, body, marks, MAX_CHANGES + 1)
    package.lanes = lanes_of((names[i], stop - first) for first, stop, i in runs)
    return package


def _known(names: Sequence[str], lane_of: Mapping[str, str]) -> TaskKind:
    """Return the kind of a package, by which its costs are remembered: unknown names are left out."""
    known = [name for name in names if name in lane_of]
    return tuple(known if len(known) < 2 else dict.fromkeys(known))


def _read_data(
    route: tuple[bytes, ...], request: Request, frames: Sequence[bytes], data_workers: int, origin: Origin
) -> BinaryPackage:
    if len(frames) != 2:
        raise ProtocolError(f"a data request has 2 frames, head and body, not {len(frames)}")
    body = frames[1]
    topic, values = _fastpath.read_topic(body)
    if values != (2 if request.kind == RequestKind.PUBLISH else 1):
        raise ProtocolError("PUBLISH takes a topic and a value, LATEST a topic")
    package = _DataRequest(route, request, len(body).to_bytes(4, "little"), body, origin)
    package.data_request = DataRequest(topic, request.kind == RequestKind.PUBLISH)
    package.lanes = [(topic_lane(topic, data_workers), 1)]
    return package
