"""Wire 0.2's heads, as frozen values; docs/protocol.md says what each field means."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec

from taskengine.errors import ProtocolError
from taskengine.protocol.credit import MAX_BYTES, MAX_VALUES, Grant
from taskengine.protocol.layouts import LATENCY_BUCKETS, LATENCY_SHIFT, MAGIC
from taskengine.protocol.limits import MAX_HEAD, MAX_TASKS, MAX_TOKEN

NO_SERIAL: Final = 0
"""The serial of a refusal of a request whose own serial cannot be read; no request has it."""


class RequestKind(IntEnum):
    """The kinds of request."""

    PACKAGE = 1
    INFO = 2
    TASKS = 3
    PUBLISH = 4
    LATEST = 5
    PROGRESS = 6
    CANCEL = 7
    STATS = 8
    RELOAD = 9
    STOP = 10
    CREDIT = 13


class ReplyMode(IntEnum):
    """Which results the client wants."""

    ALL = 0
    ERRORS = 1
    NONE = 2
    EACH = 3
    """All, in partial replies as they come; for engines with the capability `each`."""
    STREAM = 4
    """The values of one task as it yields them, in partial replies; for engines with the capability `streams`."""
    PROGRESS = 5
    """Not for requests: a reply with this mode tells what running tasks say of their progress, and answers none."""


class Priority(IntEnum):
    """The priorities of packages."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    URGENT = 3


class Request(msgspec.Struct, array_like=True, frozen=True):
    """Head of a client's message; `deadline` in s from sending, 0 for none; `columns`.

    Arguments are columns of numbers.

    With `values` the client takes, and may send, the extensions for Python's other values (capability `values`).

    `sent` is when the call was made, in ns of the engine's clock (`Reply.clock`), 0 if the client cannot say, and
    `bound` by how many ns that may be wrong either way. Each client object draws a `token` and keeps it over
    reconnects; `since` is when that object was made, by the clock of `sent`.
    """

    kind: RequestKind
    serial: int
    client: str
    names: list[str] = []
    reply: ReplyMode = ReplyMode.ALL
    priority: Priority = Priority.NORMAL
    deadline: float = 0.0
    idempotent: bool = False
    columns: bool = False
    sent: int = 0
    bound: int = 0
    token: bytes = b""
    since: int = 0
    values: bool = False


class StreamRequest(Request, array_like=True, frozen=True):
    """Head of a package of mode STREAM: at most how many values, and bytes of them, may be sent before CREDIT."""

    most: Annotated[int, msgspec.Meta(ge=1, le=MAX_VALUES)] = 1
    most_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_BYTES)] = 1

    @property
    def grant(self) -> Grant:
        """The credit with which the stream begins."""
        return Grant(self.most, self.most_bytes)


class WatchedStream(StreamRequest, array_like=True, frozen=True):
    """Head of a package of mode STREAM whose client may want to know the task's `progress` beside its values."""

    progress: bool = False


class WatchedRequest(Request, array_like=True, frozen=True):
    """Head of a package, of no stream, whose client wants to know its tasks' `progress` (capability `progress`).

    Places that only streams use are before that.
    """

    most: int = 1
    most_bytes: int = 1
    progress: bool = False


_Tasks = Annotated[int, msgspec.Meta(ge=0, le=MAX_TASKS)]


class Reply(msgspec.Struct, array_like=True, frozen=True):
    """Head of the engine's answer: `count` entries follow, of which `failed` are errors, or `error` refuses all.

    `clock` is the engine's when it answered, in ns (CLOCK_BOOTTIME), and `boot` the machine's boot; 0 where an engine
    does not say. `stop` is the number of the stop that is in force, 0 for none.
    """

    serial: int
    count: _Tasks
    reply: ReplyMode = ReplyMode.ALL
    error: tuple[int, str, dict[str, Any]] | None = None
    failed: _Tasks = 0
    clock: int = 0
    boot: int = 0
    stop: int = 0


class PartialReply(Reply, array_like=True, frozen=True):
    """Head of a reply of mode EACH: `count` entries, of tasks in a row that begin at position `first`.

    In mode STREAM the entries are values of the task, counted from 0; the `last` reply has none, and says by `error`
    whether the task failed. In mode PROGRESS the entries are reports (`protocol.progress`), and no reply is the `last`.

    With an `error` each of these tasks ended in it, and no entries follow. The `last` partial reply of a package is
    marked: it has got an entry for every task.
    """

    first: Annotated[int, msgspec.Meta(ge=0)] = 0
    last: bool = True


