"""Pin factories: the backends that drive the pins, by the names that the setting PINS takes.

To add a backend, add a row to `BACKENDS`. Boards, such as a PCA9685, are channels beside the pins of any (`boards.py`).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from taskengine import SettingsError

from .chips import find_chip
from .device_config import Device, HardwareConfig

AUTO = "auto"
FACTORY_VARIABLE = "GPIOZERO_PIN_FACTORY"
"""The variable by which users of gpiozero select the backend."""


class Pin(Protocol):
    """A pin of a backend; it can do more than gpiozero's pins, so that outputs never glitch."""

    is_held: bool
    """Whether the pin keeps its claimed state whatever gpiozero writes.

    Gpiozero's constructors begin with off or low.
    """

    def claim(self, level: bool, idle: bool) -> None:
        """Become an output at this level, and keep it until `is_held` is false; `idle` is the level without pulses."""

    def close(self) -> None:
        """Release the pin. May be called twice."""


def mock(layout: HardwareConfig) -> Any:
    """Return pins that exist in memory only, for learning and for tests."""
    from .mock_pins import factory

    return factory(layout.board or 0xA020D3)


def lgpio(layout: HardwareConfig) -> Any:
    """Return the kernel's gpiochip, by lgpio. Raises SettingsError if it cannot be had."""
    try:
        factory = _fine()
    except (ImportError, OSError) as error:
        raise SettingsError(
            f"pins: lgpio cannot be imported ({error}): `pip install 'taskengine-robot[hardware]'`"
        ) from None
    chip = find_chip(layout.chip)
    try:
        return factory(chip, layout.board)
    except Exception as error:  # the errors of lgpio and gpiozero have no common class
        find_chip.cache_clear()  # it may have another number by now
        raise SettingsError(
            f"pins: gpiochip{chip} cannot be opened ({error}); is the user in the group gpio? "
            "On what is no Raspberry Pi, [hardware] names a chip and a board"
        ) from None


def _fine() -> Callable[[int, int | None], Any]:
    """Import lgpio in a temporary folder, because its import leaves a pipe in the current folder."""
    here = os.getcwd()
    try:
        place = tempfile.TemporaryDirectory(prefix="taskengine-lg-")
    except FileNotFoundError:
        raise OSError("it needs a folder that can be written to: mount a tmpfs on /tmp") from None
    with place as folder:
        os.environ.setdefault("LG_WD", folder)
        try:
            from .lgpio_pwm import FineFactory
        finally:
            # it changes back to the current folder too, which we may not be allowed to enter
            with contextlib.suppress(OSError):
                os.chdir("/")
                os.chdir(here)
            if os.environ["LG_WD"] == folder:
                del os.environ["LG_WD"]
    factory: Callable[[int, int | None], Any] = FineFactory
    return factory


def pigpio(layout: HardwareConfig) -> Any:
    """Return the daemon pigpiod, here or at PIGPIO_ADDR. Raises SettingsError if there is none."""
    try:
        from .pigpio_pins import factory
    except ImportError as error:
        raise SettingsError(f"pins: pigpio cannot be imported ({error}): pip install pigpio") from None
    try:
        return factory()
    except OSError as error:
        raise SettingsError(f"pins: no pigpiod answers ({error}); is it running?") from None


def factory_of(pins: str, layout: HardwareConfig, devices: Sequence[Device]) -> Any:
    """Return the backend that the setting PINS names, with the boards of some devices. Raises SettingsError."""
    used = layout.boards_in(devices)
    if not used:
        return BACKENDS[pins](layout)
    from .boards import BoardFactory

    channels = [channel for device in devices for channel in device.channels]
    return BoardFactory(used, channels, lambda: BACKENDS[pins](layout), emulated=are_emulated(pins))


def are_emulated(pins: str) -> bool:
    """Return whether boards exist in memory only, as pins do."""
    return chosen(pins) == "mock"


def chosen(pins: str) -> str:
    """Return the name of the backend for the setting PINS; for auto the one that gpiozero is told to use, if any.

    Raises SettingsError for an unknown one.
    """
    name = os.environ.get(FACTORY_VARIABLE, "") if pins == AUTO else ""
    if not name:
        return pins
    if name.lower() in BACKENDS and name.lower() != AUTO:
        return name.lower()
    ours = ", ".join(known for known in BACKENDS if known != AUTO)
    raise SettingsError(
        f"pins: {FACTORY_VARIABLE} is {name!r}, which cannot open outputs without a glitch; expected one of {ours}, or "
        "the setting PINS, which it does not change"
    )


def auto(layout: HardwareConfig) -> Any:
    """Return the backend of GPIOZERO_PIN_FACTORY, else lgpio if there is a gpiochip. Raises SettingsError: neither."""
    name = chosen(AUTO)
    if name != AUTO:
        return BACKENDS[name](layout)
    if not any(Path("/dev").glob("gpiochip*")):
        raise SettingsError("pins: this machine has no /dev/gpiochip; `--pins mock` uses pins in memory")
    return lgpio(layout)


def warm_up(pins: str, layout: HardwareConfig | None = None) -> None:
    """Import a backend, if it is installed, and find the layout's gpiochip, so that a later claim of pins is fast."""
    with contextlib.suppress(ImportError, OSError, SettingsError):
        if chosen(pins) in (AUTO, "lgpio"):
            _fine()
            if layout is not None:
                find_chip(layout.chip)


def warm_up_boards(layout: HardwareConfig, pins: str) -> None:
    """Import what the boards of the devices need, so that a later claim is fast."""
    if used := layout.boards_in(layout.devices.values()):
        with contextlib.suppress(ImportError):
            from . import boards

            boards.warm_up(used.values(), emulated=are_emulated(pins))


BACKENDS: Mapping[str, Callable[[HardwareConfig], Any]] = {AUTO: auto, "lgpio": lgpio, "pigpio": pigpio, "mock": mock}
