"""A remote client's commands give the chip's lines their levels."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from taskengine import Client, TaskFailed
from tests.engine import deadline, wait_until
from tests.gpio import chip
from tests.gpio.machine import BUTTON, DEVICES, LAMP, RELAY, SERVO, TILT, machine

PULSE_TOLERANCE_S = 0.0002


def test_a_remote_client_drives_led_servo_and_button_over_curve(tmp_path: Path) -> None:
    keys, theirs = tmp_path / "keys", tmp_path / "client"
    with machine(curve="on", keys=keys) as engine:
        port = engine.settings["router_frontend"]
        command = [sys.executable, "-m", "taskengine", "keys"]
        pair = [*command, "pair", "laptop", "--line", "--address", f"tcp://127.0.0.1:{port}", "--keys", str(keys)]
        line = subprocess.run(pair, capture_output=True, text=True, check=True).stdout
        accept = [*command, "accept", "--keys", str(theirs)]
        subprocess.run(accept, input=line, text=True, check=True, capture_output=True)
        with Client(engine.address, timeout=deadline(20), keys=theirs) as client:
            for on in (True, False, True):
                client.call("gpio.write", "lamp", on)
                assert chip.level(LAMP) == on
            with client.lease("tilt") as lease:
                for angle, seconds in ((-90, 0.001), (0, 0.0015), (30, 0.0016667), (90, 0.002)):
                    client.call("servo.set", "tilt", angle=angle)
                    widths = []
                    for _ in range(4):
                        lease.renew()
                        widths.append(chip.pulse(TILT, pulses=9))
                    assert sorted(widths)[2] == pytest.approx(seconds, abs=PULSE_TOLERANCE_S)
            with client.subscribe("hardware.button") as feed:
                for pressed in (1, 0):
                    chip.pull(BUTTON, up=not pressed)
                    assert next(sample for sample in feed if sample.value["value"] == pressed)
                    assert client.call("gpio.read", "button") == pressed


def test_starting_moves_nothing_and_makes_no_blip() -> None:
    """A relay that is on while its line is low stays off: its line goes high once, and never low again."""
    with chip.Meter(RELAY, SERVO, LAMP) as meter, machine():
        while len(meter.edges[RELAY]) < 2:
            meter.watch(0.02, pause=0.001)
        meter.watch(0.5, pause=0.001)
    # the last edge is of the engine's end, when the line is nobody's
    assert [level for _, level in meter.edges[RELAY]][:2] == [0, 1]
    assert len(meter.edges[RELAY]) <= 3
    assert meter.edges[SERVO] == [(0.0, 0)]
    assert meter.edges[LAMP] == [(0.0, 0)]


def test_a_line_has_one_owner_and_the_second_says_who(tmp_path: Path) -> None:
    """The second engine does without, until it can have the line."""
    with machine() as engine, machine() as second, Client(second.address, timeout=deadline(10)) as others:
        (owner,) = engine.pids("pin")
        text = re.compile(rf"Left out: pan: GPIO18: 'GPIO busy'; in use by .*\[{owner}\]")
        wait_until(lambda: text.search(second.output()), 5, "a word about the line")
        with pytest.raises(TaskFailed, match="lamp was left out") as caught:
            others.call("gpio.write", "lamp", True)
        assert caught.value.type == "DeviceFailed"
        assert "GPIO17: 'GPIO busy'" in others.call("devices.state")["lamp"]["error"]
        with Client(engine.address, timeout=deadline(10)) as client:
            client.call("gpio.write", "lamp", True)
            assert chip.level(LAMP) == 1
        engine.stop()
        wait_until(lambda: _writes(others), 60, "the lines of the engine that has ended")
        assert chip.level(LAMP) == 1
        wait_until(lambda: "Opened at last: lamp" in second.output(), 5, "a word about the line")


def _writes(client: Client) -> bool:
    try:
        client.call("gpio.write", "lamp", True)
    except TaskFailed:
        return False
    return True


def test_what_has_a_line_is_shown(tmp_path: Path) -> None:
    (tmp_path / "second.toml").write_text(DEVICES)
    with machine() as engine:
        (owner,) = engine.pids("pin")
        shown = subprocess.run(
            [sys.executable, "-m", "taskengine", "pins", "--config", str(tmp_path / "second.toml")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "pan (AngularServo, lane hardware), in use by lg" in shown.stdout
        safe = [sys.executable, "-m", "taskengine", "pins", "--safe", "--config", str(tmp_path / "second.toml")]
        refused = subprocess.run(safe, capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert f"[{owner}]" in refused.stderr
    assert subprocess.run(safe, check=False).returncode == 0


def test_a_fault_of_the_pwm_is_seen_by_the_meter() -> None:
    """The measuring itself: a pulse of 1.5 ms is not taken for one of 1.9."""
    with machine() as engine, Client(engine.address, timeout=deadline(20)) as client:
        client.call("servo.set", "tilt", angle=72)
        widths = [chip.pulse(TILT, pulses=9) for _ in range(3)]
        assert sorted(widths)[1] == pytest.approx(0.0019, abs=PULSE_TOLERANCE_S)
        assert sorted(widths)[1] != pytest.approx(0.0015, abs=PULSE_TOLERANCE_S)
