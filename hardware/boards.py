"""Boards as backends: their channels are pins of gpiozero, so that every type of output works on them.

Theory of operation. A pin of a board only notes what its channel is to be. `flush` has the board carry that out, all
channels in one go, after each command and each step of motions (`device_set.py`, `sending.py`). A board is opened with
its first pin; one that fails is closed, its devices are left out, and it is opened anew when they are tried again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, Protocol

import gpiozero

from . import pca9685
from .board_config import PCA9685, PWM, BoardConfig, split
from .board_errors import BoardError
from .emulated_bus import EmulatedBus
from .i2c_bus import I2cBus
from .kernel_pwm import KernelPwm

AGAIN_S = 0.5
"""How soon, in s, a board that could not be opened is tried again, whatever asks for it."""


class Bus(Protocol):
    """A bus with one chip. `most` is the longest transfer."""

    most: int

    def write(self, register: int, data: bytes) -> None:
        """Write consecutive registers in one transfer. Raises BoardError."""

    def read(self, register: int) -> int:
        """Read a register. Raises BoardError."""

    def close(self) -> None:
        """Let other processes have the chip."""


class OpenBoard(Protocol):
    """A board that is open."""

    def put(self, channel: int, share: float, frequency: float | None) -> None:
        """Have a channel high for this share of its period, 0 to 1, from the next `flush` on. Raises BoardError."""

    def flush(self) -> None:
        """Carry out what has changed. Raises BoardError."""

    def check(self) -> None:
        """Look whether the board is there, and does what it was told. Raises BoardError."""

    def close(self) -> None:
        """Let other processes have the board, which goes on with what it was told. May be called twice."""


class Pca9685:
    """A PCA9685 on a bus. Nothing is sent before the first `flush`, and that one starts the chip if it has to."""

    def __init__(self, bus: Bus, config: BoardConfig, sleep: Callable[[float], None] = time.sleep) -> None:
        self._bus, self._sleep = bus, sleep
        self._scale = pca9685.prescale(config.frequency, config.oscillator)
        self._frame = pca9685.ChannelFrame()
        self._is_started = False

    def put(self, channel: int, share: float, frequency: float | None) -> None:
        """See `OpenBoard`; all channels have the board's frequency."""
        self._frame.put(channel, share)

    def flush(self) -> None:
        """See `OpenBoard`: as few transfers as the bus allows."""
        if not self._is_started:
            self._start()
        if not self._frame.is_dirty():
            return
        transfers = self._frame.transfers(self._bus.most)
        self._frame.forget()
        for register, data in transfers:
            self._bus.write(register, data)
        self._frame.sent()

    def check(self) -> None:
        """See `OpenBoard`: a chip whose power was gone is asleep."""
        if self._is_started and not self._runs():
            raise BoardError("the chip was reset: its supply was gone for a moment")

    def close(self) -> None:
        """See `OpenBoard`."""
        self._bus.close()

    def _start(self) -> None:
        """Start the chip. One that runs already goes on, so that what is to be held is held without a gap."""
        if not self._runs():
            for register, data in pca9685.start_up(self._scale):
                self._bus.write(register, data)
            self._sleep(pca9685.WAKE_S)
        self._is_started = True

    def _runs(self) -> bool:
        mode, wanted = self._bus.read(pca9685.MODE1), pca9685.AUTO_INCREMENT
        return mode & ~pca9685.RESTART == wanted and self._bus.read(pca9685.PRE_SCALE) == self._scale


class BoardPin(gpiozero.Pin):  # type: ignore[misc]  # gpiozero has no types
    """A channel as a pin of gpiozero (`backends.Pin`)."""

    def __init__(self, board: Board, channel: int) -> None:
        super().__init__()
        self._board, self._channel = board, channel
        self.is_held = False
        self._idle = False
        self._share = 0.0
        self._hz: float | None = None

    @property
    def info(self) -> Any:
        """Its name."""
        return SimpleNamespace(name=f"{self._board.name}:{self._channel}")

    def claim(self, level: bool, idle: bool) -> None:
        """Become an output at this level, and keep it until `is_held` is false; `idle` is the level without pulses."""
        self._idle, self._hz = idle, None
        self._put(float(level))
        self.is_held = True

    def close(self) -> None:
        """Leave the channel as it is told to be."""
        self.is_held = False

    def output_with_state(self, state: bool) -> None:
        """Become an output at this level."""
        if not self.is_held:
            self._put(float(state))

    def _put(self, share: float) -> None:
        self._share = share
        self._board.put(self._channel, share, self._hz)

    def _get_function(self) -> str:
        return "output"

    def _set_function(self, value: str) -> None:
        if value != "output":
            raise gpiozero.PinInvalidFunction(f"{self.info.name} is an output only")

    def _get_state(self) -> float:
        return self._share

    def _set_state(self, value: float) -> None:
        if not self.is_held:
            self._put(float(value))

    def _get_frequency(self) -> float | None:
        return self._hz

    def _set_frequency(self, value: float | None) -> None:
        """Send pulses from the next state on; None for no pulses, which keeps the level."""
        if self.is_held:
            self._hz = value
            return
        self._hz = value
        self._put(float(self._idle) if value is None and self._share not in (0.0, 1.0) else self._share)

    def _get_pull(self) -> str:
        return "floating"


