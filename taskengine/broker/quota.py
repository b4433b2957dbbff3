"""How much may be in flight, of one client and of all. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from taskengine.errors import Overloaded

UNLIMITED = 2**63 - 1
"""More than there ever is, also where a size has 32 bits."""
MAX_EXEMPT = 64
"""Packages in flight of one client that no limit applies to, because they stop something,"""
MAX_EXEMPT_OF_ALL = 4096
"""and of all clients."""


class QuotaLimits(NamedTuple):
    """The most tasks, bytes and packages in flight, of one client and of all clients."""

    client_tasks: int
    client_bytes: int
    queue_tasks: int
    queue_bytes: int
    client_packages: int = UNLIMITED
    queue_packages: int = UNLIMITED


NO_LIMITS = QuotaLimits(UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED)


class _Share:
    """One client's tasks, bytes and packages in flight."""

    __slots__ = ("bytes", "exempt", "packages", "tasks")

    def __init__(self) -> None:
        self.exempt = 0
        self.packages = 0
        self.tasks = 0
        self.bytes = 0


class Quota:
    """Tasks, bytes and packages in flight, counted against the `limits`.

    A client may have as much as is free. A client that takes all it can therefore leaves half of everything to the
    next, and two leave a third (dynamic thresholds; Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998).
    """

    def __init__(self, limits: QuotaLimits) -> None:
        self._limits = limits
        self._room = limits.queue_bytes
        self._shares: dict[bytes, _Share] = {}
        self.packages = 0
        self.tasks = 0
        self.bytes = 0
        self.exempt = 0
        self.results = 0
        """Bytes of results that wait until their package is whole."""

    def take(
        self, client: bytes, tasks: int, size: int, retry_after: Callable[[], float], *, is_exempt: bool = False
    ) -> None:
        """Count a package in. Raises Overloaded with `retry_after` in s, which is computed only then.

        A package that `is_exempt` counts, but no limit refuses it, unless there are very many of its kind.
        """
        share = self._shares.get(client) or _Share()
        if not (is_exempt and share.exempt < MAX_EXEMPT and self.exempt < MAX_EXEMPT_OF_ALL):
            self._check(share, tasks, size, retry_after)
        self._shares[client] = share
        share.packages += 1
        self.packages += 1
        share.tasks += tasks
        share.bytes += size
        self.tasks += tasks
        self.bytes += size
        if is_exempt:
            share.exempt += 1
            self.exempt += 1

    def _check(self, share: _Share, tasks: int, size: int, retry_after: Callable[[], float]) -> None:
        limits = self._limits
        tasks_left, bytes_left = limits.queue_tasks - self.tasks, limits.queue_bytes - self.bytes - self.results
        packages_left = limits.queue_packages - self.packages
        if (
            share.tasks + tasks > min(limits.client_tasks, tasks_left)
            or share.bytes + size > min(limits.client_bytes, bytes_left)
            or share.packages >= min(limits.client_packages, packages_left)
        ):
            soon, most = retry_after(), limits.queue_packages
            _check("tasks", tasks, share.tasks, limits.client_tasks, limits.queue_tasks, tasks_left, soon)
            _check("bytes", size, share.bytes, limits.client_bytes, limits.queue_bytes, bytes_left, soon)
            _check("packages", 1, share.packages, limits.client_packages, most, packages_left, soon)

    def give_back(self, client: bytes, tasks: int, size: int, results: int, *, is_exempt: bool = False) -> None:
        """Count a package out that took so much, and held `results` bytes of results."""
        share = self._shares[client]
        if is_exempt:
            share.exempt -= 1
            self.exempt -= 1
        share.packages -= 1
        self.packages -= 1
        share.tasks -= tasks
        share.bytes -= size
        self.tasks -= tasks
        self.bytes -= size
        self.results -= results
        if not share.packages:
            del self._shares[client]

    def fits(self, size: int) -> bool:
        """Return whether there is room for so many more bytes of results."""
        return self.bytes + self.results + size <= self._room

    def free(self, size: int) -> None:
        """Count out bytes of results that are sent before their package is complete."""
        self.results -= size

    def hold(self, size: int) -> None:
        """Count bytes of results, even if there is no room for them."""
        self.results += size

    def holds(self, size: int) -> bool:
        """Count bytes of results if there is room for them; return whether there is."""
        results = self.results + size
        if self.bytes + results > self._room:
            return False
        self.results = results
        return True


def _check(unit: str, wanted: int, has: int, limit: int, whole: int, free: int, retry_after: float) -> None:
    """Check that a client that `has` some may have more, of `whole` for all clients. Raises Overloaded."""
    mine, all_ = f"CLIENT_{unit.upper()}", f"QUEUE_{unit.upper()}"
    name, most = (mine, limit) if limit <= whole else (all_, whole)
    if wanted > most:
        text = f"a package of {wanted} {unit} is more than a client may have in flight ({name} is {most})"
        raise Overloaded(text, retry_after=None, in_flight=has, limit=most)
    if has + wanted > limit:
        text = f"this client has {has} {unit} in flight, and may have {limit} ({mine})"
        raise Overloaded(text, retry_after=retry_after, in_flight=has, limit=limit)
    if has + wanted > free:
        text = f"the engine has room for {max(0, free)} {unit} ({all_}), and this client has {has} in flight"
        raise Overloaded(text, retry_after=retry_after, in_flight=has, limit=max(0, free))
