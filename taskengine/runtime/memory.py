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


def new_page() -> ProgressPage:
    """Return a progress page in memory that this process shares with those that it forks."""
    return ProgressPage(mmap.mmap(-1, PROGRESS_BYTES))
