"""A task of numbers: where the elbow of an arm with two links must be, so that the hand reaches a point."""

from __future__ import annotations

import math

from taskengine import task

UPPER, LOWER = 0.12, 0.10
"""The lengths of the links, in m."""


@task(name="arm.elbow")
def elbow(x: float, y: float) -> float:
    """Return the angle between the two links, in degrees, with the hand at `x`, `y` (in m from the shoulder)."""
    cosine = (UPPER**2 + LOWER**2 - x**2 - y**2) / (2 * UPPER * LOWER)
    if not -1 <= cosine <= 1:
        raise ValueError(f"the arm cannot reach {math.hypot(x, y):.3f} m from its shoulder")
    return math.degrees(math.acos(cosine))
