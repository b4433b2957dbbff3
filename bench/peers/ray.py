"""Ray on this machine."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from bench.peers.sample import ARGUMENTS, WORKERS, bags, flat, run_bag, task_count
from bench.span import Job


class Peer:
    """Remote functions over bags, and `get`."""

    def __init__(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self._ray = import_module("ray")
        self._ray.init(num_cpus=WORKERS, include_dashboard=False, logging_level="error", log_to_driver=False)
        self._bag, self._one = self._ray.remote(run_bag), self._ray.remote(task_count)

    def package(self, tasks: int) -> Job:
        arguments = bags(tasks)
        return Job(lambda: self._ray.get([self._bag.remote(bag) for bag in arguments]), flat)

    def one(self) -> Any:
        return self._ray.get(self._one.remote(*ARGUMENTS))

    def close(self) -> None:
        self._ray.shutdown()
