"""The guardian and boards: pins never wait for a bus, and nothing is said to be safe that was not read back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from taskengine import SettingsError
from taskengine.runtime.control import StopProcess, packets
from taskengine.runtime.control_channel import ControlChannel, new_channel
from taskengine.supervisor.guardian_link import GuardianLink
from taskengine_hardware import SharedState, backends, guardian, read
from taskengine_hardware import device_set as device_set_module
from taskengine_hardware.backends import mock
from taskengine_hardware.board_bus import BoardReport
from taskengine_hardware.board_drivers import Pca9685
from taskengine_hardware.device_config import LANE, Device
from taskengine_hardware.emulated_bus import EmulatedBus
from taskengine_hardware.failover import NS, RETRY_S, FailoverPolicy
from taskengine_hardware.guardian import Guardian, Links
from taskengine_hardware.pca9685 import AUTO_INCREMENT, LED0, MODE1, PRE_SCALE, prescale
from tests.engine import deadline, wait_until

HAT = {"hat": {"type": "PCA9685", "output_enable": 22}}
DEVICES = {
    "pan": {"type": "Servo", "pin": "hat:0", "lease": 60},
    "grip": {"type": "Servo", "pin": "hat:1", "lease": 60, "safe": "hold"},
    "wheel": {"type": "Motor", "forward": 20, "backward": 21, "lease": 60},
}


class Site:
    """A guardian whose owner has died with everything on; its supervisor has said stop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = read({"boards": HAT, "devices": DEVICES})
        self.panel = SharedState(self.layout)
        self.said: list[str] = []
        self.bus = EmulatedBus()
        self.bus.registers[MODE1] = AUTO_INCREMENT
        self.bus.registers[PRE_SCALE] = prescale(50.0)
        self.bus.registers[LED0 : LED0 + 8] = bytes((0, 0, 50, 1, 0, 0, 60, 1))
        self.ends: list[socket.socket] = []
        monkeypatch.setattr("taskengine_hardware.boards.EmulatedBus", lambda: self.bus)
        monkeypatch.setattr(guardian, "hurry", list)
        monkeypatch.setattr(guardian, "keep_memory", list)
        self.panel.begin(LANE, os.getpid())
        self.panel.note(0, 0.25)
        self.panel.note(1, 0.5)
        self.panel.note(2, 1.0)
        self.panel.stop(time.monotonic_ns(), by="guardian")

    def guardian(self) -> Any:
        there, here = new_channel()
        self.ends += [there, here]
        there.send(packets(StopProcess())[0])
        link = GuardianLink(ControlChannel(here, self.said.append))
        return Guardian(self.layout, self.panel, "mock", Links(link, 1.0, print, self.said.append, print, print))

    def last(self, name: str) -> Any:
        device = self.layout.devices[name]
        return self.panel.last(device.place, device.kind.role)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(monkeypatch)
    yield made
    made.bus.goes_on.set()
    for end in made.ends:
        end.close()


def test_pins_are_safe_at_once_while_the_bus_hangs(site: Site) -> None:
    site.bus.goes_on.clear()
    seen = site.guardian()
    began = time.monotonic()
    seen._act(time.monotonic_ns())
    pins = seen._device_sets[LANE].factory
    assert time.monotonic() - began < deadline(0.2)
    assert not pins.pin(20).state
    # the board is off by its line
    assert pins.pin(22).state
    assert (site.last("wheel"), site.last("pan")) == (0.0, 0.25)
    assert site.panel.unconfirmed() == [LANE]
    assert site.panel.has_acted(LANE)
    site.bus.goes_on.set()

    def is_confirmed() -> bool:
        seen._act(time.monotonic_ns())
        return site.panel.unconfirmed() == []

    wait_until(is_confirmed, 5, "the board")
    assert site.bus.share(0) == 0.0
    assert site.last("pan") is None
    assert site.bus.share(1) * 20 == pytest.approx(1.75, abs=0.01)  # it holds
    assert not pins.pin(22).state
    seen._yield(LANE)


