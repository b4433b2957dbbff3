"""The kernel's PWM in a made-up /sys/class/pwm that keeps the kernel's rules."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskengine_hardware import boards, kernel_pwm, read
from taskengine_hardware.backends import factory_of
from taskengine_hardware.board_errors import BoardError
from taskengine_hardware.device_config import Value
from taskengine_hardware.device_set import DeviceSet
from taskengine_hardware.kernel_pwm import KernelPwm
from tests.engine import deadline

PI_3, PI_5, FAN, HAT = "3f20c000.pwm", "1f00098000.pwm", "1f0009c000.pwm", "1-0040"


class Kernel:
    """Does what the kernel does when its files are written, and writes down what was written to which channel."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.writes: list[tuple[str, str]] = []
        self._write = kernel_pwm._write

    def add(self, number: int, device: str, channels: int = 4, name: str = "", buses: tuple[str, ...] = ()) -> Path:
        """Add a chip; `buses` are those of the devices above it, and its own last."""
        chip = self.root / f"pwmchip{number}"
        target = self.root / "devices"
        for place, bus in enumerate(buses[:-1]):
            target /= f"{bus}{place}"
            target.mkdir(parents=True)
            (target / "subsystem").symlink_to(self.root / "bus" / bus)
        target /= device
        target.mkdir(parents=True)
        if buses:
            (target / "subsystem").symlink_to(self.root / "bus" / buses[-1])
        if name:
            (target / "name").write_text(name)
        chip.mkdir()
        (chip / "device").symlink_to(target)
        (chip / "npwm").write_text(f"{channels}\n")
        (chip / "export").touch()
        return chip

    def export(self, chip: Path, channel: int, **state: object) -> Path:
        folder = chip / f"pwm{channel}"
        folder.mkdir()
        for name, value in {"period": 0, "duty_cycle": 0, "enable": 0, "polarity": "normal", **state}.items():
            (folder / name).write_text(f"{value}\n")
        return folder

    def write(self, path: Path, value: object) -> None:
        if path.name == "export":
            self.export(path.parent, int(f"{value}"))
            return
        folder = path.parent
        if not folder.exists():
            self._write(path, value)
        now = {one.name: one.read_text().strip() for one in folder.iterdir()} | {path.name: f"{value}"}
        period, duty, enable = (int(now[name]) for name in ("period", "duty_cycle", "enable"))
        if duty > period or (enable and not period) or (path.name == "polarity" and enable):
            raise BoardError(f"{path}: {os.strerror(errno.EINVAL)}")
        self.writes.append((path.name, f"{value}"))
        self._write(path, value)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel(tmp_path)
    monkeypatch.setattr(kernel_pwm, "_write", made.write)
    return made


def state(chip: Path, channel: int) -> dict[str, Any]:
    folder = chip / f"pwm{channel}"
    return {name: int((folder / name).read_text()) for name in ("period", "duty_cycle", "enable")}


def test_a_chip_is_found_by_its_devices_name_whatever_its_number(kernel: Kernel) -> None:
    kernel.add(0, FAN)
    chip = kernel.add(2, PI_5)
    hat = kernel.add(3, HAT, 17, name="pca9685-pwm")
    for name, channel, found in (("", 2, chip), (PI_5, 0, chip), (HAT, 5, hat), ("pca9685-pwm", 6, hat)):
        pwm = KernelPwm(name, kernel.root)
        pwm.put(channel, 0.075, 50.0)
        pwm.flush()
        assert state(found, channel) == {"period": 20_000_000, "duty_cycle": 1_500_000, "enable": 1}
        pwm.close()


def test_a_chip_that_is_not_there_is_an_error_with_the_others(kernel: Kernel) -> None:
    with pytest.raises(BoardError, match=r"has no chip of the header: there is none; .* needs dtoverlay=pwm-2chan"):
        KernelPwm("", kernel.root)
    kernel.add(0, FAN)
    with pytest.raises(BoardError, match=r"has no chip 3f20c000.pwm: there are 1f0009c000.pwm"):
        KernelPwm(PI_3, kernel.root)
    with pytest.raises(BoardError, match="has the channels 0 to 3, not 4"):
        KernelPwm(FAN, kernel.root).put(4, 0.0, None)


