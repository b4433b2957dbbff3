"""The golden messages are the engine's own, the page shows some of them, and our decoders read them as they should."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskengine import _fastpath
from taskengine.broker import legacy_json
from taskengine.broker.binary import read_package
from taskengine.client.samples import SubscriptionFilter
from taskengine.client.session import TIMED
from taskengine.errors import ProtocolError, TaskEngineError, from_wire
from taskengine.protocol import arrays
from taskengine.protocol.layouts import VALUES_FLAG
from taskengine.protocol.messages import (
    NO_SERIAL,
    NOWHERE,
    Info,
    Reply,
    RequestKind,
    Stats,
    Stop,
    TaskInfo,
    decode_cancel,
    decode_credit,
    decode_reply,
    decode_request,
    decode_stop,
    serial_of,
)
from taskengine.protocol.publications import decode_head
from tests import vectors
from tests.batches import join_frames
from tests.vectors import Vector, shown

PAGE = Path(__file__).resolve().parents[3] / "docs" / "protocol.md"
VECTORS: dict[str, Any] = json.loads(vectors.FILE.read_text())
MESSAGES: dict[str, list[Vector]] = VECTORS["wire 0.2"]
EXTENDED: dict[str, list[Vector]] = VECTORS["capability values"]
NEWER = "a kind that the engine does not know"


def frames_of(vector: Vector) -> list[bytes]:
    return [bytes.fromhex(frame) for frame in vector["frames"]]


def named(vectors: list[Vector]) -> dict[str, Any]:
    """For pytest's parametrize."""
    return {"argvalues": vectors, "ids": [vector["name"] for vector in vectors]}


def error_of(data: bytes) -> TaskEngineError:
    return from_wire(*msgspec.msgpack.decode(data))


def test_the_vectors_are_the_engines() -> None:
    assert vectors.FILE.read_text() == vectors.text(), "python -m tests.vectors writes them anew"


