"""Targets with faults, for the test that faults are found."""

from __future__ import annotations

import ctypes

MAX_BYTES = 8
TOKENS = [b"x"]
ALLOCATED, READ = 16, 64
_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p


def fuzz(data: bytes) -> None:
    """Read beyond the end of what was allocated."""
    ctypes.string_at(_libc.malloc(ALLOCATED), READ)
