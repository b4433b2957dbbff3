"""The owner of a lane: what it does about lines that are another's, about pulses without a lease, and at the end."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gpiozero
import pytest

from taskengine import TaskFailed
from taskengine_hardware import owner as owners
from taskengine_hardware import read
from taskengine_hardware.device_config import LANE, Value
from taskengine_hardware.mock_pins import MockPin
from taskengine_hardware.owner import BEAT_S, Owner, PinsInUse
from taskengine_hardware.shared_state import NEVER, NOBODY, SharedState
from tests.engine import deadline, wait_until
from tests.hardware.conftest import Bench, Table

MakeBench = Callable[..., Bench]
WHEEL: Table = {"type": "Motor", "forward": 20, "backward": 21}
BRAKE: Table = {"type": "DigitalOutput", "pin": 16, "safe": True}
DIMMED: Table = {"type": "PWMLED", "pin": 12}
LAMP: Table = {"type": "LED", "pin": 17}


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """GPIOs that another program has."""
    lines: set[int] = set()
    claim = MockPin.claim

    def claim_if_free(pin: Any, level: bool, idle: bool) -> None:
        if pin._number in lines:
            raise OSError("GPIO busy")
        claim(pin, level, idle)

    monkeypatch.setattr(MockPin, "claim", claim_if_free)
    monkeypatch.setattr(owners, "AGAIN_S", (0.01, 0.05))
    yield lines
    lines.clear()


def test_a_line_that_is_anothers_costs_its_device_alone(bench: MakeBench, busy: set[int]) -> None:
    busy.add(21)
    one = bench({"wheel": WHEEL, "lamp": LAMP})
    assert one.said[0].startswith("[HARDWARE] Left out: wheel: GPIO20, GPIO21: GPIO busy")
    one.commands.gpio_write("lamp", True)
    assert one.pin(17).state
    deeds: list[Callable[..., object]] = [one.commands.motor_forward, one.commands.motor_stop, one.commands.gpio_read]
    for deed in deeds:
        with pytest.raises(TaskFailed, match="wheel was left out: GPIO20, GPIO21: GPIO busy") as caught:
            deed("wheel")
        assert caught.value.type == "DeviceFailed"
    assert "GPIO busy" in one.commands.devices_state()["wheel"]["error"]
    assert one.pin(20).function == "input"
    assert one.panel.ends[0] == NEVER
    one.commands.system_stop()
    assert not one.pin(17).state


def test_it_is_driven_once_it_can_be_had(bench: MakeBench, busy: set[int]) -> None:
    busy.add(16)
    one = bench({"brake": BRAKE, "lamp": LAMP})
    pin = one.pin(16)
    assert not pin.state
    busy.clear()
    wait_until(lambda: "[HARDWARE] Opened at last: brake" in one.said, 5, "the brake")
    assert pin.state
    assert one.commands.devices_state()["brake"]["value"] is True
    one.commands.gpio_write("brake", False)
    assert not pin.state
    wait_until(lambda: not any(thread.name == "left out" for thread in threading.enumerate()), 5, "the thread's end")


def test_what_is_left_out_is_published_as_not_known(
    bench: MakeBench, busy: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last owner may have published that it is on."""
    told: list[tuple[str, Any]] = []
    monkeypatch.setattr(owners, "publish_owned", lambda topic, value: told.append((topic, value)))
    busy.add(16)
    one = bench({"brake": BRAKE, "lamp": LAMP})
    ((topic, value),) = told
    assert (topic, value["value"], value["reason"]) == ("hardware.brake", None, "left out: GPIO16: GPIO busy")
    busy.clear()
    wait_until(lambda: "[HARDWARE] Opened at last: brake" in one.said, 5, "the brake")
    assert (told[1][0], told[1][1]["value"]) == ("hardware.brake", True)


def test_an_input_is_read_once_it_can_be_had(bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "AGAIN_S", (0.01, 0.05))
    button = gpiozero.Button
    monkeypatch.setattr(gpiozero, "Button", lambda **options: 1 / 0)
    one = bench({"button": {"type": "Button", "pin": 27}})
    with pytest.raises(TaskFailed, match="button was left out: GPIO27"):
        one.commands.gpio_read("button")
    monkeypatch.setattr(gpiozero, "Button", button)
    wait_until(lambda: "[HARDWARE] Opened at last: button" in one.said, 5, "the button")
    assert one.commands.gpio_read("button") == 0


def test_it_is_tried_again_less_and_less_often() -> None:
    assert [*itertools.islice(owners._pauses(), 8)] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_what_is_safe_when_on_is_on_from_the_start_and_said_so(bench: MakeBench) -> None:
    one = bench({"brake": BRAKE, "lamp": LAMP})
    assert one.pin(16).state
    assert {name: state["value"] for name, state in one.commands.devices_state().items()} == {
        "brake": True,
        "lamp": False,
    }
    assert one.panel.last(0, one.layout.devices["brake"].kind.role) is True


def test_another_owner_claims_at_the_safe_values_of_what_was_told_before(bench: MakeBench) -> None:
    devices = {"brake": BRAKE, "lamp": {**LAMP, "safe": "hold"}, "grip": {"type": "Servo", "pin": 18, "safe": -1.0}}
    one = bench(devices)
    one.commands.gpio_write("brake", False)
    one.commands.gpio_write("lamp", True)
    one.owner.close()
    heir = Owner(one.layout, LANE, one.panel, "mock", one.said.append)
    heir.open()
    try:
        assert heir.device_set is not None
        for number in (16, 17):
            assert [seen.state for seen in heir.device_set.factory.pin(number).states] == [False, True]
        assert heir.device_set.factory.pin(18).state == pytest.approx(0.05)
        assert {name: output.value for name, output in heir.control.outputs.items()} == {
            "brake": True,
            "lamp": True,
            "grip": -1.0,
        }
    finally:
        heir.close()


