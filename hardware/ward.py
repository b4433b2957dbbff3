"""What the guardian does about a lane: events, `now` and what the panel says go in, a deed comes out. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from taskengine_hardware.panel import NEVER, NOBODY

NS = 1_000_000_000
GRACE_S = 0.025
"""How long after a lease has ended its owner may take to act on that."""
STOP_S = 0.1
"""How long after the machine was stopped an owner may take to be safe."""
RETRY_S = 0.1
"""How soon pins that could not be had are tried for again."""
HOLD_S = 0.005
"""How soon the next owner gets the pins."""
BLIND_S = 0.25
"""How long the guardian looks away at most: as long as the shortest usual lease."""


class Deed(enum.Enum):
    """What the guardian is to do about a lane."""

    KILL = "kill the owner"
    SEIZE = "take the lock, claim the pins, make them safe"
    YIELD = "let go of the pins, then of the lock"


class Ward:
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

    def next(
        self, ends: Sequence[int], now: int, *, wanted_by: int, has_begun: bool, stopped_at: int | None = None
    ) -> Deed | None:
        """What is to be done at `now`, in ns.

        `ends` are those of all leases, `wanted_by` who waits for the pins, `has_begun` says that our owner has them,
        and `stopped_at` is when the machine was stopped, where nobody has confirmed that.
        """
        if self.is_held:
            return Deed.YIELD if wanted_by != NOBODY else None
        if self.is_orphan:
            return Deed.SEIZE if now >= self._retry_at else None
        if self.owner is None or not has_begun:
            return None
        is_deaf = stopped_at is not None and now - stopped_at > int(STOP_S * NS)
        return Deed.KILL if is_deaf or self._is_overdue(ends, now) else None

    def due(self, ends: Sequence[int], now: int, *, has_begun: bool) -> float:
        """In how many seconds to look again at the latest."""
        if self.is_held or self.is_orphan:
            return max(HOLD_S, (self._retry_at - now) / NS if self.is_orphan else 0.0)
        running = [ends[place] for place in self._places if ends[place] != NEVER and has_begun]
        return min(self._blind_s, max(0.0, (min(running) - now) / NS + GRACE_S)) if running else self._blind_s

    def _is_overdue(self, ends: Sequence[int], now: int) -> bool:
        late = now - int(GRACE_S * NS)
        return any(NEVER < ends[place] < late for place in self._places)