def test_a_start_makes_no_pulse_and_duty_never_exceeds_the_period(kernel: Kernel) -> None:
    chip = kernel.add(0, PI_3, 2)
    pwm = KernelPwm("", kernel.root)
    pwm.put(0, 0.0, None)
    pwm.flush()
    assert ("enable", "1") not in kernel.writes
    assert state(chip, 0)["duty_cycle"] == 0
    for share, frequency in ((0.9, 50.0), (0.9, 1000.0), (1.0, 50.0), (0.1, 10_000.0), (0.5, 50.0)):
        pwm.put(0, share, frequency)
        pwm.flush()
        period = round(1e9 / frequency)
        assert state(chip, 0) == {"period": period, "duty_cycle": round(share * period), "enable": 1}
    count = len(kernel.writes)
    pwm.flush()
    assert len(kernel.writes) == count
    pwm.put(0, 0.0, 50.0)
    pwm.flush()
    assert state(chip, 0) == {"period": 20_000_000, "duty_cycle": 0, "enable": 0}


def test_a_dead_owners_channel_is_taken_over_and_another_owners_is_not(kernel: Kernel) -> None:
    chip = kernel.add(0, PI_3, 2)
    kernel.export(chip, 0, period=20_000_000, duty_cycle=1_500_000, enable=1)
    kernel.export(chip, 1, period=20_000_000, duty_cycle=1_500_000, enable=0, polarity="inversed")
    pwm = KernelPwm("", kernel.root)
    pwm.put(0, 0.0, None)
    pwm.put(1, 0.05, 50.0)
    pwm.flush()
    assert state(chip, 0)["enable"] == state(chip, 0)["duty_cycle"] == 0
    assert state(chip, 1) == {"period": 20_000_000, "duty_cycle": 1_000_000, "enable": 1}
    assert (chip / "pwm1/polarity").read_text().strip() == "normal"
    with pytest.raises(BoardError, match="pwm0 belongs to another process"):
        KernelPwm("", kernel.root).put(0, 0.0, None)
    pwm.close()
    pwm.close()
    KernelPwm("", kernel.root).put(0, 0.0, None)


def test_what_is_held_goes_on_without_a_gap(kernel: Kernel) -> None:
    chip = kernel.add(0, PI_3, 2)
    kernel.export(chip, 0, period=20_000_000, duty_cycle=1_500_000, enable=1)
    pwm = KernelPwm("", kernel.root)
    pwm.put(0, 0.0, None)  # claimed
    pwm.put(0, 0.075, 50.0)
    pwm.flush()
    assert [name for name, value in kernel.writes if name != "enable"] == []
    assert ("enable", "0") not in kernel.writes


