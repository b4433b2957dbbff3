"""What must not stop a client's link, nor leave anybody waiting: against a real engine."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
import zmq

from taskengine import Client, EngineUnreachable, link
from taskengine.connection import Connection
from tests.engine import Engine, deadline, free_ports, wait_until


class Failing:
    """Does as `real`, but fails as long as it is `broken`."""

    def __init__(self, real: Callable[..., Any], error: BaseException) -> None:
        self.real, self.error, self.broken = real, error, True
        self.failures = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.broken:
            self.failures += 1
            raise self.error
        return self.real(*args, **kwargs)


def test_a_callback_that_exits_does_not_stop_the_link(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reports.append)
    for _ in range(2):
        future: Future[Any] = client.submit("task_count", 2, 3)
        future.add_done_callback(lambda _: sys.exit(1))
        assert client.submit("task_count", 4, 4).result(deadline(20)) == 4.0
    assert [report.exc_type for report in reports] == [SystemExit] * 2


def test_a_connection_that_cannot_be_made_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine() as engine, Client(engine.address, timeout=deadline(20)) as client:
        sleeping = client.submit("task_sleep", 60)
        wait_until(client.progress, 10, "the package")
        connect = Failing(Connection, zmq.ZMQError(errno.EMFILE))
        monkeypatch.setattr(link, "Connection", connect)
        os.kill(engine.pids("router")[0], signal.SIGKILL)
        assert isinstance(sleeping.exception(deadline(20)), EngineUnreachable)
        hasty = client.options(timeout=0.05)
        assert isinstance(hasty.submit("task_count", 2, 3).exception(deadline(20)), EngineUnreachable)
        with pytest.raises(EngineUnreachable):
            hasty.call("task_count", 2, 3)
        patient = client.submit("task_count", 2, 3)
        wait_until(lambda: connect.failures > 1, 10, "another attempt")
        connect.broken = False
        assert patient.result(deadline(20)) == 2.5
        assert client.call("task_count", 2, 3) == 2.5


def test_a_client_that_cannot_be_made_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise zmq.ZMQError(errno.EMFILE)

    address = f"tcp://127.0.0.1:{free_ports(1)}"
    monkeypatch.setattr(zmq.Socket, "get_monitor_socket", refuse)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(zmq.ZMQError):
        Client(address)
    assert len(os.listdir("/proc/self/fd")) == len(before)
