"""The kernel's PWM, /sys/class/pwm: pulses that hardware makes, for the pins of a Pi and for boards with a driver.

Source: Linux, Documentation/driver-api/pwm.rst and Documentation/ABI/testing/sysfs-class-pwm. A chip is found by the
name of its device, because the numbers of chips change with the kernel and with what else is there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

from .board_config import HEADER
from .board_errors import BoardError, BoardInUse, NotCarriedOut

ROOT = Path("/sys/class/pwm")
NS = 1_000_000_000
PERIOD_NS = 20_000_000
ALL_CHANNELS = 16
"""The channel of the kernel's PCA9685 that is all of its others."""
LOCAL = ("platform", "pci", "amba")
"""The buses whose devices take what is written at once: the kernel tells what it wrote, not what a chip has."""
_FLOCK = "hhqqi4x"


class KernelPwm:
    """The channels of one chip, whose device has this name; "" for the one at the header. Raises BoardError."""

    def __init__(self, chip: str, root: Path = ROOT) -> None:
        self._folder = _found(chip, root)
        self.reads_back = _is_local(self._folder / "device")
        """Whether what is read back is so; behind I2C or SPI it is only what the chip was to be told."""
        self._channels: dict[int, _Channel] = {}

    def is_off(self) -> bool:
        """Return whether it makes no pulses at all: nobody can tell."""
        return False

    def put(self, channel: int, share: float, frequency: float | None) -> None:
        """Have a channel high for this share of its period from the next `flush` on. Raises BoardError."""
        one = self._channels.get(channel)
        if one is None:
            one = self._channels[channel] = _Channel(self._folder, channel, repeats=not self.reads_back)
        one.share = share
        if frequency:
            one.period = round(NS / frequency)

    def flush(self) -> None:
        """Write what has changed, of each channel. Raises BoardError afterwards, if one of them fails."""
        self._each(_Channel.flush)

    def verify(self) -> None:
        """Read back whether the channels are what they were told. Raises BoardError."""
        self._each(_Channel.verify)

    def check(self) -> None:
        """Look whether the chip is there. Raises BoardError."""
        if not self._folder.exists():
            raise BoardError(f"{self._folder} is gone")
        if not self.reads_back:
            # the bus may have been cut when that was written last
            self._each(_Channel.repeat)

    def _each(self, step: Callable[[_Channel], None]) -> None:
        failed: BoardError | None = None
        for channel in self._channels.values():
            try:
                step(channel)
            except BoardError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Let other processes have the channels, which go on with what they were told. May be called twice."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()


