"""Devices on emulated boards, by the tasks of their lane."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from taskengine import NotAllowed, TaskFailed
from taskengine_hardware import device_set as device_set_module
from taskengine_hardware import owner as owner_module
from taskengine_hardware.board_drivers import EmulatedPwm
from taskengine_hardware.board_machine import RETRY_S
from taskengine_hardware.device_config import LANE, Device
from taskengine_hardware.device_types import Role
from taskengine_hardware.emulated_bus import EmulatedBus
from taskengine_hardware.pca9685 import LED0
from taskengine_hardware.shared_state import NEVER
from tests.engine import deadline, wait_until
from tests.hardware.conftest import Bench
from tests.hardware.on_boards import DEVICES, HAT, STEP_S, MakeBench, bus_of, cut, settle, widths


def test_a_start_moves_nothing_and_many_outputs_are_one_transfer(bench: MakeBench) -> None:
    one = bench(DEVICES, boards=HAT)
    bus = bus_of(one)
    # a bridge is on from the start, as on pins
    assert {channel for shares in bus.pulses for channel, share in enumerate(shares) if share} == {7}
    bus.seen.clear()
    values = {"pan": 30, "tilt": 0, "base": [0.5, -1.0], "wheel": -0.25, "eye": [1, 0, 0.5], "lamp": True, "led": True}
    one.commands.devices_write(values)
    settle(one)
    assert [(register, len(data)) for register, data in bus.seen] == [(LED0, 64)]
    found = widths(bus)
    assert found[3] == pytest.approx(0.0015 + 0.0005 / 3, abs=STEP_S)
    assert found[4] == pytest.approx(0.0015, abs=STEP_S)
    assert found[8:12] == pytest.approx([0.01, 0, 0, 0.02], abs=STEP_S)
    assert found[:3] == pytest.approx([0.02, 0, 0.01], abs=STEP_S)
    assert found[15] == pytest.approx(0.02)
    assert one.pin(17).state
    assert found[5:8] == pytest.approx([0, 0.005, 0.02], abs=STEP_S)
    bus.seen.clear()
    one.commands.servo_set("tilt", 1)
    settle(one)
    assert [(register, len(data)) for register, data in bus.seen] == [(LED0 + 16, 4)]
    one.commands.servo_set("tilt", 1)
    settle(one)
    assert len(bus.seen) == 1
    one.commands.system_stop()
    assert [width for channel, width in enumerate(widths(bus)) if channel != 7] == [0.0] * 15
    assert one.panel.unconfirmed() == []


def test_a_lease_that_ends_gives_the_full_off_bit(bench: MakeBench) -> None:
    one = bench({"pan": DEVICES["pan"] | {"lease": 0.05}}, boards=HAT)
    bus = bus_of(one)
    one.commands.servo_set("pan", angle=0)
    wait_until(lambda: any(shares[3] == pytest.approx(0.075, abs=STEP_S / 0.02) for shares in bus.pulses), 5, "pulses")
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


def failing(one: Bench, name: str, text: str) -> TaskFailed:
    """The error of a command once the board is known to be dead, which takes two periods at most."""
    found: list[TaskFailed] = []

    def is_refused() -> bool:
        try:
            one.commands.servo_set(name, 0.1)
        except TaskFailed as error:
            found.append(error)
        return bool(found)

    wait_until(is_refused, 5, "the error")
    assert found[0].type == "DeviceFailed"
    assert re.search(text, f"{found[0]}")
    return found[0]


def test_a_dead_bus_is_a_typed_error_and_no_stale_value(bench: MakeBench) -> None:
    one = bench({name: DEVICES[name] for name in ("pan", "tilt", "led")}, boards=HAT)
    bus = bus_of(one)
    one.commands.servo_set("pan", angle=0)
    settle(one)
    bus.reason = "the chip at 0x40 on /dev/i2c-1: no chip answers"
    for name in ("pan", "tilt"):
        failing(one, name, r"board hat: .*0x40 on /dev/i2c-1: no chip answers")
    state = one.commands.devices_state()
    assert state["pan"]["value"] is state["tilt"]["value"] is None
    assert "no chip answers" in state["pan"]["error"]
    with pytest.raises(TaskFailed, match="no chip answers"):
        one.commands.sensor_read("pan")
    one.commands.gpio_write("led", True)
    assert one.pin(17).state
    bus.reason = ""
    bus.power_up()
    wait_until(lambda: "error" not in one.commands.devices_state()["pan"], 10, "the board")
    assert not any(widths(bus))
    one.commands.servo_set("pan", angle=0)
    settle(one)
    assert widths(bus)[3] == pytest.approx(0.0015, abs=STEP_S)
    told = [
        "[HARDWARE] pan fails: board hat: the chip at 0x40 on /dev/i2c-1: no chip answers",
        "[HARDWARE] pan works again",
    ]
    wait_until(lambda: [line for line in one.said if "pan" in line] == told, 5, "what was said")


def test_an_idle_board_that_is_reset_is_found(bench: MakeBench) -> None:
    """Its servo has no pulses any more, and nobody is to believe that it holds."""
    one = bench({"pan": DEVICES["pan"]}, boards=HAT)
    one.commands.servo_set("pan", angle=0)
    settle(one)
    bus_of(one).power_up()
    wait_until(lambda: "the chip was reset" in one.commands.devices_state()["pan"].get("error", ""), 5, "the finding")
    wait_until(lambda: one.commands.devices_state()["pan"].get("value", 1) is None, 10, "the state after it")


def test_the_watch_of_a_lease_survives_a_short_disturbance(bench: MakeBench) -> None:
    """The lease ends while the bus is cut, and the safe state is written as soon as it is back."""
    one = bench({"pan": DEVICES["pan"] | {"lease": 0.1}}, boards=HAT)
    bus = bus_of(one)
    one.commands.servo_set("pan", angle=0)
    settle(one)
    bus.reason = "no chip answers"
    wait_until(lambda: one.panel.ends[0] == NEVER, 5, "the end of the lease")
    assert widths(bus)[3] == pytest.approx(0.0015, abs=STEP_S)
    # other processes must not take it for safe, and the owner is watched
    assert one.panel.last(0, Role.SERVO) == 0.0
    assert one.panel.beaten(LANE) != NEVER
    bus.reason = ""
    # at the next attempt, for which a busy machine may take its time
    wait_until(lambda: widths(bus)[3] == 0.0, RETRY_S + 1.0, "the safe state")
    wait_until(lambda: one.panel.beaten(LANE) == NEVER, 5, "the note")
    assert one.panel.last(0, Role.SERVO) is None


def test_the_books_keep_a_lease_until_the_board_has_its_end(bench: MakeBench) -> None:
    one = bench({"pan": DEVICES["pan"] | {"lease": 0.1}}, boards=HAT)
    bus = bus_of(one)
    one.commands.servo_set("pan", angle=0)
    settle(one)
    bus.goes_on.clear()
    wait_until(lambda: one.panel.ends[0] == NEVER, 5, "the end of the lease")
    assert one.panel.last(0, Role.SERVO) == 0.0
    assert one.panel.beaten(LANE) != NEVER
    bus.goes_on.set()
    wait_until(lambda: one.panel.last(0, Role.SERVO) is None, 5, "the note")
    assert widths(bus)[3] == 0.0
    assert one.panel.beaten(LANE) == NEVER


def test_a_stop_is_not_confirmed_while_nobody_knows_what_a_board_does(bench: MakeBench) -> None:
    one = bench({"pan": DEVICES["pan"], "led": DEVICES["led"]}, boards=HAT)
    one.commands.servo_set("pan", angle=0)
    one.commands.gpio_write("led", True)
    settle(one)
    bus_of(one).reason = "no chip answers"
    with pytest.raises(TaskFailed, match="not confirmed by lane hardware"):
        one.commands.system_stop()
    # the guardian kills no owner for it
    assert one.panel.has_acted(LANE)
    assert not one.pin(17).state
    with pytest.raises(NotAllowed, match="has not stopped yet"):
        one.commands.system_arm()
    bus_of(one).reason = ""
    wait_until(lambda: one.panel.unconfirmed() == [], 10, "the confirmation")
    assert not any(widths(bus_of(one)))


def test_a_stop_is_not_confirmed_by_a_board_that_does_something_else(bench: MakeBench) -> None:
    one = bench({"pan": DEVICES["pan"]}, boards=HAT)
    bus = bus_of(one)
    one.commands.servo_set("pan", angle=0)
    settle(one)
    bus.is_deaf = True
    with pytest.raises(TaskFailed, match="not confirmed by lane hardware"):
        one.commands.system_stop()
    bus.is_deaf = False
    wait_until(lambda: one.panel.unconfirmed() == [], 10, "the confirmation")
    assert not any(widths(bus))


def test_a_bus_that_hangs_holds_up_nobody(bench: MakeBench) -> None:
    one = bench(
        {**{name: DEVICES[name] for name in ("pan", "led")}, "fan": DEVICES["led"] | {"pin": 18, "lease": 0.1}},
        boards={"hat": HAT["hat"] | {"output_enable": 22}},
    )
    bus = bus_of(one)
    one.commands.servo_set("pan", angle=0)
    one.commands.gpio_write("fan", True)
    settle(one)
    assert not one.pin(22).state
    bus.goes_on.clear()
    began = time.monotonic()
    try:
        one.commands.servo_set("pan", angle=10)
        one.commands.gpio_write("led", True)
        assert one.owner.lock.acquire(timeout=1)
        one.owner.lock.release()
        wait_until(lambda: not one.pin(18).state, 5, "the end of the pin's lease")
        with pytest.raises(TaskFailed, match="not confirmed"):
            one.commands.system_stop()
        # safe at once by the line, and the pins too
        assert one.pin(22).state
        assert not one.pin(17).state
        assert "the bus hangs" in one.commands.devices_state()["pan"]["error"]
        one.owner.close()
        assert time.monotonic() - began < deadline(3)
    finally:
        bus.goes_on.set()


def test_output_enable_switches_a_dead_board_off(bench: MakeBench) -> None:
    one = bench({"pan": DEVICES["pan"]}, boards={"hat": HAT["hat"] | {"output_enable": 22}})
    assert [state.state for state in one.pin(22).states][1:] == [True, False]
    one.commands.servo_set("pan", angle=0)
    settle(one)
    bus_of(one).reason = "no chip answers"
    failing(one, "pan", "no chip answers")
    assert one.pin(22).state
    bus_of(one).reason = ""
    wait_until(lambda: "error" not in one.commands.devices_state()["pan"], 10, "the board")
    assert not one.pin(22).state
    assert widths(bus_of(one))[3] == 0.0


def test_a_left_out_device_that_is_opened_later_is_commanded_once_its_board_has_it(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its board may be lost, or run, meanwhile."""
    monkeypatch.setattr(owner_module, "AGAIN_S", (0.01, 0.01))
    made, is_broken, opened = device_set_module._made, [True], list[str]()

    def make(device: Device, factory: Any) -> Any:
        if device.name == "grip" and is_broken:
            raise ValueError("broken")
        opened.append(device.name)
        return made(device, factory)

    monkeypatch.setattr(device_set_module, "_made", make)
    one = bench({"pan": DEVICES["pan"], "grip": DEVICES["tilt"] | {"safe": -1.0}}, boards=HAT)
    bus = bus_of(one)
    settle(one)
    with pytest.raises(TaskFailed, match=r"grip was left out: .*broken"):
        one.commands.servo_set("grip", 0.5)
    bus.reason = "no chip answers"
    failing(one, "pan", "no chip answers")
    is_broken.clear()
    wait_until(lambda: opened.count("grip") > 1, 5, "attempts on a board that is lost")
    with pytest.raises(TaskFailed, match="grip was left out"):
        one.commands.servo_set("grip", 0.5)
    bus.reason = ""
    wait_until(lambda: "error" not in one.commands.devices_state()["grip"], 10, "the device")
    one.commands.servo_set("grip", 0.5)
    settle(one)
    assert widths(bus)[4] == pytest.approx(0.00175, abs=STEP_S)
    # after a fault it has its own safe state
    bus.reason = "no chip answers"
    failing(one, "grip", "no chip answers")
    bus.reason = ""
    wait_until(lambda: widths(bus)[4] == pytest.approx(0.001, abs=STEP_S), 5, "the safe state")


