"""The workers that the broker gives work to, by name. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from taskengine.broker.lane import LaneWorker, Slice
from taskengine.broker.package import Package
from taskengine.errors import ProtocolError


class Workers(dict[str, LaneWorker]):
    """All workers of all lanes; `epoch` is a number below 2**31 that no router before this one had."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self._epochs = itertools.count(epoch)
        self.has_idle = False
        """Whether some may have nothing to do while others have too much; `Balancer.uneven` answers that."""
        self.recalled: set[LaneWorker] = set()
        """Those that are to hand back tasks since the last call of `recalls`."""

    def join(self, name: str, lane: str, missing: Collection[str]) -> LaneWorker:
        """Add a worker of a lane, without the modules `missing`. Raises ProtocolError where it is here already."""
        if name in self:
            raise ProtocolError(f"worker {name} has joined already")
        worker = self[name] = LaneWorker(name, lane, next(self._epochs) << 32, missing)
        self.has_idle = True
        return worker

    def leave(self, name: str) -> LaneWorker | None:
        """Remove and return a worker, None where it is not here."""
        worker = self.pop(name, None)
        if worker is not None:
            self.recalled.discard(worker)
        return worker

    def answering(self, name: str) -> LaneWorker:
        """Return a worker that answers its oldest batch. Raises ProtocolError where it has none."""
        worker = self.get(name)
        if worker is None or not worker.batches:
            raise ProtocolError(f"worker {name} answered a batch that it was not given")
        return worker

    def end_oldest(self, name: str, now: float) -> list[Slice]:
        """Remove the oldest batch of a worker, which has answered it at `now`; return its slices."""
        worker = self[name]
        slices = worker.end_oldest(now)
        if not worker.batches:
            self.has_idle = True
        return slices

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

    def held(self, name: str) -> range:
        """Return the numbers of the batches that a worker holds, the oldest first."""
        worker = self.get(name)
        return range(worker.first, worker.first + len(worker.batches)) if worker else range(0)

    def recall_cancelled(self, packages: Collection[Package]) -> None:
        """Have workers hand back the cancelled tasks of these packages."""
        for worker in self.values():
            slices = (slice for batch in worker.batches for slice in batch if slice.package in packages)
            if any(slice.package.flight.cancellation.touches(slice.first, slice.stop) for slice in slices):
                self.recalled.add(worker)

    def recalls(self) -> list[tuple[str, int]]:
        """Return the workers that are to hand back tasks since the last call, with the last batch of each."""
        recalls = [(worker.name, worker.recall()) for worker in self.recalled if worker.batches]
        self.recalled.clear()
        return recalls
