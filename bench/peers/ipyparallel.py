"""ipyparallel: a direct view of its engines, the fastest of its ways."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from bench.peers.sample import ARGUMENTS, WORKERS, task_count
from bench.span import Job

WINDOW = 64
"""How many tasks may be ahead of the reader, as with Task Engine."""


class Peer:
    """`DirectView.map_sync`, which makes one share for each engine."""

    def __init__(self) -> None:
        self._cluster = import_module("ipyparallel").Cluster(n=WORKERS, log_level=40)
        client = self._cluster.start_and_connect_sync()
        self._all, self._first = client[:], client[0]
        self._balanced = client.load_balanced_view()

    def package(self, tasks: int) -> Job:
        first, second = [ARGUMENTS[0]] * tasks, [ARGUMENTS[1]] * tasks
        return Job(lambda: self._all.map_sync(task_count, first, second), list)

    def one(self) -> Any:
        return self._first.apply_sync(task_count, *ARGUMENTS)

    def stream(self, number: int) -> Iterator[Any]:
        """Yield so many results as they come, in order: it has no generators, so each is a task of its own."""
        yield from self._balanced.imap(abs, range(number), max_outstanding=WINDOW)

    def close(self) -> None:
        self._cluster.stop_cluster_sync()
