from __future__ import annotations

import pytest

from taskengine.config.settings import Settings
from taskengine.config.weaknesses import REMINDER_S
from taskengine.registry.survey import TaskCode
from taskengine.runtime.control import UnknownMessage
from taskengine.supervisor import supervisor
from taskengine.supervisor.child import Child
from taskengine.supervisor.supervisor import Supervisor
from taskengine.supervisor.systemd import Notifier, Watchdog
from taskengine.supervisor.terminal import Terminal


class Said(Terminal):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def log(self, line: str, level: int) -> None:
        self.lines.append(line)


def start(settings: Settings) -> tuple[Supervisor, Said]:
    """A supervisor that has said what it says first."""
    terminal = Said()
    made = Supervisor(settings, None, terminal, Notifier("", Watchdog(float("inf")), terminal.say))
    made._announce(TaskCode())
    return made, terminal


def test_insecure_is_said_first_and_again_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    made, terminal = start(Settings(host="0.0.0.0", curve="off", insecure=True))
    assert "!!! INSECURE: anybody who reaches 0.0.0.0" in terminal.lines[0]
    said = len(terminal.lines)
    made._warn_insecure(1000.0 + REMINDER_S - 1)
    assert len(terminal.lines) == said
    made._warn_insecure(1000.0 + REMINDER_S)
    assert terminal.lines[said:] == terminal.lines[:1]


def test_an_old_libzmq_is_warned_of_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Warning" not in "".join(start(Settings())[1].lines)
    monkeypatch.setattr(supervisor, "libzmq_version", lambda: (4, 3, 2))
    assert "Warning: libzmq 4.3.2 is older than 4.3.5" in start(Settings())[1].lines[0]


def test_an_unknown_report_is_logged_once_for_each_process() -> None:
    made, terminal = start(Settings())
    child = Child("task worker 1", print, (), enable_stdout=False)
    said = len(terminal.lines)
    for tag in ("temperature", "\x1b[2J"):
        made._handle_report(child, UnknownMessage(tag))
    assert terminal.lines[said:] == ["[SUPERVISOR] Ignored an unknown report of task worker 1: 'temperature'"]
