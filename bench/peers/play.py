"""The process of one peer, `python -m bench.peers.play NAME`: it starts the peer, and measures blocks when told to.

Told and answered a line of JSON at a time: `["package", tasks, warm_up, times, most_s]`, `["stream", values, warm_up,
…]` or `["call", warm_up, …]` on stdin, the spans in s on what was stdout. It ends when stdin does.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module, metadata
from typing import Any

from bench.span import RESULT, Block, Job, in_a_row, timed_call, timed_package

NAMES = {
    "loky": ["loky"],
    "ipyparallel": ["ipyparallel"],
    "ray": ["ray"],
    "dask": ["dask", "distributed"],
    "huey": ["huey", "redis"],
    "celery": ["celery", "redis"],
    "dramatiq": ["dramatiq", "redis"],
}
"""The peers, each with what is to be installed for it; the first names its version."""


def main() -> None:
    """Serve until stdin ends. What goes wrong is answered as {"failure": text}."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    # what the peer and its children print is not our answer
    os.dup2(2, 1)
    name = sys.argv[1]
    try:
        peer = import_module(f"bench.peers.{name}").Peer()
    except Exception as error:
        answer(channel, {"failure": f"{type(error).__name__}: {error}"})
        return
    try:
        answer(channel, {"version": metadata.version(NAMES[name][0]), "streams": hasattr(peer, "stream")})
        jobs: dict[int, Job] = {}
        for line in sys.stdin:
            answer(channel, played(name, peer, jobs, json.loads(line)))
    finally:
        peer.close()


def played(name: str, peer: Any, jobs: dict[int, Job], told: list[Any]) -> dict[str, Any]:
    """The answer to one line."""
    what, *numbers = told
    try:
        if what == "call":
            return {"spans": in_a_row(lambda: timed_call(name, peer.one), Block(*numbers))}
        tasks, *numbers = numbers
        if what == "stream":
            read = Job(lambda: list(peer.stream(tasks)))
            return {"spans": in_a_row(lambda: timed_package(name, read, list(range(tasks))), Block(*numbers))}
        if tasks not in jobs:
            jobs[tasks] = peer.package(tasks)
        expected = [RESULT] * tasks
        return {"spans": in_a_row(lambda: timed_package(name, jobs[tasks], expected), Block(*numbers))}
    except Exception as error:
        return {"failure": f"{type(error).__name__}: {error}"}


def answer(channel: Any, made: dict[str, Any]) -> None:
    """Answer with a line."""
    channel.write(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
