"""loky: joblib's executor."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bench.peers.sample import ARGUMENTS, CHUNK, WORKERS, task_count
from bench.span import Job


class Peer:
    """`loky.get_reusable_executor().map` in chunks."""

    def __init__(self) -> None:
        self._executor = import_module("loky").get_reusable_executor(max_workers=WORKERS, timeout=None)

    def package(self, tasks: int) -> Job:
        first, second = [ARGUMENTS[0]] * tasks, [ARGUMENTS[1]] * tasks
        return Job(lambda: list(self._executor.map(task_count, first, second, chunksize=CHUNK)))

    def one(self) -> Any:
        return self._executor.submit(task_count, *ARGUMENTS).result()

    def close(self) -> None:
        self._executor.shutdown(kill_workers=True)
