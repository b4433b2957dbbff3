"""Estimates the cost of tasks by kind of package, as a moving average. Pure."""

from __future__ import annotations

from taskengine.broker.package import TaskKind
from taskengine.broker.tuning import MAX_KINDS

_COST_WEIGHT = 0.5


class Costs:
    """The cost of one task of each kind in ns, as far as it is `known`; `mean_ns` is the mean over all kinds."""

    def __init__(self) -> None:
        self.mean_ns = 0.0
        self.known: dict[TaskKind, float] = {}

    def learn(self, kind: TaskKind, tasks: int, elapsed_ns: int) -> float | None:
        """Note that so many tasks took so long; return the cost of one task if its kind was unknown, else None."""
        cost = max(elapsed_ns, 1) / tasks
        self.mean_ns += _COST_WEIGHT * (cost - self.mean_ns)
        known = self.known.get(kind)
        if known is not None:
            self.known[kind] = known + _COST_WEIGHT * (cost - known)
            return None
        if len(self.known) >= MAX_KINDS:
            self.known.pop(next(iter(self.known)))
        self.known[kind] = cost
        return cost
