"""Reads the inputs of gpiozero: a probe returns the time and the value, or raises `NotMeasured` with the reason.

gpiozero's own values do not say when they were measured, nor that they were not: a distance is the median of the last
echoes, however old, and 0 if there never was one; a converter that is not connected reads 0. So the probes read below
gpiozero's values.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from .device_config import Device

PATIENCE_S = 0.2
"""How long, in s, the last value of an input stays valid at least, while it gives no other."""
CYCLE_S = 0.2
"""How long, in s, gpiozero takes for one measurement at most, without its pauses."""

Probe = Callable[[], tuple[float, Any]]
"""Returns the monotonic time of a measurement, and its value."""


class NotMeasured(Exception):
    """Raised if there is no value; the text is the reason."""


class NotYet(NotMeasured):
    """Raised if it was opened a moment ago, and has not measured anything yet."""


def probe_of(device: Device, opened: Any) -> Probe:
    """Return the probe of a device that was opened."""
    if device.kind.null_bit is not None:
        return _Converter(device, opened)
    if getattr(opened, "_queue", None) is not None:
        return _Smoothed(device, opened)
    return _Direct(device, opened)


def patience(device: Device) -> float:
    """Return how long an input's last value stays valid: two periods, so that it ends before a third one passes."""
    periods: float = 2 / device.rate
    return max(PATIENCE_S, periods)


class _Direct:
    """Reads an input directly."""

    def __init__(self, device: Device, opened: Any) -> None:
        self._opened, self._reads = opened, device.kind.reads

    def __call__(self) -> tuple[float, Any]:
        # before reading: a slow reading then does not look younger than it is
        now = time.monotonic()
        return now, getattr(self._opened, self._reads)


class _Smoothed:
    """Reads an input that a thread of gpiozero measures continuously, and averages."""

    def __init__(self, device: Device, opened: Any) -> None:
        self._device, self._opened, self._queue = device, opened, opened._queue
        self._measure = opened._read
        self._measured: float | None = None
        self._missed = ""
        self._since = time.monotonic()
        self._patience = patience(device)
        cycle = self._queue.sample_wait + device.options.get("charge_time_limit", 0.0) + CYCLE_S
        self._silence = max(self._patience, 3 * cycle)
        self._queue.ignore = frozenset((None,))
        opened._read = self._read
        self._queue.queue.clear()

    def _read(self) -> Any:
        """Measure, in gpiozero's thread, which would end for ever if this raised."""
        try:
            value, reason = self._measure(), self._device.kind.missing
        except Exception as error:
            value, reason = None, self._device.kind.missing or told(error)
        if value is None:
            self._missed = reason or "not measured"
            return None
        now = time.monotonic()
        if self._measured is not None and now - self._measured > self._patience:
            # a median must not include values from before a gap
            self._queue.queue.clear()
        self._measured, self._missed = now, ""
        return value

    def __call__(self) -> tuple[float, Any]:
        measured, missed = self._measured, self._missed
        age = time.monotonic() - (self._since if measured is None else measured)
        if age > (self._patience if missed else self._silence):
            raise NotMeasured(missed or f"not measured for {self._silence:g} s")
        values = list(self._queue.queue)
        needed = 1 if self._queue.partial else self._queue.queue.maxlen
        if measured is None or len(values) < needed:
            raise NotYet(missed or "not measured yet")
        value = self._queue.average(values)
        return measured, value * self._opened.max_distance if self._device.kind.reads == "distance" else value


class _Converter:
    """Reads a chip on the SPI bus, which sends a 0 before its result; without a chip, MISO stays high.

    If software drives the bus, the pull-up keeps MISO high; if the kernel does, that takes a resistor.
    """

    def __init__(self, device: Device, opened: Any) -> None:
        self._device, self._opened = device, opened
        miso = getattr(getattr(opened._spi, "_bus", None), "miso", None)
        if miso is not None:
            miso.pin.pull = "up"
        self._bus = opened._spi = _Tapped(opened._spi)

    def __call__(self) -> tuple[float, Any]:
        now = time.monotonic()
        value = self._opened.value
        first, last = self._bus.words[-2:]
        null_bit = self._device.kind.null_bit
        if null_bit is not None and (first << 8 | last) >> null_bit & 1:
            raise NotMeasured(self._device.kind.missing)
        return now, value


class _Tapped:
    """gpiozero's SPI, which remembers the last received data."""

    def __init__(self, spi: Any) -> None:
        self._spi = spi
        self.words: Sequence[int] = ()

    def transfer(self, words: Sequence[int]) -> Sequence[int]:
        self.words = self._spi.transfer(words)
        return self.words

    def read(self, count: int) -> Sequence[int]:
        return self.transfer((0,) * count)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._spi, name)


def told(error: Exception) -> str:
    """Describe an error as the reason for a missing value."""
    return str(error) if isinstance(error, NotMeasured) else f"{type(error).__name__}: {error}"
