"""What the guardian does about a lane: events, `now` and what the panel says go in, a deed comes out. Pure.

Theory of operation. An owner acts on the end of a lease, on a stop, and beats while it makes pulses that no lease ends.
Where it has not by the end of a grace, it hangs, and is ended. But the machine may be so busy that no process runs when
it should, or the whole engine may have stood still. The guardian sees that by its own wake-ups: the grace grows by as
much as they are late, and an owner that seems overdue after a late one has a whole grace from there on, once.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from .shared_state import NEVER, NOBODY

NS = 1_000_000_000
GRACE_S = 0.025
"""How long after a lease has ended its owner may take to act on that."""
STOP_S = 0.1
"""How long after the machine was stopped an owner may take to be safe, beyond what the grace has grown."""
BEAT_S = 0.25
"""How old the beat of an owner may be that makes pulses without a lease."""
RETRY_S = 0.1
"""How soon pins that could not be had are tried for again."""
HOLD_S = 0.005
"""How soon the next owner gets the pins."""
BLIND_S = 0.25
"""How long the guardian looks away at most: as long as the shortest usual lease."""
MOST_GRACE_S = 0.25
"""What the grace grows to at most, however busy the machine is."""
FORGET_S = 4.0
"""How long a late wake-up takes to count half."""


class Action(enum.Enum):
    """What the guardian is to do about a lane."""

    KILL = "kill the owner"
    SEIZE = "take the lock, claim the pins, make them safe"
    YIELD = "let go of the pins, then of the lock"


class Lateness:
    """How late this machine wakes its processes: the largest delay of late, which is forgotten by and by."""

    def __init__(self) -> None:
        self._late = 0.0
        self._at = 0

    def woke(self, wanted: int, now: int) -> bool:
        """A process that was to wake at `wanted`, or before, woke at `now`; whether that is later than we knew."""
        late = (now - wanted) / NS
        if late <= self._late_at(now):
            return False
        is_news = late > self.grace(now)
        self._late, self._at = min(late, MOST_GRACE_S), now
        return is_news

    def grace(self, now: int) -> float:
        """Return how many s a process may be late that is as well as ours."""
        return min(MOST_GRACE_S, GRACE_S + self._late_at(now))

    def _late_at(self, now: int) -> float:
        late: float = self._late * 0.5 ** ((now - self._at) / NS / FORGET_S)
        return late


class FailoverPolicy:
    """A lane, whose devices have these `places` on the panel, and leases that run for `shortest` s at least."""

    def __init__(self, places: Sequence[int], shortest: float = BLIND_S) -> None:
        self._places = places
        self._blind_s = min(BLIND_S, shortest)
        self.owner: int | None = None
        """The owner's process; None where it is dead, or was not started."""
        self.is_held = False
        """The guardian has the pins."""
        self.is_orphan = False
        """An owner has died, or may have, and nobody has made its pins safe since."""
        self._retry_at = 0
        self._excused = 0
        """From when on the owner's grace counts, at the earliest."""
        self._excuse: int | None = None
        """What it is excused for: when it should have acted."""

    def begins(self, pid: int) -> None:
        """An owner was started."""
        self.owner = pid

    def died(self, pid: int) -> None:
        """An owner is dead."""
        self.is_orphan = not self.is_held
        if pid == self.owner:
            self.owner = None

    def seized(self) -> None:
        """The guardian has the pins, and they are safe."""
        self.is_held, self.is_orphan = True, False

    def taken_over(self) -> None:
        """Another process has the pins, and sees to them."""
        self.is_orphan = False

    def failed(self, now: int) -> None:
        """The pins cannot be had, although no process of ours has them; they are to be tried for again."""
        self._retry_at = now + int(RETRY_S * NS)

    def yielded(self) -> None:
        """The guardian has let go of the pins."""
        self.is_held = False

    def excuse(self, ends: Sequence[int], now: int, *, stopped_at: int | None = None, beaten: int = NEVER) -> None:
        """We woke later than we knew that we can, so the owner may have as well: its grace begins anew.

        Only once for the same lease, stop or beat, or a machine that is late each time would excuse it for ever. What
        is given is as in `next`.
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
        """What is to be done at `now`, in ns.

        `ends` are those of all leases, NEVER for an output that is safe already, `wanted_by` who waits for the
        pins, `has_begun` says that our owner has them, `stopped_at` is when the machine was stopped, where nobody
        has confirmed that, `beaten` when an owner that has to beat did last, and `grace` is in s.
        """
        if self.is_held:
            return Action.YIELD if wanted_by != NOBODY else None
        if self.is_orphan:
            return Action.SEIZE if now >= self._retry_at else None
        if self.owner is None or not has_begun:
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
        """In how many seconds to look again at the latest; what is given is as in `next`."""
        if self.is_held or self.is_orphan:
            return max(HOLD_S, (self._retry_at - now) / NS if self.is_orphan else 0.0)
        due = self._due_at(ends, stopped_at, beaten)
        if due is None or not has_begun:
            return self._blind_s
        return min(self._blind_s, max(0.0, (max(due, self._excused) - now) / NS + grace))

    def _due_at(self, ends: Sequence[int], stopped_at: int | None, beaten: int) -> int | None:
        """Return when the owner has to have acted, or has to; None for never."""
        dues = [ends[place] for place in self._places if ends[place] != NEVER]
        if stopped_at is not None:
            dues.append(stopped_at + int((STOP_S - GRACE_S) * NS))
        if beaten != NEVER:
            dues.append(beaten + int(BEAT_S * NS))
        return min(dues, default=None)