def test_what_holds_is_held_over_a_disturbance_unless_its_last_command_was_lost(bench: MakeBench) -> None:
    devices = {"grip": DEVICES["tilt"] | {"safe": "hold"}, "hand": DEVICES["pan"] | {"safe": "hold"}}
    one = bench(devices, boards=HAT)
    bus = bus_of(one)
    one.commands.devices_write({"grip": 0.5, "hand": 30})
    settle(one)
    bus.reason = "no chip answers"
    one.commands.servo_set("hand", angle=0)
    wait_until(lambda: "error" in one.commands.devices_state()["grip"], 5, "the fault")
    bus.reason = ""
    wait_until(lambda: "error" not in one.commands.devices_state()["grip"], 5, "the board")
    assert widths(bus)[3:5] == pytest.approx([0.0, 0.00175], abs=STEP_S)
    state = one.commands.devices_state()
    assert (state["grip"]["value"], state["hand"]["value"]) == (0.5, None)


def test_what_holds_obeys_a_rule_that_has_begun_while_its_board_was_lost(bench: MakeBench) -> None:
    devices = {
        "glow": {"type": "PWMLED", "pin": "hat:2", "safe": "hold", "lease": 60},
        "hot": {"type": "Button", "pin": 4, "max_age": 60},
    }
    rule = {"when": "hot", "then": {"limit": 0.25}, "devices": ["glow"]}
    one = bench(devices, boards=HAT, rules={"cool": rule})
    bus = bus_of(one)
    wait_until(lambda: one.commands.devices_state()["hot"]["value"] == 0, 5, "the input")
    one.commands.pwm_set("glow", 1.0)
    settle(one)
    assert bus.share(2) == 1.0
    bus.reason = "no chip answers"
    wait_until(lambda: "error" in one.commands.devices_state()["glow"], 5, "the fault")
    one.pin(4).drive_low()
    wait_until(lambda: one.owner.control.find("glow").restriction is not None, 5, "the rule")
    bus.reason = ""
    wait_until(lambda: "error" not in one.commands.devices_state()["glow"], 5, "the board")
    wait_until(lambda: bus.share(2) == pytest.approx(0.25, abs=0.001), 5, "the limit")
    assert one.commands.devices_state()["glow"]["value"] == 0.25


