"""Estimates the engine's clock from replies, with a bound of the error. Pure.

A reply says what the engine's clock showed at some moment between sending the request and receiving the reply. The
middle of the two is off by at most half of that round trip. Two clocks drift apart by less than 100 ppm, counted twice
here, so that a sample loses value with every second. All times are in ns; the client's are of one clock that only goes
forward, also while the machine sleeps.
"""

from __future__ import annotations

from typing import Final, NamedTuple

DRIFT_PPM: Final = 200
FRESH_NS: Final = 30 * 10**9
"""A sample that is older than this makes the client ask for another."""
LATEST: Final = 2**63 - 1
"""The latest time that can be sent, and the widest bound."""


class ClockSample(NamedTuple):
    """A sample: the engine's clock showed `clock` when ours showed `middle`, give or take `half`.

    The sample with the smaller `width` has the narrower bound at any later moment.
    """

    middle: int
    half: int
    clock: int
    width: int


class Estimate(NamedTuple):
    """The engine's clock showed `time` when ours showed `local`, give or take `bound`, in the boot `boot`.

    It `is_fresh` if it is based on a sample of the last 30 s.
    """

    local: int
    time: int
    bound: int
    boot: int
    is_fresh: bool


class EngineClock:
    """Estimates the engine's clock from the best sample.

    That is the sample of the last 30 s with the shortest round trip, corrected for its age. An older sample is used
    until a newer one is better.
    """

    def __init__(self) -> None:
        self._best: ClockSample | None = None
        self._boot = 0

    def take(self, sent: int, received: int, clock: int, boot: int) -> None:
        """Take the times at which a request was sent and its reply received, and the clock and boot in the reply."""
        if boot != self._boot:
            self._boot, self._best = boot, None
        half = (received - sent + 1) // 2
        if half < 0:
            return
        middle = sent + half
        width = half * (10**6 + DRIFT_PPM) - middle * DRIFT_PPM
        if self._best is None or width <= self._best.width:
            self._best = ClockSample(middle, half, clock, width)

    def forget(self) -> None:
        """Forget all samples, because another engine may answer next."""
        self._best, self._boot = None, 0

    def is_fresh(self, local: int) -> bool:
        """Return whether the sample in use is of the last 30 s."""
        return self._best is not None and local - self._best.middle <= FRESH_NS

    def at(self, local: int) -> tuple[int, int] | None:
        """Return the engine's clock, and the bound, when ours showed `local`; None if nothing is known."""
        best = self._best
        if best is None:
            return None
        away = local - best.middle
        time = best.clock + away
        bound = best.half + -(-(abs(away) + best.half) * DRIFT_PPM // 10**6) + 1
        if 0 < time <= LATEST and bound <= LATEST:
            return time, bound
        # earlier moments lie before the start of the engine's machine; 0 would mean that no time is told
        return min(max(1, time), LATEST), min(bound, LATEST)

    def estimate(self, local: int) -> Estimate | None:
        """Return the estimate for the moment when our clock showed `local`; None if nothing is known."""
        at = self.at(local)
        return None if at is None else Estimate(local, *at, self._boot, self.is_fresh(local))
