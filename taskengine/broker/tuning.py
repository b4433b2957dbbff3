"""How the broker spreads work, and what it counts for a package."""

from __future__ import annotations

from typing import Final

BATCH_NS: Final = 1_000_000
"""Work, in ns, that one batch brings to a worker: less wakes everyone too often, more balances badly."""
BATCH_SLICES: Final = 256
"""Slices in one batch at most: each brings the head of its package."""
SLICE_NS: Final = 2 * BATCH_NS
"""How long a worker stays at a batch before it hands the rest back: estimates are wrong now and then."""
DEATHS: Final = 2
"""How many workers may die at an idempotent task that runs, or at a chunk that was next, until that is lost."""
PACKAGE_BYTES: Final = 4096
"""What a package in flight takes beside its bytes, about,"""
RUN_BYTES: Final = 512
"""and each run of neighbouring tasks of a lane."""
NAME_BYTES: Final = 64
"""and each name in its head, beside its bytes."""
SOONEST_RETRY_S: Final = 0.01
"""How soon a client that was refused is told to come back at the soonest,"""
LATEST_RETRY_S: Final = 10.0
"""and at the latest."""
COSTS_KEPT: Final = 1024
"""Kinds of package whose cost the router remembers."""