def test_what_holds_does_not_leap_back_when_the_supply_of_its_board_is_back(bench: MakeBench) -> None:
    """It has sagged meanwhile."""
    one = bench({"grip": DEVICES["tilt"] | {"safe": "hold"}}, boards=HAT)
    bus = bus_of(one)
    for is_cut in (False, True):
        one.commands.servo_set("grip", 0.5)
        settle(one)
        assert widths(bus)[4] == pytest.approx(0.00175, abs=STEP_S)
        bus.pulses.clear()
        bus.reason = "no chip answers" if is_cut else ""
        bus.power_up()
        wait_until(lambda: "error" in one.commands.devices_state()["grip"], 5, "the fault")
        bus.reason = ""
        wait_until(lambda: "error" not in one.commands.devices_state()["grip"], 5, "the board")
        assert not any(shares[4] for shares in bus.pulses)
        assert one.commands.devices_state()["grip"]["value"] is None
        # nor does the next owner move it
        assert one.panel.last(0, Role.SERVO) is None


@pytest.mark.parametrize("is_missing", [False, True])
def test_a_servo_with_a_safe_position_is_not_moved_by_the_start(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch, is_missing: bool
) -> None:
    """Its chip is asleep then, as after each time its power was off, also if it gets its power later."""
    if is_missing:
        monkeypatch.setattr("taskengine_hardware.boards.EmulatedBus", lambda: cut(EmulatedBus()))
    one = bench({"flag": DEVICES["tilt"] | {"safe": -1.0}}, boards=HAT)
    bus = bus_of(one)
    if is_missing:
        wait_until(lambda: "error" in one.commands.devices_state()["flag"], 5, "the fault")
    bus.reason = ""
    wait_until(lambda: "error" not in one.commands.devices_state()["flag"], 5, "the board")
    settle(one)
    assert not any(shares[4] for shares in bus.pulses)
    assert one.commands.devices_state()["flag"]["value"] is None


