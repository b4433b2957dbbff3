"""Pin factories: what drives the pins, by the names that the setting PINS takes.

Another backend, such as for a PCA9685 board or the kernel's PWM, is another row of `BACKENDS`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from taskengine import SettingsError
from taskengine_hardware.layout import Layout

AUTO = "auto"
FACTORY_VARIABLE = "GPIOZERO_PIN_FACTORY"
"""By which users of gpiozero say what drives their pins."""


class Pin(Protocol):
    """A pin of a backend, which can more than gpiozero's, so that no output makes a blip."""

    is_held: bool
    """It stays as it was claimed, whatever gpiozero tells it: its constructors begin with off, and some with low."""

    def claim(self, level: bool, idle: bool) -> None:
        """Be an output at this level from its first moment on, until `is_held` is false; `idle` where pulses end."""

    def close(self) -> None:
        """Be nobody's. May be called twice."""


def mock(layout: Layout) -> Any:
    """Pins that are nowhere but in memory, for learning and for tests."""
    from taskengine_hardware.mock_pins import factory

    return factory(layout.board or 0xA020D3)


def lgpio(layout: Layout) -> Any:
    """The kernel's gpiochip, by lgpio. Raises SettingsError where it cannot be had."""
    try:
        factory = _fine()
    except (ImportError, OSError) as error:
        raise SettingsError(
            f"pins: lgpio cannot be imported ({error}): in the clone, `.venv/bin/pip install '.[hardware]'`"
        ) from None
    try:
        return factory(layout.chip, layout.board)
    except Exception as error:  # lgpio's and gpiozero's have no common make
        raise SettingsError(
            f"pins: the gpiochip cannot be opened ({error}); is the user in the group gpio? "
            "On what is no Raspberry Pi, [hardware] names a chip and a board"
        ) from None


def _fine() -> Callable[[int | None, int | None], Any]:
    """Import lgpio, which makes a pipe in a folder that stays where it is imported, thus in one that goes again."""
    here = os.getcwd()
    try:
        place = tempfile.TemporaryDirectory(prefix="taskengine-lg-")
    except FileNotFoundError:
        raise OSError("it needs a folder that can be written to: mount a tmpfs on /tmp") from None
    with place as folder:
        os.environ.setdefault("LG_WD", folder)
        try:
            from taskengine_hardware.fine import FineFactory
        finally:
            # it goes to that folder, too, and we may be where we may not go
            with contextlib.suppress(OSError):
                os.chdir("/")
                os.chdir(here)
            if os.environ["LG_WD"] == folder:
                del os.environ["LG_WD"]
    factory: Callable[[int | None, int | None], Any] = FineFactory
    return factory


def pigpio(layout: Layout) -> Any:
    """The daemon pigpiod, here or where PIGPIO_ADDR says. Raises SettingsError where there is none."""
    try:
        from taskengine_hardware.pigpio_pins import factory
    except ImportError as error:
        raise SettingsError(f"pins: pigpio cannot be imported ({error}): pip install pigpio") from None
    try:
        return factory()
    except OSError as error:
        raise SettingsError(f"pins: no pigpiod answers ({error}); is it running?") from None


def chosen(pins: str) -> str:
    """The name of the backend that the setting PINS stands for: for auto the one that gpiozero is told to take, if any.

    Raises SettingsError where that is none of ours.
    """
    name = os.environ.get(FACTORY_VARIABLE, "") if pins == AUTO else ""
    if not name:
        return pins
    if name.lower() in BACKENDS and name.lower() != AUTO:
        return name.lower()
    ours = ", ".join(known for known in BACKENDS if known != AUTO)
    raise SettingsError(
        f"pins: {FACTORY_VARIABLE} is {name!r}, which cannot open outputs without a blip; expected one of {ours}, or "
        "the setting PINS, which it does not change"
    )


def auto(layout: Layout) -> Any:
    """What GPIOZERO_PIN_FACTORY names, else lgpio, where there is a gpiochip. Raises SettingsError: there is none."""
    name = chosen(AUTO)
    if name != AUTO:
        return BACKENDS[name](layout)
    if not any(Path("/dev").glob("gpiochip*")):
        raise SettingsError("pins: this machine has no /dev/gpiochip; `--pins mock` plays with pins in memory")
    return lgpio(layout)


def warm_up(pins: str) -> None:
    """Import what a backend needs, if it can be had, so that a claim takes no longer than it has to."""
    with contextlib.suppress(ImportError, OSError, SettingsError):
        if chosen(pins) in (AUTO, "lgpio"):
            _fine()


BACKENDS: Mapping[str, Callable[[Layout], Any]] = {AUTO: auto, "lgpio": lgpio, "pigpio": pigpio, "mock": mock}