class Board:
    """A board of the settings. `make` opens it; `enable`, if any, drives its output-enable: true for outputs."""

    def __init__(
        self, config: BoardConfig, make: Callable[[], OpenBoard], enable: Callable[[bool], None] | None = None
    ) -> None:
        self.name = config.name
        self._make, self._enable = make, enable
        self.is_cut_off = False
        """Whether its outputs are off by their output-enable."""
        self._pins: dict[int, BoardPin] = {}
        self._open: OpenBoard | None = None
        self._is_dirty = False
        self._failed: tuple[float, str] = (0.0, "")

    def pin(self, channel: int) -> BoardPin:
        """Return the pin of a channel."""
        if channel not in self._pins:
            self._pins[channel] = BoardPin(self, channel)
        return self._pins[channel]

    def put(self, channel: int, share: float, frequency: float | None) -> None:
        """Note what a channel is to be. Raises BoardError if the board cannot be opened."""
        self.opened().put(channel, share, frequency)
        self._is_dirty = True

    def opened(self) -> OpenBoard:
        """Return the open board. Raises BoardError."""
        if self._open is None:
            again_at, reason = self._failed
            if time.monotonic() < again_at:
                raise BoardError(reason)
            try:
                self._switch(False)
                self._open = self._make()
            except BoardError as error:
                self._fail(error)
                raise
        return self._open

    def flush(self) -> None:
        """Have all changes carried out. Raises BoardError; the board is closed then."""
        if not self._is_dirty or self._open is None:
            return
        self._try(self._open.flush)
        self._is_dirty = False
        if self.is_cut_off:
            self._switch(True)

    def check(self) -> None:
        """Look whether the board is there. Raises BoardError; the board is closed then."""
        if self._open is not None:
            self._try(self._open.check)

    def close(self) -> None:
        """Let other processes have it. May be called twice."""
        if self._open is not None:
            self._open.close()
        self._open = None
        self._is_dirty = False
        for pin in self._pins.values():
            # gpiozero's devices write once more when they are closed, which is not to open the board again
            pin.is_held = True
        self._pins.clear()

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BoardError as error:
            self.close()
            self._switch(False)
            self._fail(error)
            raise BoardError(self._failed[1]) from None

    def _fail(self, error: BoardError) -> None:
        cut_off = "; its outputs are switched off" if self.is_cut_off else ""
        self._failed = time.monotonic() + AGAIN_S, f"board {self.name}: {error}{cut_off}"

    def _switch(self, is_on: bool) -> None:
        """Switch its outputs on or off by their output-enable."""
        if self._enable is not None:
            self._enable(is_on)
            self.is_cut_off = not is_on


class BoardFactory:
    """Gpiozero's factory for pins and channels; `make` makes the one of pins when that is needed first.

    `emulated` boards are in memory. Everything but channels is the other factory's.
    """

    def __init__(self, boards: Mapping[str, BoardConfig], make: Callable[[], Any], *, emulated: bool) -> None:
        self._make = make
        self._made: Any = None
        self._lock = threading.Lock()
        self.buses: dict[str, EmulatedBus] = {}
        """The buses of emulated boards, by the names of the boards."""
        self.boards = {name: self._board(config, emulated=emulated) for name, config in boards.items()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lines, name)

    @property
    def lines(self) -> Any:
        """The factory of pins."""
        if self._made is None:
            self._made = self._make()
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
        if isinstance(name, str) and name.partition(":")[0] in self.boards:
            board, channel = split(name)
            return self.boards[board].pin(channel)
        return self.lines.pin(name)

    def reserve_pins(self, requester: Any, *names: Any) -> None:
        """Reserve pins; a channel has one device by the settings."""
        if lines := [name for name in names if not isinstance(name, str) or ":" not in name]:
            self.lines.reserve_pins(requester, *lines)

    def release_pins(self, reserver: Any, *names: Any) -> None:
        """Release reserved pins."""
        if lines := [name for name in names if ":" not in f"{name}"]:
            self.lines.release_pins(reserver, *lines)

    def let_go(self) -> None:
        """Let other processes have the boards, which go on with what they were told."""
        for board in self.boards.values():
            board.close()

    def close(self) -> None:
        """Release everything."""
        self.let_go()
        if self._made is not None:
            self._made.close()

    def _board(self, config: BoardConfig, *, emulated: bool) -> Board:
        def make() -> OpenBoard:
            if config.type == PWM:
                return EmulatedPwm() if emulated else KernelPwm(config.chip)
            if emulated and config.name not in self.buses:
                self.buses[config.name] = EmulatedBus()
            bus: Bus = self.buses[config.name] if emulated else I2cBus(config.bus, config.address)
            return Pca9685(bus, config)

        return Board(config, make, None if config.output_enable is None else self._switch(config.output_enable))

    def _switch(self, gpio: int) -> Callable[[bool], None]:
        """Return what drives an output-enable, which is on while it is low."""

        def enable(is_on: bool) -> None:
            pin = self.lines.pin(gpio)
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


class EmulatedPwm:
    """The kernel's PWM in memory."""

    def __init__(self) -> None:
        self.shares: dict[int, float] = {}

    def put(self, channel: int, share: float, frequency: float | None) -> None:
        """See `OpenBoard`."""
        self.shares[channel] = share

    def flush(self) -> None:
        """See `OpenBoard`."""

    def check(self) -> None:
        """See `OpenBoard`."""

    def close(self) -> None:
        """See `OpenBoard`."""
