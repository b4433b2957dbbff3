from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from taskengine.runtime.control import (
    GUARDIAN_REPORTS,
    PACKET_BYTES,
    Alive,
    Online,
    Order,
    OwnerStarted,
    RejoinRouter,
    StopProcess,
    StrangersMayStop,
    packets,
    read_report,
)
from taskengine.runtime.control_channel import ControlChannel, new_channel
from taskengine.supervisor.guardian_link import GuardianLink


class StillGuardian:
    """Keeps what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def meet(self, lane: str, pid: int) -> None:
        self.asked.append((lane, pid))

    def let_strangers_stop(self, may: bool) -> None:
        self.asked.append(may)

    def end(self) -> None:
        self.asked.append("end")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, GuardianLink]]:
    supervisor, end = new_channel()
    with supervisor, end:
        yield supervisor, GuardianLink(ControlChannel(end, print))


@pytest.mark.parametrize(
    ("order", "asked"),
    [
        (OwnerStarted("arm", 17), [("arm", 17)]),
        (StrangersMayStop(may=False), [False]),
        (StopProcess(), ["end"]),
        (RejoinRouter(), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_guardian_is_asked_for_what_the_order_says(
    ends: tuple[socket.socket, GuardianLink], order: Order, asked: list[object]
) -> None:
    guardian = StillGuardian()
    ends[0].send(packets(order)[0])
    ends[1].take_order(guardian)
    assert guardian.asked == asked


def test_the_supervisor_hears_of_the_guardian(ends: tuple[socket.socket, GuardianLink]) -> None:
    ends[1].tell_online()
    ends[1].tell_alive()
    reports = [read_report(ends[0].recv(PACKET_BYTES), GUARDIAN_REPORTS) for _ in range(2)]
    assert reports == [Online(), Alive()]


def test_a_supervisor_that_is_gone_is_told_nothing_and_said_to_be_gone(
    ends: tuple[socket.socket, GuardianLink],
) -> None:
    ends[0].close()
    ends[1].tell_alive()
    with pytest.raises(EOFError):
        ends[1].take_order(StillGuardian())
