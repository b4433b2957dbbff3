"""Decides what the guardian does about a lane: events, `now` and the shared state go in, an action comes out. Pure.

Theory of operation. An owner acts on the ends of leases and on stops, and beats while it makes pulses without a lease.
If it has not done so by the end of a grace, it hangs, and is killed. But the machine may be so busy that no process
runs on time, or the whole engine may have been suspended. The guardian sees that by its own late wake-ups: the grace
grows by their delay, and an owner that seems overdue after a late wake-up gets a whole new grace, once.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from .shared_state import NEVER, NOBODY

NS = 1_000_000_000
GRACE_S = 0.025
"""How long, in s, an owner may take to act on the end of a lease."""
STOP_S = 0.1
"""How long, in s, an owner may take to be safe after a stop, beyond the growth of the grace."""
BEAT_S = 0.25
"""How old, in s, the beat of an owner may be that makes pulses without a lease."""
RETRY_S = 0.1
"""How soon, in s, unavailable pins are tried again."""
HOLD_S = 0.005
"""How soon, in s, the next owner gets the pins."""
BLIND_S = 0.25
"""How long, in s, the guardian sleeps at most: as long as the shortest usual lease."""
STUCK_S = 1.0
"""How long, in s, a killed owner may take to end until that is told: the kernel may hold it in a call."""
MAX_GRACE_S = 0.25
"""The longest grace, in s, however busy the machine is."""
FORGET_S = 4.0
"""How long, in s, until a late wake-up counts half."""


class Action(enum.Enum):
    """The guardian's actions on a lane."""

    KILL = "kill the owner"
    SEIZE = "take the lock, claim the pins, make them safe"
    YIELD = "let go of the pins, then of the lock"


class Lateness:
    """How late this machine wakes its processes: the largest recent delay, which decays."""

    def __init__(self) -> None:
        self._late = 0.0
        self._at = 0

    def woke(self, wanted: int, now: int) -> bool:
        """Note that a process that was to wake at `wanted` woke at `now`.

        Return whether that is the largest delay so far.
        """
        late = (now - wanted) / NS
        if late <= self._late_at(now):
            return False
        is_news = late > self.grace(now)
        self._late, self._at = min(late, MAX_GRACE_S), now
        return is_news

    def grace(self, now: int) -> float:
        """Return how many s another process may be late that is as well as ours."""
        return min(MAX_GRACE_S, GRACE_S + self._late_at(now))

    def _late_at(self, now: int) -> float:
        late: float = self._late * 0.5 ** ((now - self._at) / NS / FORGET_S)
        return late


class FailoverPolicy:
    """A lane whose devices have these `places` in the shared state, and whose shortest lease is `shortest` s.

    Its owner takes `ramp` s longer than others to be safe after a stop.
    """

    def __init__(self, places: Sequence[int], shortest: float = BLIND_S, ramp: float = 0.0) -> None:
        self._places = places
        self._stop_s = STOP_S + ramp
        self._blind_s = min(BLIND_S, shortest)
        self.owner: int | None = None
        """The owner's process; None if it is dead, or was not started."""
        self.is_held = False
        """Whether the guardian has the pins."""
        self.is_orphan = False
        """Whether an owner may have died whose pins were not made safe since."""
        self._killed_at: int | None = None
        """When the owner was killed, which has not ended since."""
        self._retry_at = 0
        self._excused = 0
        """The earliest time from which the owner's grace counts."""
        self._excuse: int | None = None
        """The deadline that was excused."""

    def begins(self, pid: int) -> None:
        """Note that an owner was started."""
        self.owner, self._killed_at = pid, None

    def killed(self, now: int) -> None:
        """Note that the owner was killed; it has its pins until `died`, however long the kernel takes."""
        self._killed_at = now

    @property
    def is_killed(self) -> bool:
        """Whether the owner was killed, and has not ended yet."""
        return self._killed_at is not None

    def is_stuck(self, now: int) -> bool:
        """Return whether a killed owner takes too long to end."""
        return self._killed_at is not None and now >= self._killed_at + int(STUCK_S * NS)

    def died(self, pid: int) -> None:
        """Note that an owner is dead."""
        self.is_orphan = not self.is_held
        if pid == self.owner:
            self.owner = self._killed_at = None

    def seized(self) -> None:
        """Note that the guardian has the pins, and that they are safe."""
        self.is_held, self.is_orphan = True, False

    def taken_over(self) -> None:
        """Note that another process has the pins, and is responsible for them."""
        self.is_orphan = False

    def failed(self, now: int) -> None:
        """Note that the pins are unavailable although no process of ours has them; they are tried again later."""
        self._retry_at = now + int(RETRY_S * NS)

    def yielded(self) -> None:
        """Note that the guardian has released the pins."""
        self.is_held = False

    def excuse(self, ends: Sequence[int], now: int, *, stopped_at: int | None = None, beaten: int = NEVER) -> None:
        """Begin the owner's grace again, because we woke later than expected, so that the owner may be late as well.

        The same lease, stop or beat is excused only once: a machine that is late each time would excuse it for ever.
        The arguments are as in `next`.
        """
        due = self._due_at(ends, stopped_at, beaten)
        if due is not None and due <= now and due != self._excuse:
            self._excused, self._excuse = now, due

    def next(
        self,
        ends: Sequence[int],
        now: int,
        *,
        wanted_by: int,
        has_begun: bool,
        stopped_at: int | None = None,
        beaten: int = NEVER,
        grace: float = GRACE_S,
    ) -> Action | None:
        """Return the action to take at `now`, in ns.

        `ends` are the ends of all leases, NEVER for an output that is safe already. `wanted_by` is the process that
        waits for the pins, and `has_begun` says that our owner has them. `stopped_at` is when the machine was stopped,
        if that is not confirmed yet, and `beaten` when an owner that has to beat did so last. `grace` is in s.
        """
        if self.is_held:
            return Action.YIELD if wanted_by != NOBODY else None
        if self.is_orphan:
            return Action.SEIZE if now >= self._retry_at else None
        if self.owner is None or not has_begun or self.is_killed:
            return None
        due = self._due_at(ends, stopped_at, beaten)
        return Action.KILL if due is not None and max(due, self._excused) + int(grace * NS) < now else None

    def due(
        self,
        ends: Sequence[int],
        now: int,
        *,
        has_begun: bool,
        stopped_at: int | None = None,
        beaten: int = NEVER,
        grace: float = GRACE_S,
    ) -> float:
        """Return in how many seconds to look again at the latest; the arguments are as in `next`."""
        if self.is_held or self.is_orphan:
            return max(HOLD_S, (self._retry_at - now) / NS if self.is_orphan else 0.0)
        due = self._due_at(ends, stopped_at, beaten)
        if due is None or not has_begun or self.is_killed:
            return self._blind_s
        return min(self._blind_s, max(0.0, (max(due, self._excused) - now) / NS + grace))

    def _due_at(self, ends: Sequence[int], stopped_at: int | None, beaten: int) -> int | None:
        """Return by when the owner has to act, or had to; None for never."""
        dues = [ends[place] for place in self._places if ends[place] != NEVER]
        if stopped_at is not None:
            dues.append(stopped_at + int((self._stop_s - GRACE_S) * NS))
        if beaten != NEVER:
            dues.append(beaten + int(BEAT_S * NS))
        return min(dues, default=None)
