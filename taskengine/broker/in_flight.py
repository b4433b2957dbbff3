"""The packages in flight, and the one way to their answers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from taskengine.broker.counters import Counters
from taskengine.broker.package import Package
from taskengine.broker.partials import Part, PartialResults
from taskengine.broker.quota import Quota, QuotaLimits
from taskengine.broker.serials import Serials
from taskengine.errors import TaskEngineError
from taskengine.protocol.messages import Priority

TaskRun = tuple[Package, int, int]
"""Tasks of a package, from the first to behind the last."""


class InFlight:
    """Packages that were accepted and are not whole; `limits` says how much they may be.

    Every result comes by `put` or `fail`, which return the packages that are whole then. Each task gets one result.
    """

    def __init__(self, limits: QuotaLimits) -> None:
        self.packages: dict[int, Package] = {}
        """By their jobs."""
        self.serials = Serials()
        self.counters = Counters()
        self.urgent = 0
        """How many of the packages are urgent,"""
        self.partial = 0
        """and of how many the client wants each result as it comes."""
        self.touched: set[Package] = set()
        """Packages of which tasks were cancelled, or only cancelled tasks are left; `Withdrawals` takes them."""
        self.progressed: dict[Package, None] = {}
        """Packages with new results whose clients want each as it comes; the router takes them."""
        self._quota = Quota(limits)
        self._jobs = 0

    def add(self, package: Package, retry_after: Callable[[], float]) -> None:
        """Take a package in. Raises Overloaded with `retry_after` in s, which is computed only then."""
        is_exempt = package.urgency.is_exempt
        self._quota.take(package.sender.owner, package.count, package.size, retry_after, is_exempt=is_exempt)
        self._jobs += 1
        package.flight.job = self._jobs
        self.packages[self._jobs] = package
        self.serials.add(package)
        self.counters.accept(package)
        self.urgent += package.priority == Priority.URGENT
        self.partial += isinstance(package.results, PartialResults)

    def put(
        self, package: Package, first: int, stop: int, failed: int, took_ns: int, body: bytes
    ) -> list[Package] | None:
        """Take a worker's answer to the tasks from `first` to `stop`, of which so many `failed`.

        Return None, and take nothing, where there is no room for it.
        """
        if not self._quota.holds(len(body)):
            return None
        package.results.failed += failed
        self.counters.answer(stop - first, failed, took_ns)
        return self._put(package, first, stop, body)

    def fits(self, size: int) -> bool:
        """Return whether there is room for so many more bytes of results."""
        return self._quota.fits(size)

    def put_early(self, package: Package, first: int, stop: int, failed: int, body: bytes) -> list[Package]:
        """Take results before the answer that has them; `count_early` counts them once more when that comes."""
        self._quota.hold(len(body))
        package.results.failed += failed
        self.counters.answered += stop - first
        return self._put(package, first, stop, body)

    def count_early(self, tasks: int, failed: int, took_ns: int) -> None:
        """Count how tasks ended that were taken early, and how long they took."""
        self.counters.answered -= tasks
        self.counters.answer(tasks, failed, took_ns)

    def fail(self, tasks: Iterable[TaskRun], error: TaskEngineError) -> list[Package]:
        """Answer runs of tasks with `error`."""
        whole = []
        for package, start, end in tasks:
            package.results.failed += end - start
            self.counters.fail(end - start, error)
            for first, stop, body in package.pieces_of(error, start, end):
                self._quota.hold(len(body))
                whole += self._put(package, first, stop, body)
        return whole

    def gaps(self) -> list[TaskRun]:
        """Return all tasks that have no answer."""
        return [(package, *gap) for package in self.packages.values() for gap in package.results.gaps()]

    def take_progressed(self) -> list[Package]:
        """Return the packages with new results whose clients want each as it comes; they count as taken."""
        packages = list(self.progressed)
        self.progressed.clear()
        return packages

    def take_parts(self, package: Package) -> list[Part]:
        """Return the results of a package that is not whole, to be sent now."""
        results = package.results
        if not isinstance(results, PartialResults):
            return []
        self._quota.free(results.held)
        return results.take()

    @property
    def tasks(self) -> int:
        """How many tasks the packages have."""
        return self._quota.tasks

    @property
    def size(self) -> int:
        """How many bytes the packages take, with their results so far."""
        return self._quota.bytes + self._quota.results

    def _put(self, package: Package, first: int, stop: int, body: bytes) -> list[Package]:
        """Take an answer; return the package if it is whole now."""
        cancellation, results = package.flight.cancellation, package.results
        if cancellation.tasks is not None:
            cancellation.tasks.answer(first, stop)
        if results.put(first, stop, body):
            self._release(package)
            return [package]
        if isinstance(results, PartialResults):
            self.progressed[package] = None
        if cancellation.tasks is not None and not cancellation.reason and cancellation.is_over(results.missing):
            self.touched.add(package)
        return []

    def _release(self, package: Package) -> None:
        del self.packages[package.flight.job]
        self.counters.release(package)
        self.serials.remove(package)
        self.progressed.pop(package, None)
        owner, is_exempt = package.sender.owner, package.urgency.is_exempt
        self._quota.give_back(owner, package.count, package.size, package.results.held, is_exempt=is_exempt)
        self.urgent -= package.priority == Priority.URGENT
        self.partial -= isinstance(package.results, PartialResults)
