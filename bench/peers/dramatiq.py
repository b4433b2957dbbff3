"""Dramatiq with Redis as broker and for its results; run as a module it is one worker process."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Any

from bench.peers.redis import Redis, worker
from bench.peers.sample import ARGUMENTS, WORKERS, bags, flat, run_bag, task_count
from bench.span import Job


def actors(url: str) -> tuple[Any, Any, Any]:
    """The broker, the actor that runs a bag, and the one that runs one task."""
    dramatiq = import_module("dramatiq")
    broker = import_module("dramatiq.brokers.redis").RedisBroker(url=url)
    backend = import_module("dramatiq.results.backends").RedisBackend(url=url)
    broker.add_middleware(import_module("dramatiq.results").Results(backend=backend))
    dramatiq.set_broker(broker)
    bag, one = (dramatiq.actor(function, store_results=True) for function in (run_bag, task_count))
    return broker, bag, one


class Peer:
    """A group of bags."""

    def __init__(self) -> None:
        self._redis = Redis()
        self._group = import_module("dramatiq").group
        _, self._bag, self._one = actors(self._redis.url)
        self._workers = [worker("bench.peers.dramatiq", self._redis.url) for _ in range(WORKERS)]

    def package(self, tasks: int) -> Job:
        arguments = bags(tasks)

        def run() -> list[Any]:
            return list(self._group([self._bag.message(bag) for bag in arguments]).run().get_results(block=True))

        return Job(run, flat)

    def one(self) -> Any:
        return self._one.send(*ARGUMENTS).get_result(block=True)

    def close(self) -> None:
        for process in self._workers:
            process.terminate()
            process.wait()
        self._redis.close()


if __name__ == "__main__":
    import_module("dramatiq").Worker(actors(sys.argv[1])[0], worker_threads=1).start()
    signal.pause()
