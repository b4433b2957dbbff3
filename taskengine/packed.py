"""Wire 0.2 at the engine: packages read and answered without decoding a task. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from taskengine import _fastpath
from taskengine.errors import ProtocolError, TaskEngineError, TaskFailed, text_of, to_wire
from taskengine.messages import Kind, Reply, ReplyMode, Request, encode_reply
from taskengine.package import DEFAULT_LANE, Message, Package, TaskKind, lanes_of
from taskengine.topics import lane_of as topic_lane
from taskengine.wire import ERROR_EXT, LONGEST_DEADLINE_S, NO_DEADLINE, Format


def error_entry(error: TaskEngineError) -> bytes:
    """The error as the MessagePack extension that stands for a result."""
    try:
        data = _fastpath.encode(list(to_wire(error)))
    except Exception:  # a task may raise our errors with fields, or of a make, that cannot be sent
        data = _fastpath.encode(list(to_wire(TaskFailed(text_of(error), type=type(error).__name__))))
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(ERROR_EXT, data))


def refusal(serial: int, error: TaskEngineError) -> Message:
    """The reply to a message of which nothing was taken."""
    return [encode_reply(Reply(serial, 0, error=to_wire(error)))]


def value_reply(serial: int, value: object) -> Message:
    """The reply that holds one value."""
    return [encode_reply(Reply(serial, 1)), _fastpath.encode(value)]


class PackedPackage(Package):
    """A package, or a data request, that came by wire 0.2."""

    def __init__(self, route: tuple[bytes, ...], request: Request, index: bytes, body: bytes) -> None:
        super().__init__(route, str(request.serial), request.names, (), index, body)
        self.request = request
        self.reply_mode = request.reply
        self.priority = request.priority
        self.idempotent = request.idempotent

    def pieces_of(self, error: TaskEngineError, first: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        entry = error_entry(error)
        if self.reply_mode == ReplyMode.ALL:
            yield first, stop, entry * (stop - first)
        elif self.reply_mode == ReplyMode.ERRORS:
            yield first, stop, b"".join(_fastpath.encode(position) + entry for position in range(first, stop))
        else:
            yield first, stop, b""

    def name_of(self, position: int) -> str:
        names = self.request.names
        return next(
            (
                names[i]
                for first, stop, i in _fastpath.task_names(self.index, self.body)
                if first <= position < stop
                if i < len(names)
            ),
            "",
        )

    def answer(self) -> Message:
        head = encode_reply(Reply(self.request.serial, self.count, self.request.reply, failed=self.failed))
        return [head] if self.reply_mode == ReplyMode.NONE else [head, self.assembly.bodies()]

    def refusal(self, error: TaskEngineError) -> Message:
        return refusal(self.request.serial, error)

    def describe(self) -> str:
        return self._meta(self.count, "requestor", 0, "REQ", self.request.client)

    def describe_part(self, part: int, worker: str) -> str:
        return self._meta(1, "responder", part, "ACK", worker)

    def _meta(self, length: int, role: str, part: int, kind: str, who: str) -> str:
        return (
            f'{{"length": {length}, "version": 0.2, "role": "{role}", "part": {part}, '
            f'"serial": "{self.serial}", "type": "{kind}", "id": "{who}"}}'
        )


class _DataRequest(PackedPackage):
    format = Format.DATA

    def name_of(self, position: int) -> str:
        return ""


class _Columns(PackedPackage):
    """Calls of one task, the arguments of which are columns of numbers."""

    format = Format.COLUMNS

    def hold(self, index: bytes, body: bytes) -> None:
        self.index = index
        self.body = body
        self.count = _fastpath.check_columns(index, len(body))
        self.assembly = _fastpath.Assembly(self.count)

    def name_of(self, position: int) -> str:
        return self.request.names[0]


def read_package(
    route: tuple[bytes, ...],
    request: Request,
    frames: Sequence[bytes],
    lanes: Mapping[str, str],
    data_workers: int,
    now: float,
) -> PackedPackage:
    """Read a PACKAGE, PUBLISH or LATEST message whose first frame was `request`.

    `lanes` are those of the tasks that there are, by name, `now` is the monotonic time in s. Raises ProtocolError.
    """
    if request.kind == Kind.PACKAGE:
        package = _read_tasks(route, request, frames, lanes)
    else:
        package = _read_data(route, request, frames, data_workers)
    if not request.deadline >= 0:
        raise ProtocolError(f"a deadline is a number of seconds, 0 for none, not {request.deadline}")
    package.deadline = now + request.deadline if 0 < request.deadline <= LONGEST_DEADLINE_S else NO_DEADLINE
    return package


def _read_tasks(
    route: tuple[bytes, ...], request: Request, frames: Sequence[bytes], lane_of: Mapping[str, str]
) -> PackedPackage:
    if len(frames) != 3:
        raise ProtocolError(f"a package has 3 frames, head, index and body, not {len(frames)}")
    _, index, body = frames
    if request.columns:
        if len(request.names) != 1:
            raise ProtocolError(f"columns call one task, not {len(request.names)}")
        columns = _Columns(route, request, index, body)
        columns.kind = _known(request.names, lane_of)
        columns.lanes = [(lane_of.get(request.names[0], DEFAULT_LANE), columns.count)] if columns.count else []
        return columns
    count = _fastpath.check_index(index, len(body))
    package = PackedPackage(route, request, index, body)
    package.kind = _known(request.names, lane_of)
    lanes = [lane_of.get(name, DEFAULT_LANE) for name in request.names]
    if lanes.count(lanes[0] if lanes else "") == len(lanes):
        package.lanes = [(lanes[0] if lanes else "", count)] if count else []
        return package
    known = len(lanes)
    runs = ((lanes[i] if i < known else "", stop - first) for first, stop, i in _fastpath.task_names(index, body))
    package.lanes = lanes_of(runs)
    return package


def _known(names: Sequence[str], lane_of: Mapping[str, str]) -> TaskKind:
    """What is remembered of a package: a stranger's names are not."""
    return tuple(name for name in names if name in lane_of)


def _read_data(route: tuple[bytes, ...], request: Request, frames: Sequence[bytes], data_workers: int) -> PackedPackage:
    if len(frames) != 2:
        raise ProtocolError(f"a data request has 2 frames, head and body, not {len(frames)}")
    body = frames[1]
    topic, values = _fastpath.read_topic(body)
    if values != (2 if request.kind == Kind.PUBLISH else 1):
        raise ProtocolError("PUBLISH takes a topic and a value, LATEST a topic")
    package = _DataRequest(route, request, len(body).to_bytes(4, "little"), body)
    package.topic, package.publishes = topic, request.kind == Kind.PUBLISH
    package.lanes = [(topic_lane(topic, data_workers), 1)]
    return package
