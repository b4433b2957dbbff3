"""Memory: returns the memory of large packages to the system, and makes pages that processes share.

By default glibc raises the size from which it returns blocks, so that a process keeps the memory of a large package.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap

from taskengine._fastpath import ProgressPage
from taskengine.protocol.layouts import PROGRESS_BYTES

_M_MMAP_THRESHOLD = -3
LARGE = 2**20
"""A freed block of this size, in bytes, or more goes back to the system."""
FREED_BYTES = 2**25
"""Bytes that were in use and are not any more, before memory is trimmed,"""
TRIM_PAUSE_S = 5.0
"""and the shortest time, in s, between two trims."""


def give_back_memory() -> None:
    """Have malloc return freed blocks of LARGE bytes and more; by default it raises that limit, up to 32 MiB.

    This has an effect with glibc only (mallopt(3)).
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE)


def trim_memory() -> None:
    """Return memory that was freed in small blocks to the system (glibc's malloc_trim(3))."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class FreedMemory:
    """Tells when so much was freed that `trim_memory`, which takes some ms, is worth its time."""

    def __init__(self) -> None:
        self._most = 0
        self._next = 0.0

    def is_due(self, held: int, now: float) -> bool:
        """Return whether to trim at `now`, monotonic s, while `held` bytes are in use; call it again and again."""
        self._most = max(self._most, held)
        if self._most - held < FREED_BYTES or now < self._next:
            return False
        self._most, self._next = held, now + TRIM_PAUSE_S
        return True


def new_page() -> ProgressPage:
    """Return a progress page in memory that this process shares with those that it forks."""
    return ProgressPage(mmap.mmap(-1, PROGRESS_BYTES))
