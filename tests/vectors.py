"""`python -m tests.vectors`: write docs/protocol/vectors.json, the golden messages, by the engine's own encoders.

Heads and bodies are made from the values that stand beside them, so that a client in another language can try its
encoders and its decoders. JSON has not all values of MessagePack; what it has not is an object with one key:
`{"$int": "18446744073709551615"}`, `{"$float": "nan"}`, `{"$bin": HEX}`, `{"$map": [[KEY, VALUE], …]}`,
`{"$error": [CODE, MESSAGE, FIELDS]}` (extension 1) and `{"$array": {"dtype", "shape", "data": HEX}}` (extension 2).
What stands under `capability values` is for clients that have it; it has `{"$tuple": […]}`, `{"$set": […]}`,
`{"$frozenset": […]}`, `{"$complex": [REAL, IMAGINARY]}`, `{"$timedelta": [DAYS, SECONDS, MICROSECONDS]}`, and as text
`$decimal`, `$uuid`, `$datetime`, `$date` and `$time`.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy

from taskengine import _fastpath, errors
from taskengine.broker.binary import error_entry, refusal, value_reply
from taskengine.broker.topics import TopicTable
from taskengine.errors import BY_CODE, TaskEngineError, to_wire
from taskengine.protocol import arrays
from taskengine.protocol.layouts import MAGIC
from taskengine.protocol.messages import (
    NO_SERIAL,
    Info,
    LaneStats,
    Latency,
    PartialReply,
    Priority,
    Reply,
    ReplyMode,
    Request,
    RequestKind,
    RetryPolicy,
    ScheduleState,
    Stamp,
    Stats,
    StreamRequest,
    TaskInfo,
    WatchedRequest,
    encode_reply,
    encode_request,
    serial_of,
)
from taskengine.protocol.progress import Progress, write_report
from taskengine.protocol.publications import PublicationHead, decode_head
from tests.legacy_vectors import seed_messages, texts_of

FILE = Path(__file__).resolve().parents[1] / "docs" / "protocol" / "vectors.json"
S = 10**9
TOKEN = bytes(range(0x10, 0x20))
STAMP = Stamp(3600 * S + 2_000_000, 0x1D0C5F0E7B6A4938, 0)
Calls = list[tuple[str, Sequence[Any], dict[str, Any]]]
Vector = dict[str, Any]

EACH = Request(RequestKind.PACKAGE, 24, "ARM", reply=ReplyMode.EACH)
STREAM = StreamRequest(RequestKind.PACKAGE, 25, "ARM", reply=ReplyMode.STREAM, most=64, most_bytes=2**18)
WATCHED = WatchedRequest(RequestKind.PACKAGE, 27, "ARM", progress=True)
STATS = Stats(
    accepted=40,
    answered=30,
    in_flight=10,
    errors={"failed": 1},
    retried=0,
    refused=0,
    late=0,
    restarts={"task": 1},
    packages=1,
    bytes_in_flight=4416,
    lanes=[LaneStats("", workers=2, online=2, busy=1, queued=0, running=10)],
    waiting=Latency([40], 0.0),
    running=Latency([28, 2], 0.015625),
    total=Latency([], 0.0),
)
INFO = Info(
    *(2, 0.005, 10, 2, ["tcp://127.0.0.1:10002"], 4711),
    ["clock", "stop", "each", "values", "streams", "progress", "publications"],
    ["device.rest", "motor.stop", "robot.stop", "system.stop"],
    "tcp://127.0.0.1:9004",
)
TASKS = [
    TaskInfo("task_count", "", "(a, b)", "Return half the sum.", None, False, "taskengine.tasks"),
    TaskInfo("arm.wave", "arm", "(times: int = 3)", "", 2.0, True, "robot", urgent=True),
    TaskInfo(
        *("battery", "", "()", "", None, False, "robot"),
        retry=RetryPolicy(3, 0.5, retried=1),
        schedule=ScheduleState(
            *("battery", 10.0, "", "", 2.5, False, 6, 1, 2, 7.5, 0.25),
            last="OSError: no battery",
        ),
    ),
    TaskInfo("scan", "", "(step=1.0)", "", None, False, "robot", streams=True),
]
ERRORS: list[TaskEngineError] = [
    errors.TaskFailed("ValueError: no such angle", type="ValueError", traceback="Traceback (most recent call last)…"),
    errors.TaskFailed("nothing was published on topic 'arm' yet", type="LookupError"),
    errors.UnknownTask("no task is named 'steer'", name="steer", nearest=[]),
    errors.UnknownTask("no task is named 'task_cuont'", name="task_cuont", nearest=["task_count"]),
    errors.BadArguments("task_count: missing a required argument: 'b'", name="task_count"),
    errors.BadArguments("a lease is of one device at least"),
    errors.TaskTimeout("arm.wave took longer than its timeout of 2 s, and was ended with its worker", seconds=2.0),
    errors.TaskTimeout("the deadline passed before the task could start"),
    errors.WorkerLost("worker TASK-4712 died with this task in its hands", worker="TASK-4712"),
    errors.Overloaded("too much is in flight", retry_after=0.25, in_flight=900, limit=1000),
    errors.Overloaded("the engine is stopping"),
    errors.Cancelled("the task was cancelled before it began"),
    errors.NotAllowed("the engine's policy does not let this client call arm.wave"),
    errors.ProtocolError("kind 99 is unknown"),
    errors.EngineUnreachable("a client says so, never an engine", address="tcp://127.0.0.1:9000"),
]
VALUES: dict[str, Any] = {
    "nil": None,
    "false": False,
    "true": True,
    "an int of one byte": 7,
    "a negative int of one byte": -1,
    "a byte": 255,
    "2^15": 2**15,
    "2^31": 2**31,
    "the largest int of 53 bits": 2**53 - 1,
    "2^63 - 1": 2**63 - 1,
    "2^63": 2**63,
    "the largest int": 2**64 - 1,
    "the least int": -(2**63),
    "a float": 2.5,
    "a float that is whole": 1.0,
    "not a number": math.nan,
    "infinity": math.inf,
    "text": "grün, 日, 😀",
    "long text": "x" * 300,
    "bytes": bytes([0, 1, 255]),
    "a list": [1, "two", [None, True]],
    "a map": {"speed": 0.5, "device": "pan"},
    "a map of numbers": {1: "one", 2: "two"},
    "an array of float64": numpy.array([[0.0, 0.5, 1.0], [1.5, 2.0, 2.5]]),
    "an array of bytes": numpy.arange(5, dtype="u1"),
    "an array in big-endian order": numpy.array([1, 2], dtype=">i4"),
    "an array of one element without dimensions": numpy.array(2.5),
    "an empty array": numpy.empty((0, 3)),
    "an array of text": numpy.array(["ab", "c"]),
}

EXTENDED: dict[str, Any] = {
    "a tuple": (1, "two"),
    "an empty tuple": (),
    "a tuple in a tuple": ((1, 2), 3.5),
    "a long tuple": ("x" * 300,),
    "a set": {7},
    "a frozenset": frozenset({"a"}),
    "2^64": 2**64,
    "-2^63 - 1": -(2**63) - 1,
    "an int of 100 bits": 2**99,
    "a complex number": complex(1.5, -2.0),
    "a decimal": Decimal("1.10"),
    "a decimal with an exponent": Decimal("1E+30"),
    "a UUID": UUID("12345678-1234-5678-1234-567812345678"),
    "a time without a zone": datetime.datetime(2026, 11, 30, 12, 35, 0, 250000),
    "a time with a zone": datetime.datetime(2026, 11, 30, 12, 35, tzinfo=datetime.UTC),
    "a date": datetime.date(2026, 11, 30),
    "a time of day": datetime.time(7, 30),
    "a time of day with an offset": datetime.time(7, 30, tzinfo=datetime.UTC),
    "a duration": datetime.timedelta(days=1, seconds=2, microseconds=3),
    "a negative duration": datetime.timedelta(milliseconds=-1),
    "a map with a tuple as its key": {(0, 1): "wall"},
}
"""What has the capability `values`."""


def shown(value: Any) -> Any:
    """The value as JSON has it, or its one-key object."""
    kind = type(value)
    if kind in (tuple, set, frozenset):
        return {f"${kind.__name__}": [shown(each) for each in value]}
    if kind is complex:
        return {"$complex": [value.real, value.imag]}
    if kind is datetime.timedelta:
        return {"$timedelta": [value.days, value.seconds, value.microseconds]}
    if kind in (datetime.datetime, datetime.date, datetime.time):
        return {f"${kind.__name__}": value.isoformat()}
    if kind in (Decimal, UUID):
        return {f"${kind.__name__.lower()}": str(value)}
    if isinstance(value, TaskEngineError):
        return {"$error": shown(list(to_wire(value)))}
    if isinstance(value, numpy.ndarray):
        data = numpy.ascontiguousarray(value).tobytes().hex(" ")
        return {"$array": {"dtype": value.dtype.str, "shape": list(value.shape), "data": data}}
    if isinstance(value, bytes):
        return {"$bin": value.hex(" ")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        return {"$int": str(value)}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: shown(each) for key, each in value.items()}
        return {"$map": [[shown(key), shown(each)] for key, each in value.items()]}
    return [shown(each) for each in value] if isinstance(value, list) else value


def packed(value: Any, *, extended: bool = False) -> bytes:
    """The value, an error too, as a task gives it; `extended` to a client that has the capability `values`."""
    return error_entry(value) if isinstance(value, TaskEngineError) else bytes(_fastpath.encode(value, extended))


def hexes(frames: Sequence[bytes | list[bytes]]) -> list[str]:
    return [(frame if isinstance(frame, bytes) else b"".join(frame)).hex(" ") for frame in frames]


def fields(head: Request | Reply | PublicationHead) -> Vector:
    """A head by the names of its places."""
    held = msgspec.structs.asdict(head)
    return {name: shown(list(value) if isinstance(value, tuple) else value) for name, value in held.items()}


def request(name: str, head: Request, *body: Any, **how: Any) -> Vector:
    """A request that is no package: its body is one value, or there is none."""
    frames = [encode_request(head), *map(packed, body)]
    return {
        "name": name,
        "head": fields(head),
        **({"body": shown(body[0])} if body else {}),
        "frames": hexes(frames),
    } | how


def answer(name: str, reply: Reply, values: Sequence[Any], body: bytes | None, to: str) -> Vector:
    """A reply: `values` are those in its body."""
    frames = [encode_reply(reply)] + ([] if body is None else [body])
    told = {} if body is None else {"values": shown(list(values))}
    return {"name": name, "to": to, "head": fields(reply), **told, "frames": hexes(frames)}


def package(name: str, head: Request, calls: Calls) -> Vector:
    names: dict[str, int] = {}
    index, body = _fastpath.pack_calls(calls, names, head.values)
    head = msgspec.structs.replace(head, names=list(names))
    told = [{"task": task, "args": shown(list(args)), "kwargs": shown(kwargs)} for task, args, kwargs in calls]
    return {"name": name, "head": fields(head), "tasks": told, "frames": hexes([encode_request(head), index, body])}


def packages() -> Iterator[Vector]:
    """Packages, as clients send them."""
    calls: Calls = [("task_count", (2, 3), {}), ("steer", (-1,), {"speed": 0.5})]
    timed = Request(RequestKind.PACKAGE, 7, "ARM", sent=3600 * S, bound=250_000, token=TOKEN, since=3000 * S)
    yield package("a package", timed, calls)
    yield package(
        "a package that wants errors only", Request(RequestKind.PACKAGE, 12, "ARM", reply=ReplyMode.ERRORS), calls
    )
    yield package(
        "a package that wants no results", Request(RequestKind.PACKAGE, 13, "ARM", reply=ReplyMode.NONE), calls
    )
    yield package("a package that wants each as it comes", EACH, calls)
    yield package("a stream", STREAM, [("scan", (), {"step": 0.5})])
    yield package("a package whose progress is asked for", WATCHED, [("scan", (), {"step": 0.5})])
    hurried = Request(RequestKind.PACKAGE, 14, "ARM", priority=Priority.URGENT, deadline=0.5, idempotent=True)
    yield package("a package in a hurry", hurried, [("system.stop", (b"\x20\x21", "smoke"), {})])
    yield package("an empty package", Request(RequestKind.PACKAGE, 15, "ARM"), [])
    head = Request(RequestKind.PACKAGE, 9, "ARM", ["task_count"], columns=True)
    columns = [numpy.array([1, 2]), numpy.array([0.5, 1.5])]
    made = arrays.columns(columns)
    assert made is not None
    told = [column.tolist() for column in columns]
    frames = [encode_request(head), *made]
    yield {"name": "columns", "head": fields(head), "columns": told, "codes": "if", "frames": hexes(frames)}
    old = MAGIC + msgspec.msgpack.encode((RequestKind.PACKAGE, 16, "OLD", ["task_count"], 0, 1, 0.0, False, False))
    index, body = _fastpath.pack_calls([("task_count", (2, 3), {})], {})
    yield {"name": "a package of a client of 0.1.0", "head": {"serial": 16}, "frames": hexes([old, index, body])}


def with_values() -> Vector:
    """A package and its reply, and each kind of value, between sides that have the capability `values`."""
    call: Calls = [("task_echo", ((1, 2),), {"cells": {(0, 1): "wall"}})]
    timed = Request(
        RequestKind.PACKAGE, 24, "ARM", sent=3600 * S, bound=250_000, token=TOKEN, since=3000 * S, values=True
    )
    result = (1, Decimal("1.10"))
    reply = Reply(26, 1, ReplyMode.ALL, None, 0, *STAMP)
    asked = "a package with other values"
    return {
        "values": [
            {"name": name, "value": shown(value), "bytes": packed(value, extended=True).hex(" ")}
            for name, value in EXTENDED.items()
        ],
        "packages": [package(asked, timed, call)],
        "replies": [answer("other values", reply, [result], packed(result, extended=True), asked)],
    }


def requests() -> Iterator[Vector]:
    """The other requests."""
    yield request("a hello", Request(RequestKind.INFO, 1, "ARM"), [["clock"]])
    yield request("INFO without a body", Request(RequestKind.INFO, 2, "ARM"))
    yield request("TASKS", Request(RequestKind.TASKS, 3, "ARM"))
    yield request("PUBLISH", Request(RequestKind.PUBLISH, 4, "ARM"), ["arm.state", {"angle": 30}])
    yield request("LATEST", Request(RequestKind.LATEST, 8, "ARM"), ["cpu.load"])
    yield request("PROGRESS", Request(RequestKind.PROGRESS, 17, "ARM"))
    yield request("CANCEL of all", Request(RequestKind.CANCEL, 18, "ARM"), [NO_SERIAL, None])
    yield request("CANCEL of a package", Request(RequestKind.CANCEL, 19, "ARM"), [7, None])
    yield request("CANCEL of some tasks", Request(RequestKind.CANCEL, 20, "ARM"), [7, [0, 2]])
    yield request("CREDIT", Request(RequestKind.CREDIT, 26, "ARM"), [25, 96, 2**18 + 18])
    yield request("STATS", Request(RequestKind.STATS, 10, "ARM"))
    yield request("RELOAD", Request(RequestKind.RELOAD, 21, "ARM"))
    yield request("STOP", Request(RequestKind.STOP, 11, "ARM"), [bytes(range(0x20, 0x30)), "a hand"])
    yield {"name": "the shortest head", "head": {"serial": 22}, "frames": hexes([MAGIC + bytes.fromhex("93 03 16 a0")])}
    later = MAGIC + msgspec.msgpack.encode((99, 23, "NEW"))
    yield {
        "name": "a kind that the engine does not know",
        "head": {"serial": serial_of(later)},
        "frames": hexes([later]),
    }


def replies() -> Iterator[Vector]:
    """Return the engine's answer."""
    results = [2.5, errors.UnknownTask("no task is named 'steer'", name="steer", nearest=[])]
    only, entry = [1, results[1]], packed(results[1])
    end = 0, *STAMP
    yield answer(
        "results", Reply(7, 2, failed=1, clock=STAMP[0], boot=STAMP[1]), results, _joined(results), "a package"
    )
    head = Reply(12, 2, ReplyMode.ERRORS, None, 1, *STAMP)
    yield answer("errors only", head, only, _joined(only), "a package that wants errors only")
    yield answer(
        "no results", Reply(13, 2, ReplyMode.NONE, None, 1, *STAMP), [], None, "a package that wants no results"
    )
    each = "a package that wants each as it comes"
    yield answer(
        "the second of each", PartialReply(24, 1, EACH.reply, None, 1, *STAMP, 1, False), only[1:], entry, each
    )
    yield answer("the first of each", PartialReply(24, 1, EACH.reply, None, *end, 0, True), [2.5], packed(2.5), each)
    unread = to_wire(errors.Overloaded("the replies before this one were not read; the tasks have run"))
    head = PartialReply(24, 2, EACH.reply, unread, 2, *STAMP, 0, True)
    yield answer("each of two that were not read", head, [], None, each)
    yield from stream_replies()
    reports = [[0, 3, 37, "angle 30"]]
    head = PartialReply(27, 1, ReplyMode.PROGRESS, None, 0, *STAMP, 0, False)
    watched = "a package whose progress is asked for"
    yield answer("a report of progress", head, reports, write_report(0, Progress(3, 37, "angle 30")), watched)
    yield answer("nothing", Reply(15, 0, ReplyMode.ALL, None, *end), [], b"", "an empty package")
    halves = [0.75, 1.75]
    yield answer("columns", Reply(9, 2, ReplyMode.ALL, None, *end), halves, _joined(halves), "columns")
    wide = b"".join(b"\xd3" + number.to_bytes(8, "big") for number in (1, 3))
    yield answer("ints of columns", Reply(9, 2, ReplyMode.ALL, None, *end), [1, 3], wide, "columns")
    for name, serial, value in (
        ("INFO", 1, INFO),
        ("TASKS", 3, TASKS),
        ("PUBLISH", 4, None),
        ("LATEST", 8, {"load": 0.25}),
        ("PROGRESS", 17, [["7", 1, 2]]),
        ("CANCEL of a package", 19, None),
        ("CREDIT", 26, None),
        ("STATS", 10, STATS),
        ("RELOAD", 21, None),
    ):
        yield valued(name, serial, value, STAMP)
    yield valued("STOP", 11, None, STAMP._replace(stop=3))
    failed = errors.TaskFailed("nothing was published on topic 'cpu.load' yet", type="LookupError")
    yield refused("LATEST of nothing", 8, failed, "LATEST")
    yield refused("an engine that has too much to do", 7, ERRORS[9], "a package")
    unknown = errors.ProtocolError("head: Invalid enum value 99 - at `$[0]`")
    yield refused("a kind that is unknown", 23, unknown, "a kind that the engine does not know")
    yield refused("a head without a serial", NO_SERIAL, errors.ProtocolError("head: Input data was truncated"), "")
    yield {
        "name": "a reply of 0.1.0",
        "to": "a package of a client of 0.1.0",
        "head": {"serial": 16, "count": 1, "reply": 0, "error": None, "failed": 0},
        "values": [2.5],
        "frames": hexes([MAGIC + msgspec.msgpack.encode((16, 1, 0, None, 0)), packed(2.5)]),
    }


