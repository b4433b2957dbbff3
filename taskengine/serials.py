"""Packages in flight, by their clients and serials. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from taskengine.package import Package


class Serials:
    """A client may use a serial again while it is in flight, as those of wire 0.1 do."""

    def __init__(self) -> None:
        self._newest: dict[tuple[bytes, str], Package] = {}
        self._flying: set[Package] = set()

    def __len__(self) -> int:
        """How many are in use."""
        return len(self._newest)

    def add(self, package: Package) -> None:
        """A package is in flight."""
        key = package.client, package.serial
        package.namesake = self._newest.get(key)
        self._newest[key] = package
        self._flying.add(package)

    def of(self, client: bytes, serial: str) -> Iterator[Package]:
        """The client's packages with this serial, some of which may be over, the newest first."""
        package = self._newest.get((client, serial))
        while package is not None:
            yield package
            package = package.namesake

    def remove(self, package: Package) -> None:
        """A package is over."""
        self._flying.remove(package)
        key = package.client, package.serial
        if self._newest.get(key) is not package:
            return
        older = package.namesake
        while older is not None and older not in self._flying:
            older = older.namesake
        if older is None:
            del self._newest[key]
        else:
            self._newest[key] = older
