"""Tracks which worker of a lane has loaded which task module, and routes tasks accordingly. Pure.

A module may load in some workers of a lane only, for example because it claims a device. Any worker of a lane may get
what waits in the lane itself. A worker that lacks a module therefore serves the lane only while none of that module's
tasks can wait there. While workers differ, a module has a part of the lane for itself, served by the workers that have
it. Where all workers have joined and none has the module, all serve the part and answer why. A lane of one worker has
no parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from taskengine.broker.lane import Lane, LaneWorker
from taskengine.protocol.layouts import MODULE_MARK
from taskengine.protocol.messages import LaneStats, TaskInfo


class Availability:
    """Arranges the workers of `lanes`, which have these `sizes`; both get the parts that there are."""

    def __init__(self, lanes: dict[str, Lane], sizes: dict[str, int], workers: Mapping[str, LaneWorker]) -> None:
        self._lanes = lanes
        self._sizes = sizes
        self._workers = workers
        self._own = list(lanes)
        self._modules: dict[str, set[str]] = {}
        self._apart: dict[str, set[str]] = {}
        """The modules of each lane that have a part of it."""
        self._parts: dict[str, dict[str, Lane]] = {}
        """The parts that each lane has ever had, by their modules; tasks may still wait in any of them."""
        self.unsettled: set[str] = set()
        """Lanes in which some worker does not take part yet."""
        self.has_changed = False
        """Whether tasks go by other lanes than before."""

    def learn(self, tasks: Iterable[TaskInfo]) -> None:
        """Replace the list of tasks."""
        self._modules = {}
        for task in tasks:
            self._modules.setdefault(task.lane, set()).add(task.module)
        for lane in self._own:
            self.arrange(lane)

    def join(self, worker: LaneWorker) -> None:
        """Add a worker."""
        if worker.missing or self._is_arranged(worker.lane):
            self.arrange(worker.lane)
        else:
            self._lanes[worker.lane].workers.append(worker)

    def leave(self, worker: LaneWorker) -> None:
        """Remove a worker."""
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
        """Return the lane, or the part of the lane, that a task goes to."""
        is_apart = task.module in self._apart.get(task.lane, ())
        return task.lane + MODULE_MARK + task.module if is_apart else task.lane

    def arrange(self, name: str) -> None:
        """Arrange the workers of a lane anew."""
        lane, size = self._lanes[name], self._sizes[name]
        members = [worker for worker in self._workers.values() if worker.lane == name]
        if size == 1:
            lane.workers[:] = members
            return
        is_whole = len(members) >= size
        for worker in members:
            if worker not in lane.workers and self._may_take_part(worker, lane, members, is_whole=is_whole):
                lane.workers.append(worker)
        apart = set()
        having = {
            module: [worker for worker in members if module not in worker.missing]
            for module in self._modules.get(name, set()) | self._parts.get(name, {}).keys()
        }
        for module in self._modules.get(name, ()):
            is_everywhere = len(having[module]) == len(members) or (not having[module] and is_whole)
            if not (is_everywhere and len(lane.workers) == len(members)):
                apart.add(module)
                self._part(name, module)
        for module, part in self._parts.get(name, {}).items():
            part.workers[:] = members if is_whole and not having[module] else having[module]
        self.unsettled.discard(name)
        if len(lane.workers) < len(members):
            self.unsettled.add(name)
        if apart != self._apart.get(name, set()):
            self._apart[name] = apart
            self.has_changed = True

    def stats(self) -> list[LaneStats]:
        """Return the counters of each lane, its parts included."""
        return [self._stats(name) for name in self._own]

    def _stats(self, name: str) -> LaneStats:
        workers = [worker for worker in self._workers.values() if worker.lane == name]
        lanes = self._lanes[name], *self._parts.get(name, {}).values()
        queued = sum(lane.queued + lane.postponed for lane in lanes)
        return self._lanes[name].stats(name, self._sizes[name], workers, queued)

    def _is_arranged(self, name: str) -> bool:
        """Return whether some worker serves less, or other parts, than its whole lane."""
        return name in self._parts or name in self.unsettled

    def _part(self, name: str, module: str) -> None:
        parts = self._parts.setdefault(name, {})
        if module not in parts:
            part = name + MODULE_MARK + module
            self._sizes[part] = self._sizes[name]
            self._lanes[part] = parts[module] = Lane(self._sizes[name], concurrency=self._lanes[name].concurrency)

    @staticmethod
    def _may_take_part(worker: LaneWorker, lane: Lane, members: list[LaneWorker], *, is_whole: bool) -> bool:
        """Return whether everything that waits in the lane may be given to the worker."""
        if not worker.missing or (is_whole and not lane.workers):
            return True
        if lane.workers and all(worker.missing <= other.missing for other in lane.workers):
            return True
        if lane.queued or lane.postponed:
            return False
        batches = (batch for other in members for batch in other.batches)
        return not any(slice.run.lane == worker.lane for batch in batches for slice in batch)
