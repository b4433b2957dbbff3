from __future__ import annotations

import importlib.util
import socket

import pytest

from taskengine.config.settings import Settings
from taskengine.supervisor.preflight import StartError, check_metrics, check_ports, check_record
from tests.engine import free_ports


def test_metrics_without_what_serves_them_start_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    check_metrics(Settings(metrics_port=9100))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_metrics(Settings())
    with pytest.raises(StartError, match=r"taskengine-robot\[metrics\]"):
        check_metrics(Settings(metrics_port=9100))


def test_a_recording_without_what_it_needs_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    check_record(Settings(record="recordings"))
    with pytest.raises(StartError, match="DATA_WORKERS is 0"):
        check_record(Settings(record="recordings", data_workers=0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_record(Settings())
    with pytest.raises(StartError, match=r"taskengine-robot\[record\]"):
        check_record(Settings(record="recordings"))


def test_a_port_that_is_taken_is_named() -> None:
    first = free_ports(3)
    settings = Settings(router_frontend=first, router_backend=first + 1, starting_port=first)
    check_ports(settings)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 1))
        taken.listen()
        with pytest.raises(StartError, match=f"127.0.0.1:{first + 1}"):
            check_ports(settings)
        with pytest.raises(StartError, match=f"127.0.0.1:{first + 1}.*STOP_PORT"):
            check_ports(Settings(router_frontend=first + 2, stop_port=first + 1, hardware={"devices": {}}))
    with pytest.raises(StartError, match="no address of this machine"):
        check_ports(Settings(host="192.0.2.1"))
