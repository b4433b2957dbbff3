"""Limits how much of the audit log each client, and all strangers together, may fill, by kind of event. Pure.

A client that floods the log then loses its own lines only. Lines without room in the budget are counted; the count is
written with the next line of the budget, or by itself every `SUMMARY_S`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

BURST = 16 * 1024
"""Bytes of a full budget."""
LEAST_LINE = 128
"""Bytes that every line has at least."""
REFUSALS = frozenset({"refused", "not let in", "cut off"})
REFUSALS_RATE = 16.0
"""Bytes a second that a budget of refusals gets back: at this rate 32 MiB last three weeks."""
USUAL_RATE = 4096.0
"""Bytes a second for other events: noted calls, and changes of keys."""
STRANGERS = "not let in"
"""The event of clients that are not let in. They can take any number of keys and addresses, and share one budget."""
BUDGETS_KEPT = 1024
SUMMARY_S = 60.0


class LeftOut(NamedTuple):
    """How many lines of the event by `who`, "" for strangers, were not written."""

    event: str
    who: str
    lines: int


class _Budget:
    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.left = float(BURST)
        self.since = self.told = now
        self.left_out = 0


class Budgets:
    """The budgets of all clients and events; times are monotonic, in s."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], _Budget] = OrderedDict()
        self._evicted: list[LeftOut] = []
        self._next_look = 0.0

    def has_room(self, event: str, who: str, now: float) -> bool:
        """Return whether the shortest line would find room; if not, count a line, which need not be made."""
        budget = self._budget(event, who, now)
        budget.left_out += budget.left < LEAST_LINE
        return budget.left >= LEAST_LINE

    def left_out_before(self, event: str, who: str, size: int, now: float) -> int | None:
        """Take `size` bytes for a line. Return how many lines were left out before it, None if it is left out too."""
        budget = self._budget(event, who, now)
        if size > budget.left:
            budget.left_out += 1
            return None
        budget.left -= size
        count, budget.left_out, budget.told = budget.left_out, 0, now
        return count

    def _budget(self, event: str, who: str, now: float) -> _Budget:
        """Return the budget of a client for an event, refilled up to `now`."""
        place = (event, "" if event == STRANGERS else who)
        budget = self._known.get(place)
        if budget is None:
            budget = self._known[place] = _Budget(REFUSALS_RATE if event in REFUSALS else USUAL_RATE, now)
            if len(self._known) > BUDGETS_KEPT:
                (other, name), oldest = self._known.popitem(last=False)
                if oldest.left_out:
                    self._evicted.append(LeftOut(other, name, oldest.left_out))
        self._known.move_to_end(place)
        budget.left = min(BURST, budget.left + (now - budget.since) * budget.rate)
        budget.since = now
        return budget

    def summaries(self, now: float) -> Iterator[LeftOut]:
        """Yield how many lines were left out, for each budget at most once every `SUMMARY_S`."""
        if now < self._next_look:
            return
        self._next_look = now + SUMMARY_S / 10
        evicted, self._evicted = self._evicted, []
        yield from evicted
        for (event, who), budget in self._known.items():
            if budget.left_out and now - budget.told >= SUMMARY_S:
                count, budget.left_out, budget.told = budget.left_out, 0, now
                yield LeftOut(event, who, count)
