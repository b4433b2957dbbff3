"""The endpoint for Prometheus, of a real engine."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from taskengine import Client
from taskengine.security.keys import KeyRing
from taskengine.supervisor import metrics
from tests.engine import Engine, cpu_seconds, deadline, free_ports, wait_until


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


def test_idle_connections_cost_neither_threads_nor_time_and_keep_nobody_out() -> None:
    port = free_ports(1)
    with Engine(metrics_port=port) as engine, contextlib.ExitStack() as idle:
        wait_until(lambda: "taskengine_up 1.0" in scrape(port), 20, "the counts")
        (process,) = engine.pids("metrics")
        threads = len(os.listdir(f"/proc/{process}/task"))
        before = cpu_seconds(process)
        for number in range(600):
            connection = idle.enter_context(socket.create_connection(("127.0.0.1", port), deadline(20)))
            if number % 2:
                connection.send(b"GET /metrics HTTP/1.1\r\n")
        assert "taskengine_up 1.0" in scrape(port)
        assert len(os.listdir(f"/proc/{process}/task")) == threads
        assert len(os.listdir(f"/proc/{process}/fd")) < 100
        for _ in range(5):
            assert "taskengine_up 1.0" in scrape(port), "however many are silent"
        assert cpu_seconds(process) - before < deadline(1.0)


def test_many_that_come_at_once_wait_their_turn_and_need_not_try_again() -> None:
    """Linux tries again after a second where the line is full."""
    with contextlib.closing(metrics.listen("127.0.0.1", 0)) as listener, contextlib.ExitStack() as waiting:
        for _ in range(100):
            waiting.enter_context(socket.create_connection(listener.getsockname(), 0.9))


def test_an_idle_connection_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CONNECTION_S", 0.05)
    with contextlib.closing(metrics.listen("127.0.0.1", 0)) as listener:
        server = metrics.Server(listener, lambda accept: (b"up 1\n", "text/plain"), None)
        ours, theirs = multiprocessing.Pipe()
        thread = threading.Thread(target=server.serve, args=(theirs, lambda: True))
        thread.start()
        try:
            with socket.create_connection(listener.getsockname(), deadline(20)) as idle:
                assert idle.recv(1) == b""
        finally:
            ours.send("stop")
            thread.join()
            server.close()


def test_a_token_is_wanted_where_the_keys_have_one(tmp_path: Path) -> None:
    port, token = free_ports(1), KeyRing(tmp_path).make_metrics_token()
    with Engine(metrics_port=port, keys=tmp_path):
        wait_until(lambda: _status(port, None) == 401, 20, "a refusal")
        assert _status(port, "wrong") == 401
        assert _status(port, token) == 200


def _status(port: int, token: str | None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=deadline(10))
    try:
        connection.request("GET", "/metrics", headers=headers)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


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
