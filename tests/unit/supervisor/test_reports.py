from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.errors import ProtocolError
from taskengine.supervisor.reports import COMMON, REPORT_BYTES, Reports


def sent(report: object) -> bytes:
    """As a Connection sends it."""
    body = msgspec.msgpack.encode(report)
    return len(body).to_bytes(4) + body


@given(st.lists(st.tuples(st.sampled_from(sorted(COMMON)), st.text(max_size=9) | st.booleans()), max_size=5), st.data())
def test_reports_arrive_whole_however_they_are_cut(told: list[tuple[str, str | bool]], data: st.DataObject) -> None:
    stream = b"".join(map(sent, told))
    at = data.draw(st.integers(0, len(stream)))
    reports = Reports()
    assert [*reports.take(stream[:at]), *reports.take(stream[at:])] == told


@given(st.binary(max_size=64))
def test_any_bytes_are_reports_or_an_error(garbage: bytes) -> None:
    reports = Reports()
    try:
        for report, _ in reports.take(garbage):
            assert report in COMMON
    except ProtocolError:
        pass
    assert len(reports._bytes) <= len(garbage)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff" + bytes(8),
        (REPORT_BYTES + 1).to_bytes(4),
        sent({"online": 1}),
        sent(["online"]),
        sent(["online", 7]),
        sent(["kill", "TASK-1"]),
        sent([["online"], ""]),
        b"\0\0\0\2\x92\xa1",
        b"\0\0\0\4\x92\xa1\xff\xc3",
    ],
)
def test_what_is_no_report_of_this_process_is_refused(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        Reports().take(garbage)


def test_who_may_make_a_report_makes_it() -> None:
    assert Reports(COMMON | {"kill"}).take(sent(["kill", "TASK-1"])) == [("kill", "TASK-1")]
