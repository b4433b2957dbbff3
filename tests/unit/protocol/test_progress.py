"""What a task may say of its progress, how it is encoded, and how often it is sent."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import numpy
import pytest

from taskengine import _fastpath
from taskengine.errors import BadArguments, ProtocolError
from taskengine.protocol.messages import (
    PartialReply,
    ReplyMode,
    Request,
    RequestKind,
    WatchedRequest,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    stamped,
    wanting_each,
    wanting_progress,
)
from taskengine.protocol.progress import (
    MAX_REPORT,
    REPORT_BURST,
    REPORT_RATE,
    Pace,
    Progress,
    as_progress,
    as_reports,
    write_report,
)


@pytest.mark.parametrize(
    ("said", "number"),
    [
        (3, 3),
        (True, 1),
        (2.5, 2.5),
        (-1, -1),
        (1e300, 1e300),
        (2**70, 2.0**70),
        (numpy.int8(-3), -3),
        (numpy.float32(1.5), 1.5),
        (Decimal("1.5"), 1.5),
        (numpy.array(4), 4),
    ],
)
def test_numbers_become_python_s_own(said: Any, number: float) -> None:
    progress = as_progress(said, said, "")
    assert progress == Progress(number, number)
    assert type(progress.done) is type(number)


@pytest.mark.parametrize("said", ["1", b"1", None, float("nan"), float("inf"), 10**400, 1j, [1], numpy.arange(2)])
def test_what_is_no_finite_number_is_refused(said: Any) -> None:
    with pytest.raises(BadArguments, match="progress: done is a finite number, not"):
        as_progress(said, None, "")
    if said is not None:
        with pytest.raises(BadArguments, match="progress: total is a finite number, not"):
            as_progress(1, said, "")


def test_a_message_is_text_and_not_endless() -> None:
    with pytest.raises(BadArguments, match="a message is text, not bytes"):
        as_progress(1, None, b"text")
    longest = write_report(2**21, as_progress(1e300, 2**63 - 1, "\U0001f916" * 5000))
    assert len(longest) <= MAX_REPORT
    surrogate = write_report(0, as_progress(1, None, "\ud800"))
    assert as_reports(_fastpath.unpack(surrogate, 1, bytes)) == [Progress(1, None, "?")]


@pytest.mark.parametrize(
    ("done", "total", "fraction"), [(1, 4, 0.25), (5, 4, 1.0), (-1, 4, 0.0), (3, None, None), (0, 0, None)]
)
def test_a_fraction_lies_between_nothing_and_all(done: int, total: int | None, fraction: float | None) -> None:
    assert Progress(done, total).fraction == fraction


def test_reports_come_back_as_they_were() -> None:
    said = [Progress(1, None, "", 0), Progress(2.5, 10, "half", 2**21)]
    body = b"".join(write_report(each.position, each) for each in said)
    assert as_reports(_fastpath.unpack(body, 2, bytes)) == said


@pytest.mark.parametrize(
    "entry",
    [
        *(1, None, "text", [], [0, 1, 2], [0, 1, 2, "", 3], [-1, 1, 2, ""], [True, 1, 2, ""], [0.5, 1, 2, ""]),
        *([0, None, 2, ""], [0, "1", 2, ""], [0, 1, [], ""], [0, 1, 2, b""], [0, True, 2, ""]),
    ],
)
def test_what_is_no_report_is_refused(entry: Any) -> None:
    with pytest.raises(ProtocolError):
        as_reports([entry])


def test_a_few_are_sent_at_once_and_then_so_many_a_second() -> None:
    pace = Pace()
    assert [pace.allows(5.0) for _ in range(REPORT_BURST + 2)] == [True] * REPORT_BURST + [False] * 2
    allowed = sum(pace.allows(5.0 + turn / 1000) for turn in range(10_000))
    assert abs(allowed - 10 * REPORT_RATE) <= 1
    assert [pace.allows(100.0) for _ in range(REPORT_BURST + 1)] == [True] * REPORT_BURST + [False]


def test_a_head_asks_for_progress_in_place_16_whatever_else_it_says() -> None:
    plain = encode_request(Request(RequestKind.PACKAGE, 2**40, "ARM", ["x"] * 20, idempotent=True))
    for head in plain, wanting_each(plain), stamped(plain, 2**60, 5, b"token", 7):
        asking = decode_request(wanting_progress(head))
        assert isinstance(asking, WatchedRequest)
        fields = msgspec.structs.asdict(asking)
        assert [fields.pop(name) for name in ("most", "most_bytes", "progress")] == [1, 1, True]
        assert fields == msgspec.structs.asdict(decode_request(head))


def test_more_places_than_each_has_need_not_ask_for_it() -> None:
    fields = msgspec.structs.astuple(Request(RequestKind.PACKAGE, 1, "ARM", ["x"]))
    for more in [], [0, 0], [7, 7, False], [1, 1, True, "new"]:
        request = decode_request(b"TE\x02" + msgspec.msgpack.encode([*fields, *more]))
        assert getattr(request, "progress", False) == (len(more) == 4)
    for more in ["x", 0], [0, 0, 1]:
        with pytest.raises(ProtocolError):
            decode_request(b"TE\x02" + msgspec.msgpack.encode([*fields, *more]))


def test_no_request_is_answered_by_reports_alone() -> None:
    with pytest.raises(ProtocolError, match="place 16 asks for progress"):
        decode_request(encode_request(Request(RequestKind.PACKAGE, 1, "ARM", ["x"], reply=ReplyMode.PROGRESS)))
    reply = PartialReply(1, 1, ReplyMode.PROGRESS, last=False)
    assert decode_reply(encode_reply(reply)) == reply
