"""The endpoint for Prometheus, of a real engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from taskengine import Client
from taskengine.keys import KeyRing
from tests.engine import Engine, deadline, free_ports, wait_until


def scrape(port: int) -> list[str]:
    """The lines that Prometheus would get; none where nobody serves them."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=deadline(10)) as reply:
            text: str = reply.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return []
    return text.splitlines()


def test_counts_are_scraped_and_a_restarted_router_is_found_again() -> None:
    port = free_ports(1)
    with Engine(metrics_port=port) as engine, Client(engine.address, timeout=deadline(20)) as client:
        client.map("task_count", range(100), range(100))
        wait_until(lambda: "taskengine_tasks_accepted_total 100.0" in scrape(port), 20, "the counts")
        assert {"taskengine_up 1.0", 'taskengine_lane_workers{lane=""} 2.0'} <= set(scrape(port))
        served_by = engine.pids("metrics")
        client.reload()
        os.kill(engine.pids("router")[0], signal.SIGKILL)
        wait_until(lambda: 'taskengine_restarts_total{role="router"} 1.0' in scrape(port), 20, "the new router")
        assert engine.pids("metrics") == served_by
        os.kill(engine.pids("metrics")[0], signal.SIGKILL)
        wait_until(lambda: 'taskengine_restarts_total{role="metrics"} 1.0' in scrape(port), 20, "its own restart")
    assert scrape(port) == []


def test_a_router_that_does_not_answer_is_not_up() -> None:
    port = free_ports(1)
    with Engine(metrics_port=port, heartbeat_limit=60) as engine:
        wait_until(lambda: "taskengine_up 1.0" in scrape(port), 20, "the counts")
        (router,) = engine.pids("router")
        os.kill(router, signal.SIGSTOP)
        try:
            wait_until(lambda: [line for line in scrape(port) if line[0] != "#"] == ["taskengine_up 0.0"], 20, "that")
        finally:
            os.kill(router, signal.SIGCONT)
        wait_until(lambda: "taskengine_up 1.0" in scrape(port), 20, "the router")


def test_with_curve_it_is_let_in_by_a_key_that_is_in_no_file(tmp_path: Path) -> None:
    port, ring = free_ports(1), KeyRing(tmp_path)
    with Engine(curve="on", keys=tmp_path, metrics_port=port):
        wait_until(lambda: "taskengine_up 1.0" in scrape(port), 20, "the counts")
        assert ring.allowed() == {}


@pytest.mark.parametrize("flag", ["--router-frontend", "--metrics-port"])
def test_a_port_that_is_taken_starts_nothing(flag: str) -> None:
    port = free_ports(1)
    with Engine(metrics_port=port):
        ran = subprocess.run(
            [sys.executable, "-m", "taskengine", "serve", flag, str(port)],
            capture_output=True,
            text=True,
            timeout=deadline(30),
            check=False,
        )
        assert ran.returncode == 1
        assert f"127.0.0.1:{port}" in ran.stderr
