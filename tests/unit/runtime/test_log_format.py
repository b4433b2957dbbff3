from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from taskengine.runtime.log_format import LineFormat, LogStyle, is_journal, printable, worker_label


def test_plain_text_is_the_text() -> None:
    assert LineFormat(LogStyle(), "router").line("a é \udc80", logging.ERROR, task="t") == "a é ?".encode()


@pytest.mark.parametrize(
    ("level", "name", "priority"),
    [
        (logging.DEBUG, "debug", 7),
        (logging.INFO, "info", 6),
        (25, "info", 6),
        (logging.WARNING, "warning", 4),
        (logging.ERROR, "error", 3),
        (logging.CRITICAL, "error", 3),
    ],
)
def test_levels_have_names_and_priorities(level: int, name: str, priority: int) -> None:
    assert LineFormat(LogStyle(has_priorities=True), "x").line("text", level) == b"<%d>text" % priority
    assert json.loads(LineFormat(LogStyle("json"), "x").line("text", level))["level"] == name
    line = LineFormat(LogStyle("json", has_priorities=True), "x").line("text", level)
    assert line.startswith(b"<%d>{" % priority)


def test_json_holds_what_is_known_and_stays_one_line() -> None:
    made = LineFormat(LogStyle("json"), "router").line(
        "one\ntwo \x1b\u202e\udc80", at=1.25, task="t\x1b", client="c", pid=7
    )
    assert b"\n" not in made
    assert json.loads(made) == {
        "time": "1970-01-01T00:00:01.250Z",
        "level": "info",
        "process": "router",
        "pid": 7,
        "task": "t\\x1b",
        "client": "c",
        "message": "one\ntwo \\x1b\\u202e?",
    }
    assert json.loads(LineFormat(LogStyle("json"), "router").line("x")).keys() == {
        "time",
        "level",
        "process",
        "pid",
        "message",
    }


def test_the_journal_is_known_by_its_stream(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        status = os.fstat(file.fileno())
        assert is_journal(file.fileno(), {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        for other in ("", f"{status.st_dev}:{status.st_ino + 1}", "x"):
            assert not is_journal(file.fileno(), {"JOURNAL_STREAM": other})
        assert not is_journal(file.fileno(), {})
        closed = os.dup(file.fileno())
    os.close(closed)
    assert not is_journal(closed, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})


def test_labels_and_printable_text() -> None:
    assert worker_label("task worker 1", 7) == worker_label("pin worker arm 1", 7) == "[WORKER-7(TASK)]"
    assert worker_label("data worker 1", 7) == "[WORKER-7(DATA)]"
    assert printable("a\nb\x1b\x85") == "a b\\x1b\\x85"