class _Channel:
    """A channel; another process that has it is an error.

    With `repeats`, its off is written again and again.
    """

    def __init__(self, chip: Path, number: int, *, repeats: bool) -> None:
        self._folder = chip / f"pwm{number}"
        self._repeats = repeats
        self.share, self.period = 0.0, 0
        self._told: tuple[int, int, int] | None = None
        self._count = int(_read(chip / "npwm"))
        if repeats and self._count == ALL_CHANNELS + 1:
            self._count = ALL_CHANNELS
        if number >= self._count:
            raise BoardError(f"{chip} has the channels 0 to {self._count - 1}, not {number}")
        if not self._folder.exists():
            _write(chip / "export", number)
        self._lock = _opened(self._folder / "enable")
        try:
            self._take()
            self.period = int(_read(self._folder / "period")) or PERIOD_NS
            self._turn_round()
        except BaseException:
            self.close()
            raise

    def flush(self) -> None:
        """Write period, duty and enable, as far as they have changed; the duty is never longer than the period."""
        duty = round(min(max(self.share, 0.0), 1.0) * self.period)
        # a channel that is not enabled is low, as one without a duty is
        wanted = (self.period, duty, int(duty > 0))
        if wanted == self._told and not self._repeats:
            return
        had = self._told = self._told or self._found()
        if not (wanted[2] or had[2]):
            # a driver may refuse any write to a channel that has no lawful period yet
            self.repeat()
            return
        self._told = None
        if not wanted[2]:
            self._switch_off()
            period, duty, _ = self._found()
            self._told = period, duty, 0
            self.repeat()
            return
        if duty < had[1]:
            _write(self._folder / "duty_cycle", duty)
        if self.period != had[0]:
            _write(self._folder / "period", self.period)
        if duty > had[1]:
            _write(self._folder / "duty_cycle", duty)
        if wanted[2] != had[2]:
            _write(self._folder / "enable", wanted[2])
        self._told = wanted

    def repeat(self) -> None:
        """Have the kernel write its off to the chip again, if it may be lost. Raises BoardError."""
        if not self._repeats or self._told is None or self._told[2] or not self._told[0]:
            return
        # the kernel writes nothing that it believes to be there; the period of a channel that is off does nothing
        for period in (self._told[0] + 1, self._told[0]):
            _write(self._folder / "period", period)

    def _switch_off(self) -> None:
        """End the pulses, in both ways, even if one of them fails."""
        try:
            _write(self._folder / "duty_cycle", 0)
        finally:
            _write(self._folder / "enable", 0)

    def verify(self) -> None:
        """Read back whether the channel is what it was told. Raises BoardError."""
        told, found = self._told, self._found()
        if told is None or told[2] != found[2] or (found[2] and told != found):
            self._told = None
            raise NotCarriedOut(f"{self._folder} does not do what it was told")

    def _found(self) -> tuple[int, int, int]:
        """Return the state that the channel has."""
        period, duty, enable = (int(_read(self._folder / name)) for name in ("period", "duty_cycle", "enable"))
        return period, duty, enable

    def close(self) -> None:
        """Let others have it."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def _take(self) -> None:
        lock = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        try:
            fcntl.fcntl(self._lock, fcntl.F_OFD_SETLK, lock)
        except OSError:
            path = str((self._folder / "enable").resolve())
            raise BoardInUse(f"{self._folder} belongs to another process", path) from None

    def _turn_round(self) -> None:
        """Have pulses that are high, as another program may not have had; the kernel allows that while it is off."""
        path = self._folder / "polarity"
        if path.exists() and _read(path) != "normal":
            _write(self._folder / "enable", 0)
            _write(path, "normal")


def _is_local(device: Path) -> bool:
    """Return whether no device above a chip is on a bus such as I2C, whose transfers may be lost."""
    place = device.resolve()
    buses = [(folder / "subsystem").resolve().name for folder in (place, *place.parents) if _has_bus(folder)]
    return all(bus in LOCAL for bus in buses)


def _has_bus(folder: Path) -> bool:
    """Return whether a folder of sysfs is a device on a bus."""
    return (folder / "subsystem").is_symlink()


def _found(chip: str, root: Path) -> Path:
    """Return the folder of the chip whose device has this name. Raises BoardError, which lists the others."""
    names: dict[str, Path] = {}
    for folder in sorted(root.glob("pwmchip*")):
        device = folder / "device"
        names[device.resolve().name] = folder
        if (device / "name").is_file():
            names.setdefault(_read(device / "name"), folder)
    for wanted in (chip,) if chip else HEADER:
        if wanted in names:
            return names[wanted]
    told = f"there are {', '.join(names)}" if names else "there is none"
    cure = "" if chip else "; /boot/firmware/config.txt needs dtoverlay=pwm-2chan"
    raise BoardError(f"{root} has no chip {chip or 'of the header'}: {told}{cure}")


def _opened(path: Path) -> int:
    """Open a channel's file. Udev may be about to set its group: whoever wants it tries again."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        raise BoardError(f"{path}: this user may not use it: sudo usermod -aG gpio $USER") from None
    except OSError as error:
        raise BoardError(f"{path}: {error.strerror}") from None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise BoardError(f"{path}: {error.strerror}") from None


def _write(path: Path, value: object) -> None:
    try:
        # not created where the channel is gone
        file = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(file, f"{value}".encode())
        finally:
            os.close(file)
    except OSError as error:
        busy = "; a driver of the kernel or another program has it" if error.errno == errno.EBUSY else ""
        raise BoardError(f"{path}: {error.strerror}{busy}") from None
