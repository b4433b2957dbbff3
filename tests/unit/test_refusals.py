"""A refusal can be found by its request: the serial is read whatever else is wrong, and errors have one place."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine import _fastpath
from taskengine.errors import NotAllowed, TaskEngineError
from taskengine.messages import (
    NO_SERIAL,
    NOWHERE,
    Kind,
    Reply,
    ReplyMode,
    Request,
    decode_reply,
    decode_request,
    encode_request,
    serial_of,
)
from taskengine.packed import PackedPackage, error_entry, read_package
from taskengine.wire import MAGIC


@given(st.integers(-(2**63), 2**64 - 1))
def test_the_serial_of_a_request(serial: int) -> None:
    frame = encode_request(Request(Kind.PACKAGE, serial, "ARM", ["task_count"]))
    assert decode_request(frame).serial == serial == serial_of(frame)


@pytest.mark.parametrize(
    ("head", "serial"),
    [
        ("93 63 07 a1 41", 7),  # a kind of a newer engine
        ("93 01 cd 01 00 c0", 256),  # a client without a name
        ("93 cc c8 ce 00 01 00 00", 65536),  # an end that is missing
        ("dc 00 03 01 cf 80 00 00 00 00 00 00 00 a0", 2**63),
        ("dd 00 00 00 03 01 09", 9),
        ("93 d0 01 d3 00 00 00 00 00 00 00 07 c0", 7),
        ("93 a1 41 07 a0", NO_SERIAL),
        ("93 01 a1 37", NO_SERIAL),
        ("93 01 cf 00", NO_SERIAL),
        ("93 01", NO_SERIAL),
        ("81 01 07", NO_SERIAL),
        ("dc 00", NO_SERIAL),
        ("", NO_SERIAL),
    ],
)
def test_the_serial_of_what_cannot_be_read(head: str, serial: int) -> None:
    assert serial_of(MAGIC + bytes.fromhex(head)) == serial


@given(st.binary(max_size=24))
def test_no_bytes_are_too_odd(head: bytes) -> None:
    assert -(2**63) <= serial_of(MAGIC + head) < 2**64
    assert serial_of(head) == NO_SERIAL or head.startswith(MAGIC)


def asked(kind: Kind, reply: ReplyMode) -> PackedPackage:
    """A data request of which something is to be told."""
    body = _fastpath.encode(["arm", 1] if kind == Kind.PUBLISH else ["arm"])
    request = Request(kind, 8, "ARM", reply=reply)
    package = read_package((), request, [encode_request(request), body], {}, 1, NOWHERE)
    package.cut(10, {})
    return package


@pytest.mark.parametrize("reply", ReplyMode)
@pytest.mark.parametrize("kind", [Kind.PUBLISH, Kind.LATEST])
def test_a_data_request_is_answered_whatever_its_reply_mode_is(kind: Kind, reply: ReplyMode) -> None:
    package = asked(kind, reply)
    package.put(0, 1, _fastpath.encode(2.5))
    head, body = package.answer()
    assert isinstance(head, bytes)
    assert decode_reply(head) == Reply(8, 1)
    assert b"".join(map(bytes, body)) == _fastpath.encode(2.5)


@pytest.mark.parametrize("reply", ReplyMode)
def test_the_error_of_a_data_request_stands_in_the_head(reply: ReplyMode) -> None:
    entry = error_entry(NotAllowed("no client publishes there"))
    by_router = next(asked(Kind.LATEST, reply).pieces_of(NotAllowed("no client publishes there"), 0, 1))
    assert by_router == (0, 1, entry)
    package = asked(Kind.LATEST, reply)
    package.put(0, 1, entry)
    package.failed = 1
    (head,) = package.answer()
    assert isinstance(head, bytes)
    assert decode_reply(head) == Reply(8, 0, error=(NotAllowed.code, "no client publishes there", {}))


def test_an_error_without_a_code_is_told_too() -> None:
    package = asked(Kind.LATEST, ReplyMode.ALL)
    package.put(0, 1, error_entry(TaskEngineError("odd")))
    package.failed = 1
    (head,) = package.answer()
    assert isinstance(head, bytes)
    assert msgspec.msgpack.decode(head[3:])[3] == [0, "odd", {}]
