"""Boards as backends: their channels are pins of gpiozero, so that every type of output works on them.

A pin of a board only notes what its channel is to be; the thread of its bus carries that out (`board_bus.py`). Each
channel of the kernel's PWM is a board of its own there, because one that fails is no reason to leave the others on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import gpiozero

from .board_bus import BoardBus, Station
from .board_config import PCA9685, PWM, BoardConfig, split
from .board_drivers import EmulatedPwm, OpenBoard, Pca9685
from .board_errors import BoardError
from .board_machine import Setting
from .emulated_bus import EmulatedBus
from .i2c_bus import I2cBus
from .kernel_pwm import KernelPwm


class BoardPin(gpiozero.Pin):  # type: ignore[misc]  # gpiozero has no types
    """A channel as a pin of gpiozero (`backends.Pin`)."""

    def __init__(self, name: str, station: Station, channel: int) -> None:
        super().__init__()
        self._name, self._station, self._channel = name, station, channel
        self.is_held = False
        self.is_draft = False
        """Whether a setting is only noted here, and its channel is told nothing."""
        self._idle = False
        self._share = 0.0
        self._hz: float | None = None
        self.refusal = ""
        """Why the last setting was not taken; "" if it was."""

    @property
    def info(self) -> Any:
        """Its name."""
        return SimpleNamespace(name=self._name)

    @property
    def setting(self) -> Setting:
        """What its channel is to be."""
        return Setting(self._share, self._hz)

    def claim(self, level: bool, idle: bool) -> None:
        """Become an output at this level, and keep it until `is_held` is false; `idle` is the level without pulses."""
        self._idle = idle
        self._put(float(level), None)
        self.is_held = True

    def close(self) -> None:
        """Leave the channel as it is told to be."""
        self.is_held = False

    def output_with_state(self, state: bool) -> None:
        """Become an output at this level."""
        if not self.is_held:
            self._put(float(state), self._hz)

    def _put(self, share: float, hz: float | None) -> None:
        """Have the channel be that; `refusal` tells if it is not to be, so that a device's other channels are told."""
        try:
            if not self.is_draft:
                self._station.put(self._channel, Setting(share, hz))
        except BoardError as error:
            self.refusal = f"{error}"
        else:
            self._share, self._hz, self.refusal = share, hz, ""

    def _get_function(self) -> str:
        return "output"

    def _set_function(self, value: str) -> None:
        if value != "output":
            raise gpiozero.PinInvalidFunction(f"{self._name} is an output only")

    def _get_state(self) -> float:
        return self._share

    def _set_state(self, value: float) -> None:
        if not self.is_held:
            self._put(float(value), self._hz)

    def _get_frequency(self) -> float | None:
        return self._hz

    def _set_frequency(self, value: float | None) -> None:
        """Send pulses from the next state on; None for no pulses, which keeps the level."""
        if self.is_held:
            self._hz = value
            return
        self._put(float(self._idle) if value is None and self._share not in (0.0, 1.0) else self._share, value)

    def _get_pull(self) -> str:
        return "floating"