def test_a_device_that_is_tried_again_is_told_nothing_but_its_first_value(bench: MakeBench) -> None:
    """What it is to be after a fault went to its board for a moment."""
    one = bench({"flag": DEVICES["tilt"] | {"safe": -1.0}}, boards=HAT)
    device_set, flag = one.owner.device_set, one.layout.devices["flag"]
    assert device_set is not None
    settle(one)
    (station,) = device_set.boards_of(flag)
    before = station.mark()
    device_set.failed["flag"] = "broken"
    assert device_set.again(flag)
    assert station.mark() == before


def test_the_next_owner_holds_nothing_that_the_board_was_never_told(bench: MakeBench) -> None:
    """Nobody knew yet that the bus was cut when the command was taken."""
    one = bench({"grip": DEVICES["tilt"] | {"safe": "hold"}}, boards=HAT)
    bus = bus_of(one)
    one.commands.servo_set("grip", 0.25)
    settle(one)
    assert one.panel.last(0, Role.SERVO) == 0.25
    bus.reason = "no chip answers"
    one.commands.servo_set("grip", 0.9)
    assert one.panel.last(0, Role.SERVO) != 0.9
    wait_until(lambda: "error" in one.commands.devices_state()["grip"], 5, "the fault")
    assert one.panel.last(0, Role.SERVO) is None


