"""Packages in flight, by their clients and serials. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from taskengine.broker.package import Package


class Serials:
    """Finds packages by client and serial; several in flight may have the same serial, as in wire 0.1.

    Packages returned by `take` and `take_all` are not found again: nothing of them can be cancelled any more, so that a
    client that repeats its request costs nothing.
    """

    def __init__(self) -> None:
        self._flying: dict[bytes, dict[str, dict[Package, None]]] = {}
        """In the order of reception."""

    def __len__(self) -> int:
        """Return how many clients have something in flight that can be found."""
        return len(self._flying)

    def add(self, package: Package) -> None:
        """Add a package that is in flight."""
        mine = self._flying.get(package.sender.client)
        if mine is None:
            mine = self._flying[package.sender.client] = {}
        alike = mine.get(package.serial)
        if alike is None:
            mine[package.serial] = {package: None}
        else:
            alike[package] = None

    def newest(self, client: bytes, serial: str) -> Package | None:
        """Return the client's last package with this serial."""
        return next(reversed(self._flying.get(client, {}).get(serial, {})), None)

    def of(self, client: bytes) -> Iterator[Package]:
        """Yield the client's packages."""
        for alike in self._flying.get(client, {}).values():
            yield from alike

    def progress(self, route: tuple[bytes, ...]) -> list[tuple[str, int, int]]:
        """Return (serial, tasks done, tasks in all) of each package of the client that came by this route."""
        mine = sorted(
            (package for package in self.of(route[0]) if package.sender.route == route), key=attrgetter("flight.job")
        )
        return [(package.serial, package.count - package.results.missing, package.count) for package in mine]

    def take(self, client: bytes, serial: str) -> list[Package]:
        """Remove and return the client's packages with this serial."""
        mine = self._flying.get(client, {})
        taken = list(mine.pop(serial, ()))
        if taken and not mine:
            del self._flying[client]
        return taken

    def take_all(self, client: bytes) -> list[Package]:
        """Remove and return the client's packages."""
        taken = list(self.of(client))
        self._flying.pop(client, None)
        return taken

    def remove(self, package: Package) -> None:
        """Remove a package that is over."""
        mine = self._flying.get(package.sender.client, {})
        alike = mine.get(package.serial)
        if alike is None or package not in alike:
            return
        del alike[package]
        if not alike:
            del mine[package.serial]
            if not mine:
                del self._flying[package.sender.client]
