"""Which worker of a lane has which task module, and thus by which part of the lane a task goes. Pure.

A module may load in some workers of a lane only, such as where it claims a device. What waits in the lane itself may go
to any of its workers, so that one which lacks a module takes part in it only when none of that module's tasks can be
there. While workers differ, a module has a part of the lane for itself, served by those that have it; where all have
joined and none has it, all serve it, and answer why. A lane of one worker has no parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from taskengine.lane import Lane, Worker
from taskengine.messages import LaneStats, TaskInfo
from taskengine.wire import MODULE_MARK


class Availability:
    """Arranges the workers of `lanes`, which have these `sizes`; both get the parts that there are."""

    def __init__(self, lanes: dict[str, Lane], sizes: dict[str, int], workers: Mapping[str, Worker]) -> None:
        self._lanes = lanes
        self._sizes = sizes
        self._workers = workers
        self._own = list(lanes)
        self._modules: dict[str, set[str]] = {}
        self._apart: dict[str, set[str]] = {}
        """The modules of each lane that go by a part of it."""
        self._parts: dict[str, dict[str, Lane]] = {}
        """The parts that each lane has ever had, by their modules: something may still wait there."""
        self.unsettled: set[str] = set()
        """Lanes in which a worker does not take part yet."""
        self.has_changed = False
        """Tasks go by other lanes than before."""

    def learn(self, tasks: Iterable[TaskInfo]) -> None:
        """These are the tasks from here on."""
        self._modules = {}
        for task in tasks:
            self._modules.setdefault(task.lane, set()).add(task.module)
        for lane in self._own:
            self.arrange(lane)

    def join(self, worker: Worker) -> None:
        """A worker has come."""
        if worker.missing or self._is_arranged(worker.lane):
            self.arrange(worker.lane)
        else:
            self._lanes[worker.lane].workers.append(worker)

    def leave(self, worker: Worker) -> None:
        """A worker has gone."""
        for lane in (self._lanes[worker.lane], *self._parts.get(worker.lane, {}).values()):
            if worker in lane.workers:
                lane.workers.remove(worker)
        if self._is_arranged(worker.lane):
            self.arrange(worker.lane)

    def settle(self) -> None:
        """Have workers take part where that has become possible."""
        for lane in tuple(self.unsettled):
            self.arrange(lane)

    def route(self, task: TaskInfo) -> str:
        """The lane, or the part of it, by which a task goes."""
        is_apart = task.module in self._apart.get(task.lane, ())
        return task.lane + MODULE_MARK + task.module if is_apart else task.lane

    def arrange(self, name: str) -> None:
        """Arrange the workers of a lane anew."""
        lane, size = self._lanes[name], self._sizes[name]
        crew = [worker for worker in self._workers.values() if worker.lane == name]
        if size == 1:
            lane.workers[:] = crew
            return
        is_whole = len(crew) >= size
        for worker in crew:
            if worker not in lane.workers and self._may_take_part(worker, lane, crew, is_whole=is_whole):
                lane.workers.append(worker)
        apart = set()
        having = {
            module: [worker for worker in crew if module not in worker.missing]
            for module in self._modules.get(name, set()) | self._parts.get(name, {}).keys()
        }
        for module in self._modules.get(name, ()):
            is_everywhere = len(having[module]) == len(crew) or (not having[module] and is_whole)
            if not (is_everywhere and len(lane.workers) == len(crew)):
                apart.add(module)
                self._part(name, module)
        for module, part in self._parts.get(name, {}).items():
            part.workers[:] = crew if is_whole and not having[module] else having[module]
        self.unsettled.discard(name)
        if len(lane.workers) < len(crew):
            self.unsettled.add(name)
        if apart != self._apart.get(name, set()):
            self._apart[name] = apart
            self.has_changed = True

    def stats(self) -> list[LaneStats]:
        """Return the counts of each lane, with its parts."""
        return [self._stats(name) for name in self._own]

    def _stats(self, name: str) -> LaneStats:
        workers = [worker for worker in self._workers.values() if worker.lane == name]
        queued = sum(lane.queued for lane in (self._lanes[name], *self._parts.get(name, {}).values()))
        return self._lanes[name].stats(name, self._sizes[name], workers, queued)

    def _is_arranged(self, name: str) -> bool:
        """Return whether the lane has parts, or workers that are not settled yet: not every worker takes every task."""
        return name in self._parts or name in self.unsettled

    def _part(self, name: str, module: str) -> None:
        parts = self._parts.setdefault(name, {})
        if module not in parts:
            part = name + MODULE_MARK + module
            self._sizes[part] = self._sizes[name]
            self._lanes[part] = parts[module] = Lane(self._sizes[name])

    @staticmethod
    def _may_take_part(worker: Worker, lane: Lane, crew: list[Worker], *, is_whole: bool) -> bool:
        """Return whether the worker may be given everything that waits in the lane."""
        if not worker.missing or (is_whole and not lane.workers):
            return True
        if lane.workers and all(worker.missing <= other.missing for other in lane.workers):
            return True
        batches = (batch for other in crew for batch in other.batches)
        return not lane.queued and not any(slice.run.lane == worker.lane for batch in batches for slice in batch)
