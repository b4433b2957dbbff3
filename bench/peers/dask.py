"""dask.distributed on this machine."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bench.peers.sample import ARGUMENTS, WORKERS, bags, flat, run_bag, task_count
from bench.span import Job


class Peer:
    """`Client.map` over bags, and `gather`."""

    def __init__(self) -> None:
        distributed = import_module("distributed")
        self._cluster = distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None
        )
        self._client = distributed.Client(self._cluster)

    def package(self, tasks: int) -> Job:
        arguments = bags(tasks)
        # pure: it would remember the results of equal calls
        return Job(lambda: self._client.gather(self._client.map(run_bag, arguments, pure=False)), flat)

    def one(self) -> Any:
        return self._client.submit(task_count, *ARGUMENTS, pure=False).result()

    def close(self) -> None:
        self._client.close()
        self._cluster.close()
