"""ipyparallel: a direct view of its engines, the fastest of its ways."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bench.peers.sample import ARGUMENTS, WORKERS, task_count
from bench.span import Job


class Peer:
    """`DirectView.map_sync`, which makes one share for each engine."""

    def __init__(self) -> None:
        self._cluster = import_module("ipyparallel").Cluster(n=WORKERS, log_level=40)
        client = self._cluster.start_and_connect_sync()
        self._all, self._first = client[:], client[0]

    def package(self, tasks: int) -> Job:
        first, second = [ARGUMENTS[0]] * tasks, [ARGUMENTS[1]] * tasks
        return Job(lambda: self._all.map_sync(task_count, first, second), list)

    def one(self) -> Any:
        return self._first.apply_sync(task_count, *ARGUMENTS)

    def close(self) -> None:
        self._cluster.stop_cluster_sync()