def test_what_holds_does_not_leap_to_a_command_that_was_found_not_carried_out(bench: MakeBench) -> None:
    """Its chip acknowledged that command; what it does was read back for a stop."""
    one = bench({"grip": DEVICES["tilt"] | {"safe": "hold"}}, boards=HAT)
    bus = bus_of(one)
    settle(one)
    bus.pulses.clear()
    bus.is_deaf = True
    one.commands.servo_set("grip", 0.9)
    wait_until(lambda: one.panel.last(0, Role.SERVO) == 0.9, 5, "the transfer")
    bus.is_deaf = False
    one.commands.system_stop()
    wait_until(lambda: "error" not in one.commands.devices_state()["grip"] and bus.pulses, 5, "the board")
    settle(one)
    assert not any(shares[4] for shares in bus.pulses)


def test_what_a_transfer_that_hung_did_at_last_is_undone_before_its_board_is_let_go(bench: MakeBench) -> None:
    one = bench({"wheel": DEVICES["wheel"]}, boards=HAT)
    bus = bus_of(one)
    settle(one)
    bus.goes_on.clear()
    one.commands.motor_forward("wheel", 0.5)
    wait_until(lambda: "error" in one.commands.devices_state()["wheel"], 5, "the fault")
    one.owner.close()
    bus.goes_on.set()
    wait_until(lambda: bus.pulses[-1][5:7] == (0.0, 0.0) and any(shares[5] for shares in bus.pulses), 5, "its end")


