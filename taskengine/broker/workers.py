"""The workers that the broker gives work to, by name. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from taskengine.broker.lane import LaneWorker, Slice
from taskengine.broker.package import Package
from taskengine.broker.places import PlacesWorker
from taskengine.errors import ProtocolError

UnwantedTasks = list[tuple[int, int, int]]
"""Tasks that were cancelled: job, first position, and the position behind the last."""


class Workers(dict[str, LaneWorker]):
    """All workers of all lanes; `epoch` is a number below 2**31 that no router before this one had."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self._epochs = itertools.count(epoch)
        self.has_idle = False
        """Whether some may have nothing to do while others have too much; `Balancer.uneven` answers that."""
        self.recalled: set[LaneWorker] = set()
        """Those that are to hand back tasks since the last call of `recalls`."""
        self.unwanted: list[tuple[str, UnwantedTasks]] = []
        """Cancelled tasks of workers that can cancel running ones, since the last call of `cancellations`."""

    def join(
        self, name: str, lane: str, missing: Collection[str], most: int = 1, *, cancels: bool = False
    ) -> LaneWorker:
        """Add a worker of a lane, without the modules `missing`, that runs up to `most` tasks at once.

        It may be able to cancel running tasks. Raises ProtocolError where it is here already.
        """
        if name in self:
            raise ProtocolError(f"worker {name} has joined already")
        first = next(self._epochs) << 32
        worker = LaneWorker(name, lane, first, missing) if most == 1 else PlacesWorker(name, lane, first, missing, most)
        worker.cancels = cancels
        self[name] = worker
        self.has_idle = True
        return worker

    def leave(self, name: str) -> LaneWorker | None:
        """Remove and return a worker, None where it is not here."""
        worker = self.pop(name, None)
        if worker is not None:
            self.recalled.discard(worker)
            self.unwanted = [(other, tasks) for other, tasks in self.unwanted if other != name]
        return worker

    def answered(self, name: str, number: int | None) -> list[Slice]:
        """Return the slices of the batch that a worker answers, with None the one that it has to answer next.

        Raises ProtocolError where it has no such batch.
        """
        worker = self.get(name)
        slices = None if worker is None else worker.answered(number)
        if slices is None:
            raise ProtocolError(f"worker {name} answered a batch that it was not given")
        return slices

    def end(self, name: str, number: int | None, now: float) -> None:
        """Remove a batch that a worker has answered at `now`; see `answered`."""
        worker = self[name]
        worker.end(number, now)
        if not worker.batches:
            self.has_idle = True

    def retire(self, name: str) -> None:
        """Give a worker nothing more, and have it hand back what it has not begun."""
        worker = self.get(name)
        if worker is not None:
            worker.is_excluded = worker.is_retired = True
            self.recalled.add(worker)

    def exclude(self, name: str) -> None:
        """Give a worker nothing more, because it is about to be killed."""
        if name in self:
            self[name].is_excluded = True

    def is_free(self, name: str) -> bool:
        """Return whether a worker is here and has nothing to do."""
        return name in self and not self[name].batches

    def held(self, name: str) -> Sequence[int]:
        """Return the numbers of the batches that a worker holds, the oldest first."""
        worker = self.get(name)
        return worker.numbers() if worker else range(0)

    def holds(self, name: str, package: Package) -> bool:
        """Return whether a worker has tasks of the package."""
        worker = self.get(name)
        return worker is not None and any(slice.package is package for batch in worker.batches for slice in batch)

    def recall_cancelled(self, packages: Collection[Package]) -> None:
        """Have workers hand back the cancelled tasks of these packages."""
        for worker in self.values():
            unwanted = [
                (slice.package.flight.job, first, stop)
                for batch in worker.batches
                for slice in batch
                if slice.package in packages
                for first, stop in slice.package.flight.cancellation.runs(slice.first, slice.stop)
            ]
            if unwanted:
                self.recalled.add(worker)
                if worker.cancels:
                    self.unwanted.append((worker.name, unwanted))

    def cancellations(self) -> list[tuple[str, UnwantedTasks]]:
        """Return the `unwanted` tasks, by worker, and forget them."""
        unwanted, self.unwanted = self.unwanted, []
        return unwanted

    def recalls(self) -> list[tuple[str, int]]:
        """Return the workers that are to hand back tasks since the last call, with the last batch of each."""
        recalls = [(worker.name, worker.recall()) for worker in self.recalled if worker.batches]
        self.recalled.clear()
        return recalls
