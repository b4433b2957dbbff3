"""Packages in flight, by their clients and serials. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from taskengine.package import Package


class Serials:
    """A client may use a serial again while it is in flight, as those of wire 0.1 do.

    What was given out by `take` and `take_all` is not found again: nothing of it can be cancelled any more, so that
    whoever asks for it again and again costs nothing.
    """

    def __init__(self) -> None:
        self._flying: dict[bytes, dict[str, dict[Package, None]]] = {}
        """In the order of reception."""

    def __len__(self) -> int:
        """How many clients have something in flight that can be found."""
        return len(self._flying)

    def add(self, package: Package) -> None:
        """A package is in flight."""
        mine = self._flying.get(package.client)
        if mine is None:
            mine = self._flying[package.client] = {}
        alike = mine.get(package.serial)
        if alike is None:
            mine[package.serial] = {package: None}
        else:
            alike[package] = None

    def newest(self, client: bytes, serial: str) -> Package | None:
        """The client's last package with this serial."""
        return next(reversed(self._flying.get(client, {}).get(serial, {})), None)

    def of(self, client: bytes) -> Iterator[Package]:
        """The client's packages."""
        for alike in self._flying.get(client, {}).values():
            yield from alike

    def progress(self, route: tuple[bytes, ...]) -> list[tuple[str, int, int]]:
        """Serial, tasks done and tasks in all of each package of the client's that is to be answered by this route."""
        mine = sorted((package for package in self.of(route[0]) if package.route == route), key=attrgetter("job"))
        return [(package.serial, package.count - package.assembly.missing, package.count) for package in mine]

    def take(self, client: bytes, serial: str) -> list[Package]:
        """The client's packages with this serial, which are not found any more."""
        mine = self._flying.get(client, {})
        taken = list(mine.pop(serial, ()))
        if taken and not mine:
            del self._flying[client]
        return taken

    def take_all(self, client: bytes) -> list[Package]:
        """The client's packages, which are not found any more."""
        taken = list(self.of(client))
        self._flying.pop(client, None)
        return taken

    def remove(self, package: Package) -> None:
        """A package is over."""
        mine = self._flying.get(package.client, {})
        alike = mine.get(package.serial)
        if alike is None or package not in alike:
            return
        del alike[package]
        if not alike:
            del mine[package.serial]
            if not mine:
                del self._flying[package.client]