class BoardFactory:
    """Gpiozero's factory for pins and channels; `make` makes the one of pins when that is needed first.

    `channels` are those that are used, such as "hat:3". `emulated` boards are in memory. Everything but channels is the
    other factory's.
    """

    def __init__(
        self,
        boards: Mapping[str, BoardConfig],
        channels: Iterable[str],
        make: Callable[[], Any],
        *,
        emulated: bool,
    ) -> None:
        self._make = make
        self._made: Any = None
        self.lines_failure = ""
        """Why there are no pins at all, beside channels; "" if there are, or none was needed yet."""
        self._lock = threading.Lock()
        self._emulated = emulated
        self.buses: dict[str, EmulatedBus] = {}
        """The buses of emulated boards, by the names of the boards."""
        self.pwms: dict[str, EmulatedPwm] = {}
        """The channels of emulated chips of the kernel's PWM, by their names."""
        self._enabling: set[int] = set()
        """The output-enables that were claimed."""
        self._threads: dict[str, BoardBus] = {}
        self._stations: dict[str, Station] = {}
        self._pins: dict[str, BoardPin] = {}
        for channel in channels:
            board, number = split(channel)
            self._pins[channel] = BoardPin(channel, self._station(boards[board], number), number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lines, name)

    @property
    def lines(self) -> Any:
        """The factory of pins."""
        if self._made is None:
            try:
                self._made = self._make()
            except Exception as error:
                self.lines_failure = f"{error}"
                raise
            self.lines_failure = ""
        return self._made

    @property
    def _res_lock(self) -> Any:
        """Guards `_reservations`, which gpiozero reads at the end of the process."""
        return self._lock if self._made is None else self._made._res_lock

    @property
    def _reservations(self) -> Mapping[Any, Any]:
        return {} if self._made is None else self._made._reservations

    def pin(self, name: Any) -> Any:
        """Return a pin, or a channel by a name such as "hat:3"."""
        channel = self._pins.get(name) if isinstance(name, str) else None
        return self.lines.pin(name) if channel is None else channel

    def reserve_pins(self, requester: Any, *names: Any) -> None:
        """Reserve pins; a channel has one device by the settings."""
        if lines := [name for name in names if not isinstance(name, str) or ":" not in name]:
            self.lines.reserve_pins(requester, *lines)

    def release_pins(self, reserver: Any, *names: Any) -> None:
        """Release reserved pins."""
        if lines := [name for name in names if ":" not in f"{name}"]:
            self.lines.release_pins(reserver, *lines)

    # The buses -------------------------------------------------------------------------------------------------------

    def stations_of(self, channels: Iterable[str]) -> tuple[Station, ...]:
        """Return the boards of these channels."""
        return tuple(dict.fromkeys(self._pins[channel]._station for channel in channels))

    def refusal_of(self, channels: Iterable[str]) -> str:
        """Return why one of these channels did not take its last setting, once; "" if all did."""
        found = ""
        for pin in (self._pins[channel] for channel in channels):
            found, pin.refusal = found or pin.refusal, ""
        return found

    def settings_of(self, channels: Iterable[str], station: Station) -> dict[int, Setting]:
        """Return what those of these channels are to be now that are on one board."""
        pins = [self._pins[channel] for channel in channels]
        return {pin._channel: pin.setting for pin in pins if pin._station is station}

    @contextlib.contextmanager
    def drafting(self, channels: Iterable[str]) -> Iterator[None]:
        """Have settings of these channels only be noted, for `settings_of`; each is to be set anew then."""
        pins = [self._pins[channel] for channel in channels]
        for pin in pins:
            pin.is_draft = True
        try:
            yield
        finally:
            for pin in pins:
                pin.is_draft = False

    def cut_off(self) -> None:
        """Disable the outputs of the boards that have a line for that."""
        for station in self._stations.values():
            station.cut_off()

    def begin(self, news: Callable[[], None]) -> None:
        """Begin to talk to the boards; `news` is called in another thread when one of them has changed."""
        for bus in self._threads.values():
            bus.begin(news)

    def ask(self) -> None:
        """Have all boards confirm what they are to be."""
        for station in self._stations.values():
            station.ask(time.monotonic())

    def wait(self, is_done: Callable[[Station], bool], seconds: float) -> bool:
        """Wait until that is so of all boards, at most so many s; return whether it is."""
        end = time.monotonic() + seconds
        for station in self._stations.values():
            while not is_done(station):
                station.look(time.monotonic())
                if time.monotonic() > end:
                    return False
                time.sleep(0.001)
        return True

    def faults(self) -> Iterator[str]:
        """Yield the reason of each board that is not known to do what it was told."""
        for station in self._stations.values():
            if not station.machine.is_settled:
                yield station.machine.fault or f"board {station.name}: the bus is slow"

    def unread(self) -> Iterator[str]:
        """Yield the boards that do not tell whether they do what they were told."""
        for station in self._stations.values():
            if station.machine.is_settled and not station.machine.reads_back:
                yield f"board {station.name}: it was told, and cannot be read back: look whether its outputs are off"

    def let_go(self) -> None:
        """Let other processes have the boards, which go on with what they were told."""
        for pin in self._pins.values():
            # gpiozero's devices write once more when they are closed
            pin.is_held = True
        for bus in self._threads.values():
            bus.close()
        # before the next process has the lane: it switches the boards off first
        for gpio in self._enabling:
            self.lines.pin(gpio).close()
        self._enabling.clear()

    def join(self, seconds: float) -> None:
        """Wait a moment until the boards are let go; a bus that hangs is left to itself."""
        end = time.monotonic() + seconds
        for bus in self._threads.values():
            bus.join(max(0.0, end - time.monotonic()))

    def close(self) -> None:
        """Release everything."""
        self.let_go()
        if self._made is not None:
            self._made.close()

    def _station(self, config: BoardConfig, number: int) -> Station:
        """Return the board of a channel of the settings."""
        name = config.name if config.type == PCA9685 else f"{config.name}:{number}"
        if name not in self._stations:
            place = config.bus if config.type == PCA9685 else config.chip or PWM
            bus = self._threads.setdefault(place, BoardBus(place))
            enable = None if config.output_enable is None else self._switch(config.output_enable)
            self._stations[name] = Station(name, bus, self._opener(config, name), enable)
            if self._emulated and config.type == PCA9685:
                self.buses[name] = EmulatedBus()
            elif self._emulated:
                self.pwms[name] = EmulatedPwm()
        return self._stations[name]

    def _opener(self, config: BoardConfig, name: str) -> Callable[[], OpenBoard]:
        def make() -> OpenBoard:
            if config.type == PWM:
                return self.pwms[name] if self._emulated else KernelPwm(config.chip)
            return Pca9685(self.buses[name] if self._emulated else I2cBus(config.bus, config.address), config)

        return make

    def _switch(self, gpio: int) -> Callable[[bool], None]:
        """Return what drives an output-enable, which is on while it is low."""

        def enable(is_on: bool) -> None:
            pin = self.lines.pin(gpio)
            self._enabling.add(gpio)
            if pin.is_held:
                pin.is_held = False
                pin.state = not is_on
                pin.is_held = True
            else:
                pin.claim(not is_on, True)

        return enable


def warm_up(boards: Iterable[BoardConfig], *, emulated: bool) -> None:
    """Import what these boards need. Raises ImportError."""
    if not emulated and any(board.type == PCA9685 for board in boards):
        import smbus2

        smbus2.i2c_msg.write(0, [])