def test_the_page_shows_vectors() -> None:
    blocks = re.findall(r"^```hex\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line.split(maxsplit=1)[1] for block in blocks for line in block.splitlines() if line]
    known = {frame for part in MESSAGES.values() for vector in part for frame in vector["frames"]}
    known |= {frame for vector in VECTORS["capability publications"] for frame in vector["frames"]}
    known |= {vector["bytes"] for vector in (*VECTORS["values"], *VECTORS["errors"], *EXTENDED["values"])}
    assert [line for line in lines if line not in known] == []
    assert len(lines) > 15


@pytest.mark.parametrize("vector", **named(VECTORS["values"] + VECTORS["errors"]))
def test_values(vector: Vector) -> None:
    (value,) = _fastpath.unpack(bytes.fromhex(vector["bytes"]), 1, error_of)
    assert shown(value) == vector["value"]
    assert vectors.packed(value).hex(" ") == vector["bytes"]


@pytest.mark.parametrize("vector", **named(EXTENDED["values"]))
def test_values_that_messagepack_lacks(vector: Vector) -> None:
    (value,) = _fastpath.unpack(bytes.fromhex(vector["bytes"]), 1, error_of, True)
    assert shown(value) == vector["value"]
    assert vectors.packed(value, extended=True).hex(" ") == vector["bytes"]
    assert value == vectors.EXTENDED[vector["name"]]


def test_a_package_with_such_values() -> None:
    [package], [answer] = EXTENDED["packages"], EXTENDED["replies"]
    head, index, body = frames_of(package)
    request = decode_request(head)
    assert vectors.fields(request) == package["head"]
    assert request.values
    assert read_package((), request, [head, index, body], {}, 1, NOWHERE).values_flag == VALUES_FLAG
    assert shown(_fastpath.unpack(body, 1, error_of, True)) == [
        [0, package["tasks"][0]["args"], package["tasks"][0]["kwargs"]]
    ]
    assert shown(_fastpath.unpack(frames_of(answer)[1], 1, error_of, True)) == answer["values"]


@pytest.mark.parametrize("vector", **named([*MESSAGES["packages"], *MESSAGES["requests"]]))
def test_requests(vector: Vector) -> None:
    frames = frames_of(vector)
    assert serial_of(frames[0]) == vector["head"]["serial"]
    if vector["name"] == NEWER:
        with pytest.raises(ProtocolError):
            decode_request(frames[0])
        return
    request = decode_request(frames[0])
    assert {**vectors.fields(request), **vector["head"]} == vectors.fields(request)
    if request.kind == RequestKind.PACKAGE:
        count = len(vector["columns"][0]) if request.columns else len(vector.get("tasks", "1"))
        assert read_package((), request, frames, {}, 1, NOWHERE).count == count
    elif request.kind in (RequestKind.PUBLISH, RequestKind.LATEST):
        asked = read_package((), request, frames, {}, 1, NOWHERE).data_request
        assert asked is not None
        assert asked.topic == vector["body"][0]
    elif request.kind == RequestKind.CANCEL:
        assert shown(msgspec.to_builtins(decode_cancel(frames))) == vector["body"]
    elif request.kind == RequestKind.CREDIT:
        assert shown(msgspec.to_builtins(decode_credit(frames))) == vector["body"]
    elif request.kind == RequestKind.STOP:
        stop = decode_stop(frames)
        assert shown([stop.id, stop.why]) == vector["body"]
        assert decode_stop(frames[:1]) == Stop()


@pytest.mark.parametrize("vector", **named(MESSAGES["replies"]))
def test_replies(vector: Vector) -> None:
    head, *body = frames_of(vector)
    reply = decode_reply(head)
    assert {**vectors.fields(reply), **vector["head"]} == vectors.fields(reply)
    assert (reply.error is None) == bool(body or vector["name"] in ("no results", "the end of a stream"))
    for data in body:
        assert shown(_fastpath.unpack(data, len(vector["values"]), error_of)) == vector["values"]
    asked = [*MESSAGES["packages"], *MESSAGES["requests"]]
    assert reply.serial == next((one["head"]["serial"] for one in asked if one["name"] == vector["to"]), NO_SERIAL)


def test_what_is_told_of_the_engine() -> None:
    bodies = {vector["name"]: frames_of(vector)[-1] for vector in MESSAGES["replies"]}
    assert msgspec.msgpack.decode(bodies["INFO"], type=Info) == vectors.INFO
    assert msgspec.msgpack.decode(bodies["TASKS"], type=list[TaskInfo]) == vectors.TASKS
    assert msgspec.msgpack.decode(bodies["STATS"], type=Stats) == vectors.STATS
    (hello,) = [vector for vector in MESSAGES["requests"] if vector["name"] == "a hello"]
    assert hello["body"] == [[TIMED]]


def test_columns() -> None:
    (vector,) = [vector for vector in MESSAGES["packages"] if "columns" in vector]
    _, codes, body = frames_of(vector)
    assert codes.decode() == vector["codes"]
    assert len(body) == 8 * sum(map(len, vector["columns"]))
    (wide,) = [vector for vector in MESSAGES["replies"] if vector["name"] == "ints of columns"]
    results = arrays.results(frames_of(wide)[1], 2)
    assert results is not None
    assert results.tolist() == wide["values"]


@pytest.mark.parametrize("vector", **named(VECTORS["wire 0.1"]))
def test_wire_01(vector: Vector) -> None:
    meta, *frames = [frame.encode() for frame in vector["request"]]
    message: tuple[Any, ...] = (), meta, *join_frames(frames), {}, 1, NOWHERE
    refusal = json.loads(vector["reply"][0]).get("error") if "reply" in vector else None
    if refusal is None:
        assert legacy_json.read_package(*message).count == len(frames)
    else:
        with pytest.raises(ProtocolError, match=re.escape(refusal)):
            legacy_json.read_package(*message)
    for frame in vector.get("reply", [])[1:]:
        data = json.loads(frame)
        if isinstance(data["data"], list):
            assert data["size"] == len(data["data"])
            assert all(": ERROR: " in data["data"][place] for place in data["errors"])


def test_a_reply_of_today_has_what_one_of_yesterday_had() -> None:
    (old,) = [vector for vector in MESSAGES["replies"] if vector["name"] == "a reply of 0.1.0"]
    assert decode_reply(frames_of(old)[0]) == Reply(16, 1)


@pytest.mark.parametrize("vector", **named(VECTORS["capability publications"]))
def test_binary_publications(vector: Vector) -> None:
    frames = frames_of(vector)
    publication = SubscriptionFilter(vector["topic"], binary=True).read(frames)
    assert publication is not None
    assert {**vectors.fields(decode_head(frames[1])), "form": vector["head"]["form"]} == vector["head"]
    assert shown(publication.sample().value) == vector["value"]
    assert SubscriptionFilter("other", binary=True).read(frames) is None
