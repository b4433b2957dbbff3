"""The registers of a PCA9685: duty cycles to bytes, and a frame to as few transfers as a bus allows. Pure.

Source: NXP, PCA9685 product data sheet, rev. 4 (2015), sections 7.3.1 to 7.3.5. A channel has four registers, ON and
OFF, each of 12 bits, low byte first, and in bit 4 of the high bytes "full on" and "full off"; "full off" wins. With
auto-increment one transfer writes consecutive registers, and the outputs change together at its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

CHANNELS = 16
STEPS = 4096
"""The steps of a period."""
MODE1, MODE2, LED0, ALL_LED, PRE_SCALE = 0x00, 0x01, 0x06, 0xFA, 0xFE
SLEEP, AUTO_INCREMENT, RESTART = 0x10, 0x20, 0x80
TOTEM_POLE = 0x04
"""Of MODE2: outputs drive both levels, change at the end of a transfer, and are low while output-enable is off."""
FULL = 0x10
"""Of a high byte: full on, or full off."""
PRESCALES = (3, 255)
OSCILLATOR_HZ = 25e6
WAKE_S = 0.0005
"""How long, in s, the oscillator takes to run after SLEEP is cleared."""
WIDTH = 4
"""The registers of a channel."""
OFF = bytes((0, 0, 0, FULL))
ON = bytes((0, FULL, 0, 0))


class Transfer(NamedTuple):
    """Bytes for consecutive registers, from `register` on."""

    register: int
    data: bytes


def prescale(frequency: float, oscillator: float = OSCILLATOR_HZ) -> int:
    """Return the prescaler for a frequency in Hz, the nearest that the chip has."""
    return min(max(round(oscillator / (STEPS * frequency)) - 1, PRESCALES[0]), PRESCALES[1])


def frequencies(oscillator: float = OSCILLATOR_HZ) -> tuple[float, float]:
    """Return the lowest and the highest frequency in Hz that the chip has: 23.8 and 1526 Hz at 25 MHz."""
    least, most = (oscillator / (STEPS * (scale + 1)) for scale in reversed(PRESCALES))
    return least, most


def period(frequency: float, oscillator: float = OSCILLATOR_HZ) -> float:
    """Return the period in s that the chip really has for a frequency in Hz."""
    return STEPS * (prescale(frequency, oscillator) + 1) / oscillator


def channel_bytes(share: float) -> bytes:
    """Return the four registers of a channel that is high for this share of the period, 0 to 1, to the nearest step."""
    count = round(share * STEPS)
    if count <= 0:
        return OFF
    if count >= STEPS:
        return ON
    return bytes((0, 0, count & 0xFF, count >> 8))


def share_of(registers: bytes) -> float:
    """Return the share of the period for which a channel with these four registers is high."""
    if registers[3] & FULL:
        return 0.0
    if registers[1] & FULL:
        return 1.0
    on, off = registers[0] | registers[1] << 8, registers[2] | registers[3] << 8
    return (off - on) % STEPS / STEPS


def asleep(mode: int) -> bool:
    """Return whether a chip with this MODE1 makes no pulses, as after its power came."""
    return bool(mode & SLEEP)


def start_up(scale: int) -> Iterator[Transfer]:
    """Yield what starts a chip in whatever state without a pulse: all channels off, asleep, prescaler, outputs, awake.

    The chip can take the first frame `WAKE_S` after the last one. It does not listen to the all-call address then.
    """
    # one register: auto-increment may be off
    yield Transfer(ALL_LED + 3, bytes((FULL,)))
    yield Transfer(MODE1, bytes((AUTO_INCREMENT | SLEEP,)))
    yield Transfer(ALL_LED, OFF)
    yield Transfer(PRE_SCALE, bytes((scale,)))
    yield Transfer(MODE2, bytes((TOTEM_POLE,)))
    yield Transfer(MODE1, bytes((AUTO_INCREMENT,)))


class ChannelFrame:
    """The channels of a chip: what they are to be, and what the chip has."""

    def __init__(self) -> None:
        self.wanted = bytearray(OFF * CHANNELS)
        self._sent: bytes | None = None
        """What the chip has; None if that is not known."""

    def put(self, channel: int, share: float) -> None:
        """Have a channel high for this share of the period."""
        self.wanted[channel * WIDTH : (channel + 1) * WIDTH] = channel_bytes(share)

    def is_dirty(self) -> bool:
        """Return whether something is to be sent."""
        return self._sent is None or bytes(self.wanted) != self._sent

    def transfers(self, most: int) -> list[Transfer]:
        """Return the fewest transfers, of `most` bytes each, that bring the chip from what it has to what it is to be.

        Unchanged channels between two changed ones are sent too, since a transfer of its own costs more.
        """
        changed = [
            channel
            for channel in range(CHANNELS)
            if self._sent is None or self.wanted[WIDTH * channel :][:WIDTH] != self._sent[WIDTH * channel :][:WIDTH]
        ]
        found: list[Transfer] = []
        at_once = most // WIDTH
        while changed:
            first = changed[0]
            last = max(channel for channel in changed if channel < first + at_once)
            data = bytes(self.wanted[WIDTH * first : WIDTH * (last + 1)])
            found.append(Transfer(LED0 + WIDTH * first, data))
            changed = [channel for channel in changed if channel > last]
        return found

    def sent(self) -> None:
        """Note that the chip has it all."""
        self._sent = bytes(self.wanted)

    def forget(self) -> None:
        """Note that nobody knows what the chip has."""
        self._sent = None