def stream_replies() -> Iterator[Vector]:
    """Return the answers to a stream: values, its end, and an end in an error."""
    values, mode = [0.5, 1.0], ReplyMode.STREAM
    head = PartialReply(25, 2, mode, None, 0, *STAMP, 0, False)
    yield answer("the first values of a stream", head, values, _joined(values), "a stream")
    head = PartialReply(25, 1, mode, None, 0, *STAMP, 2, False)
    yield answer("the next value of a stream", head, [1.5], packed(1.5), "a stream")
    yield answer("the end of a stream", PartialReply(25, 0, mode, None, 0, *STAMP, 3, True), [], None, "a stream")
    head = PartialReply(25, 0, mode, to_wire(ERRORS[0]), 1, *STAMP, 3, True)
    yield answer("the end of a stream that failed", head, [], None, "a stream")


def valued(name: str, serial: int, value: Any, stamp: Stamp) -> Vector:
    head = Reply(serial, 1, ReplyMode.ALL, None, 0, *stamp)
    frames = value_reply(serial, value, stamp)
    plain = msgspec.to_builtins(value)
    return {
        "name": name,
        "to": "a hello" if name == "INFO" else name,
        "head": fields(head),
        "values": [shown(plain)],
        "frames": hexes(frames),
    }


def refused(name: str, serial: int, error: TaskEngineError, to: str) -> Vector:
    head = Reply(serial, 0, ReplyMode.ALL, to_wire(error), 0, *STAMP)
    return {"name": name, "to": to, "head": fields(head), "frames": hexes(refusal(serial, error, STAMP))}


