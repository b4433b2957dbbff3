"""A refusal can be found by its request: the serial is read whatever else is wrong, and errors have one place."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine import _fastpath
from taskengine.broker.binary import BinaryPackage, error_entry, read_package
from taskengine.broker.partials import Part, PartialResults
from taskengine.broker.results import Results
from taskengine.errors import NotAllowed, ProtocolError, TaskEngineError
from taskengine.protocol.layouts import MAGIC
from taskengine.protocol.messages import (
    NO_SERIAL,
    NOWHERE,
    PartialReply,
    Reply,
    ReplyMode,
    Request,
    RequestKind,
    Stamp,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    serial_of,
)


@given(st.integers(-(2**63), 2**64 - 1))
def test_the_serial_of_a_request(serial: int) -> None:
    frame = encode_request(Request(RequestKind.PACKAGE, serial, "ARM", ["task_count"]))
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


def asked(kind: RequestKind, reply: ReplyMode) -> BinaryPackage:
    """A data request of which something is to be told."""
    body = _fastpath.encode(["arm", 1] if kind == RequestKind.PUBLISH else ["arm"])
    request = Request(kind, 8, "ARM", reply=reply)
    package = read_package((), request, [encode_request(request), body], {}, 1, NOWHERE)
    package.cut(10, {})
    return package


@pytest.mark.parametrize("reply", ReplyMode)
@pytest.mark.parametrize("kind", [RequestKind.PUBLISH, RequestKind.LATEST])
def test_a_data_request_is_answered_whatever_its_reply_mode_is(kind: RequestKind, reply: ReplyMode) -> None:
    package = asked(kind, reply)
    package.results.put(0, 1, _fastpath.encode(2.5))
    head, body = package.answer()
    assert isinstance(head, bytes)
    assert decode_reply(head) == Reply(8, 1)
    assert b"".join(map(bytes, body)) == _fastpath.encode(2.5)


@pytest.mark.parametrize("reply", ReplyMode)
def test_the_error_of_a_data_request_stands_in_the_head(reply: ReplyMode) -> None:
    entry = error_entry(NotAllowed("no client publishes there"))
    by_router = next(asked(RequestKind.LATEST, reply).pieces_of(NotAllowed("no client publishes there"), 0, 1))
    assert by_router == (0, 1, entry)
    package = asked(RequestKind.LATEST, reply)
    package.results.put(0, 1, entry)
    package.results.failed = 1
    (head,) = package.answer()
    assert isinstance(head, bytes)
    assert decode_reply(head) == Reply(8, 0, error=(NotAllowed.code, "no client publishes there", {}))


def test_an_error_without_a_code_is_told_too() -> None:
    package = asked(RequestKind.LATEST, ReplyMode.ALL)
    package.results.put(0, 1, error_entry(TaskEngineError("odd")))
    package.results.failed = 1
    (head,) = package.answer()
    assert isinstance(head, bytes)
    assert msgspec.msgpack.decode(head[3:])[3] == [0, "odd", {}]


CALL = b"\x92\x00\x90"
"""A call of the first task that is named, without arguments."""


def sent(request: Request, *frames: bytes) -> BinaryPackage:
    package = read_package((), request, [encode_request(request), *frames], {"x": ""}, 1, NOWHERE)
    assert isinstance(package, BinaryPackage)
    return package


def index_of(*sizes: int) -> bytes:
    return b"".join(sum(sizes[: place + 1]).to_bytes(4, "little") for place in range(len(sizes)))


def test_errors_of_a_package_stand_where_its_reply_mode_has_them() -> None:
    error = NotAllowed("not this task")
    entry = error_entry(error)
    expected = {
        ReplyMode.ALL: entry * 2,
        ReplyMode.ERRORS: _fastpath.encode(1) + entry + _fastpath.encode(2) + entry,
        ReplyMode.NONE: b"",
        ReplyMode.EACH: entry * 2,
    }
    for reply in expected:
        request = Request(RequestKind.PACKAGE, 8, "ARM", ["x"], reply)
        package = sent(request, index_of(3, 3, 3), CALL * 3)
        assert list(package.pieces_of(error, 1, 3)) == [(1, 3, expected[reply])]
        assert package.name_of(2) == "x"
        assert package.called() == {"x"}


def test_the_entries_of_each_are_sent_as_they_come() -> None:
    package = sent(Request(RequestKind.PACKAGE, 8, "ARM", ["x"], ReplyMode.EACH), index_of(3, 3, 3, 3), CALL * 4)
    assert package.reply_mode == ReplyMode.ALL, "workers see no difference"
    results = package.results
    assert isinstance(results, PartialResults)
    results.failed += 1
    assert not results.put(2, 3, b"c")
    assert not results.put(0, 1, b"a")
    assert results.held == 2
    first, third = results.take()
    assert results.held == 0
    head, body = package.partial_answer(first, None, is_last=False, stamp=Stamp(5, 6, 7))
    assert isinstance(head, bytes)
    assert decode_reply(head) == PartialReply(8, 1, ReplyMode.EACH, None, 0, 5, 6, 7, 0, False)
    assert body == [b"a"]
    assert third == Part(2, 3, 1, [b"c"])
    assert not results.put(3, 4, b"d")
    assert results.put(1, 2, b"b")
    second, fourth = results.take()
    (refused,) = package.partial_answer(fourth, NotAllowed("no"), is_last=True)
    assert isinstance(refused, bytes)
    error = 8, "no", dict[str, object]()
    assert decode_reply(refused) == PartialReply(8, 1, ReplyMode.EACH, error, 1, first=3, last=True)
    assert second == Part(1, 2, 0, [b"b"])


def test_other_replies_have_no_place_for_a_position() -> None:
    for reply in (ReplyMode.ALL, ReplyMode.ERRORS, ReplyMode.NONE):
        head = encode_reply(Reply(8, 1, reply))
        assert len(msgspec.msgpack.decode(head[len(MAGIC) :])) == 8
        assert type(decode_reply(head)) is Reply


def test_a_data_request_has_one_reply_whatever_it_asks_for() -> None:
    assert type(asked(RequestKind.LATEST, ReplyMode.EACH).results) is Results


def test_a_data_request_calls_no_task() -> None:
    package = asked(RequestKind.LATEST, ReplyMode.ALL)
    assert (package.called(), package.name_of(0)) == ((), "")


@pytest.mark.parametrize(
    ("request_", "frames", "message"),
    [
        (Request(RequestKind.PACKAGE, 8, "ARM", ["x"]), [b""], "a package has 3 frames"),
        (Request(RequestKind.PACKAGE, 8, "ARM", ["x", "y"], columns=True), [b"", b""], "columns call one task, not 2"),
        (Request(RequestKind.PACKAGE, 8, "ARM", ["x"], deadline=-1.0), [index_of(3), CALL], "0 for none, not -1.0"),
        (Request(RequestKind.LATEST, 8, "ARM"), [b"", b""], "a data request has 2 frames"),
        (Request(RequestKind.PUBLISH, 8, "ARM"), [_fastpath.encode(["arm"])], "PUBLISH takes a topic and a value"),
        (Request(RequestKind.LATEST, 8, "ARM"), [_fastpath.encode(["arm", 1])], "LATEST a topic"),
    ],
)
def test_what_has_no_sense_is_refused(request_: Request, frames: list[bytes], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        sent(request_, *frames)
