"""Packages that are not to start any more: cancelled, late, or of clients that have left. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from taskengine.broker import failure_reasons
from taskengine.broker.deadlines import Deadlines
from taskengine.broker.in_flight import InFlight
from taskengine.broker.package import Package


class Withdrawals:
    """Marks what is not to start; `Broker.settle` answers it. Lanes that are `pinned` have pins."""

    def __init__(self, in_flight: InFlight, pinned: Container[str]) -> None:
        self._in_flight = in_flight
        self._pinned = pinned
        self.departed: set[bytes] = set()
        """Clients that have left since `take`."""
        self.deadlines = Deadlines(in_flight.packages)

    @property
    def is_timed(self) -> bool:
        """Return whether a package in flight has a deadline, or a client has left and that is not settled."""
        return bool(self.departed or (self.deadlines and self._in_flight.packages))

    def cancel(self, client: bytes, serial: str | None = None, positions: Sequence[int] | None = None) -> None:
        """Cancel a client's package, or, without a serial, everything that the client has in flight.

        With positions, cancel only these tasks of the last package with that serial. Raises Overloaded where the
        positions are too scattered.
        """
        serials = self._in_flight.serials
        if serial is not None and positions is not None:
            newest = serials.newest(client, serial)
            if newest is not None and newest.flight.cancellation.cancel(positions, newest.count, newest.results):
                self._in_flight.touched.add(newest)
            return
        for package in serials.take_all(client) if serial is None else serials.take(client, serial):
            self.cancel_package(package)

    def cancel_where(self, is_unwanted: Callable[[Package], bool]) -> None:
        """Cancel all packages for which `is_unwanted` is true."""
        for package in self._in_flight.packages.values():
            if is_unwanted(package):
                self.cancel_package(package)

    def client_left(self, client: bytes) -> None:
        """Handle a client that has left: nothing starts that only it needs, or that waits in lanes with pins."""
        self.departed.add(client)

    def take(self) -> set[Package]:
        """Return the packages of which tasks were cancelled since the last call."""
        departed, self.departed = self.departed, set()
        for client in departed:
            self._in_flight.touched.update(filter(self._cancel_unneeded, self._in_flight.serials.of(client)))
        touched, self._in_flight.touched = self._in_flight.touched, set()
        return touched

    def late(self, now: float) -> set[Package]:
        """Cancel the packages that are past their deadline, and return them; `now` is in s, monotonic."""
        late = self.deadlines.passed(now)
        return {package for package in late if package.flight.cancellation.cancel_all(failure_reasons.too_late())}

    def cancel_package(self, package: Package) -> None:
        """Cancel a package for its client."""
        if package.flight.cancellation.cancel_all():
            self._in_flight.touched.add(package)

    def _cancel_unneeded(self, package: Package) -> bool:
        """Cancel what is not needed once the package's client has left; return whether that is news."""
        cancellation, runs = package.flight.cancellation, package.flight.chunks.runs
        pinned = [(run.first, run.stop) for run in runs if run.lane in self._pinned]
        if package.is_awaited or len(pinned) == len(runs):
            return cancellation.cancel_all()
        return cancellation.cancel_runs(pinned, package.count, package.results)
