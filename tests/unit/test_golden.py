"""Wire 0.2's bytes are those that docs/protocol.md shows: whoever changes one of them changes the protocol."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy

from taskengine import _fastpath, arrays
from taskengine.errors import UnknownTask, from_wire
from taskengine.messages import (
    NOWHERE,
    Kind,
    LaneStats,
    Latency,
    Reply,
    Request,
    Stamp,
    Stats,
    Stop,
    decode_reply,
    decode_request,
    decode_stop,
    encode_reply,
    encode_request,
)
from taskengine.packed import error_entry, read_package, value_reply

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
REQUEST = Request(
    *(Kind.PACKAGE, 7, "ARM", ["task_count", "steer"]),
    sent=3600 * 10**9,
    bound=250_000,
    token=bytes(range(0x10, 0x20)),
    since=3000 * 10**9,
)
STAMP: Stamp = (3600 * 10**9 + 2_000_000, 0x1D0C5F0E7B6A4938, 0)
UNKNOWN = UnknownTask("no task is named 'steer'", name="steer", nearest=[])
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
CALLS: list[Any] = [("task_count", (2, 3), {}), ("steer", (-1,), {"speed": 0.5})]


def golden() -> list[bytes]:
    """The frames in the page's hex blocks, in order."""
    text = "\n".join(re.findall(r"^```hex\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    return [bytes.fromhex(line.split(maxsplit=1)[1]) for line in text.splitlines() if line]


def test_a_package() -> None:
    head, index, body = golden()[:3]
    names: dict[str, int] = {}
    assert encode_request(REQUEST) == head
    assert decode_request(head) == REQUEST
    assert _fastpath.pack_calls(CALLS, names) == (index, body)
    assert list(names) == REQUEST.names
    assert read_package((), REQUEST, [head, index, body], {}, 1, NOWHERE).count == 2


def test_its_reply() -> None:
    head, body = golden()[3:5]
    reply = Reply(7, 2, failed=1, clock=STAMP[0], boot=STAMP[1])
    assert encode_reply(reply) == head
    assert decode_reply(head) == reply
    assert _fastpath.encode(2.5) + error_entry(UNKNOWN) == body
    value, data = _fastpath.unpack(body, 2, lambda data: data)
    assert value == 2.5
    code, message, fields = _fastpath.unpack(data, 1, bytes)[0]
    assert (type(from_wire(code, message, fields)), message) == (UnknownTask, UNKNOWN.message)


def test_columns() -> None:
    head, codes, body = golden()[5:8]
    request = Request(Kind.PACKAGE, 9, "ARM", ["task_count"], columns=True)
    assert encode_request(request) == head
    assert arrays.columns([numpy.array([1, 2]), numpy.array([0.5, 1.5])]) == (codes, body)
    assert read_package((), request, [head, codes, body], {}, 1, NOWHERE).count == 2


def test_a_data_request() -> None:
    head, body = golden()[8:10]
    assert encode_request(Request(Kind.LATEST, 8, "ARM")) == head
    assert _fastpath.encode(["cpu.load"]) == body


def test_stats() -> None:
    request, head, body = golden()[10:13]
    assert encode_request(Request(Kind.STATS, 10, "ARM")) == request
    assert value_reply(10, STATS, STAMP) == [head, body]
    assert msgspec.msgpack.decode(body, type=Stats) == STATS


def test_a_stop() -> None:
    head, body, answer, value = golden()[13:17]
    stop = Stop(bytes(range(0x20, 0x30)), "a hand")
    assert encode_request(Request(Kind.STOP, 11, "ARM")) == head
    assert _fastpath.encode(stop) == body
    assert decode_stop([head, body]) == stop
    assert decode_stop([head]) == Stop()
    assert value_reply(11, None, (*STAMP[:2], 3)) == [answer, value]


def test_a_hello() -> None:
    head, body = golden()[17:]
    assert encode_request(Request(Kind.INFO, 1, "ARM")) == head
    assert _fastpath.encode([["clock"]]) == body
