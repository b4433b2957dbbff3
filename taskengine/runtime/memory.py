"""Memory of the system's own.

What a large package took goes back with it, and a progress page is shared by processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap

from taskengine._fastpath import ProgressPage
from taskengine.protocol.layouts import PROGRESS_BYTES

_M_MMAP_THRESHOLD = -3
LARGE = 2**20
"""The size, in bytes, from which on a block goes back to the system when it is freed."""


def give_back_memory() -> None:
    """Have malloc keep no blocks of LARGE bytes; by itself it moves that limit up to 32 MiB, and keeps what lies below.

    Only glibc is told (mallopt(3)); other libraries have their own ways.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE)


def trim_memory() -> None:
    """Give back what was freed in small blocks (glibc's malloc_trim(3))."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def new_page() -> ProgressPage:
    """Return a progress page in memory that this process shares with those that it forks."""
    return ProgressPage(mmap.mmap(-1, PROGRESS_BYTES))
