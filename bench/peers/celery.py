"""Celery with Redis as broker and as backend; run as a module it is the worker."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from bench.peers.redis import Redis, worker
from bench.peers.sample import ARGUMENTS, CHUNK, WORKERS, flat, task_count
from bench.span import Job


def application(url: str) -> tuple[Any, Any]:
    """The app, and its task."""
    app = import_module("celery").Celery("bench", broker=url, backend=url)
    app.conf.worker_hijack_root_logger = False
    return app, app.task(task_count, name="task_count")


class Peer:
    """`task.chunks`, which is Celery's own way."""

    def __init__(self) -> None:
        self._redis = Redis()
        _, self._task = application(self._redis.url)
        self._worker = worker("bench.peers.celery", self._redis.url)

    def package(self, tasks: int) -> Job:
        pairs = [ARGUMENTS] * tasks
        return Job(lambda: self._task.chunks(pairs, CHUNK).apply_async().get(), flat)

    def one(self) -> Any:
        return self._task.delay(*ARGUMENTS).get()

    def close(self) -> None:
        self._worker.terminate()
        self._worker.wait()
        self._redis.close()


if __name__ == "__main__":
    application(sys.argv[1])[0].worker_main(["worker", "--concurrency", str(WORKERS), "--loglevel", "ERROR"])
