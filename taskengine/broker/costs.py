"""What tasks cost, by kind of package: a moving estimate. Pure."""

from __future__ import annotations

from taskengine.broker.package import TaskKind
from taskengine.broker.tuning import COSTS_KEPT

_COST_WEIGHT = 0.5


class Costs:
    """Of one task of each kind, in ns, as far as it is `known`; `mean_ns` is that of all."""

    def __init__(self) -> None:
        self.mean_ns = 0.0
        self.known: dict[TaskKind, float] = {}

    def learn(self, kind: TaskKind, tasks: int, elapsed_ns: int) -> float | None:
        """So many tasks took so long; what one costs, where that is news, else None."""
        cost = max(elapsed_ns, 1) / tasks
        self.mean_ns += _COST_WEIGHT * (cost - self.mean_ns)
        known = self.known.get(kind)
        if known is not None:
            self.known[kind] = known + _COST_WEIGHT * (cost - known)
            return None
        if len(self.known) >= COSTS_KEPT:
            self.known.pop(next(iter(self.known)))
        self.known[kind] = cost
        return cost
