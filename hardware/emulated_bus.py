"""A PCA9685 in memory, behind a bus that can be cut: what boards are with mock pins, and in tests.

It keeps the data sheet's rules that a driver can break: the prescaler changes only while the chip sleeps, registers go
on by themselves only with auto-increment, a sleeping chip makes no pulses, and ALL_LED writes every channel.
"""

from __future__ import annotations

import threading

from .board_errors import BoardError
from .pca9685 import ALL_LED, AUTO_INCREMENT, CHANNELS, LED0, MODE1, OFF, PRE_SCALE, SLEEP, WIDTH, asleep, share_of

POWERED_UP = {MODE1: SLEEP | 0x01, 0x01: 0x04, PRE_SCALE: 0x1E}
REGISTERS = 256
TRANSFERS = 4096
"""How many of its last transfers a bus remembers."""


class EmulatedBus:
    """An emulated chip and the transfers that reached it, as (register, bytes). `most` is the longest transfer."""

    def __init__(self, most: int = 64) -> None:
        self.most = most
        self.reason = ""
        """Why transfers fail now; "" if they do not."""
        self.goes_on = threading.Event()
        """Clear while the bus hangs, with whoever uses it."""
        self.goes_on.set()
        self.is_deaf = False
        """Whether the chip acknowledges what is written to it, and ignores it."""
        self.seen: list[tuple[int, bytes]] = []
        self.pulses: list[tuple[float, ...]] = []
        """The shares of all channels after each transfer that changed them."""
        self.power_up()

    def power_up(self) -> None:
        """Have the chip's power come back."""
        self.registers = bytearray(REGISTERS)
        for register, value in POWERED_UP.items():
            self.registers[register] = value
        self.registers[LED0 : LED0 + WIDTH * CHANNELS] = OFF * CHANNELS

    def write(self, register: int, data: bytes) -> None:
        """Write consecutive registers. Raises BoardError while the bus is cut."""
        self._answer()
        del self.seen[: -TRANSFERS + 1], self.pulses[: -TRANSFERS + 1]
        self.seen.append((register, data))
        for value in data:
            self._write(register, value)
            register += bool(self.registers[MODE1] & AUTO_INCREMENT)
        shares = tuple(self.share(channel) for channel in range(CHANNELS))
        if not self.pulses or shares != self.pulses[-1]:
            self.pulses.append(shares)

    def read(self, register: int) -> int:
        """Read a register. Raises BoardError while the bus is cut."""
        self._answer()
        return self.registers[register]

    def read_block(self, register: int, count: int) -> bytes:
        """Read consecutive registers. Raises BoardError while the bus is cut."""
        self._answer()
        return bytes(self.registers[register : register + count])

    def close(self) -> None:
        """Do nothing: it belongs to this process."""

    def share(self, channel: int) -> float:
        """Return the share of the period for which a channel is high."""
        if asleep(self.registers[MODE1]):
            return 0.0
        return share_of(bytes(self.registers[LED0 + WIDTH * channel :][:WIDTH]))

    def _answer(self) -> None:
        self.goes_on.wait()
        if self.reason:
            raise BoardError(self.reason)

    def _write(self, register: int, value: int) -> None:
        if self.is_deaf:
            return
        if register == PRE_SCALE and not asleep(self.registers[MODE1]):
            return
        if ALL_LED <= register < ALL_LED + WIDTH:
            for channel in range(CHANNELS):
                self.registers[LED0 + WIDTH * channel + register - ALL_LED] = value
            return
        self.registers[register] = value
