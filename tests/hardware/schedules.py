"""Random schedules of claims, releases, deaths and take-overs of a lane: `python -m tests.hardware.schedules`.

That plays `words` as well, where clients command what the lane owns.

The guardian of this model decides by the real `Ward`; owners and the guardian do one small step at a time, in any
order, die at any of them, and hear of each other late. What the kernel does is modelled: a process that dies loses its
lock and its pins.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from taskengine_hardware.failover import Action, FailoverPolicy
from taskengine_hardware.shared_state import NOBODY

STEPS = 24
PART = 10_000
"""Schedules that a process plays before it takes others."""
ENDS = [0]
OVERDUE = [1]
NOW = 10**12


class World:
    """One lane: who has the lock, who has pins, and who is alive."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lock: int | None = None
        self.pins: set[int] = set()
        self.wanted = NOBODY
        self.pid = 1
        self.owner: int | None = None
        self.stage = 0
        """How far the owner is: it wants, has the lock, has the pins, and wants no more."""
        self.guardian = 0
        self.ward = FailoverPolicy([0])
        self.plan: list[str] = []
        """The next action of the guardian."""
        self.news: list[tuple[bool, int]] = []
        """The events that it has not heard of: that an owner was started, or that it died."""
        self.takeovers = 0

    def step(self) -> None:
        """Something happens."""
        draw = self.rng.random()
        if draw < 0.06:
            self.kill(self.owner)
        elif draw < 0.09:
            self.end_guardian()
        elif draw < 0.5:
            self.owner_steps()
        else:
            self.guardian_steps()

    def owner_steps(self) -> None:
        """The owner, or the supervisor where there is none, does what is next."""
        if self.owner is None:
            self.pid += 1
            self.owner, self.stage = self.pid, 0
            self.news.append((True, self.pid))
        elif self.stage == 0:
            self.wanted, self.stage = self.owner, 1
        elif self.stage == 1:
            self.stage = 2 if self.take(self.owner) else 1
        elif self.stage == 2:
            self.open(self.owner)
            self.stage = 3
        elif self.stage == 3:
            self.wanted, self.stage = NOBODY, 4
        elif self.rng.random() < 0.1:  # a reload: it lets go, pins first
            if self.owner in self.pins:
                self.close(self.owner)
            else:
                self.give(self.owner)
                self.kill(self.owner)

    def guardian_steps(self) -> None:
        """The guardian hears, looks, or does a part of what it has decided."""
        if self.plan:
            getattr(self, self.plan.pop(0))()
            return
        if self.news and self.rng.random() < 0.7:
            is_start, pid = self.news.pop(0)
            if not is_start and self.wanted == pid:
                self.wanted = NOBODY
            (self.ward.begins if is_start else self.ward.died)(pid)
            return
        deed = self.look()
        if deed is Action.KILL:
            self.kill(self.ward.owner)
        elif deed is Action.SEIZE:
            self.plan = ["seize"]
        elif deed is Action.YIELD:
            self.plan = ["release", "unlock"]

    def look(self) -> Action | None:
        """Return the guardian's next action."""
        is_hanging = self.stage == 4 and self.rng.random() < 0.1
        return self.ward.next(OVERDUE if is_hanging else ENDS, NOW, wanted_by=self.wanted, has_begun=self.stage == 4)

    def open(self, owner: int) -> None:
        """The owner has the pins."""
        self.pins.add(owner)

    def close(self, owner: int) -> None:
        """The owner lets go of the pins."""
        self.pins.discard(owner)

    def seize(self) -> None:
        """Take the lock, if nobody has it."""
        if self.take(self.guardian):
            self.plan = ["claim", "settle"]
        else:
            self.ward.taken_over()

    def claim(self) -> None:
        """Claim the pins."""
        self.pins.add(self.guardian)

    def settle(self) -> None:
        """They are safe."""
        self.ward.seized()
        self.takeovers += 1

    def release(self) -> None:
        """Let go of the pins."""
        self.pins.discard(self.guardian)

    def unlock(self) -> None:
        """Let go of the lock."""
        self.give(self.guardian)
        self.ward.yielded()

    def take(self, who: int) -> bool:
        """The lock, for who asks first."""
        if self.lock is not None:
            return False
        self.lock = who
        return True

    def give(self, who: int) -> None:
        """The lock is free."""
        if self.lock == who:
            self.lock = None

    def kill(self, who: int | None) -> None:
        """The owner dies, if it is that one."""
        if who is None or who != self.owner:
            return
        self.owner = None
        self.news.append((False, who))
        self.give(who)
        self.pins.discard(who)

    def end_guardian(self) -> None:
        """The guardian dies, and another is told of the owner, dead or alive."""
        self.give(self.guardian)
        self.pins.discard(self.guardian)
        self.guardian -= 1
        self.ward = FailoverPolicy([0])
        self.ward.is_orphan = True
        self.plan = []
        self.news = [(True, self.owner)] if self.owner is not None else []


def run(schedules: int, seed: int) -> tuple[int, int]:
    """Play so many schedules: how often a lane had two owners, and how often the guardian took over."""
    rng = random.Random(seed)
    doubled = takeovers = 0
    for _ in range(schedules):
        world = World(rng)
        for _ in range(STEPS):
            world.step()
            if len(world.pins) > 1:
                doubled += 1
                break
        takeovers += world.takeovers
    return doubled, takeovers


def main(count: int, seed: int = 6) -> int:
    """Play so many schedules of owners, and so many of what clients say, on all processors; the exit code."""
    from tests.hardware import words

    doubled, takeovers = run(count, seed)
    print(
        f"{count} schedules of owners, {STEPS} steps each: {takeovers} take-overs, {doubled} times two owners of a pin"
    )
    broken: list[str] = []
    seen: Counter[str] = Counter()
    parts = [(min(PART, count - first), seed + first) for first in range(0, count, PART)]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for found, counted in pool.map(words.play, *zip(*parts, strict=True)):
            broken += found
            seen += counted
    print(f"{count} schedules of words, {words.STEPS} steps each: {len(broken)} broken; {dict(seen.most_common())}")
    print("".join(f"{line}\n" for line in broken), end="")
    return int(bool(doubled or broken))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
