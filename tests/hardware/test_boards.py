"""Devices on emulated boards, by the tasks of their lane."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from taskengine import TaskFailed
from taskengine_hardware import make_safe, read
from taskengine_hardware.backends import factory_of
from taskengine_hardware.control import safe_value
from taskengine_hardware.device_set import DeviceSet
from taskengine_hardware.emulated_bus import EmulatedBus
from taskengine_hardware.pca9685 import LED0
from taskengine_hardware.shared_state import NEVER
from tests.engine import wait_until
from tests.hardware.conftest import Bench, Table

MakeBench = Callable[..., Bench]
STEP_S = 0.02 / 4096
HAT: dict[str, Table] = {"hat": {"type": "PCA9685"}}
DEVICES: dict[str, Table] = {
    "pan": {"type": "AngularServo", "board": "hat", "channel": 3, "lease": 60},
    "tilt": {"type": "Servo", "pin": "hat:4", "lease": 60},
    "base": {"type": "Robot", "board": "hat", "left": [8, 9], "right": [10, 11], "lease": 60},
    "wheel": {"type": "Motor", "forward": 5, "backward": 6, "enable": "hat:7", "lease": 60},
    "eye": {"type": "RGBLED", "board": "hat", "red": 0, "green": 1, "blue": 2},
    "lamp": {"type": "LED", "board": "hat", "channel": 15, "active_high": False},
    "led": {"type": "LED", "pin": 17},
}


def bus_of(one: Bench) -> EmulatedBus:
    assert one.owner.device_set is not None
    bus: EmulatedBus = one.owner.device_set.factory.buses["hat"]
    return bus


def widths(bus: EmulatedBus) -> list[float]:
    """The pulses of all channels, in s."""
    return [bus.share(channel) * 0.02 for channel in range(16)]


def test_a_start_moves_nothing_and_many_outputs_are_one_transfer(bench: MakeBench) -> None:
    one = bench(DEVICES, boards=HAT)
    bus = bus_of(one)
    # a bridge is on from the start, as on pins, and a lamp that is on while low is off
    assert {channel for shares in bus.pulses for channel, share in enumerate(shares) if share} == {7, 15}
    bus.seen.clear()
    values = {"pan": 30, "tilt": 0, "base": [0.5, -1.0], "wheel": -0.25, "eye": [1, 0, 0.5], "lamp": True, "led": True}
    one.commands.devices_write(values)
    assert [(register, len(data)) for register, data in bus.seen] == [(LED0, 64)]
    found = widths(bus)
    assert found[3] == pytest.approx(0.0015 + 0.0005 / 3, abs=STEP_S)
    assert found[4] == pytest.approx(0.0015, abs=STEP_S)
    assert found[8:12] == pytest.approx([0.01, 0, 0, 0.02], abs=STEP_S)
    assert found[:3] == pytest.approx([0.02, 0, 0.01], abs=STEP_S)
    assert found[15] == 0.0
    assert one.pin(17).state
    assert one.pin(6).state == pytest.approx(0.25)
    bus.seen.clear()
    one.commands.servo_set("tilt", 1)
    assert [(register, len(data)) for register, data in bus.seen] == [(LED0 + 16, 4)]
    one.commands.servo_set("tilt", 1)
    assert len(bus.seen) == 1
    one.commands.system_stop()
    assert [width for channel, width in enumerate(widths(bus)) if channel not in (7, 15)] == [0.0] * 14
    assert one.panel.unconfirmed() == []


def test_a_lease_that_ends_gives_the_full_off_bit(bench: MakeBench) -> None:
    one = bench({"pan": DEVICES["pan"] | {"lease": 0.05}}, boards=HAT)
    bus = bus_of(one)
    one.commands.servo_set("pan", angle=0)
    assert widths(bus)[3] == pytest.approx(0.0015, abs=STEP_S)
    wait_until(lambda: bus.registers[LED0 + 12 : LED0 + 16] == b"\0\0\0\x10", 5, "the end of the lease")
    wait_until(lambda: one.panel.ends[0] == NEVER, 5, "its note")


def test_effects_and_limits_work_as_on_pins(bench: MakeBench) -> None:
    glow = {"type": "PWMLED", "board": "hat", "channel": 2}
    one = bench(
        {"pan": DEVICES["pan"] | {"limits": {"angle": [-60, 60], "speed": 300}, "home": 0}, "glow": glow}, boards=HAT
    )
    bus = bus_of(one)
    one.commands.led_pulse("glow", n=1, fade_in_time=0.1, fade_out_time=0.1)
    one.commands.servo_set("pan", angle=60)
    wait_until(lambda: widths(bus)[3] == pytest.approx(0.0018333, abs=STEP_S), 5, "its angle")
    assert any(0.002 < shares[2] < 0.9 for shares in bus.pulses)
    ways = [shares[3] for shares in bus.pulses if shares[3]]
    assert ways == sorted(ways)
    assert len(ways) > 5


def test_a_dead_bus_is_one_typed_error_and_no_stale_value(bench: MakeBench) -> None:
    one = bench({name: DEVICES[name] for name in ("pan", "tilt", "led")}, boards=HAT)
    bus = bus_of(one)
    one.commands.servo_set("pan", angle=0)
    bus.reason = "the chip at 0x40 on /dev/i2c-1: no chip answers"
    for name in ("pan", "tilt"):
        with pytest.raises(TaskFailed, match=r"board hat: .*0x40 on /dev/i2c-1: no chip answers") as caught:
            one.commands.servo_set(name, 0.1)
        assert caught.value.type == "DeviceFailed"
    state = one.commands.devices_state()
    assert state["pan"]["value"] is state["tilt"]["value"] is None
    assert "no chip answers" in state["pan"]["error"]
    with pytest.raises(TaskFailed, match="no chip answers"):
        one.commands.sensor_read("pan")
    one.commands.gpio_write("led", True)
    assert one.pin(17).state
    bus.reason = ""
    bus.power_up()
    wait_until(lambda: not one.owner.left_out, 10, "the board")
    assert not any(widths(bus))
    one.commands.servo_set("pan", angle=0)
    assert widths(bus)[3] == pytest.approx(0.0015, abs=STEP_S)


def test_an_idle_board_that_is_reset_is_found(bench: MakeBench) -> None:
    """Its servo has no pulses any more, and nobody is to believe that it holds."""
    one = bench({"pan": DEVICES["pan"]}, boards=HAT)
    one.commands.servo_set("pan", angle=0)
    bus_of(one).power_up()
    wait_until(lambda: "the chip was reset" in one.commands.devices_state()["pan"].get("error", ""), 5, "the finding")
    wait_until(lambda: one.commands.devices_state()["pan"].get("value", 1) is None, 10, "the state after it")


def test_a_stop_is_not_confirmed_while_nobody_knows_what_a_board_does(bench: MakeBench) -> None:
    one = bench({"pan": DEVICES["pan"]}, boards=HAT)
    one.commands.servo_set("pan", angle=0)
    bus_of(one).reason = "no chip answers"
    with pytest.raises(TaskFailed, match="not confirmed by lane hardware"):
        one.commands.system_stop()
    bus_of(one).reason = ""
    wait_until(lambda: one.panel.unconfirmed() == [], 10, "the confirmation")
    assert not any(widths(bus_of(one)))


def test_output_enable_switches_a_dead_board_off(bench: MakeBench) -> None:
    one = bench({"pan": DEVICES["pan"]}, boards={"hat": HAT["hat"] | {"output_enable": 22}})
    assert [state.state for state in one.pin(22).states][1:] == [True, False]
    one.commands.servo_set("pan", angle=0)
    bus_of(one).reason = "no chip answers"
    with pytest.raises(TaskFailed, match="its outputs are switched off"):
        one.commands.servo_set("pan", angle=10)
    assert one.pin(22).state
    one.commands.system_stop()
    assert one.panel.unconfirmed() == []
    bus_of(one).reason = ""
    wait_until(lambda: not one.owner.left_out, 10, "the board")
    assert not one.pin(22).state


def test_the_next_owner_and_the_guardian_begin_with_safe_values_and_hold_what_is_to_be_held() -> None:
    """They write one frame, with all channels, to a chip that runs."""
    layout = read({"boards": HAT, "devices": {"pan": DEVICES["pan"], "grip": DEVICES["tilt"] | {"safe": "hold"}}})
    outputs = [*layout.devices.values()]
    factory: Any = factory_of("mock", layout, outputs)
    first = DeviceSet(outputs, factory)
    first.writers[0](0.0)
    first.writers[1](0.5)
    first.flush()
    bus: EmulatedBus = factory.buses["hat"]
    del first
    bus.seen.clear()
    bus.pulses.clear()
    second = factory_of("mock", layout, outputs)
    second.buses["hat"] = bus
    taken = DeviceSet(outputs, second, lambda device: safe_value(device, 0.5))
    assert [(register, len(data)) for register, data in bus.seen] == [(LED0, 64)]
    assert widths(bus)[3:5] == pytest.approx([0.0, 0.00175], abs=STEP_S)
    taken.let_go()
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


def test_a_board_that_is_missing_costs_its_devices_alone(bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmulatedBus, "reason", "no chip answers", raising=False)
    monkeypatch.setattr(EmulatedBus, "_answer", lambda self: _raise(self))
    one = bench({"pan": DEVICES["pan"], "led": DEVICES["led"]}, boards=HAT)
    assert "board hat: no chip answers" in one.owner.left_out["pan"]
    one.commands.gpio_write("led", True)
    monkeypatch.undo()
    wait_until(lambda: not one.owner.left_out, 10, "the board")


def _raise(bus: EmulatedBus) -> None:
    from taskengine_hardware.board_errors import BoardError

    raise BoardError("no chip answers")


def test_a_frame_of_16_servos_at_50_hz_is_a_transfer_each(bench: MakeBench) -> None:
    """What passes over the bus is the least that there can be: an address, a register, and 64 bytes."""
    servos = {
        f"s{channel}": {"type": "Servo", "board": "hat", "channel": channel, "lease": 60} for channel in range(16)
    }
    one = bench(servos, boards=HAT)
    bus = bus_of(one)
    bus.seen.clear()
    began = time.monotonic()
    for frame in range(50):
        one.commands.devices_write(dict.fromkeys(servos, frame / 50))
    assert time.monotonic() - began < 5
    assert [len(data) for _, data in bus.seen] == [64] * 50
