"""What people are shown of boards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from gpiozero.devices import _devices_shutdown

from taskengine import SettingsError
from taskengine_hardware import backends, boards, owners, read
from taskengine_hardware.backends import factory_of
from taskengine_hardware.board_drivers import EmulatedPwm
from taskengine_hardware.board_text import lines
from taskengine_hardware.device_set import DeviceSet
from taskengine_hardware.motion import FRAME_S
from tests.engine import deadline

SETTINGS = """
[hardware.boards.hat]
type = "PCA9685"
output_enable = 27

[hardware.devices.pan]
type = "AngularServo"
board = "hat"
channel = 10

[hardware.devices.base]
type = "Robot"
board = "hat"
left = [3, 4]
right = [5, 6]

[hardware.devices.tilt]
type = "Servo"
pin = "pwm:0"
"""


def shown(folder: Path, *command: str, table: str = SETTINGS) -> str:
    (folder / "taskengine.toml").write_text(table)
    run = [sys.executable, "-m", "taskengine", *command]
    return subprocess.run(run, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_pins_shows_boards_and_their_channels(tmp_path: Path) -> None:
    told = shown(tmp_path, "pins", "--pins", "mock")
    assert "GPIO27  13 | 14" in told
    assert "output_enable of hat" in told
    assert told.splitlines()[-8:] == [
        "board pwm: PWM, the kernel's at the header; emulated, in memory",
        "  pwm:0   tilt (Servo, lane hardware)",
        "board hat: PCA9685, 0x40 on /dev/i2c-1, 50 Hz, output_enable GPIO27; emulated, in memory",
        "  hat:3   base (Robot, lane hardware)",
        "  hat:4   base (Robot, lane hardware)",
        "  hat:5   base (Robot, lane hardware)",
        "  hat:6   base (Robot, lane hardware)",
        "  hat:10  pan (AngularServo, lane hardware)",
    ]
    assert (
        json.loads(shown(tmp_path, "pins", "--pins", "mock", "--json"))["hat:10"] == "pan (AngularServo, lane hardware)"
    )


def test_check_says_what_is_emulated(tmp_path: Path) -> None:
    told = shown(tmp_path, "check", "--pins", "mock")
    assert "board hat: PCA9685, 0x40 on /dev/i2c-1, 50 Hz, output_enable GPIO27; emulated, in memory\n" in told
    assert "hat:3" not in told


@pytest.mark.parametrize("command", ["check", "pins"])
def test_a_machine_without_boards_asks_nothing_about_them(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A factory of gpiozero that opens no outputs is found when pins are opened, and not by these."""
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "native")
    lamp = '[hardware.devices.lamp]\ntype = "LED"\npin = 17\n'
    told = {"check": "task led.on(device: str)", "pins": "lamp (LED, lane hardware)"}[command]
    assert told in shown(tmp_path, command, "--pins", "auto", table=lamp)


def test_a_layout_without_boards_shows_none() -> None:
    layout = read({"devices": {"lamp": {"type": "LED", "pin": 17}}})
    assert [*lines(layout, emulated=False)] == []
    assert owners(layout, "mock") == {17: "lamp (LED, lane hardware)"}


def test_devices_on_boards_alone_need_no_gpiochip(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(layout: object) -> None:
        raise SettingsError("pins: this machine has no /dev/gpiochip")

    monkeypatch.setattr(boards, "KernelPwm", lambda chip: EmulatedPwm())
    monkeypatch.setattr(backends, "BACKENDS", {**backends.BACKENDS, "lgpio": none})
    layout = read({"devices": {"pan": {"type": "Servo", "pin": "pwm:0"}, "eye": {"type": "LED", "pin": "pwm:1"}}})
    devices = [*layout.devices.values()]
    rig = DeviceSet(devices, factory_of("lgpio", layout, devices))
    assert rig.failed == {}
    assert rig.wait_for_boards(lambda station: station.machine.is_ready, deadline(5))
    for board in (board for device in devices for board in rig.boards_of(device)):
        board.resume()
    rig.writers[0](0.0)
    rig.writers[1](True)
    assert rig.factory.pin("pwm:0").state == pytest.approx(0.0015 / FRAME_S)
    assert rig.factory.pin("pwm:1").state == 1.0
    # as at the end of a process
    _devices_shutdown()
    assert rig.factory._made is None
    rig.close()
