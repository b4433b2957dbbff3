from __future__ import annotations

import signal

import pytest

from taskengine.supervisor.signals import SignalCounts


def test_signals_are_counted_by_what_they_ask_for() -> None:
    counts = SignalCounts()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR1):
        counts.note(number, None)
    assert (counts.ends, counts.reloads, counts.stops) == (2, 1, 2)


def test_the_end_of_a_terminal_ends_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.isatty", lambda fd: True)
    counts = SignalCounts()
    monkeypatch.setattr("os.isatty", lambda fd: False)
    counts.note(signal.SIGHUP, None)
    assert (counts.ends, counts.reloads) == (1, 0)
