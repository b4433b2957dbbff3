"""Heads and small bodies are read, and what has no sense is a ProtocolError that says why."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.errors import ProtocolError
from taskengine.protocol.layouts import MAGIC
from taskengine.protocol.limits import MAX_HEAD, MAX_TOKEN
from taskengine.protocol.messages import (
    Cancel,
    Reply,
    ReplyMode,
    Request,
    RequestKind,
    SourceStats,
    Stop,
    decode_cancel,
    decode_reply,
    decode_request,
    decode_stop,
    encode_reply,
    encode_request,
    read_overruns,
    write_overruns,
)

HEAD = b"head"


def packed(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def test_heads_are_read_as_they_were_written() -> None:
    request = Request(RequestKind.PACKAGE, 7, "ARM", ["task_count"], ReplyMode.ERRORS)
    assert decode_request(encode_request(request)) == request
    reply = Reply(7, 1, ReplyMode.ALL, None, 0)
    assert decode_reply(encode_reply(reply)) == reply


def test_a_head_is_not_too_long() -> None:
    with pytest.raises(ProtocolError, match=f"at most {MAX_HEAD} bytes, not {MAX_HEAD + 1}"):
        decode_request(bytes(MAX_HEAD + 1))


def test_a_head_begins_as_it_should() -> None:
    with pytest.raises(ProtocolError, match="begins with the bytes"):
        decode_reply(b"\x93\x00\x00\x00")


@given(st.binary(max_size=40))
def test_any_bytes_are_a_head_or_an_error(data: bytes) -> None:
    for decode in (decode_request, decode_reply):
        with contextlib.suppress(ProtocolError):
            decode(MAGIC + data)


def test_a_cancel_has_two_frames() -> None:
    assert decode_cancel([HEAD, packed([3, [0, 2]])]) == Cancel(3, [0, 2])
    assert decode_cancel([HEAD, packed([])]) == Cancel()
    for frames in ([HEAD], [HEAD, b"", b""], [HEAD, bytes(MAX_HEAD + 1)]):
        with pytest.raises(ProtocolError, match="CANCEL has 2 frames"):
            decode_cancel(frames)
    with pytest.raises(ProtocolError, match="head: "):
        decode_cancel([HEAD, packed(["three"])])


def test_a_stop_has_one_frame_or_two() -> None:
    assert decode_stop([HEAD]) == Stop()
    assert decode_stop([HEAD, packed([b"id", "a child"])]) == Stop(b"id", "a child")
    for frames in ([HEAD, b"", b""], [HEAD, bytes(MAX_HEAD + 1)]):
        with pytest.raises(ProtocolError, match="STOP has a head and at most a body"):
            decode_stop(frames)
    with pytest.raises(ProtocolError, match=f"at most {MAX_TOKEN} bytes, not {MAX_TOKEN + 1}"):
        decode_stop([HEAD, packed([bytes(MAX_TOKEN + 1), ""])])


def test_what_a_data_worker_tells_of_its_sources() -> None:
    sources = [SourceStats("load", 0.1, 0.25, 3)]
    assert read_overruns(write_overruns(sources)) == sources
    with pytest.raises(ProtocolError):
        read_overruns(b"\xc1")
