"""The router's part in progress: reports of running tasks, from workers to the clients that want them."""

from __future__ import annotations

from collections.abc import Callable

from taskengine.broker.broker import Broker
from taskengine.broker.package import Package, Sender
from taskengine.errors import ProtocolError
from taskengine.protocol.messages import Stamp
from taskengine.protocol.progress import MAX_REPORT
from taskengine.router.partial_replies import Outlet
from taskengine.router.replies import Connections
from taskengine.router.tuning import LATE_S, UNREAD_REPORTS
from taskengine.router.unread_replies import UnreadReplies

KEPT = 64
"""The most tasks of a package whose newest report is kept for a client that does not read."""
Reports = dict[int, bytes]
"""The newest report of each task, by its position."""


class ProgressRelay:
    """Sends the reports on tasks of the `broker`'s packages through `outlet`, as soon as they come.

    Nothing waits for a report, and no client is cut off because of one: where a client leaves many unread, only the
    newest of each task is kept until it has read, and dropped where its package ends before. While some are `late`,
    `settle` is to be called now and then. `is_owed` tells whether a package's client may still have them.
    """

    def __init__(
        self,
        broker: Broker,
        outlet: Outlet,
        connections: Connections | None,
        is_owed: Callable[[Sender], bool],
        stamp: Callable[[], Stamp],
    ) -> None:
        self._broker = broker
        self._outlet = outlet
        self._is_owed = is_owed
        self._stamp = stamp
        self._unread = UnreadReplies(connections, UNREAD_REPORTS, UNREAD_REPORTS)
        self.late: dict[Package, Reports] = {}
        """Reports for clients that have too much unread, by package."""
        self._next_look = 0.0

    def take(self, worker: str, job: int, position: int, report: bytes) -> None:
        """Take a report. Raises ProtocolError for one of a size that cannot be.

        A report on what its worker does not run, or not any more, has no effect.
        """
        if not 0 < len(report) <= MAX_REPORT:
            raise ProtocolError(f"a report of {len(report)} bytes")
        package = self._broker.packages.get(job)
        if package is None or not package.is_watched or not self._broker.workers.holds(worker, package):
            return
        if position < package.count:
            self._send(package, {position: report})

    def settle(self, now: float) -> None:
        """Send what is late to the clients that have read, at `now`, in s, monotonic; it looks seldom."""
        if now < self._next_look:
            return
        self._next_look = now + LATE_S
        unread: set[bytes] = set()
        for package in list(self.late):
            client = package.sender.client
            if client not in unread and not self._send(package, {}):
                unread.add(client)

    def end(self, package: Package) -> None:
        """Forget what is late of a package that has ended."""
        self.late.pop(package, None)

    def _send(self, package: Package, reports: Reports) -> bool:
        """Send reports with those of the package that are late, or keep them; return whether the client had room."""
        if package in self.late:
            newest = self.late[package]
            for position, report in reports.items():
                newest.pop(position, None)
                newest[position] = report
            reports = newest
        sender = package.sender
        if not self._has_room(sender, sum(map(len, reports.values()))):
            if len(reports) > KEPT:
                del reports[next(iter(reports))]
            self.late[package] = reports
            return False
        self.late.pop(package, None)
        if self._is_owed(sender):
            self._outlet.send(sender.route, package.progress_answer(list(reports.values()), self._stamp()), sender.key)
        return True

    def _has_room(self, sender: Sender, size: int) -> bool:
        """Return whether the client has read so much that it may get a report; if so, one counts as sent."""
        client = sender.client
        if self._outlet.is_full(client, sender.key, size) or not self._unread.has_room(client):
            return False
        self._unread.count(client)
        return True
