from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import msgspec
import pytest

from taskengine.runtime.control import (
    GUARDIAN_REPORTS,
    PACKET_BYTES,
    Alive,
    KillWorker,
    Online,
    RejoinRouter,
    RestartCounts,
    StopProcess,
    packets,
    read_report,
)
from taskengine.runtime.control_channel import ControlChannel, new_channel


class Pair:
    """A supervisor's end and a process's, in one process."""

    def __init__(self) -> None:
        self.supervisor, end = new_channel()
        self.said: list[str] = []
        self.process = ControlChannel(end, self.said.append)

    def close(self) -> None:
        self.supervisor.close()
        self.process.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_a_supervisor_that_is_gone_is_noticed_also_before_its_last_orders_are_read(pair: Pair) -> None:
    assert not pair.process.is_lost()
    for packet in packets(StopProcess()):
        pair.supervisor.send(packet)
    assert not pair.process.is_lost()
    pair.supervisor.close()
    assert pair.process.is_lost()
    assert pair.process.next_order() == StopProcess()


def test_reports_and_orders_arrive(pair: Pair) -> None:
    pair.process.send(Online())
    pair.process.offer(Alive(has_answered=True))
    known = GUARDIAN_REPORTS
    assert [read_report(pair.supervisor.recv(PACKET_BYTES), known) for _ in range(2)] == [Online(), Alive(True)]
    assert not pair.process.poll()
    for packet in packets(RestartCounts({f"kind {number}": number for number in range(9000)})):
        pair.supervisor.send(packet)
    assert pair.process.poll()
    order = pair.process.receive()
    assert isinstance(order, RestartCounts)
    assert len(order.counts) == 9000


@pytest.mark.parametrize("packet", [b"\0" + msgspec.msgpack.encode(["sleep", 1]), b"\0\xc1", b"\xff" * 9])
def test_what_is_unknown_is_logged_and_ignored(pair: Pair, packet: bytes) -> None:
    pair.supervisor.send(packet)
    pair.supervisor.send(packets(RejoinRouter())[0])
    assert pair.process.next_order() is None
    assert len(pair.said) == 1
    assert pair.said[0].startswith("[CONTROL-")
    assert "Ignored an" in pair.said[0]
    assert pair.process.next_order() == RejoinRouter()


@pytest.mark.parametrize("has_unread", [False, True])
def test_a_supervisor_that_is_gone_has_the_process_stop(pair: Pair, has_unread: bool) -> None:
    if has_unread:
        pair.process.send(Online())
    pair.supervisor.close()
    assert pair.process.poll()
    assert pair.process.next_order() == StopProcess(0.0)
    with pytest.raises(EOFError):
        pair.process.receive()
    with pytest.raises(BrokenPipeError):
        pair.process.send(Online())


def test_an_offer_waits_for_nobody(pair: Pair) -> None:
    for _ in range(10_000):
        pair.process.offer(Alive())
    while select.select([pair.supervisor], [], [], 0)[0]:
        assert read_report(pair.supervisor.recv(PACKET_BYTES), GUARDIAN_REPORTS) == Alive()
    pair.process.send(KillWorker("TASK-1"))
    assert pair.supervisor.recv(PACKET_BYTES) == packets(KillWorker("TASK-1"))[0]


def test_packets_are_kept_apart() -> None:
    ours, theirs = new_channel()
    with ours, theirs:
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_SEQPACKET
