from __future__ import annotations

import contextlib
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.config.policy import Entry
from taskengine.errors import ProtocolError
from taskengine.protocol.messages import TaskInfo
from taskengine.runtime.control import (
    COMMON,
    MAX_TAG,
    PACKET_BYTES,
    Alive,
    Importing,
    KillWorker,
    NotImported,
    Online,
    Order,
    OrderReader,
    OwnerStarted,
    PolicyChanged,
    RejoinRouter,
    ReloadBegun,
    ReloadEnded,
    ReloadRequested,
    Report,
    RestartCounts,
    RetireWorker,
    StartedWorker,
    StartFailed,
    StopProcess,
    StrangersMayStop,
    TasksChanged,
    UnknownMessage,
    WorkerDied,
    WorkerIdle,
    WorkersStarted,
    packets,
    read_report,
)

REPORTS: list[Report] = [
    Online(),
    StartFailed("no port"),
    Importing("arm"),
    NotImported("arm", "no module smbus"),
    Alive(),
    Alive(has_answered=True),
    KillWorker("TASK-1"),
    WorkerIdle("TASK-1"),
    ReloadRequested(),
]
TASK = TaskInfo("add", "", "(a, b)", "", 1.5, True, "tasks")
ORDERS: list[Order] = [
    WorkersStarted([StartedWorker("TASK-1", 0, 17, is_online=False)]),
    WorkerDied("TASK-1"),
    RetireWorker("TASK-1"),
    TasksChanged([TASK] * 9000),
    PolicyChanged(None),
    PolicyChanged({"anna": Entry(tasks=("arm.*",))}),
    ReloadBegun(),
    ReloadEnded("a syntax error"),
    RestartCounts({"router": 2}),
    RejoinRouter(),
    OwnerStarted("pins", 17),
    StrangersMayStop(may=True),
    StopProcess(),
    StopProcess(2.5),
]
ALL = frozenset(get_args(Report))


def sent(report: object) -> bytes:
    """The packet of a report."""
    return b"\0" + msgspec.msgpack.encode(report)


def read(order: Order) -> Order | UnknownMessage | None:
    reader = OrderReader()
    *before, last = [reader.read(packet) for packet in packets(order)]
    assert before == [None] * len(before)
    return last


@pytest.mark.parametrize("report", REPORTS, ids=str)
def test_a_report_arrives_in_one_packet(report: Report) -> None:
    [packet] = packets(report)
    assert read_report(packet, ALL) == report


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: type(order).__name__)
def test_an_order_arrives(order: Order) -> None:
    assert read(order) == order
    assert all(len(packet) <= PACKET_BYTES for packet in packets(order))


def test_every_message_is_tested() -> None:
    assert set(map(type, REPORTS)) == ALL
    assert set(map(type, ORDERS)) == set(get_args(Order))


def test_orders_follow_each_other() -> None:
    reader = OrderReader()
    found = [reader.read(packet) for order in ORDERS for packet in packets(order)]
    assert [order for order in found if order is not None] == ORDERS


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda body: b"\0" + body))
def test_any_bytes_are_reports_or_an_error(garbage: bytes) -> None:
    try:
        report = read_report(garbage)
    except ProtocolError:
        return
    assert isinstance(report, UnknownMessage) or type(report) in COMMON


@given(st.lists(st.binary(max_size=64), max_size=5))
def test_any_bytes_are_orders_or_an_error(garbage: list[bytes]) -> None:
    reader = OrderReader()
    for packet in garbage:
        with contextlib.suppress(ProtocolError):
            reader.read(packet)
    assert len(reader._body) <= sum(map(len, garbage))


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0",
        b"\xff\xff\xff\xff" + bytes(8),
        bytes(PACKET_BYTES + 1),
        b"\1" + sent(["online"])[1:],
        sent({"online": 1}),
        sent("online"),
        sent([]),
        sent([7]),
        sent(["online", 7]),
        sent(["failed"]),
        sent(["failed", 7]),
        sent(["kill worker", "TASK-1"]),
        sent(["alive", True]),
        sent([["online"], ""]),
        b"\0\x92\xa1",
        b"\0\x92\xa1\xff\xc3",
        b"\0" + b"\x91" * 60_000,
    ],
    ids=lambda garbage: repr(garbage[:12]),
)
def test_what_is_no_report_of_this_process_is_refused(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_report(garbage)


def test_a_process_sends_the_reports_that_it_may_send() -> None:
    assert read_report(sent(["kill worker", "TASK-1"]), COMMON | {KillWorker}) == KillWorker("TASK-1")


def test_a_message_of_another_version_is_unknown_and_no_error() -> None:
    assert read_report(sent(["temperature", 60, {"core": 1}])) == UnknownMessage("temperature")
    assert OrderReader().read(sent(["sleep"])) == UnknownMessage("sleep")
    assert read_report(sent(["x" * 999])) == UnknownMessage("x" * MAX_TAG)


def test_an_unknown_order_leaves_the_next_one_whole() -> None:
    reader = OrderReader()
    assert reader.read(b"\1" + msgspec.msgpack.encode(["sleep", 1])[:4]) is None
    assert reader.read(b"\0" + msgspec.msgpack.encode(["sleep", 1])[4:]) == UnknownMessage("sleep")
    assert reader.read(packets(RejoinRouter())[0]) == RejoinRouter()