def test_files_that_udev_has_not_given_a_group_yet_are_asked_for_again_and_nobody_sleeps(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread has the other channels of the chip too; the machine tries again soon."""
    kernel.add(0, PI_3, 2)
    refusals = [PermissionError(errno.EACCES, "denied")] * 3
    opened: Callable[..., int] = os.open

    def refuse(path: Any, flags: int, *rest: Any) -> int:
        if refusals and Path(path).name == "enable":
            raise refusals.pop()
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it sleeps"))
    for _ in range(3):
        with pytest.raises(BoardError, match=r"sudo usermod -aG gpio"):
            KernelPwm("", kernel.root).put(0, 0.0, None)
    KernelPwm("", kernel.root).put(0, 0.0, None)


def test_a_chip_that_goes_is_an_error(kernel: Kernel) -> None:
    chip = kernel.add(0, PI_3, 2)
    pwm = KernelPwm("", kernel.root)
    pwm.put(0, 0.1, 50.0)
    pwm.flush()
    pwm.check()
    chip.rename(kernel.root / "gone")
    with pytest.raises(BoardError, match="is gone"):
        pwm.check()
    pwm.put(0, 0.2, 50.0)
    with pytest.raises(BoardError, match="No such file"):
        pwm.flush()


def test_a_channel_that_fails_does_not_keep_the_others_from_going_off(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = kernel.add(0, PI_3, 3)
    pwm = KernelPwm("", kernel.root)
    for channel in range(3):
        pwm.put(channel, 0.1, 50.0)
    pwm.flush()
    pwm.verify()

    def write(path: Path, value: object) -> None:
        if path.parent.name == "pwm0" and path.name == "duty_cycle":
            raise BoardError(f"{path}: Input/output error")
        kernel.write(path, value)

    monkeypatch.setattr(kernel_pwm, "_write", write)
    for channel in range(3):
        pwm.put(channel, 0.0, 50.0)
    with pytest.raises(BoardError, match="pwm0/duty_cycle: Input/output error"):
        pwm.flush()
    # the channel that fails is ended in the other way
    assert [state(chip, channel)["enable"] for channel in range(3)] == [0] * 3
    with pytest.raises(BoardError, match="pwm0 does not do what it was told"):
        pwm.verify()


def test_what_is_read_back_is_what_counts(kernel: Kernel) -> None:
    chip = kernel.add(0, PI_3, 2)
    pwm = KernelPwm("", kernel.root)
    pwm.put(0, 0.1, 50.0)
    pwm.flush()
    pwm.verify()
    (chip / "pwm0/enable").write_text("0")
    with pytest.raises(BoardError, match="does not do what it was told"):
        pwm.verify()
    pwm.flush()
    assert state(chip, 0)["enable"] == 1


@pytest.mark.parametrize(
    ("buses", "is_read"),
    [
        (("platform", "platform"), True),
        (("platform", "pci", "platform"), True),
        (("platform", "i2c", "i2c"), False),
        (("platform", "spi"), False),
        (("platform", "i2c", "platform"), False),
        (("usb",), False),
    ],
)
def test_a_chip_behind_another_bus_cannot_be_read_back(kernel: Kernel, buses: tuple[str, ...], is_read: bool) -> None:
    """Its driver may drop the error of a transfer, and the kernel then tells what the chip does not do."""
    kernel.add(0, HAT, 16, buses=buses)
    assert KernelPwm(HAT, kernel.root).reads_back is is_read


def test_an_off_that_may_be_lost_is_written_again_and_again_without_a_pulse(kernel: Kernel) -> None:
    chip = kernel.add(0, HAT, 17, buses=("platform", "i2c", "i2c"))
    # of a dead owner whose off was lost: the kernel believes it
    kernel.export(chip, 0, period=20_000_000, duty_cycle=0, enable=0)
    pwm = KernelPwm(HAT, kernel.root)
    with pytest.raises(BoardError, match="the channels 0 to 15, not 16"):
        pwm.put(16, 0.0, None)  # which is all of them
    for channel in range(2):
        pwm.put(channel, 0.0, None)
    pwm.flush()
    again = [("period", "20000001"), ("period", "20000000")]
    assert kernel.writes == again
    kernel.writes.clear()
    pwm.check()
    assert kernel.writes == again
    pwm.put(1, 0.075, 50.0)
    pwm.flush()
    kernel.writes.clear()
    pwm.check()
    assert kernel.writes == again, "what is on is left alone"
    pwm.put(1, 0.0, 50.0)
    pwm.flush()
    kernel.writes.clear()
    pwm.check()
    assert kernel.writes == again * 2
    pwm.verify()


def settled(rig: DeviceSet) -> bool:
    return rig.wait_for_boards(lambda station: station.machine.is_settled, deadline(5))


def test_servo_light_motor_and_tone_on_the_kernels_pwm(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    chip = kernel.add(0, FAN, 5)
    monkeypatch.setattr(boards, "KernelPwm", lambda name: KernelPwm(name, kernel.root))
    monkeypatch.setattr("taskengine_hardware.backends.are_emulated", lambda pins: False)
    layout = read(
        {
            "boards": {"fans": {"type": "PWM", "chip": FAN}},
            "devices": {
                "pan": {"type": "AngularServo", "pin": "fans:0", "frame_width": 0.015},
                "glow": {"type": "PWMLED", "board": "fans", "channel": 1, "frequency": 800},
                "horn": {"type": "TonalBuzzer", "pin": "fans:2"},
                "wheel": {"type": "PhaseEnableMotor", "board": "fans", "phase": 4, "enable": 3},
            },
        }
    )
    outputs = [*layout.devices.values()]
    rig = DeviceSet(outputs, factory_of("mock", layout, outputs))
    assert rig.failed == {}
    assert settled(rig)
    for device in outputs:
        for board in rig.boards_of(device):
            board.resume()
    assert ("enable", "1") not in kernel.writes
    values: list[Value] = [-45.0, 0.25, 440.0, -0.5]
    for place, value in enumerate(values):
        rig.writers[place](value)
    assert settled(rig)
    assert state(chip, 0) == {"period": 15_000_000, "duty_cycle": 1_250_000, "enable": 1}
    assert state(chip, 1) == {"period": 1_250_000, "duty_cycle": 312_500, "enable": 1}
    assert state(chip, 2)["period"] == pytest.approx(1e9 / 440, abs=1)
    assert state(chip, 3)["duty_cycle"] * 2 == state(chip, 3)["period"]
    assert state(chip, 4)["duty_cycle"] == state(chip, 4)["period"]
    values = [None, 0.0, None, 0.0]
    for place, value in enumerate(values):
        rig.writers[place](value)
    assert settled(rig)
    assert [state(chip, channel)["enable"] for channel in range(4)] == [0] * 4
    rig.close()
