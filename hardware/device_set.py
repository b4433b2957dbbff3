"""The gpiozero devices of a lane: opens them at the values that they are to have, and drives them.

All outputs' lines are claimed before any device is made, so that the time without an owner is short. A device that
cannot be opened is left out alone, and may be tried again. Boards are made safe by threads of their own (`boards.py`):
those with an output-enable are cut off by it at once, and nothing here waits for a bus.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import gpiozero

from .backends import Pin
from .board_bus import Station
from .board_errors import BoardError
from .board_machine import Fallback
from .control import safe_value, start_value
from .device_config import Device, Value
from .device_types import Role
from .header import line_name
from .levels import claims, needs_pulses
from .lines import holders
from .outputs import holds

Writer = Callable[[Value], None]


class DeviceSet:
    """Devices, by their places in the layout; `at` gives the values of outputs from the first moment on.

    `factory` is gpiozero's, and is closed with the set. `news` is called in another thread when a board has changed.
    """

    def __init__(
        self,
        devices: Iterable[Device],
        factory: Any,
        at: Callable[[Device], Value] = start_value,
        news: Callable[[], None] = lambda: None,
    ) -> None:
        self.factory = gpiozero.Device.pin_factory = factory
        self.opened: dict[int, Any] = {}
        self.writers: dict[int, Writer] = {}
        self.failed: dict[str, str] = {}
        """The devices that are left out, and the reason: for example a line is in use, or a thermometer is missing."""
        self._at = at
        self._pins: dict[int, list[Pin]] = {}
        """The pins of outputs, by place."""
        devices = list(devices)
        self._has_boards = any(device.boards for device in devices)
        try:
            if self._has_boards:
                self.factory.cut_off()
            for device in devices:
                self._attempt(device, self._claim)
            for device in devices:
                if device.name not in self.failed:
                    self._attempt(device, self._open)
            if self._has_boards:
                self.factory.begin(news)
        except BaseException:
            self.close()
            raise

    def again(self, device: Device) -> bool:
        """Return whether a device that was left out can be opened now; an output then has its value."""
        if not (self._attempt(device, self._claim) and self._attempt(device, self._open)):
            return False
        del self.failed[device.name]
        return True

    def rest(self, outputs: Iterable[Device], last: Callable[[Device], Value]) -> Iterator[str]:
        """Bring outputs, last told `last`, to their safe states, even if one fails; yield the failures with reasons."""
        for device in outputs:
            if device.name in self.failed:
                yield f"{device.name}: {self.failed[device.name]}"
                continue
            try:
                self.writers[device.place](safe_value(device, last(device)))
            except BoardError:
                # it is about to get its safe states, and `board_faults` tells
                continue
            except Exception as error:
                yield f"{device.name}: {type(error).__name__}: {error}"
        if self._has_boards:
            self.factory.ask()

    @property
    def lines_failure(self) -> str:
        """Why there are no pins at all, although there are boards; "" otherwise."""
        return self.factory.lines_failure if self._has_boards else ""

    def boards_of(self, device: Device) -> tuple[Station, ...]:
        """Return the boards of a device."""
        found: tuple[Station, ...] = self.factory.stations_of(device.channels) if device.boards else ()
        return found

    def wait_for_boards(self, is_done: Callable[[Station], bool], seconds: float) -> bool:
        """Wait at most so many s until that is so of all boards; return whether it is."""
        return not self._has_boards or bool(self.factory.wait(is_done, seconds))

    def board_faults(self) -> list[str]:
        """Return why boards are not known to do what they were told."""
        return list(self.factory.faults()) if self._has_boards else []

    def unread_boards(self) -> list[str]:
        """Return the boards that were told something, and that nobody can ask whether they do it."""
        return list(self.factory.unread()) if self._has_boards else []

    def join_boards(self, seconds: float) -> None:
        """Wait at most so many s until released boards are free for other processes."""
        if self._has_boards:
            self.factory.join(seconds)

    def let_go(self) -> None:
        """Release the pins for other processes, and have boards be released by their threads. May be called twice."""
        if self._has_boards:
            self.factory.let_go()
        for opened in self.opened.values():
            # gpiozero's DistanceSensor closes the pins that the thread of its queue still uses
            queue = getattr(opened, "_queue", None)
            if queue is not None:
                queue.stop()
            opened.close()
        self.opened.clear()
        self.writers.clear()

    def close(self) -> None:
        """Release the pins and the factory, for which lgpio takes 0.1 s. May be called twice."""
        self.let_go()
        self.factory.close()

    def _attempt(self, device: Device, step: Callable[[Device], None]) -> bool:
        """Do something with a device, and leave the device out if it fails; return whether it succeeded."""
        try:
            step(device)
        except Exception as error:  # the errors of gpiozero, lgpio and the kernel have no common class
            self.failed[device.name] = _reason(device, error)
            for pin in self._pins.pop(device.place, ()):
                pin.close()
            return False
        return True

    def _claim(self, device: Device) -> None:
        """Claim the lines of an output, at the levels that it is to have."""
        if device.kind.is_output:
            pins = self._pins[device.place] = []
            for gpio, level, idle in claims(device, self._at(device)):
                pins.append(self.factory.pin(gpio))
                pins[-1].claim(level, idle)

    def _open(self, device: Device) -> None:
        opened = _made(device, self.factory)
        if device.kind.is_output:
            for pin in self._pins[device.place]:
                pin.is_held = False
            writer, value = _writer(device, opened), self._at(device)
            if device.boards:
                writer = partial(self._write, device.channels, writer)
                self._fall_back(device, writer)
            if needs_pulses(device, value) or device.boards:
                writer(value)
            self.writers[device.place] = writer
        self.opened[device.place] = opened

    def _write(self, channels: Sequence[str], writer: Writer, value: Value) -> None:
        """Write a value to all channels. Raises BoardError if one of them did not take it."""
        writer(value)
        if refusal := self.factory.refusal_of(channels):
            raise BoardError(refusal)

    def _fall_back(self, device: Device, writer: Writer) -> None:
        """Tell its boards what they are to do after a fault; their channels are told nothing."""
        with self.factory.drafting(device.channels):
            writer(safe_value(device, None))
            for station in self.factory.stations_of(device.channels):
                settings = self.factory.settings_of(device.channels, station)
                station.fall_back(device.name, Fallback(settings, holds(device)))


def _made(device: Device, factory: Any) -> Any:
    """Make a device of gpiozero."""
    kind = device.kind
    options = {**device.pins, **device.options, "pin_factory": factory}
    if "active_state" in options:
        # gpiozero takes this only if there is an external pull, and TOML has no word for None
        options.setdefault("pull_up", None)
    if "partial" in kind.options:
        # without it, reading waits for the first measurements, for ever if there is no echo
        options.setdefault("partial", True)
    for group in kind.groups:
        options[group] = gpiozero.Motor(*device.pins[group], pin_factory=factory)
    if kind.role is Role.SERVO:
        # without it, a servo turns to its middle
        options["initial_angle" if device.angles else "initial_value"] = None
    with warnings.catch_warnings():
        # advice: without spidev and pigpio it works too, more slowly or less exactly
        warnings.simplefilter("ignore", gpiozero.SPISoftwareFallback)
        warnings.simplefilter("ignore", gpiozero.PWMSoftwareFallback)
        # of a threshold that is not used
        warnings.simplefilter("ignore", gpiozero.ThresholdOutOfRange)
        return getattr(gpiozero, kind.class_name)(**options)


def _reason(device: Device, error: Exception) -> str:
    """Return why a device cannot be opened."""
    what = f"{', '.join(map(line_name, device.lines())) or device.type}: {error}"
    others = holders() if "busy" in str(error).lower() else ""
    return f"{what}; in use by {others}" if others else what


def _writer(device: Device, opened: Any) -> Writer:
    if device.kind.role is Role.SERVO:
        return _servo_writer(device, opened)
    if device.kind.role is Role.TONE:
        return partial(_sound, opened)
    return partial(_set, opened)


def _set(opened: Any, value: Value) -> None:
    opened.value = value


def _servo_writer(device: Device, opened: Any) -> Writer:
    """Return a writer of the pulse width that gpiozero's Servo has for a value; skipping its layers saves 3 us of 4."""
    pin, frame = opened.pwm_device.pin, opened.frame_width
    least, most = device.angles or (-1.0, 1.0)
    low, slope = (
        opened.min_pulse_width / frame,
        (opened.max_pulse_width - opened.min_pulse_width) / frame / (most - least),
    )
    if device.boards:
        return partial(_set_pulse, pin, 1 / frame, lambda position: low + (position - least) * slope)
    # lgpio and pigpio take whole numbers
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


def _set_pulse(pin: Any, frequency: float, share: Callable[[Any], float], position: Value) -> None:
    """Have a channel send the pulse of a position; it may not have taken the last one."""
    if position is None:
        pin.frequency = None
        return
    if pin.frequency != frequency:
        pin.frequency = frequency
    pin.state = share(position)


def _sound(opened: Any, frequency: Any) -> None:
    if frequency is None:
        opened.stop()
    else:
        opened.play(gpiozero.tones.Tone.from_frequency(frequency))
