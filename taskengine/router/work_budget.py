"""Limits the part of the router's time that each client takes by sending. Pure.

A client may take as much of the time as is free, so that the greediest client leaves half of it to others, as in
`quota`. A client is refused only while others send too, and only if it takes more than the mean.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from taskengine.broker.tuning import LATEST_RETRY_S, SOONEST_RETRY_S
from taskengine.protocol.limits import MAX_CLIENTS

SPAN_S = 1.0
"""Time, in s, after which a client's use of the router counts 1/e of itself."""
STEP_S = 0.1
"""Time, in s, between two calculations of that."""
LEAST_S = 1e-5
"""A client that has kept the router busy for less, of late, is forgotten."""
WAITING_S = 1e-3
"""Others that have kept it busy for less, of late, do not wait: one reading of the counters is no reason to refuse."""
ABOVE_MEAN = 1.5
"""A client that does so many times what clients do on the average is not refused yet."""
STUBBORN = 0.75
"""Part of the time from which on a client is cut off, because refusals did not slow it down."""


class Excess(NamedTuple):
    """A client has kept the router busy for too long, and may send again in `retry_after` s."""

    retry_after: float
    is_stubborn: bool
    """Whether the client goes on in spite of refusals, or by so many connections that refusals do not help."""
    is_news: bool
    """Whether this is the first excess of this kind since the client was last below its share."""


class WorkBudget:
    """The router's time by client: by key, or by connection where there are no keys."""

    def __init__(self) -> None:
        self._spent: dict[str | bytes, float] = {}
        """The time, in s, that each client took in about the last SPAN_S."""
        self._total = 0.0
        self._since = 0.0
        self._told: dict[str | bytes, bool] = {}
        """Clients that are refused, and whether they were cut off."""

    def charge(self, client: str | bytes, seconds: float, now: float) -> None:
        """Charge a client for the time, in s, that the router spent on its message, until `now`, monotonic s."""
        if now - self._since >= STEP_S:
            self._forget(now)
        if client not in self._spent and len(self._spent) >= MAX_CLIENTS:
            client = ""  # all clients beyond MAX_CLIENTS share one budget
        self._spent[client] = self._spent.get(client, 0.0) + seconds
        self._total += seconds

    def excess(self, client: str | bytes, now: float) -> Excess | None:
        """Return the client's excess; None where it may send."""
        if now - self._since >= STEP_S:
            self._forget(now)
        mine = self._spent.get(client, 0.0)
        free = SPAN_S - self._total
        if mine <= free or self._total - mine <= WAITING_S:
            return None
        share = max(free, ABOVE_MEAN * self._total / len(self._spent))
        if mine <= share:
            return None
        retry_after = SPAN_S * math.log(mine / share)
        is_stubborn = mine > STUBBORN * SPAN_S
        is_news = client not in self._told or (is_stubborn and not self._told[client])
        self._told[client] = is_stubborn or self._told.get(client, False)
        return Excess(min(max(retry_after, SOONEST_RETRY_S), LATEST_RETRY_S), is_stubborn, is_news)

    def _forget(self, now: float) -> None:
        """Reduce what clients have spent, and forget clients that have rested."""
        left = math.exp((self._since - now) / SPAN_S)
        self._since = now
        spent = ((client, seconds * left) for client, seconds in self._spent.items())
        self._spent = {client: seconds for client, seconds in spent if seconds > LEAST_S}
        self._total = sum(self._spent.values())
        self._told = {client: told for client, told in self._told.items() if self._spent.get(client, 0.0) > self._half}

    @property
    def _half(self) -> float:
        """Return the amount below which a client has rested."""
        return (SPAN_S - self._total) / 2
