"""Memory: returns the memory of large packages to the system, and makes pages that processes share.

By default glibc raises the size from which it returns blocks, so that a process keeps the memory of a large package.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
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
REST_S, LONGEST_S = 5.0, 60.0
"""The shortest time, in s, between two full collections of garbage, and the longest, after which work has to wait."""
_NEVER = 2**30


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


def hold_back_collections() -> None:
    """Have Python make no full collections of garbage in this process; `MemoryUpkeep` makes them.

    A full collection looks at every object: it stopped the router for 100 to 400 ms with some hundred thousand chunks
    in flight, about once a second. Young objects are collected as always.
    """
    gc.set_threshold(*gc.get_threshold()[:2], _NEVER)


class FullCollections:
    """Tells when to make a full collection of garbage: when nothing is in flight, or after a long time."""

    def __init__(self, now: float) -> None:
        self._last = now

    def is_due(self, now: float, *, is_idle: bool) -> bool:
        """Return whether to collect at `now`, monotonic s; call it again and again, and say whether work would wait."""
        if now - self._last < (REST_S if is_idle else LONGEST_S):
            return False
        self._last = now
        return True


class MemoryUpkeep:
    """Trims the memory of this process, and collects its garbage, when that is worth its time."""

    def __init__(self, now: float) -> None:
        self._freed = FreedMemory()
        self._collections = FullCollections(now)

    def tidy(self, held: int, now: float, *, is_idle: bool) -> None:
        """Do what is due at `now`, monotonic s, while `held` bytes are in use; `is_idle` says that no work waits."""
        if self._freed.is_due(held, now):
            trim_memory()
        if self._collections.is_due(now, is_idle=is_idle):
            gc.collect()


def new_page() -> ProgressPage:
    """Return a progress page in memory that this process shares with those that it forks."""
    return ProgressPage(mmap.mmap(-1, PROGRESS_BYTES))
