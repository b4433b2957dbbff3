"""The engine's clock as a client knows it from replies: an estimate, and how far off it may be. Pure.

A reply says what the engine's clock showed at some moment between the request's sending and the reply's arrival. The
middle of the two is at most half of that round trip away from it. Two clocks drift apart by less than 100 ppm, counted
twice here, so that an old sample is worth less with every second. All times are in ns; the client's are of one clock
that only goes forward, also while the machine sleeps.
"""

from __future__ import annotations

from typing import Final, NamedTuple

DRIFT_PPM: Final = 200
FRESH_NS: Final = 30 * 10**9
"""A sample that is older is no reason any more not to ask for another."""
LATEST: Final = 2**63 - 1
"""The latest time that can be sent, also the widest bound."""


class Sample(NamedTuple):
    """The engine's clock showed `clock` when ours showed `middle`, give or take `half`.

    At any later moment the bound of one is narrower than that of another just where its `width` is less.
    """

    middle: int
    half: int
    clock: int
    width: int


class Estimate(NamedTuple):
    """The engine's clock showed `time` when ours showed `local`, give or take `bound`, in the boot `boot`.

    It `is_fresh` where the sample that says so is of the last 30 s.
    """

    local: int
    time: int
    bound: int
    boot: int
    is_fresh: bool


class Clock:
    """Estimates what the engine's clock shows, by the sample that is the best at the time.

    Of the samples of the last 30 s that is the one with the shortest round trip, up to what its age costs. An older one
    stands until a newer one is better.
    """

    def __init__(self) -> None:
        self._best: Sample | None = None
        self._boot = 0

    def take(self, sent: int, received: int, clock: int, boot: int) -> None:
        """A request was sent and its reply received at these moments; the engine's clock and boot as the reply says."""
        if boot != self._boot:
            self._boot, self._best = boot, None
        half = (received - sent + 1) // 2
        if half < 0:
            return
        middle = sent + half
        width = half * (10**6 + DRIFT_PPM) - middle * DRIFT_PPM
        if self._best is None or width <= self._best.width:
            self._best = Sample(middle, half, clock, width)

    def forget(self) -> None:
        """Know nothing any more: what answers from here on may be another engine."""
        self._best, self._boot = None, 0

    def is_fresh(self, local: int) -> bool:
        """Return whether the sample in use is of the last 30 s."""
        return self._best is not None and local - self._best.middle <= FRESH_NS

    def at(self, local: int) -> tuple[int, int] | None:
        """What the engine's clock showed when ours showed `local`, and the bound; None where nothing is known."""
        best = self._best
        if best is None:
            return None
        away = local - best.middle
        time = best.clock + away
        bound = best.half + -(-(abs(away) + best.half) * DRIFT_PPM // 10**6) + 1
        if 0 < time <= LATEST and bound <= LATEST:
            return time, bound
        # what was before the engine's machine was started was long ago, and no time is 0, which says that none is told
        return min(max(1, time), LATEST), min(bound, LATEST)

    def estimate(self, local: int) -> Estimate | None:
        """As `at`, with all that is known beside it."""
        at = self.at(local)
        return None if at is None else Estimate(local, *at, self._boot, self.is_fresh(local))
