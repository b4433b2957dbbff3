"""The devices of a lane as gpiozero has them: opened so that nothing moves, and driven."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import gpiozero

from taskengine_hardware.control import safe_value
from taskengine_hardware.kinds import Role
from taskengine_hardware.layout import Device, Value
from taskengine_hardware.lines import holders

Writer = Callable[[Value], None]


class DeviceFailed(RuntimeError):
    """A device cannot be opened."""


class PinsInUse(DeviceFailed):
    """A pin is another process's, which may give it back."""


class Rig:
    """Devices, by their places in the layout. Opening them moves nothing. Raises DeviceFailed, PinsInUse.

    `factory` is gpiozero's, and closed with the rig.
    """

    def __init__(self, devices: Iterable[Device], factory: Any) -> None:
        self.factory = gpiozero.Device.pin_factory = factory
        self.opened: dict[int, Any] = {}
        self.writers: dict[int, Writer] = {}
        self.failed: dict[str, str] = {}
        """Why inputs without pins are left out: this board may have no thermometer."""
        try:
            for device in devices:
                self._add(device)
        except BaseException:
            self.close()
            raise

    def _add(self, device: Device) -> None:
        try:
            opened = self.opened[device.place] = _open(device, self.factory)
        except DeviceFailed as error:
            if any(device.gpios()) or device.kind.is_output:
                raise
            self.failed[device.name] = str(error)
            return
        if device.kind.is_output:
            self.writers[device.place] = _writer(device, opened)

    def rest(self, outputs: Iterable[Device], last: Callable[[Device], Value]) -> Iterator[str]:
        """Bring outputs, told `last` before, to where they are safe, also where one fails; what failed, and why."""
        for device in outputs:
            try:
                self.writers[device.place](safe_value(device, last(device)))
            except Exception as error:
                yield f"{device.name}: {type(error).__name__}: {error}"

    def close(self) -> None:
        """Let go of the pins. May be called twice."""
        for opened in self.opened.values():
            # gpiozero's DistanceSensor closes the pins that the thread of its queue still uses
            queue = getattr(opened, "_queue", None)
            if queue is not None:
                queue.stop()
            opened.close()
        self.opened.clear()
        self.factory.close()


def _open(device: Device, factory: Any) -> Any:
    """A device of gpiozero. Raises DeviceFailed, PinsInUse."""
    kind = device.kind
    options = {**device.pins, **device.options, "pin_factory": factory}
    if "active_state" in options:
        # gpiozero takes that only where the pull is somebody else's, and TOML has no word for None
        options.setdefault("pull_up", None)
    if "partial" in kind.options:
        # without, reading waits for the first measurements, for ever where there is no echo
        options.setdefault("partial", True)
    for group in kind.groups:
        options[group] = gpiozero.Motor(*device.pins[group], pin_factory=factory)
    if kind.role is Role.SERVO:
        # without, a servo turns to its middle
        options["initial_angle" if device.angles else "initial_value"] = None
    try:
        with warnings.catch_warnings():
            # advice: without spidev and pigpio it works too, more slowly or less exactly
            warnings.simplefilter("ignore", gpiozero.SPISoftwareFallback)
            warnings.simplefilter("ignore", gpiozero.PWMSoftwareFallback)
            # of a threshold that nobody asks
            warnings.simplefilter("ignore", gpiozero.ThresholdOutOfRange)
            return getattr(gpiozero, kind.class_name)(**options)
    except Exception as error:
        what = f"{device.name}: {', '.join(f'GPIO{number}' for number in device.gpios()) or device.type}: {error}"
        if "busy" not in str(error).lower():
            raise DeviceFailed(what) from error
        others = holders()
        raise PinsInUse(f"{what}; in use by {others}" if others else what) from error


def _writer(device: Device, opened: Any) -> Writer:
    if device.kind.role is Role.SERVO:
        return _servo_writer(device, opened)
    if device.kind.role is Role.TONE:
        return partial(_sound, opened)
    return partial(_set, opened)


def _set(opened: Any, value: Value) -> None:
    opened.value = value


def _servo_writer(device: Device, opened: Any) -> Writer:
    """Sends pulses of the width that gpiozero's Servo has for a value, past its layers, which take 3 us of 4."""
    pin, frame = opened.pwm_device.pin, opened.frame_width
    least, most = device.angles or (-1.0, 1.0)
    low, slope = (
        opened.min_pulse_width / frame,
        (opened.max_pulse_width - opened.min_pulse_width) / frame / (most - least),
    )
    frequency = round(1 / frame)
    is_silent = True

    def write(position: Any) -> None:
        nonlocal is_silent
        if position is None:
            pin.frequency = None
            is_silent = True
            return
        if is_silent:
            pin.frequency = frequency
            is_silent = False
        pin.state = low + (position - least) * slope

    return write


def _sound(opened: Any, frequency: Any) -> None:
    if frequency is None:
        opened.stop()
    else:
        opened.play(gpiozero.tones.Tone.from_frequency(frequency))
