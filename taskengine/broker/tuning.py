"""How the broker spreads work, and how it counts the memory of a package."""

from __future__ import annotations

from typing import Final

BATCH_NS: Final = 1_000_000
"""Work in ns that one batch brings to a worker. Lower values wake processes more often, higher ones balance worse."""
BATCH_SLICES: Final = 256
"""Most slices in one batch; each brings the head of its package."""
SLICE_NS: Final = 2 * BATCH_NS
"""How long a worker stays at a batch, in ns, before it hands the rest back; covers wrong estimates."""
LOOK_S: Final = 0.0015
"""The shortest time, in s, between two looks at what a busy worker has finished,"""
LONGEST_LOOK_S: Final = 0.004
"""and the longest: results are to come within 5 ms."""
LOOK_SHARE: Final = 8
"""A look waits for this part of the time for which nothing was found, between the two."""
DEATHS: Final = 2
"""How many workers may die at a running idempotent task, or before a chunk, until that is lost."""
PACKAGE_BYTES: Final = 4096
"""About how many bytes a package in flight takes beside its tasks,"""
RUN_BYTES: Final = 512
"""each run of neighbouring tasks of a lane,"""
NAME_BYTES: Final = 64
"""and each name in its head, beside the name's bytes."""
SOONEST_RETRY_S: Final = 0.01
"""The shortest time, in s, after which a refused client is told to try again,"""
LATEST_RETRY_S: Final = 10.0
"""and the longest."""
MAX_KINDS: Final = 1024
"""Kinds of package whose cost the router remembers."""
WORTH_NS = 300_000
"""Work for which it is worth it to take tasks back from a worker: more than a message there and back costs."""
