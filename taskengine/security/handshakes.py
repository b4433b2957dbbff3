"""Limits how often a key, or an address, may connect: each handshake costs the engine cryptography. Pure."""

from __future__ import annotations

from typing import NamedTuple

from taskengine.protocol.limits import HANDSHAKE_BURST, HANDSHAKE_RATE, MAX_CLIENTS


class Attempt(NamedTuple):
    """Whether a connection is allowed now, and whether it is the first refusal in a row."""

    is_let_in: bool
    is_news: bool = False


LET_IN = Attempt(is_let_in=True)


class _Caller:
    __slots__ = ("is_refused", "rested_at")

    def __init__(self) -> None:
        self.rested_at = 0.0
        """When the full burst of connections will be available again."""
        self.is_refused = False


class Handshakes:
    """Keys or addresses, each of which may make `rate` connections a second, and after a pause `burst` at once.

    When too many are known, the one whose last connection is the longest ago is forgotten.
    """

    def __init__(self, rate: float = HANDSHAKE_RATE, burst: float = HANDSHAKE_BURST) -> None:
        self._apart = 1 / rate
        self._lead = burst / rate
        self._callers: dict[str, _Caller] = {}

    def knock(self, who: str, now: float) -> Attempt:
        """Count a connection of `who` at `now`, monotonic s; return whether it is allowed."""
        caller = self._callers.pop(who, None) or _Caller()
        if len(self._callers) >= MAX_CLIENTS:
            del self._callers[next(iter(self._callers))]
        self._callers[who] = caller  # keeps the order of the last connections
        rested_at = max(caller.rested_at, now) + self._apart
        if rested_at - now > self._lead:
            is_news, caller.is_refused = not caller.is_refused, True
            return Attempt(is_let_in=False, is_news=is_news)
        if caller.rested_at <= now:
            caller.is_refused = False
        caller.rested_at = rested_at
        return LET_IN
