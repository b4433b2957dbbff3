"""The guardian's socket, with a panel and real sockets, and time as an argument."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskengine_hardware import SharedState, read
from taskengine_hardware.device_config import LANE
from taskengine_hardware.stop_socket import CONFIRM_NS, CONNECTIONS, LOOK_S, StopSocket

ID = bytes(range(16))


class Guard:
    """The guardian's side of it."""

    def __init__(self, path: Path) -> None:
        self.panel = SharedState(read({"devices": {"pan": {"type": "Servo", "pin": 2}}}))
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen(128)
        self.listener.setblocking(False)
        self.path = path
        self.watched: set[int] = set()
        self.noted: list[tuple[str, dict[str, Any]]] = []
        self.strangers_may = False
        self.open: list[socket.socket | StopSocket] = []

    def serve(self) -> StopSocket:
        stops = StopSocket(
            self.listener,
            self.panel,
            lambda event, **fields: self.noted.append((event, fields)),
            self.watched.add,
            self.watched.discard,
            strangers_may=self.strangers_may,
        )
        self.open.append(stops)
        return stops

    def connect(self) -> socket.socket:
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        caller.settimeout(5)
        caller.connect(str(self.path))
        self.open.append(caller)
        return caller


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    guard = Guard(tmp_path / "stop")
    yield guard
    for one in [guard.listener, *guard.open]:
        one.close()


def ask(stops: StopSocket, guard: Guard, caller: socket.socket, message: bytes, now: int) -> None:
    """Have a caller say something, and all who have said something be heard."""
    caller.send(message)
    stops.accept()
    hear(stops, guard, now)


def hear(stops: StopSocket, guard: Guard, now: int) -> None:
    watched = select.poll()
    for fd in guard.watched:
        watched.register(fd, select.POLLIN)
    for fd, _ in watched.poll(0):
        assert stops.hear(fd, now)


def stop(id: bytes = ID, why: str = "smoke") -> bytes:
    return msgspec.msgpack.encode((id, why))


def answer(caller: socket.socket) -> Any:
    return msgspec.msgpack.decode(caller.recv(4096))


def is_silent(caller: socket.socket) -> bool:
    heard = select.poll()
    heard.register(caller, select.POLLIN)
    return not heard.poll(0)


def test_a_stop_is_answered_once_every_lane_is_safe(guard: Guard) -> None:
    stops, caller = guard.serve(), guard.connect()
    ask(stops, guard, caller, stop(), 5)
    latest = guard.panel.latest()
    assert (latest.number, latest.at, latest.why, latest.is_in_force) == (1, 5, "smoke", True)
    assert latest.by == f"user {os.geteuid()}"
    stops.answer(6)
    assert is_silent(caller)
    assert stops.due == LOOK_S
    guard.panel.confirm(LANE, 1)
    stops.answer(7)
    assert answer(caller) == [1, []]
    assert stops.due == float("inf")
    assert guard.noted == [("stopped", {"uid": os.geteuid(), "why": "smoke"})]


def test_the_machine_is_stopped_before_the_log_is_told(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    stops, caller = guard.serve(), guard.connect()
    were: list[bool] = []
    monkeypatch.setattr(stops, "_note", lambda event, **fields: were.append(guard.panel.is_stopped))
    ask(stops, guard, caller, stop(), 5)
    assert were == [True]


def test_one_that_nobody_confirms_is_answered_with_the_lanes_that_are_late(guard: Guard) -> None:
    stops, caller = guard.serve(), guard.connect()
    ask(stops, guard, caller, stop(), 5)
    stops.answer(4 + CONFIRM_NS)
    assert is_silent(caller)
    stops.answer(5 + CONFIRM_NS)
    assert answer(caller) == [1, [LANE]]


def test_a_repeated_stop_is_the_same_also_after_an_arm(guard: Guard) -> None:
    stops, caller, other = guard.serve(), guard.connect(), guard.connect()
    ask(stops, guard, caller, stop(), 5)
    ask(stops, guard, other, stop(), 6)
    guard.panel.confirm(LANE, 1)
    stops.answer(7)
    assert answer(caller) == answer(other) == [1, []]
    guard.panel.arm(1, b"", 8)
    ask(stops, guard, caller, stop(), 9)
    assert answer(caller) == [1, []]
    assert not guard.panel.is_stopped
    assert len(guard.noted) == 1


def test_a_stop_without_an_id_is_a_new_one_each_time(guard: Guard) -> None:
    stops, caller = guard.serve(), guard.connect()
    for _ in range(2):
        ask(stops, guard, caller, stop(b""), 5)
    assert guard.panel.number == 2


@pytest.mark.parametrize("message", [b"garbage", b"\x90", b"\xc1", msgspec.msgpack.encode(("text", b"bytes"))])
def test_garbage_stops_nothing_and_is_told_so(guard: Guard, message: bytes) -> None:
    stops, caller = guard.serve(), guard.connect()
    ask(stops, guard, caller, message, 5)
    number, [text] = answer(caller)
    assert number == 0
    assert "a stop is an id and why" in text
    assert not guard.panel.is_stopped
    ask(stops, guard, caller, stop(), 6)
    assert guard.panel.is_stopped


@pytest.mark.parametrize("may", [False, True])
def test_another_user_may_where_strangers_may(guard: Guard, may: bool) -> None:
    guard.strangers_may = may
    stops, caller = guard.serve(), guard.connect()
    caller.send(stop())
    stops.accept()
    [fd] = guard.watched
    stops._callers[fd] = stops._callers[fd][0], 4711
    hear(stops, guard, 5)
    assert guard.panel.is_stopped is may
    if not may:
        assert answer(caller) == [0, ["the engine's policy does not let user 4711 stop the machine"]]
        assert guard.noted == [("refused", {"uid": 4711, "call": "STOP"})]
        stops.strangers_may = True  # by another policy
        caller.send(stop())
        hear(stops, guard, 6)
        assert guard.panel.is_stopped


def test_who_leaves_is_forgotten(guard: Guard) -> None:
    stops, caller = guard.serve(), guard.connect()
    ask(stops, guard, caller, stop(), 5)
    caller.close()
    hear(stops, guard, 6)
    assert not guard.watched
    assert stops.due == float("inf")
    assert not stops.hear(guard.listener.fileno(), 7)


def test_a_crowd_that_stays_keeps_nobody_out(guard: Guard) -> None:
    stops = guard.serve()
    for _ in range(CONNECTIONS + 3):
        guard.connect()
        stops.accept()
    assert len(guard.watched) == CONNECTIONS
    ask(stops, guard, guard.connect(), stop(), 5)
    assert guard.panel.is_stopped


def test_one_that_does_not_read_keeps_nobody_waiting(guard: Guard) -> None:
    stops, caller = guard.serve(), guard.connect()
    guard.panel.confirm(LANE, 10**6)
    for _ in range(5000):
        ask(stops, guard, caller, stop(), 5)
    assert guard.panel.number == 1