def test_the_next_owner_waits_for_the_lines_only(bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """To close a gpiochip takes lgpio 0.1 s, in which a line would be nobody's."""
    one = bench({"lamp": LAMP})
    rig = one.owner.device_set
    assert rig is not None
    deeds: list[str] = []
    monkeypatch.setattr(rig, "let_go", lambda: deeds.append("let go"))
    monkeypatch.setattr(rig, "close", lambda: deeds.append("closed"))
    monkeypatch.setattr(one.panel, "give", lambda lane: deeds.append("given"))
    one.owner.close()
    assert deeds == ["let go", "given", "closed"]


def test_pulses_without_a_lease_beat_while_they_last(bench: MakeBench) -> None:
    one = bench({"lamp": DIMMED})
    assert one.panel.beaten(LANE) == NEVER
    one.commands.pwm_set("lamp", 0.5)
    first = one.panel.beaten(LANE)
    assert first != NEVER
    wait_until(lambda: one.panel.beaten(LANE) > first, 5, "another beat")
    for value in (1.0, 0.0):
        one.commands.pwm_set("lamp", value)
        assert one.panel.beaten(LANE) == NEVER


def test_no_beat_is_later_than_the_guardian_waits(bench: MakeBench) -> None:
    """Also where nothing else is due for a minute."""
    one = bench({"lamp": {**DIMMED, "rate": 0.01}})
    one.commands.pwm_set("lamp", 0.5)
    for _ in range(3):
        wait_until(partial(_beats_after, one, one.panel.beaten(LANE)), 5, "another beat")
        with one.owner.lock:
            assert one.owner.asleep_until <= time.monotonic() + BEAT_S


def _fail(value: Value | None) -> None:
    raise OSError(f"{value} cannot be written")


def _beats_after(bench: Bench, beat: int) -> bool:
    return bool(bench.panel.beaten(LANE) > beat)


@pytest.mark.parametrize(
    "device", [{**DIMMED, "lease": True}, WHEEL, LAMP, {"type": "Servo", "pin": 18, "lease": True}]
)
def test_with_a_lease_or_without_pulses_nobody_beats(bench: MakeBench, device: Table) -> None:
    one = bench({"x": device})
    output = one.owner.control.find("x")
    one.commands.devices_write({"x": True if device is LAMP else 0.5})
    assert output.value
    assert one.panel.beaten(LANE) == NEVER


def test_an_output_that_is_safe_by_pulses_beats_from_the_start(bench: MakeBench) -> None:
    one = bench({"fan": {**DIMMED, "safe": 0.25}})
    assert one.pin(12).state == 0.25
    assert one.panel.beaten(LANE) != NEVER
    one.owner.close()
    assert one.panel.beaten(LANE) == NEVER


def test_a_dead_owners_beat_is_not_the_next_ones(bench: MakeBench) -> None:
    one = bench({"lamp": DIMMED})
    one.owner.close()
    one.panel.beat(LANE, 1)
    heir = Owner(one.layout, LANE, one.panel, "mock", one.said.append)
    heir.open()
    assert one.panel.beaten(LANE) == NEVER
    heir.close()


@pytest.mark.parametrize("is_hung", [False, True])
def test_all_rest_at_once_where_the_engine_is_gone(bench: MakeBench, is_hung: bool) -> None:
    """Also where somebody who drives hangs, and where one output fails."""
    one = bench({"wheel": WHEEL, "fan": DIMMED, "brake": BRAKE, "lamp": {**LAMP, "safe": "hold"}})
    one.commands.devices_write({"wheel": 1.0, "fan": 0.5, "brake": False, "lamp": True})
    assert one.owner.device_set is not None
    one.owner.device_set.writers[1] = _fail
    if is_hung:
        one.owner.lock.acquire()
    thread = threading.Thread(target=one.owner.rest_at_once)
    start = time.monotonic()
    thread.start()
    thread.join()
    assert time.monotonic() - start < deadline(0.5)
    assert [one.pin(number).state for number in (20, 21, 12, 16, 17)] == [0, 0, 0.5, 1, 1]
    assert one.owner.lock.locked()
    one.owner.lock.release()


def test_a_pulse_that_the_end_cuts_short_does_not_stay(bench: MakeBench) -> None:
    one = bench({"lamp": {**LAMP, "safe": "hold"}})
    one.commands.gpio_pulse("lamp", 60.0)
    assert one.pin(17).state
    one.owner.rest_at_once()
    assert not one.pin(17).state
    one.owner.lock.release()


def test_an_owner_that_has_no_pins_has_nothing_to_bring_to_rest(bench: MakeBench) -> None:
    one = bench({"lamp": LAMP})
    one.owner.close()
    one.owner.rest_at_once()
    one.owner.lock.release()


def test_a_lane_that_is_not_given_back_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = read({"devices": {"lamp": LAMP}})
    panel = SharedState(layout)
    monkeypatch.setattr(panel, "take", lambda lane: False)
    monkeypatch.setattr(owners, "OPEN_S", 0.0)
    with pytest.raises(PinsInUse, match="does not give its pins back"):
        Owner(layout, LANE, panel, "mock", print).open()
    assert panel.wanted_by(LANE) == NOBODY
