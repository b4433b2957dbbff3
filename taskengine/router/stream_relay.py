"""The router's part in streams: values from workers to clients, and credit from clients to workers."""

from __future__ import annotations

from collections.abc import Callable

from taskengine.broker.broker import Broker
from taskengine.broker.package import Package, Sender
from taskengine.broker.streams import StreamResults
from taskengine.errors import Overloaded, ProtocolError
from taskengine.protocol.credit import MAX_BYTES, MAX_VALUES, Grant
from taskengine.protocol.messages import Stamp, StreamCredit
from taskengine.router.partial_replies import Outlet

UNREAD = "the replies before this one were not read; the stream was closed"


class StreamRelay:
    """Sends the values of the `broker`'s streams through `outlet`, at the end of each turn of the router.

    So values that come at nearly the same time share a message. `is_owed` tells whether a package's client may still
    have them. What a client may leave unread is bounded by its credit, and for all of its replies by the outlet: a
    stream that finds no room there is cancelled, and ends in Overloaded.
    """

    def __init__(
        self,
        broker: Broker,
        outlet: Outlet,
        is_owed: Callable[[Sender], bool],
        stamp: Callable[[], Stamp],
    ) -> None:
        self._broker = broker
        self._outlet = outlet
        self._is_owed = is_owed
        self._stamp = stamp
        self.fresh: dict[Package, StreamResults] = {}
        """Streams with values that are to be sent."""
        self._grants: dict[int, Grant] = {}
        """What workers are still to be told, by job."""

    def take(self, worker: str, job: int, number: int, body: bytes) -> None:
        """Take a value from a worker, or, where the body is empty, word that all its values have come.

        Raises ProtocolError for what it was not asked for, or may not send.
        """
        package = self._broker.packages.get(job)
        results = None if package is None else package.results
        if package is None or not isinstance(results, StreamResults):
            raise ProtocolError(f"a value of job {job}, which is no stream")
        if results.source != worker and not self._broker.workers.holds(worker, package):
            raise ProtocolError(f"a value of job {job}, which it does not run")
        if not body:
            results.close(number)
            return
        results.add(number, body)
        if results.source is None:
            # what was granted before the worker was known
            results.source = worker
            self._grants[job] = results.credit.grant
        self.fresh[package] = results

    def grant(self, client: bytes, wanted: StreamCredit) -> None:
        """Take credit from a client for a stream, which may be over. Raises ProtocolError for too much."""
        package = self._broker.serials.newest(client, str(wanted.serial))
        results = None if package is None else package.results
        if package is None or not isinstance(results, StreamResults):
            return
        grant = Grant(wanted.values, wanted.bytes)
        if not results.credit.is_within(grant):
            text = f"a client leaves at most {MAX_VALUES} values of a stream unread, and {MAX_BYTES} bytes"
            raise ProtocolError(text)
        if results.credit.extend(grant) and results.source is not None:
            self._grants[package.flight.job] = results.credit.grant

    def take_grants(self) -> list[tuple[str, int, Grant]]:
        """Return the credit that workers are to be told, with the job; it counts as told."""
        told = []
        for job, grant in self._grants.items():
            package = self._broker.packages.get(job)
            results = None if package is None else package.results
            if isinstance(results, StreamResults) and results.source is not None:
                told.append((results.source, job, grant))
        self._grants.clear()
        return told

    @property
    def has_grants(self) -> bool:
        """Return whether a worker is to be told of credit."""
        return bool(self._grants)

    def send(self) -> None:
        """Send all values that have come."""
        while self.fresh:
            self._send(*self.fresh.popitem())

    def end(self, package: Package) -> None:
        """Send what is left of a stream that has ended, and its end."""
        results = self.fresh.pop(package, package.results)
        if not isinstance(results, StreamResults):
            return
        self._send(package, results)
        first = results.take().first
        frames = package.stream_answer(first, 0, [], results.reason, is_last=True, stamp=self._stamp())
        self._outlet.send(package.sender.route, frames, package.sender.key)

    def _send(self, package: Package, results: StreamResults) -> None:
        first, count, bodies = values = results.take()
        sender = package.sender
        if not count or results.reason is not None or not self._is_owed(sender):
            return
        if self._outlet.is_full(sender.client, sender.key, values.size):
            results.reason = Overloaded(UNREAD, retry_after=None)
            self._broker.withdrawals.cancel_package(package)
            return
        frames = package.stream_answer(first, count, bodies, None, is_last=False, stamp=self._stamp())
        self._outlet.send(sender.route, frames, sender.key, values.size)
