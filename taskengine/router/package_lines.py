"""The lines that are printed of each package, as the legacy JSON protocol's engine wrote them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from taskengine.broker.binary import BinaryPackage
from taskengine.broker.legacy_json import LegacyPackage
from taskengine.broker.package import Package
from taskengine.broker.recovery import Answered
from taskengine.runtime.log_buffer import LogBuffer


class PackageLines:
    """Notes in `log` what becomes of packages, which are cut into chunks of `size` tasks, or are one chunk with None.

    Each line is made later, when the router has nothing else to do.
    """

    def __init__(self, log: LogBuffer, size: int | None) -> None:
        self._log = log
        self._size = size
        self._shown: dict[int, int] = {}
        """How many chunks have been shown to return, by job."""
        self.enabled = log.enabled

    def accepted(self, package: Package) -> None:
        """Note that a package is cut into chunks."""
        if self.enabled:
            self._log.note(_chunking_lines, package, self._size or package.count)

    def answered(self, packages: Mapping[int, Package], worker: str, entries: Sequence[Answered]) -> None:
        """Note which chunks of `packages`, by job, a worker answers."""
        for job, first, stop, *_ in entries:
            package = packages.get(job)
            if package is not None:
                chunks = package.flight.chunks
                # a chunk of which another worker runs the rest is shown when its last task is answered
                parts = chunks.ended(first, stop)
                self._shown[job] = shown = self._shown.get(job, 0) + len(parts)
                # a chunk may come back in several pieces, and its tasks more than once
                self._log.note(_forwarding_lines, package, parts, worker, max(0, chunks.count - shown))

    def ended(self, package: Package, *, is_shipped: bool) -> None:
        """Note that a package is whole, and whether its client gets it."""
        self._shown.pop(package.flight.job, None)
        if is_shipped and self.enabled:
            self._log.note(_shipped_lines, package.serial)


def request_meta(package: Package) -> str:
    """Return the request's META as it is printed."""
    if isinstance(package, LegacyPackage):
        return _meta(package, package.count, "requestor", 0, package.meta.type, package.meta.id)
    client = package.request.client if isinstance(package, BinaryPackage) else ""
    return _meta(package, package.count, "requestor", 0, "REQ", client)


def part_meta(package: Package, part: int, worker: str) -> str:
    """Return the META of one chunk that came back from `worker`, as it is printed."""
    return _meta(package, 1, "responder", part, "ACK", worker)


def _meta(package: Package, length: int, role: str, part: int, kind: str, who: str | None) -> str:
    if isinstance(package, LegacyPackage):
        meta = package.meta_of(length, role, part, kind, who)
        return msgspec.json.format(msgspec.json.encode(meta), indent=0).decode()
    return (
        f'{{"length": {length}, "version": 0.2, "role": "{role}", "part": {part}, '
        f'"serial": "{package.serial}", "type": "{kind}", "id": "{who}"}}'
    )


def _chunking_lines(package: Package, size: int) -> Iterator[str]:
    yield f"[ROUTER-{os.getpid()}(FRONTEND)] Chunking: {package.count}/{size}: {request_meta(package)}"


def _forwarding_lines(package: Package, parts: range, worker: str, left: int) -> Iterator[str]:
    for before, part in zip(range(len(parts) - 1, -1, -1), parts, strict=True):
        yield f"[ROUTER-{os.getpid()}(BACKEND)] Forwarding: {part_meta(package, part, worker)}"
        yield f"[ROUTER-{os.getpid()}(BACKEND)] Forwarding: Assembling: {package.serial}, Part: {left + before:.1f}"


def _shipped_lines(serial: str) -> Iterator[str]:
    yield f"[ROUTER-{os.getpid()}(BACKEND)] Forwarding: Shipped: {serial}"
