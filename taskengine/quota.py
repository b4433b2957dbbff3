"""How much may be in flight, of one client and of all. Pure."""

from __future__ import annotations

import sys
from typing import NamedTuple

from taskengine.errors import Overloaded
from taskengine.wire import PACKAGE_BYTES


class Limits(NamedTuple):
    """The most tasks and bytes in flight, of one client and of all."""

    client_tasks: int
    client_bytes: int
    queue_tasks: int
    queue_bytes: int


NO_LIMITS = Limits(sys.maxsize, sys.maxsize, sys.maxsize, sys.maxsize)


class _Share:
    """What is in flight of one client."""

    __slots__ = ("bytes", "tasks")

    def __init__(self) -> None:
        self.tasks = 0
        self.bytes = 0


class Quota:
    """What is in flight, against the `limits`.

    A client may have as much as is free, so that one that takes all it can leaves half of everything to the next, two
    leave a third (dynamic thresholds; Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998).
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._room = limits.queue_bytes
        self._shares: dict[bytes, _Share] = {}
        self.tasks = 0
        self.bytes = 0
        self.results = 0
        """Bytes of results that wait until their package is whole."""

    def take(self, client: bytes, tasks: int, size: int, retry_after: float) -> None:
        """Let a package in. Raises Overloaded, which says to come back in `retry_after` s."""
        size += PACKAGE_BYTES
        share = self._shares.get(client) or _Share()
        limits, free_bytes = self._limits, self._limits.queue_bytes - self.bytes - self.results
        _check("tasks", tasks, share.tasks, limits.client_tasks, limits.queue_tasks - self.tasks, retry_after)
        _check("bytes", size, share.bytes, limits.client_bytes, free_bytes, retry_after)
        self._shares[client] = share
        share.tasks += tasks
        share.bytes += size
        self.tasks += tasks
        self.bytes += size

    def give_back(self, client: bytes, tasks: int, size: int, results: int) -> None:
        """A package has left that took so much, and held `results` bytes of results."""
        size += PACKAGE_BYTES
        share = self._shares[client]
        share.tasks -= tasks
        share.bytes -= size
        self.tasks -= tasks
        self.bytes -= size
        self.results -= results
        if not share.bytes:
            del self._shares[client]

    def hold(self, size: int) -> None:
        """So many bytes of results are there, whether there is room for them or not."""
        self.results += size

    def holds(self, size: int) -> bool:
        """There is room for so many bytes of results, which count from here on."""
        results = self.results + size
        if self.bytes + results > self._room:
            return False
        self.results = results
        return True


def _check(unit: str, wanted: int, has: int, limit: int, free: int, retry_after: float) -> None:
    """Whether a client that `has` some may have more. Raises Overloaded."""
    name = f"CLIENT_{unit.upper()}"
    if wanted > limit:
        text = f"a package of {wanted} {unit} is more than a client may have in flight ({name} is {limit})"
        raise Overloaded(text, retry_after=None, in_flight=has, limit=limit)
    if has + wanted > limit:
        text = f"this client has {has} {unit} in flight, and may have {limit} ({name})"
        raise Overloaded(text, retry_after=retry_after, in_flight=has, limit=limit)
    if has + wanted > free:
        text = (
            f"the engine has room for {max(0, free)} {unit} (QUEUE_{unit.upper()}), and this client has {has} in flight"
        )
        raise Overloaded(text, retry_after=retry_after, in_flight=has, limit=max(0, free))