def test_a_board_that_is_missing_costs_its_devices_alone(bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskengine_hardware.boards.EmulatedBus", lambda: cut(EmulatedBus()))
    one = bench({"pan": DEVICES["pan"], "led": DEVICES["led"]}, boards=HAT)
    with pytest.raises(TaskFailed, match="pan was left out: board hat: no chip answers"):
        one.commands.servo_set("pan", angle=0)
    one.commands.gpio_write("led", True)
    assert one.pin(17).state
    told = ["[HARDWARE] pan fails: board hat: no chip answers"]
    wait_until(lambda: one.said == told, 5, "what is said of it")
    bus_of(one).reason = ""
    wait_until(lambda: "error" not in one.commands.devices_state()["pan"], 10, "the board")
    wait_until(lambda: one.said == [*told, "[HARDWARE] pan works again"], 5, "what is said of it")


def test_a_channel_of_the_kernels_pwm_that_fails_leaves_the_others_alone(bench: MakeBench) -> None:
    one = bench({"pan": {"type": "Servo", "pin": "pwm:0", "lease": 60}, "eye": {"type": "PWMLED", "pin": "pwm:1"}})
    assert one.owner.device_set is not None
    pwms = one.owner.device_set.factory.pwms
    one.commands.servo_set("pan", 0)
    one.commands.devices_write({"eye": 0.5})
    settle(one)
    pwms["pwm:0"].reason = "pwm0/duty_cycle: Invalid argument"
    failing(one, "pan", "board pwm:0: pwm0/duty_cycle")
    one.commands.devices_write({"eye": 0.25})
    wait_until(lambda: pwms["pwm:1"].shares == {1: 0.25}, 5, "the other channel")
    with pytest.raises(TaskFailed, match="not confirmed"):
        one.commands.system_stop()
    assert pwms["pwm:1"].shares == {1: 0.0}


def test_a_stop_is_never_confirmed_by_a_board_that_cannot_be_read_back(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is usable: it is told to be safe, and the machine can be armed."""
    monkeypatch.setattr("taskengine_hardware.boards.EmulatedPwm", lambda: unreadable(EmulatedPwm()))
    one = bench({"pan": {"type": "Servo", "pin": "pwm:0", "lease": 0.2}, "led": DEVICES["led"]})
    assert one.owner.device_set is not None
    pwm = one.owner.device_set.factory.pwms["pwm:0"]
    wait_until(lambda: "unread" in one.commands.devices_state()["pan"], 5, "what is said of it")
    assert "unread" not in one.commands.devices_state()["led"]
    one.commands.servo_set("pan", 0)
    wait_until(lambda: pwm.shares[0] == pytest.approx(0.075), 5, "the pulse")
    wait_until(lambda: pwm.shares[0] == 0.0, 5, "the end of the lease")
    # if its owner hangs, the guardian is to tell it again
    wait_until(lambda: one.panel.ends[0] == NEVER, 5, "its note")
    assert one.panel.beaten(LANE) != NEVER
    one.commands.servo_set("pan", 0)
    with pytest.raises(TaskFailed, match=r"not confirmed by lane hardware, which has told all .* cannot read"):
        one.commands.system_stop()
    assert pwm.shares[0] == 0.0
    assert one.panel.unconfirmed() == [LANE]
    assert one.panel.untold() == []
    one.commands.system_arm()
    one.commands.servo_set("pan", 0)
    wait_until(lambda: pwm.shares[0] == pytest.approx(0.075), 5, "the pulse")
    pwm.reason = "its bus"
    with pytest.raises(TaskFailed, match=r"not confirmed by lane hardware$"):
        one.commands.system_stop()
    with pytest.raises(NotAllowed, match="has not stopped yet"):
        one.commands.system_arm()


def unreadable(pwm: EmulatedPwm) -> EmulatedPwm:
    pwm.reads_back = False
    return pwm


def test_a_frame_of_16_servos_at_50_hz_is_a_transfer_each(bench: MakeBench) -> None:
    """What passes over the bus is the least that there can be: an address, a register, and 64 bytes."""
    servos = {
        f"s{channel}": {"type": "Servo", "board": "hat", "channel": channel, "lease": 60} for channel in range(16)
    }
    one = bench(servos, boards=HAT)
    bus = bus_of(one)
    bus.seen.clear()
    for frame in range(50):
        one.commands.devices_write(dict.fromkeys(servos, frame / 50))
        settle(one)
    # where the machine is busy, one may be sent in two
    assert [len(data) for _, data in bus.seen].count(64) >= 40
    assert len(bus.seen) <= 75
