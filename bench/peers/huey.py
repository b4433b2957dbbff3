"""Huey with Redis, told to notify of results instead of being polled; run as a module it is the consumer."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from bench.peers.redis import Redis, worker
from bench.peers.sample import ARGUMENTS, WORKERS, bags, flat, run_bag, task_count
from bench.span import Job


def tasks_of(url: str) -> tuple[Any, Any, Any]:
    """The queue, the task that runs a bag, and the one that runs one task."""
    huey = import_module("huey").RedisHuey("bench", url=url, notify_result=True)
    return huey, huey.task()(run_bag), huey.task()(task_count)


class Peer:
    """A task for each bag, and the results one after the other."""

    def __init__(self) -> None:
        self._redis = Redis()
        _, self._bag, self._one = tasks_of(self._redis.url)
        self._consumer = worker("bench.peers.huey", self._redis.url)

    def package(self, tasks: int) -> Job:
        arguments = bags(tasks)

        def run() -> list[Any]:
            results = [self._bag(bag) for bag in arguments]
            return [result.get(blocking=True) for result in results]

        return Job(run, flat)

    def one(self) -> Any:
        return self._one(*ARGUMENTS).get(blocking=True)

    def close(self) -> None:
        self._consumer.terminate()
        self._consumer.wait()
        self._redis.close()


if __name__ == "__main__":
    tasks_of(sys.argv[1])[0].create_consumer(workers=WORKERS, worker_type="process", periodic=False).run()
