"""The end of an owner of boards, and what the next one, or another process, makes of them."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from taskengine_hardware import SharedState, make_safe, read
from taskengine_hardware import owner as owner_module
from taskengine_hardware.backends import factory_of
from taskengine_hardware.control import safe_value
from taskengine_hardware.device_config import LANE
from taskengine_hardware.device_set import DeviceSet
from taskengine_hardware.device_types import Role
from taskengine_hardware.emulated_bus import EmulatedBus
from taskengine_hardware.owner import Owner
from taskengine_hardware.pca9685 import LED0
from taskengine_hardware.shared_state import NEVER
from tests.engine import deadline, wait_until
from tests.hardware.on_boards import DEVICES, HAT, STEP_S, MakeBench, bus_of, cut, settle, widths


def test_the_next_owner_confirms_a_stop_only_when_the_board_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The former one died with pulses on."""
    bus = EmulatedBus()
    monkeypatch.setattr("taskengine_hardware.boards.EmulatedBus", lambda: bus)
    layout = read({"boards": HAT, "devices": {"pan": DEVICES["pan"]}})
    panel = SharedState(layout)
    panel.begin(LANE, 1)
    panel.note(0, 30.0)
    number = panel.stop(time.monotonic_ns(), by="guardian")
    bus.reason = "no chip answers"
    owner = Owner(layout, LANE, panel, "mock", lambda line: None)
    owner.open()
    try:
        assert panel.owner(LANE) == os.getpid()
        assert panel.has_acted(LANE)
        assert (panel.unconfirmed(), panel.last(0, Role.SERVO)) == ([LANE], 30.0)
        assert panel.beaten(LANE) != NEVER
        bus.reason = ""
        wait_until(lambda: panel.unconfirmed() == [], 5, "the confirmation")
        assert (panel.number, panel.last(0, Role.SERVO)) == (number, None)
    finally:
        owner.close()


@pytest.mark.parametrize("hangs", [False, True])
def test_an_owner_beats_while_it_waits_for_a_dead_board_at_its_end(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    """The guardian would kill it, and the machine would be stopped."""
    monkeypatch.setattr(owner_module, "BOARDS_S", deadline(0.6))
    one = bench({"pan": DEVICES["pan"]}, boards=HAT)
    bus = bus_of(one)
    one.commands.servo_set("pan", angle=0)
    settle(one)
    if hangs:
        bus.goes_on.clear()
    else:
        bus.reason = "no chip answers"
    beats: list[int] = []
    closing = threading.Thread(target=one.owner.close)
    closing.start()
    try:
        while closing.is_alive():
            beats.append(one.panel.beaten(LANE))
            time.sleep(0.005)
    finally:
        bus.goes_on.set()
        closing.join()
    assert len({beat for beat in beats if beat != NEVER}) >= 3, "it did not beat while it closed"
    # NEVER only before the first one, and at the very end
    waited = beats[next(place for place, beat in enumerate(beats) if beat != NEVER) :]
    assert NEVER not in waited[: len(waited) * 9 // 10]
    assert one.panel.beaten(LANE) == NEVER


@pytest.mark.parametrize("hangs", [False, True])
def test_an_owner_acts_on_a_stop_while_it_waits_for_a_dead_board_at_its_end(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    """Its pins are safe, and the guardian would kill it."""
    monkeypatch.setattr(owner_module, "BOARDS_S", deadline(1.0))
    one = bench({"pan": DEVICES["pan"], "led": DEVICES["led"]}, boards=HAT)
    bus = bus_of(one)
    one.commands.gpio_write("led", True)
    settle(one)
    led = one.pin(17)
    if hangs:
        bus.goes_on.clear()
    else:
        bus.reason = "no chip answers"
    closing = threading.Thread(target=one.owner.close)
    closing.start()
    try:
        wait_until(lambda: not led.state, 5, "the pins")
        one.panel.stop(time.monotonic_ns(), by="laptop")
        wait_until(lambda: one.panel.has_acted(LANE) or not closing.is_alive(), 5, "the note")
        assert one.panel.has_acted(LANE)
        assert closing.is_alive()
        assert one.panel.unconfirmed() == [LANE]
    finally:
        bus.goes_on.set()
        closing.join()


def test_no_stop_is_acted_on_before_all_is_at_rest_where_the_engine_is_gone(bench: MakeBench) -> None:
    """Somebody hangs in a drive."""
    one = bench({"led": DEVICES["led"]})
    one.commands.gpio_write("led", True)
    one.owner._is_over.set()
    one.panel.stop(time.monotonic_ns(), by="supervisor")
    one.owner._act_at_rest()
    assert not one.panel.has_acted(LANE)
    one.owner._is_over.clear()


def test_the_next_process_finds_the_output_enable_free_and_cuts_the_board_off_first(bench: MakeBench) -> None:
    one = bench({"pan": DEVICES["pan"]}, boards={"hat": HAT["hat"] | {"output_enable": 22}})
    settle(one)
    device_set, pin = one.owner.device_set, one.pin(22)
    assert device_set is not None
    assert (pin.function, pin.state) == ("output", False)
    freed: list[str] = []
    give = one.panel.give

    def note(lane: str) -> None:
        freed.append(pin.function)
        give(lane)

    one.panel.give = note  # type: ignore[method-assign]
    one.owner.close()
    assert freed == ["input"]


def test_the_next_owner_and_the_guardian_begin_with_safe_values_and_hold_what_is_to_be_held() -> None:
    """They write one frame, with all channels, to a chip that runs."""
    layout = read({"boards": HAT, "devices": {"pan": DEVICES["pan"], "grip": DEVICES["tilt"] | {"safe": "hold"}}})
    outputs = [*layout.devices.values()]
    factory: Any = factory_of("mock", layout, outputs)
    first = DeviceSet(outputs, factory, lambda device: 0.5)
    assert first.wait_for_boards(lambda station: station.machine.is_settled, deadline(5))
    bus: EmulatedBus = factory.buses["hat"]
    first.let_go()
    first.join_boards(deadline(5))
    bus.seen.clear()
    bus.pulses.clear()
    second = factory_of("mock", layout, outputs)
    second.buses["hat"] = bus
    taken = DeviceSet(outputs, second, lambda device: safe_value(device, 0.5))
    assert taken.wait_for_boards(lambda station: station.machine.is_settled, deadline(5))
    assert [(register, len(data)) for register, data in bus.seen] == [(LED0, 64)]
    assert widths(bus)[3:5] == pytest.approx([0.0, 0.00175], abs=STEP_S)
    taken.let_go()
    taken.join_boards(deadline(5))
    assert len(bus.seen) == 1  # it goes on with what it was told


def test_pins_safe_brings_boards_to_their_safe_states(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = read({"boards": HAT, "devices": {"grip": DEVICES["tilt"] | {"safe": 1.0}}})
    made: list[Any] = []

    def factory(*given: Any) -> Any:
        made.append(factory_of(*given))
        return made[-1]

    monkeypatch.setattr("taskengine_hardware.backends.factory_of", factory)
    make_safe(layout, "mock")
    assert widths(made[0].buses["hat"])[4] == pytest.approx(0.002, abs=STEP_S)


def test_pins_safe_says_which_board_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = read({"boards": HAT, "devices": {"grip": DEVICES["tilt"]}})
    monkeypatch.setattr("taskengine_hardware.SAFE_S", 0.05)
    monkeypatch.setattr("taskengine_hardware.boards.EmulatedBus", lambda: cut(EmulatedBus()))
    with pytest.raises(RuntimeError, match="not made safe: board hat: no chip answers"):
        make_safe(layout, "mock")
