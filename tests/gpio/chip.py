"""The lines of gpio-sim as a meter and a finger would have them: levels read, inputs pulled, pulses measured."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from pathlib import Path
from typing import Self

CHIP = Path("/sys/devices/platform/gpio-sim.0")
BOARD = "a020d3"
"""A Pi 3 B+."""


def _line(number: int) -> Path:
    (folder,) = CHIP.glob(f"gpiochip*/sim_gpio{number}")
    return folder


def level(number: int) -> int:
    """Return the level of a line."""
    return int((_line(number) / "value").read_text())


def pull(number: int, *, up: bool) -> None:
    """Pull an input."""
    (_line(number) / "pull").write_text("pull-up" if up else "pull-down")


class Meter:
    """Watches lines for a while, as fast as it can."""

    def __init__(self, *numbers: int) -> None:
        self._files = {number: os.open(_line(number) / "value", os.O_RDONLY) for number in numbers}
        self.edges: dict[int, list[tuple[float, int]]] = {number: [(0.0, self._read(number))] for number in numbers}
        """Of each line: when, monotonic s, it was at which level from then on."""

    def _read(self, number: int) -> int:
        return int(os.pread(self._files[number], 1, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self._files.values():
            os.close(file)

    def watch(self, seconds: float, pause: float = 0.0) -> None:
        """Note edges for so many seconds."""
        end = time.monotonic() + seconds
        now = time.monotonic()
        while now < end:
            for number, edges in self.edges.items():
                found = self._read(number)
                now = time.monotonic()
                if found != edges[-1][1]:
                    edges.append((now, found))
            if pause:
                time.sleep(pause)

    def pulses(self, number: int) -> list[float]:
        """The widths of whole pulses, in s."""
        edges = self.edges[number][1:]
        pairs = itertools.pairwise(edges)
        return [end - start for (start, is_high), (end, _) in pairs if is_high]


def pulse(number: int, pulses: int = 25) -> float:
    """The median width of a servo's pulses, in s."""
    with Meter(number) as meter:
        while len(meter.pulses(number)) < pulses:
            before = len(meter.pulses(number))
            meter.watch(0.1)
            if len(meter.pulses(number)) == before:
                return 0.0
        return statistics.median(meter.pulses(number))


def when_low(*numbers: int, high: tuple[int, ...] = (), seconds: float = 5.0) -> float:
    """When, monotonic s, these lines were high last, or those `high` low, once neither has been so for 50 ms."""
    last = time.monotonic()
    end = last + seconds
    while True:
        now = time.monotonic()
        if any(map(level, numbers)) or not all(map(level, high)):
            last = now
        elif now - last > 0.05:
            return last
        assert now < end, f"lines {numbers} are high, or {high} low, after {seconds:g} s"
