"""The counters of a real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import zmq

from taskengine import Client, TaskEngineError
from taskengine.protocol.messages import Stats
from tests.engine import Engine, deadline, wait_until


def counted(client: Client) -> dict[str, int]:
    """The restarts, {} while nobody answers."""
    try:
        return client.stats().restarts
    except TaskEngineError:
        return {}


def test_tasks_are_counted_with_their_errors_and_latencies() -> None:
    with Engine(lanes="arm=1") as engine, Client(engine.address, timeout=deadline(20)) as client:
        client.map("task_count", range(4000), range(4000))
        client.options(errors="return").map("task_fail", "abc")
        client.publish("topic", 1)
        sleepers = [client.submit("task_sleep", deadline(0.5)) for _ in range(3)]
        client.flush()
        wait_until(lambda: client.stats().accepted == 4007, 20, "the sleepers")
        stats = client.stats()
        assert (stats.accepted, stats.answered, stats.in_flight) == (4007, 4004, 3)
        assert (stats.errors, stats.restarts, stats.refused, stats.late) == ({"failed": 3}, {}, 0, 0)
        assert stats.bytes_in_flight > 0
        assert [(lane.name, lane.workers, lane.online) for lane in stats.lanes] == [
            ("", 2, 2),
            ("arm", 1, 1),
            ("data:0", 1, 1),
        ]
        assert sum(lane.queued + lane.running for lane in stats.lanes) == 3
        for sleeper in sleepers:
            sleeper.result(deadline(20))
        stats = client.stats()
        assert (stats.in_flight, stats.packages, stats.bytes_in_flight) == (0, 0, 0)
        assert [sum(stage.tasks) for stage in (stats.waiting, stats.running, stats.total)] == [4007] * 3
        assert stats.running.seconds > 0.9


def test_restarts_and_strangers_are_counted_and_a_new_router_begins_anew() -> None:
    with Engine() as engine, Client(engine.address, timeout=deadline(20)) as client:
        client.call("task_count", 2, 3)
        with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            stranger.connect(engine.backend)
            stranger.send(b"an answer that nobody asked for")
            wait_until(lambda: client.stats().late == 1, 20, "the stranger's message")
        os.kill(engine.pids("task")[0], signal.SIGKILL)
        wait_until(lambda: counted(client) == {"task": 1}, 20, "the worker's restart")
        os.kill(engine.pids("router")[0], signal.SIGKILL)
        wait_until(lambda: counted(client) == {"task": 1, "router": 1}, 20, "the router's restart")
        stats = client.stats()
        assert (stats.accepted, stats.late) == (0, 0)


def test_what_is_refused_is_counted() -> None:
    with Engine(client_tasks=10) as engine, Client(engine.address, timeout=deadline(20)) as client:
        with pytest.raises(TaskEngineError, match="CLIENT_TASKS"):
            client.map("task_count", range(11), range(11))
        stats: Stats = client.stats()
        assert (stats.refused, stats.accepted, stats.in_flight) == (11, 0, 0)


def test_top_shows_it_to_people_and_to_scripts() -> None:
    with Engine() as engine, Client(engine.address, timeout=deadline(20)) as client:
        client.map("task_count", range(100), range(100))
        as_json = top("--once", "--json", "--address", engine.address)
        told = json.loads(as_json.stdout)
        assert (as_json.returncode, as_json.stderr) == (0, "")
        assert (told["accepted"], told["answered"], told["in_flight"]) == (100, 100, 0)
        assert [lane["name"] for lane in told["lanes"]] == ["", "data:0"]
        assert 0 < told["total"]["p50"] <= told["total"]["p99"]
        shown = top("--once", "--address", engine.address)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "100 accepted, 100 answered, 0 in flight" in shown.stdout
    gone = top("--once", "--json", "--address", engine.address)
    assert (gone.returncode, gone.stdout) == (1, "")


def top(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "taskengine", "top", *arguments],
        capture_output=True,
        text=True,
        timeout=deadline(30),
        check=False,
    )