class Stamp(NamedTuple):
    """The fields of every `Reply` that say when the engine sent it, and which stop was in force then."""

    clock: int
    boot: int
    stop: int


UNSTAMPED: Final = Stamp(0, 0, 0)


class Info(msgspec.Struct, array_like=True, frozen=True):
    """A client's view of the engine; `response_time` in s.

    `capabilities` names what it can beyond version 0.1.0. `stop_tasks` are the tasks that stop the machine or bring a
    device to its safe state, which a client never queues. `stop_address` is the address for a stop past the router, ""
    for none. `release` is the engine's, such as "0.2.0"; "" for one that does not say it.
    """

    version: int
    response_time: float
    chunking_size: int
    task_workers: int
    data_addresses: list[str]
    pid: int
    capabilities: list[str] = []
    stop_tasks: list[str] = []
    stop_address: str = ""
    release: str = ""


class RetryPolicy(msgspec.Struct, array_like=True, frozen=True):
    """How often a task runs again after an error of its own, and after how long, in s, for the first time.

    `retried` is how often tasks of that name have run again since the router began.
    """

    retries: int
    backoff: float = 0.0
    retried: int = 0


class ScheduleState(msgspec.Struct, array_like=True, frozen=True):
    """A periodic task: `every` in s, or `at` a time of day, or `cron`; and how its runs went since the router began.

    `due` is in how many s it runs next, None where that is not known, as before the clock is set. `skipped` are runs
    that were missed, or came while the last one went on. `ago` is how many s ago the last run began, `took` how long it
    took, in s, None before the first one has ended, and `last` a short text of its result, or its error.
    """

    task: str
    every: float = 0.0
    at: str = ""
    cron: str = ""
    due: float | None = None
    is_running: bool = False
    runs: int = 0
    failed: int = 0
    skipped: int = 0
    ago: float | None = None
    took: float | None = None
    last: str = ""

    @property
    def timing(self) -> str:
        """When it runs, as text."""
        if self.every:
            return f"every {self.every:g} s"
        return f"at {self.at}" if self.at else f"cron {self.cron}"


class TaskInfo(msgspec.Struct, array_like=True, frozen=True):
    """A client's view of a task; `timeout` in s."""

    name: str
    lane: str
    signature: str
    doc: str
    timeout: float | None
    idempotent: bool
    module: str
    urgent: bool = False
    retry: RetryPolicy | None = None
    schedule: ScheduleState | None = None
    streams: bool = False
    """Whether it is a generator, whose values come as a stream."""


class LaneStats(msgspec.Struct, array_like=True, frozen=True):
    """A lane: its workers in all, present, and busy; its tasks that wait, and that workers have."""

    name: str
    workers: int
    online: int
    busy: int
    queued: int
    running: int


class Latency(msgspec.Struct, array_like=True, frozen=True):
    """How many tasks took how long: the i-th number, from 0, is of those below 2^(10 + i) ns and not below half of it.

    The 27th is of all that took longer, and those that are empty at the end are left out. `seconds` is the sum of all.
    """

    tasks: list[int]
    seconds: float

    def below(self) -> Iterator[tuple[float, int]]:
        """Yield each bucket's bound in s, infinite for the last, and how many tasks took less."""
        numbers = itertools.chain(self.tasks, itertools.repeat(0))
        bounds = [2 ** (LATENCY_SHIFT + bucket) / 1e9 for bucket in range(LATENCY_BUCKETS - 1)]
        return zip([*bounds, math.inf], itertools.accumulate(numbers), strict=False)


class SourceStats(msgspec.Struct, array_like=True, frozen=True):
    """A source that is slower than its `period`: the longest of its last samples, in s, and how many it has skipped."""

    topic: str
    period: float
    longest: float
    skipped: int


class Stats(msgspec.Struct, array_like=True, frozen=True):
    """The router's counters since it began, in tasks; `accepted` is always `answered + in_flight`.

    `errors` are by type, "failed" those that workers answered; `late` are messages of dead workers and of strangers to
    the workers' port; `restarts` are since the engine began, by role; `bytes_in_flight` are of the `packages` in flight
    and of unread replies. The stages: `waiting` from acceptance until a worker was given the task, `running` there, as
    the mean of its slice, `total` from acceptance until its package was complete. `sources` are those that take longer
    than their period. `schedules` are the periodic tasks.
    """

    accepted: int
    answered: int
    in_flight: int
    errors: dict[str, int]
    retried: int
    refused: int
    late: int
    restarts: dict[str, int]
    packages: int
    bytes_in_flight: int
    lanes: list[LaneStats]
    waiting: Latency
    running: Latency
    total: Latency
    sources: list[SourceStats] = []
    schedules: list[ScheduleState] = []


