"""The thread of a bus, with emulated chips."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from taskengine_hardware.board_bus import BoardBus, Station
from taskengine_hardware.board_config import BoardConfig
from taskengine_hardware.board_drivers import OpenBoard, Pca9685
from taskengine_hardware.board_machine import CUT_S, Fallback, Setting
from taskengine_hardware.emulated_bus import EmulatedBus
from tests.engine import wait_until

HAT = BoardConfig("hat", "PCA9685", "/dev/i2c-1", 0x40)
ON, OFF = Setting(0.075), Setting()


class Line:
    """An output-enable, which another program may have."""

    def __init__(self) -> None:
        self.is_busy = False
        self.levels: list[bool] = []

    def __call__(self, is_on: bool) -> None:
        if self.is_busy:
            raise OSError("GPIO busy")
        self.levels.append(is_on)


class Rig:
    """Two boards on one bus, the first one with a line."""

    def __init__(self) -> None:
        self.bus = BoardBus("i2c-1")
        self.line = Line()
        self.chips = [EmulatedBus(), EmulatedBus()]
        self.stations = [
            Station(f"hat{place}", self.bus, self.opener(chip), None if place else self.line)
            for place, chip in enumerate(self.chips)
        ]
        for station in self.stations:
            station.put(0, OFF)
            station.fall_back("pan", Fallback({0: OFF}, holds=False))

    def opener(self, chip: EmulatedBus) -> Callable[[], OpenBoard]:
        return lambda: Pca9685(chip, HAT)

    def begin(self) -> None:
        self.bus.begin(lambda: None)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    for chip in made.chips:
        chip.goes_on.set()
    made.bus.close()
    made.bus.join(5.0)


def test_a_dead_board_does_not_keep_another_one_of_its_bus_from_being_driven(rig: Rig) -> None:
    rig.chips[0].reason = "no chip answers"
    rig.begin()
    dead, other = rig.stations
    wait_until(lambda: other.machine.is_ready, 5, "the other board")
    other.resume()
    other.put(0, ON)
    wait_until(lambda: rig.chips[1].share(0) > 0, 5, "its pulses")
    assert dead.machine.fault == "board hat0: no chip answers"
    rig.chips[0].reason = ""
    wait_until(lambda: dead.machine.is_ready, 5, "the board")


def test_a_line_that_cannot_be_had_is_a_fault_and_the_channels_are_off_all_the_same(rig: Rig) -> None:
    rig.line.is_busy = True
    rig.chips[0].registers[0xFE] = 3
    rig.stations[0].cut_off()
    rig.begin()
    station = rig.stations[0]
    wait_until(lambda: station.machine.fault == "board hat0: output_enable: GPIO busy", 5, "the fault")
    assert rig.chips[0].share(0) == 0.0
    assert rig.chips[0].seen
    rig.line.is_busy = False
    wait_until(lambda: station.machine.is_ready, 5, "the line")
    assert rig.line.levels[-1]


def test_an_error_of_a_library_is_a_fault_and_ends_no_thread(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.chips[0], "write", lambda register, data: 1 / 0)
    rig.begin()
    station = rig.stations[0]
    wait_until(lambda: "ZeroDivisionError" in station.machine.fault, 5, "the fault")
    monkeypatch.undo()
    wait_until(lambda: station.machine.is_ready, 5, "the board")


def test_a_bus_that_is_closed_touches_no_line_any_more(rig: Rig) -> None:
    rig.begin()
    station = rig.stations[0]
    wait_until(lambda: station.machine.is_ready, 5, "the board")
    rig.bus.close()
    rig.bus.join(5.0)
    count = len(rig.line.levels)
    station.ask(0.0)
    station.look(1e9)
    assert len(rig.line.levels) == count


def test_a_board_that_cannot_be_cut_off_is_made_safe_by_its_bus(rig: Rig) -> None:
    station = rig.stations[0]
    rig.begin()
    wait_until(lambda: station.machine.is_ready, 5, "the board")
    station.resume()
    station.look(time.monotonic())
    station.put(0, ON)
    wait_until(lambda: rig.chips[0].share(0) > 0, 5, "the pulse")
    wait_until(lambda: station.machine.is_settled or station.machine.fault, 5, "the thread")
    rig.line.is_busy = True
    now = time.monotonic()
    with rig.bus.changed:
        station.machine.ask(now - CUT_S, cuts=True)
        # the bus's thread has not read it back yet
        station.machine.look(now)
        station._apply()
    assert "output_enable: GPIO busy" in station.machine.fault
    wait_until(lambda: rig.chips[0].share(0) == 0.0, 5, "the safe state")
    rig.line.is_busy = False
    wait_until(lambda: station.machine.is_ready, 5, "the line")
    assert rig.line.levels[-1] is True