def test_it_holds_nothing_on_a_board_whose_supply_was_gone(site: Site) -> None:
    site.bus.power_up()
    site.guardian().serve()
    assert site.bus.share(1) == 0.0
    assert not any(shares[1] for shares in site.bus.pulses)
    assert (site.last("grip"), site.panel.unconfirmed()) == (None, [])


def test_its_end_waits_a_moment_for_boards_and_no_longer(site: Site) -> None:
    site.bus.reason = "no chip answers"
    seen = site.guardian()
    began = time.monotonic()
    seen.serve()
    assert time.monotonic() - began < deadline(1.0)
    assert "[GUARDIAN] pan is not safe yet: board hat: no chip answers" in site.said
    assert (site.last("pan"), site.panel.unconfirmed()) == (0.25, [LANE])


def test_it_says_nothing_of_a_device_on_a_board_that_could_not_be_opened(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its board is told nothing about it, and confirms only the others."""
    made = device_set_module._made

    def make(device: Device, factory: Any) -> Any:
        if device.name == "pan":
            raise ValueError("broken")
        return made(device, factory)

    monkeypatch.setattr(device_set_module, "_made", make)
    site.guardian().serve()
    assert "[GUARDIAN] grip is safe, on its board" in site.said
    assert [line for line in site.said if "pan" in line] == ["[GUARDIAN] Not made safe: pan: hat:0: broken"]
    assert (site.last("pan"), site.panel.unconfirmed()) == (0.25, [LANE])


def test_it_leaves_boards_safe(site: Site) -> None:
    site.guardian().serve()
    assert site.bus.share(0) == 0.0
    assert site.panel.unconfirmed() == []
    assert "[GUARDIAN] pan is safe, on its board" in site.said


def test_a_board_that_is_lost_again_confirms_no_later_stop(site: Site) -> None:
    seen = site.guardian()

    def acts(is_done: Any) -> Any:
        def act() -> bool:
            seen._act(time.monotonic_ns())
            return bool(is_done())

        return act

    wait_until(acts(lambda: site.panel.unconfirmed() == []), 5, "the board")
    site.bus.reason = "no chip answers"
    wait_until(acts(lambda: seen._unsettled[LANE]), 5, "the fault")
    site.panel.stop(time.monotonic_ns())
    seen._act(time.monotonic_ns())
    assert site.panel.unconfirmed() == [LANE]
    site.bus.reason = ""
    wait_until(acts(lambda: site.panel.unconfirmed() == []), 5, "the board")
    seen._yield(LANE)


def test_it_confirms_no_stop_of_a_board_that_cannot_be_read_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pca9685, "reads_back", False)
    site.guardian().serve()
    assert site.bus.share(0) == 0.0
    assert (site.panel.unconfirmed(), site.panel.untold()) == ([LANE], [])
    assert "[GUARDIAN] pan was told to be safe; its board cannot be read back" in site.said


def test_no_owner_is_killed_for_a_stop_that_only_boards_lack(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = site.guardian()
    policy: FailoverPolicy = seen._policies[LANE]
    policy.is_orphan = False
    policy.begins(os.getpid())
    site.panel.act(LANE, site.panel.number)
    killed: list[str] = []
    monkeypatch.setattr(seen, "_kill", killed.append)
    later = time.monotonic_ns() + 10**10
    seen._act(later)
    assert killed == []
    assert site.panel.unconfirmed() == [LANE]
    # one that has not acted is
    site.panel.stop(time.monotonic_ns())

    def is_killed() -> bool:
        seen._act(time.monotonic_ns())
        return killed == [LANE]

    wait_until(is_killed, 5, "the guardian")


def test_each_reason_is_told_once_until_the_board_is_safe(site: Site) -> None:
    """A board that fails in two ways in turn fills no log."""
    seen = site.guardian()
    seen._act(time.monotonic_ns())

    class Board:
        fault, is_ready = "", False

        def look(self, now: float) -> BoardReport:
            return BoardReport(self.fault, self.is_ready, 0, now, reads_back=True, written=0)

        def keeps(self, device: str) -> bool:
            return True

    board = Board()
    seen._device_sets[LANE].boards_of = lambda device: (board,)
    site.said.clear()
    for count in range(40):
        board.fault = ("no chip answers", "the bus hangs")[count % 2]
        seen._settle(LANE)
    told = [line for line in site.said if "pan" in line]
    assert told == [f"[GUARDIAN] pan is not safe yet: {reason}" for reason in ("no chip answers", "the bus hangs")]
    board.is_ready = True
    seen._settle(LANE)
    board.is_ready = False
    seen._settle(LANE)
    assert [line for line in site.said if "pan" in line][2:] == ["[GUARDIAN] pan is safe, on its board", told[1]]
    seen._yield(LANE)


def test_pins_that_cannot_be_had_at_all_are_no_seized_lane_and_boards_do_not_wait_for_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gpiochip may be gone for a moment. Pins are tried again as often as where there are no boards."""
    is_there: list[bool] = []

    def chip(layout: Any) -> Any:
        if not is_there:
            raise SettingsError("pins: gpiochip0 cannot be opened")
        return mock(layout)

    monkeypatch.setattr(backends, "BACKENDS", {"mock": chip})
    seen = site.guardian()
    now = time.monotonic_ns()
    seen._act(now)
    wait_until(lambda: site.bus.share(0) == 0.0, 5, "the board")
    assert "[GUARDIAN] The pins of lane hardware cannot be had: pins: gpiochip0 cannot be opened" in site.said
    assert not [line for line in site.said if "is safe, but" in line]
    assert (site.last("wheel"), site.panel.unconfirmed()) == (1.0, [LANE])
    seen._act(now + 1)
    is_there.append(True)
    # time passes by its argument
    seen._act(now + int(RETRY_S * NS) + 2)
    assert site.last("wheel") == 0.0
    assert not seen._device_sets[LANE].factory.pin(20).state

    def is_confirmed() -> bool:
        seen._act(time.monotonic_ns())
        return site.panel.unconfirmed() == []

    wait_until(is_confirmed, 5, "the board")
    seen._yield(LANE)


def test_other_lanes_do_not_wait_for_the_end_of_a_killed_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may hold it in a call for a bus, with its pins."""
    arm, base = ({"type": "LED", "pin": 17 + place, "lane": lane, "lease": 0.5} for place, lane in enumerate("ab"))
    layout = read({"devices": {"arm": arm, "base": base}})
    panel, said = SharedState(layout), list[str]()
    there, here = new_channel()
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        seen = Guardian(
            layout,
            panel,
            "mock",
            Links(GuardianLink(ControlChannel(here, said.append)), 1.0, print, said.append, print, print),
        )
        # the owner of a hangs after the end of its lease
        panel.begin("a", sleeper.pid)
        panel.note(0, True)
        seen.meet("a", sleeper.pid)
        panel.ends[0] = 1
        monkeypatch.setattr(signal, "pidfd_send_signal", lambda *given: said.append("killed"))
        began = time.monotonic()
        while "killed" not in said and time.monotonic() < began + deadline(5):
            seen._act(time.monotonic_ns())
        # the owner of b dies now
        panel.begin("b", 1)
        panel.note(1, True)
        seen._policies["b"].is_orphan = True
        took = 0.0
        for _ in range(5):
            began = time.monotonic()
            seen._act(time.monotonic_ns())
            took = max(took, time.monotonic() - began)
        assert took < deadline(0.1)
        assert seen._policies["b"].is_held
        assert said.count("killed") == 1
        seen._act(time.monotonic_ns() + 2 * 10**9)
        seen._act(time.monotonic_ns() + 2 * 10**9)
        assert len([line for line in said if "does not end" in line]) == 1
        # now it ends
        sleeper.kill()
        sleeper.wait()
        seen._wait(deadline(5))
        seen._act(time.monotonic_ns())
        assert seen._policies["a"].is_held
        assert panel.state("a").faults == 1
    finally:
        sleeper.kill()
        sleeper.wait()
        there.close()
        here.close()
        panel.close()