class Cancel(msgspec.Struct, array_like=True, frozen=True):
    """A package of the client to cancel, 0 for all, and the positions of its tasks to cancel, None for all."""

    serial: int = NO_SERIAL
    positions: list[int] | None = None


class StreamCredit(msgspec.Struct, array_like=True, frozen=True):
    """What the client's stream with this serial may send, in totals; see `protocol.credit`."""

    serial: int
    values: int
    bytes: int


class Stop(msgspec.Struct, array_like=True, frozen=True):
    """A stop of the machine: an id by which a repeated stop is recognized, b"" for none, and the reason."""

    id: bytes = b""
    why: str = ""


class Origin(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The origin of a call: which client made it, and when. Times are in ns, CLOCK_MONOTONIC of the engine's machine.

    `client` is its name as its key says, "" where clients show no keys. No two connections ever have the same
    `connection`, not even at different routers. `holder` tells client objects apart, over reconnects: by name and token
    in wire 0.2, by the connection for clients without a token. `received` is when the package came, unique and
    increasing from package to package; 0 means that the process itself calls, now. `sent` is the earliest moment at
    which it can have been called, 0 if it does not say. `bound` is how far its client's estimate may be off either way:
    the call was made at most twice `bound` later. `since` is when the holder appeared, 0 if that is not known.
    `is_local` says that it came from this machine.
    """

    client: str = ""
    connection: bytes = b""
    holder: bytes = b""
    received: int = 0
    sent: int = 0
    bound: int = 0
    since: int = 0
    is_local: bool = True


NOWHERE = Origin()


M = TypeVar(
    "M", Request, WatchedStream, WatchedRequest, Reply, PartialReply, Cancel, StreamCredit, Stop, list[SourceStats]
)
_encoder = msgspec.msgpack.Encoder()
_UNSAID = _encoder.encode((0, 0, b"", 0, False))[1:]
"""How a head ends that names neither sending time nor client object, nor any capability."""
_AFTER_MODE: Final = 12 + len(_UNSAID)
"""Bytes of such a head behind the reply mode: priority, deadline, idempotent and columns come before that end."""
_ARRAY_HEADS: Final = dict.fromkeys(range(0x90, 0xA0), 1) | {0xDC: 3, 0xDD: 5}
"""Bytes of the MessagePack tags that begin an array,"""
_INT_SIZES: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
"""and of an int behind its tag."""
_NIL: Final = 0xC0
_PARTIAL: Final = (ReplyMode.EACH, ReplyMode.STREAM, ReplyMode.PROGRESS)
_LONG: Final = 0xDC
"""The tag of arrays of 16 places or more."""
_WATCHED: Final = _encoder.encode(WatchedRequest(RequestKind.PACKAGE, 0, "", progress=True))
_PLACES: Final = _WATCHED[:3]
"""How the head of a WatchedRequest begins,"""
_WATCHES: Final = _WATCHED[-3:]
"""and how it ends, behind the places that each request has."""
_request = msgspec.msgpack.Decoder(Request)
_stream = msgspec.msgpack.Decoder(WatchedStream)
_watched = msgspec.msgpack.Decoder(WatchedRequest)
_reply = msgspec.msgpack.Decoder(Reply)
_partial = msgspec.msgpack.Decoder(PartialReply)
_cancel = msgspec.msgpack.Decoder(Cancel)
_credit = msgspec.msgpack.Decoder(StreamCredit)
_stop = msgspec.msgpack.Decoder(Stop)
_overruns = msgspec.msgpack.Decoder(list[SourceStats])


def stamped(head: bytes, sent: int, bound: int, token: bytes, since: int) -> bytes:
    """Add the sending time, the client object, and that it takes `values`, to a head that names none of them."""
    return head[: -len(_UNSAID)] + _encoder.encode((sent, bound, token, since, True))[1:]


def wanting_each(head: bytes) -> bytes:
    """Return a head that names neither sending time nor client object, with the reply mode EACH."""
    return head[: -_AFTER_MODE - 1] + bytes([ReplyMode.EACH]) + head[-_AFTER_MODE:]


def wanting_progress(head: bytes) -> bytes:
    """Return the head of a request, which is of no stream, as one that wants to know the progress of its tasks."""
    return MAGIC + _PLACES + head[len(MAGIC) + 1 :] + _WATCHES


def encode_request(request: Request) -> bytes:
    """Encode the first frame of a request."""
    return MAGIC + _encoder.encode(request)


def encode_reply(reply: Reply) -> bytes:
    """Encode the first frame of a reply."""
    return MAGIC + _encoder.encode(reply)


def decode_request(frame: bytes) -> Request:
    """Read the first frame of a request, a WatchedStream if it wants a stream. Raises ProtocolError.

    Another one with more places than each has is a WatchedRequest.
    """
    if len(frame) > MAX_HEAD:
        raise ProtocolError(f"a head has at most {MAX_HEAD} bytes, not {len(frame)}")
    request = _decode(_request, frame)
    if request.reply >= ReplyMode.STREAM:
        if request.reply is ReplyMode.PROGRESS:
            raise ProtocolError("reply mode 5 is of replies alone: place 16 asks for progress")
        return _decode(_stream, frame)
    return request if frame[len(MAGIC)] < _LONG else _decode(_watched, frame)


def serial_of(frame: bytes) -> int:
    """Return the serial in the head of a request even if the rest is malformed; NO_SERIAL if it cannot be read."""
    kind_at = len(MAGIC) + _ARRAY_HEADS.get(frame[len(MAGIC)] if len(frame) > len(MAGIC) else 0, 0)
    if not frame.startswith(MAGIC) or kind_at == len(MAGIC):
        return NO_SERIAL
    _, serial_at = _int_at(frame, kind_at)
    return _int_at(frame, serial_at)[0]


def _int_at(frame: bytes, at: int) -> tuple[int, int]:
    """Return the int at a position, and where it ends; `NO_SERIAL, len(frame)` if there is none."""
    tag = frame[at] if at < len(frame) else _NIL
    if tag < 0x80 or tag >= 0xE0:
        return tag - 256 * (tag >= 0xE0), at + 1
    end = at + 1 + _INT_SIZES.get(tag, len(frame))
    if end > len(frame):
        return NO_SERIAL, len(frame)
    return int.from_bytes(frame[at + 1 : end], signed=tag >= 0xD0), end


def decode_reply(frame: bytes) -> Reply:
    """Read the first frame of a reply, a PartialReply if its mode is EACH, STREAM or PROGRESS. Raises ProtocolError."""
    reply = _decode(_reply, frame)
    return _decode(_partial, frame) if reply.reply in _PARTIAL else reply


def decode_cancel(frames: Sequence[bytes]) -> Cancel:
    """Read a CANCEL message. Raises ProtocolError."""
    if len(frames) != 2 or len(frames[1]) > MAX_HEAD:
        raise ProtocolError(f"CANCEL has 2 frames, of at most {MAX_HEAD} bytes")
    return _convert(_cancel, frames[1])


def decode_credit(frames: Sequence[bytes]) -> StreamCredit:
    """Read a CREDIT message. Raises ProtocolError."""
    if len(frames) != 2 or len(frames[1]) > MAX_HEAD:
        raise ProtocolError(f"CREDIT has 2 frames, of at most {MAX_HEAD} bytes")
    return _convert(_credit, frames[1])


def decode_stop(frames: Sequence[bytes]) -> Stop:
    """Read a STOP message. Raises ProtocolError."""
    if len(frames) > 2 or len(frames[-1]) > MAX_HEAD:
        raise ProtocolError(f"STOP has a head and at most a body, of at most {MAX_HEAD} bytes")
    stop = _convert(_stop, frames[1]) if len(frames) == 2 else Stop()
    if len(stop.id) > MAX_TOKEN:
        raise ProtocolError(f"the id of a stop has at most {MAX_TOKEN} bytes, not {len(stop.id)}")
    return stop


def write_overruns(sources: list[SourceStats]) -> bytes:
    """Encode the overruns that a data worker reports to the router."""
    return _encoder.encode(sources)


def read_overruns(data: bytes) -> list[SourceStats]:
    """Decode a data worker's overruns. Raises ProtocolError."""
    return _convert(_overruns, data)


def _decode(decoder: msgspec.msgpack.Decoder[M], frame: bytes) -> M:
    if not frame.startswith(MAGIC):
        raise ProtocolError(f"a head begins with the bytes {MAGIC.hex(' ')}")
    return _convert(decoder, memoryview(frame)[len(MAGIC) :])


def _convert(decoder: msgspec.msgpack.Decoder[M], data: bytes | memoryview) -> M:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"head: {error}") from None
