"""How often a key, or an address, may connect: each handshake takes the engine time for its cryptography. Pure."""

from __future__ import annotations

from typing import NamedTuple

from taskengine.wire import CLIENTS_KEPT, HANDSHAKE_BURST, HANDSHAKE_RATE


class Knock(NamedTuple):
    """Whether somebody may connect now, and whether it is news that they may not."""

    is_let_in: bool
    is_news: bool = False


LET_IN = Knock(is_let_in=True)


class _Caller:
    __slots__ = ("is_refused", "rested_at")

    def __init__(self) -> None:
        self.rested_at = 0.0
        """When as many connections at once are free again as for one who never came."""
        self.is_refused = False


class Handshakes:
    """Keys or addresses, each of which makes `rate` connections a second, and after a rest `burst` at once.

    Where too many are known the one that has connected least lately is forgotten.
    """

    def __init__(self, rate: float = HANDSHAKE_RATE, burst: float = HANDSHAKE_BURST) -> None:
        self._apart = 1 / rate
        self._lead = burst / rate
        self._callers: dict[str, _Caller] = {}

    def knock(self, who: str, now: float) -> Knock:
        """Somebody connects at `now`, monotonic s."""
        caller = self._callers.pop(who, None) or _Caller()
        if len(self._callers) >= CLIENTS_KEPT:
            del self._callers[next(iter(self._callers))]
        self._callers[who] = caller  # the last comes last
        rested_at = max(caller.rested_at, now) + self._apart
        if rested_at - now > self._lead:
            is_news, caller.is_refused = not caller.is_refused, True
            return Knock(is_let_in=False, is_news=is_news)
        if caller.rested_at <= now:
            caller.is_refused = False
        caller.rested_at = rested_at
        return LET_IN
