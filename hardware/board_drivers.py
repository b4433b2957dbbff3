"""Drivers of boards: what each step of a `BoardMachine` does to a PCA9685. They block, and have no thread.

The kernel's PWM is driven by `kernel_pwm.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from . import pca9685
from .board_config import BoardConfig
from .board_errors import BoardError, NotCarriedOut


class Bus(Protocol):
    """A bus with one chip. `most` is the longest transfer."""

    most: int

    def write(self, register: int, data: bytes) -> None:
        """Write consecutive registers in one transfer. Raises BoardError."""

    def read(self, register: int) -> int:
        """Read a register. Raises BoardError."""

    def read_block(self, register: int, count: int) -> bytes:
        """Read consecutive registers. Raises BoardError."""

    def close(self) -> None:
        """Let other processes have the chip."""


class OpenBoard(Protocol):
    """A board that is open."""

    @property
    def reads_back(self) -> bool:
        """Whether `verify` asks the board itself, and so confirms what it does."""

    def is_off(self) -> bool:
        """Return whether it makes no pulses at all, as after its supply was gone, so that it holds nothing."""

    def put(self, channel: int, share: float, frequency: float | None) -> None:
        """Have a channel high for this share of its period, 0 to 1, from the next `flush` on. Raises BoardError."""

    def flush(self) -> None:
        """Carry out what has changed. Raises BoardError."""

    def verify(self) -> None:
        """Read back whether the board does what it was told. Raises BoardError."""

    def check(self) -> None:
        """Look whether the board is there, and runs. Raises BoardError."""

    def close(self) -> None:
        """Let other processes have the board, which goes on with what it was told. May be called twice."""


class Pca9685:
    """A PCA9685 on a bus. Nothing is sent before the first `flush`, and that one starts the chip if it has to."""

    reads_back = True

    def __init__(self, bus: Bus, config: BoardConfig, sleep: Callable[[float], None] = time.sleep) -> None:
        self._bus, self._sleep = bus, sleep
        self._scale = pca9685.prescale(config.frequency, config.oscillator)
        self._frame = pca9685.ChannelFrame()
        self._is_started = False
        self._was_off: bool | None = None
        """Whether it made no pulses when that was asked; None if it was not."""

    def is_off(self) -> bool:
        """See `OpenBoard`."""
        self._was_off = self._is_asleep()
        return self._was_off

    def _is_asleep(self) -> bool:
        return pca9685.asleep(self._bus.read(pca9685.MODE1))

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

    def verify(self) -> None:
        """See `OpenBoard`: all registers of the channels."""
        self.check()
        wanted = bytes(self._frame.wanted)
        found = b""
        while len(found) < len(wanted):
            count = min(self._bus.most, len(wanted) - len(found))
            found += self._bus.read_block(pca9685.LED0 + len(found), count)
        if found != wanted:
            self._frame.forget()
            raise NotCarriedOut("the chip does not do what it was told")

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
            if self._was_off is False and self._is_asleep():
                # what is to be held has sagged since it was opened
                raise BoardError("the chip was reset: its supply was gone for a moment")
            for register, data in pca9685.start_up(self._scale):
                self._bus.write(register, data)
            self._sleep(pca9685.WAKE_S)
        self._is_started = True

    def _runs(self) -> bool:
        """Return whether the chip runs as we want it to, with outputs that are high while they are on."""
        wanted = {pca9685.MODE2: pca9685.TOTEM_POLE, pca9685.PRE_SCALE: self._scale}
        mode = self._bus.read(pca9685.MODE1) & ~pca9685.RESTART
        return mode == pca9685.AUTO_INCREMENT and all(self._bus.read(one) == value for one, value in wanted.items())


class EmulatedPwm:
    """A channel of the kernel's PWM in memory. While it has a `reason`, each step fails with that."""

    def __init__(self) -> None:
        self.shares: dict[int, float] = {}
        self._wanted: dict[int, float] = {}
        self.reason = ""
        self.reads_back = True

    def is_off(self) -> bool:
        """See `OpenBoard`."""
        return False

    def put(self, channel: int, share: float, frequency: float | None) -> None:
        """See `OpenBoard`."""
        self._wanted[channel] = share

    def flush(self) -> None:
        """See `OpenBoard`."""
        self.check()
        self.shares = dict(self._wanted)

    def verify(self) -> None:
        """See `OpenBoard`."""
        self.check()

    def check(self) -> None:
        """See `OpenBoard`."""
        if self.reason:
            raise BoardError(self.reason)

    def close(self) -> None:
        """See `OpenBoard`."""
