"""A hardware watchdog is fed while every lane has a living owner; a pseudoterminal stands for /dev/watchdog."""

from __future__ import annotations

import fcntl
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine import Client, SettingsError
from taskengine_hardware import SharedState, read
from taskengine_hardware.device_config import LANE
from taskengine_hardware.guardian import Guardian, Links
from taskengine_hardware.shared_state import NEVER
from taskengine_hardware.watchdog import FOOD, SET_TIMEOUT, Feeding, HardwareWatchdog, WatchdogState
from tests.engine import Engine, deadline, wait_until
from tests.hardware.conftest import Bench

LAMP: dict[str, Any] = {"type": "LED", "pin": 17}


class Dog:
    """A pseudoterminal: what is written at `path` is read here."""

    def __init__(self) -> None:
        self.master, self._slave = os.openpty()
        os.set_blocking(self.master, False)
        self.path = os.ttyname(self._slave)
        self.heard = b""

    def hear(self) -> bytes:
        """Return all that was written so far."""
        while select.select([self.master], [], [], 0)[0]:
            self.heard += os.read(self.master, 4096)
        return self.heard

    def close(self) -> None:
        os.close(self.master)
        os.close(self._slave)


@pytest.fixture
def dog() -> Iterator[Dog]:
    dog = Dog()
    yield dog
    dog.close()


def test_it_is_opened_with_the_first_living_owners_and_fed_every_second() -> None:
    feeding = Feeding(15.0)
    states: list[str] = []

    def look(living: bool, now: float) -> bool:
        is_due = feeding.wants(living, now)
        if is_due:
            feeding.fed(now)
        states.append(feeding.state.name)
        return is_due

    looks = [(False, 1.0), (True, 2.0), (True, 2.9), (True, 3.0), (False, 4.5), (True, 4.6)]
    assert [look(*each) for each in looks] == [False, True, False, True, False, True]
    assert states == ["WAITING", "FED", "FED", "FED", "STARVING", "FED"]
    feeding.timeout = 2.0
    feeding.fed(5.0)
    assert feeding.wants(True, 5.5)
    feeding.failed(6.0)
    assert [feeding.wants(True, now) for now in (6.9, 7.0)] == [False, True]
    assert feeding.state is WatchdogState.FAILED


@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.booleans())))
def test_no_food_without_living_owners_and_none_is_missed_with_them(looks: list[tuple[float, bool]]) -> None:
    feeding, now, last = Feeding(4.0), 0.0, None
    for step, living in looks:
        now += step
        if feeding.wants(living, now):
            assert living
            feeding.fed(now)
            last = now
        if living:
            assert last is not None
            assert now - last < 4.0 / 2


def test_an_end_that_was_ordered_ends_the_timer(dog: Dog) -> None:
    said: list[str] = []
    for ends, last in ((True, b"V"), (False, b"")):
        dog.heard = b""
        watchdog = HardwareWatchdog(dog.path, 15.0, said.append)
        watchdog.look(False, 1.0)
        assert dog.hear() == b""
        watchdog.look(True, 1.0)
        watchdog.look(True, 1.5)
        watchdog.look(True, 2.0)
        watchdog.close(ends=ends)
        watchdog.close(ends=ends)
        assert dog.hear() == FOOD * 2 + last
    assert said == [f"[GUARDIAN] The watchdog {dog.path}: its timeout cannot be set to 15 s: {os.strerror(25)}"] * 2


def test_a_watchdog_that_is_not_there_is_told_once_and_tried_again(dog: Dog, tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "watchdog"
    watchdog = HardwareWatchdog(str(path), 15.0, said.append)
    watchdog.look(True, 1.0)
    watchdog.look(True, 1.5)
    watchdog.look(True, 2.5)
    assert said == [f"[GUARDIAN] The watchdog {path}: it cannot be fed: No such file or directory"]
    assert watchdog.state is WatchdogState.FAILED
    path.symlink_to(dog.path)
    watchdog.look(True, 3.5)
    assert (watchdog.state, dog.hear()) == (WatchdogState.FED, FOOD)
    watchdog.close(ends=True)


def test_a_real_one_is_given_its_timeout(dog: Dog, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bytes]] = []

    def ioctl(fd: int, number: int, argument: bytes) -> bytes:
        asked.append((number, argument))
        return (2).to_bytes(4, "little")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    watchdog = HardwareWatchdog(dog.path, 15.0, print)
    watchdog.look(True, 1.0)
    assert asked[0] == (SET_TIMEOUT, (15).to_bytes(4, "little"))
    # it has told that it can wait for 2 s only
    watchdog.look(True, 1.5)
    assert dog.hear() == FOOD * 2
    watchdog.close(ends=False)


