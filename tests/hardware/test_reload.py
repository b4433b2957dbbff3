"""A changed table [hardware] takes a restart, and a reload says so: its processes have had the pins since the start."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from taskengine import Client, TaskFailed
from taskengine.config.loading import table_problem
from tests.engine import Engine, deadline, wait_until

LAMP = '[hardware.devices.lamp]\ntype = "LED"\npin = 17\n'
TABLE = {"devices": {"lamp": {"type": "LED", "pin": 17}}}
CHANGED = "hardware in {file}, line 1: the table has changed, which takes a restart of the engine"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LAMP, ""),
        (f"heartbeat_interval = 0.5\n# the lamp\n{LAMP}", ""),
        (LAMP.replace("17", "18"), CHANGED),
        (f"{LAMP}lease = 1\n", CHANGED),
        ("", "hardware in {file}: the table has changed, which takes a restart of the engine"),
        ("[hardware", "{file}, line 1: not TOML"),
    ],
)
def test_why_an_engine_cannot_be_reloaded(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "taskengine.toml"
    file.write_text(text)
    said = table_problem(file, TABLE)
    assert said.startswith(problem.format(file=file))
    assert bool(said) == bool(problem)


def test_an_engine_without_devices_gets_none_by_a_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert table_problem(None, {}) == ""
    assert "there is no such file" in table_problem(tmp_path / "gone", TABLE)
    (tmp_path / "taskengine.toml").write_text("no TOML")
    assert table_problem(None, {}) == ""
    (tmp_path / "taskengine.toml").write_text(LAMP)
    assert table_problem(None, {}) == CHANGED.format(file="taskengine.toml")


@pytest.mark.system
def test_a_changed_pin_takes_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "taskengine.toml"
    file.write_text(LAMP)
    with Engine(cwd=tmp_path, pins="mock") as engine, Client(engine.address, timeout=deadline(30)) as client:
        before = engine.pids("worker")
        file.write_text(LAMP.replace("17", "18"))
        with pytest.raises(TaskFailed, match="the table has changed, which takes a restart of the engine"):
            client.reload()
        os.kill(engine.process.pid, signal.SIGHUP)
        wait_until(lambda: engine.output().count("Not reloaded: hardware in") == 2, 10, "the second refusal")
        assert engine.pids("worker") == before
        client.call("gpio.write", "lamp", True)
        file.write_text(LAMP)
        client.reload()
        assert not set(engine.pids("worker")) & set(before)