def _joined(values: Sequence[Any]) -> bytes:
    return b"".join(map(packed, values))


def publications() -> Iterator[Vector]:
    board = TopicTable("DATA-4713")
    for number, (topic, value, publisher) in enumerate(
        [("arm.state", {"angle": 30}, "client:ARM"), ("arm.state", [1.5, None], "task"), ("größe", 2, "source")]
    ):
        frames = board.publish(topic, value, 1483507553.5 + number, publisher)
        yield {"name": f"{topic} by {publisher}", "topic": topic, "value": value, "frames": texts_of(frames)}


PICTURE = bytes.fromhex("ff d8 ff e0 00 10 4a 46 49 46")


def binary_publications() -> Iterator[Vector]:
    """Publications to a subscriber that wants values as they are."""
    board = TopicTable("DATA-4713", boot=STAMP.boot)
    depths = numpy.array([[1, 2, 3], [4, 5, 6]], dtype="<u2")
    for topic, value, publisher in [
        ("arm.state", {"angle": 30}, "client:ARM"),
        ("camera", PICTURE, "source"),
        ("depth", depths, "source"),
        ("count", 2**64, "task"),
        ("camera", PICTURE[:3], "source"),
    ]:
        if isinstance(value, bytes) and len(value) == 3:
            board.put_off("camera")
        board.keep(topic, value, 1483507553.5, publisher, STAMP.clock)
        frames = board.binary_frames(topic)
        head = decode_head(frames[1])
        yield {
            "name": f"{topic} {head.part} by {publisher}",
            "topic": topic,
            "head": {**fields(head), "form": int(head.form)},
            "value": shown(value),
            "frames": hexes(frames),
        }


def vectors() -> Vector:
    """All of it."""
    assert {type(error) for error in ERRORS} == set(BY_CODE.values())
    return {
        "about": [line for line in (__doc__ or "").splitlines()[2:] if line],
        "values": [
            {"name": name, "value": shown(value), "bytes": packed(value).hex(" ")} for name, value in VALUES.items()
        ],
        "errors": [
            {"name": type(error).__name__, "value": shown(error), "bytes": packed(error).hex(" ")} for error in ERRORS
        ],
        "wire 0.2": {"packages": list(packages()), "requests": list(requests()), "replies": list(replies())},
        "capability values": with_values(),
        "wire 0.1": list(seed_messages(ERRORS[2])),
        "publications": list(publications()),
        "capability publications": list(binary_publications()),
    }


def text() -> str:
    """The file's text."""
    return json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text())