class Supervisor:
    """A link to a supervisor that says nothing."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()

    def fileno(self) -> int:
        return self.ours.fileno()

    def tell_online(self) -> None: ...

    def tell_alive(self) -> None: ...

    def take_order(self, guardian: Any) -> None:
        if not self.ours.recv(1):
            raise EOFError
        guardian.end()


def test_the_guardian_feeds_it_while_the_owners_live(dog: Dog) -> None:
    layout = read({"devices": {"lamp": LAMP, "hip": {**LAMP, "pin": 18, "lane": "legs"}}, "watchdog": dog.path})
    panel, supervisor, said = SharedState(layout), Supervisor(), list[str]()
    guardian = Guardian(layout, panel, "mock", Links(supervisor, 1.0, print, said.append, print, print))
    watchdog = guardian._watchdog
    assert watchdog is not None

    def feed() -> None:
        guardian._feed(watchdog)

    panel.begin(LANE, 11)
    guardian._policies[LANE].begins(11)
    feed()
    assert panel.report()["watchdog"] == "waiting"  # the other lane has no owner yet
    panel.begin("legs", 12)
    guardian._policies["legs"].begins(12)
    feed()
    assert panel.report()["watchdog"] == "fed"
    guardian._policies["legs"].died(12)
    feed()
    assert panel.report()["watchdog"] == "starving"
    guardian._policies["legs"].begins(13)
    feed()
    assert panel.report()["watchdog"] == "starving"  # it has no pins yet
    panel.begin("legs", 13)
    feed()
    assert panel.report()["watchdog"] == "fed"
    assert dog.hear() == FOOD * 2
    supervisor.theirs.send(b".")
    guardian._handle_control()
    assert guardian._is_orderly
    for one in (supervisor.ours, supervisor.theirs):
        one.close()
    assert "watchdog" not in SharedState(read({"devices": {"lamp": LAMP}})).report()


def test_an_owner_beats_for_the_watchdog_without_any_pulse(bench: Any, dog: Dog) -> None:
    one: Bench = bench({"lamp": LAMP}, watchdog=dog.path)
    wait_until(lambda: one.panel.beaten(LANE) != NEVER, 5, "the first beat")
    first = one.panel.beaten(LANE)
    wait_until(lambda: one.panel.beaten(LANE) > first, 5, "another beat")
    one.owner.close()
    assert one.panel.beaten(LANE) == NEVER


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"watchdog": "watchdog"}, "expected the path of a watchdog"),
        ({"watchdog": True}, "expected the path of a watchdog"),
        ({"watchdog_timeout": 1}, "expected a number from 4 to 3600"),
    ],
)
def test_its_settings_are_checked(table: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        read({"devices": {"lamp": LAMP}, **table})


@pytest.mark.alone
def test_an_engine_feeds_it_and_ends_it_with_its_own_end(dog: Dog, tmp_path: Path) -> None:
    (tmp_path / "taskengine.toml").write_text(
        f'[hardware]\nwatchdog = "{dog.path}"\n[hardware.devices.lamp]\ntype = "LED"\npin = 17\n'
    )
    with Engine(cwd=tmp_path, pins="mock") as engine, Client(engine.address, timeout=deadline(5)) as client:
        wait_until(lambda: len(dog.hear()) >= 2, 10, "food")
        assert client.call("system.state")["watchdog"] == "fed"
        assert set(dog.heard) == set(FOOD)
    wait_until(lambda: dog.hear().endswith(b"V"), 5, "its end")
    assert dog.heard.count(b"V") == 1
