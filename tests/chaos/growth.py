"""Whether processes grow while the same is asked of them again and again. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

MEMORY_BYTES = 2**20
"""As much more memory is a leak."""
WARM_S = 60.0
_WINDOW = 5
"""The first and the last of so many parts of the time are compared."""


class Sample(NamedTuple):
    """A process: bytes of memory, shared ones in part (`pss`) or in whole (`rss`), and numbers of others."""

    pss: int
    rss: int
    descriptors: int
    threads: int
    zombies: int


class Growth(NamedTuple):
    """The figures of a process when it was warm, and at the end: of memory the median, of the rest the least."""

    before: Sample
    after: Sample

    def broken(self) -> list[str]:
        """Return the figures that have grown and should not."""
        # what is no longer shared raises only the one figure, a leak both
        memory = min(self.after.pss - self.before.pss, self.after.rss - self.before.rss)
        found = [f"memory grew by {memory / 2**20:.2f} MiB"] if memory >= MEMORY_BYTES else []
        for name in ("descriptors", "threads", "zombies"):
            before, after = getattr(self.before, name), getattr(self.after, name)
            if after > before:
                found.append(f"{name} grew from {before} to {after}")
        return found


def warm_after(seconds: float) -> float:
    """When so long a run begins to be compared, in s."""
    return min(WARM_S, seconds / 3)


def growth(samples: Sequence[Sample]) -> Growth:
    """How a process that was warm has grown. What comes and goes, such as connections, is counted at its least."""
    size = max(1, len(samples) // _WINDOW)
    return Growth(_typical(samples[:size]), _typical(samples[-size:]))


def broken(samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    """Return the figures that have grown, over all processes."""
    return [f"{process}: {line}" for process, taken in samples.items() if taken for line in growth(taken).broken()]


def _typical(samples: Sequence[Sample]) -> Sample:
    ways: tuple[Callable[[Sequence[int]], float], ...] = (median, median, min, min, min)
    return Sample(*(int(way(values)) for way, values in zip(ways, zip(*samples, strict=True), strict=True)))
