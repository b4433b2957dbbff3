"""What the guardian does about a lane: events, `now` and what the panel says go in, a deed comes out. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from taskengine_hardware.panel import NEVER

NS = 1_000_000_000
GRACE_S = 0.025
"""How long after a lease has ended its owner may take to act on that."""
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
    """A lane, whose devices have these `places` on the panel."""

    def __init__(self, places: Sequence[int]) -> None:
        self._places = places
        self.owner: int | None = None
        """The owner's process; None where it is dead, or was not started."""
        self.is_held = False
        """The guardian has the pins."""
        self.is_orphan = False
        """An owner has died, and nobody has made its pins safe since."""

    def begins(self, pid: int) -> None:
        """An owner was started."""
        self.owner = pid

    def died(self, pid: int) -> None:
        """An owner is dead."""
        self.is_orphan = True
        if pid == self.owner:
            self.owner = None

    def seized(self) -> None:
        """The guardian has the pins, and they are safe."""
        self.is_held, self.is_orphan = True, False

    def failed(self) -> None:
        """The pins cannot be had: they are another's, who is to see to them."""
        self.is_orphan = False

    def yielded(self) -> None:
        """The guardian has let go of the pins."""
        self.is_held = False

    def next(self, ends: Sequence[int], now: int, *, is_wanted: bool) -> Deed | None:
        """What is to be done at `now`, in ns, with the `ends` of all leases, while an owner waits or does not."""
        if self.is_held:
            return Deed.YIELD if is_wanted else None
        if self.is_orphan:
            return Deed.SEIZE
        if self.owner is not None and self._is_overdue(ends, now):
            return Deed.KILL
        return None

    def due(self, ends: Sequence[int], now: int) -> float:
        """In how many seconds to look again at the latest."""
        if self.is_held or self.is_orphan:
            return HOLD_S
        running = [ends[place] for place in self._places if ends[place] != NEVER]
        return min(BLIND_S, max(0.0, (min(running) - now) / NS + GRACE_S)) if running else BLIND_S

    def _is_overdue(self, ends: Sequence[int], now: int) -> bool:
        late = now - int(GRACE_S * NS)
        return any(NEVER < ends[place] < late for place in self._places)
