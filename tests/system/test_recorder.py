"""The setting RECORD: a recorder among the engine's own processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from mcap.reader import make_reader

from taskengine import Client
from taskengine.recording.reading import messages
from taskengine.recording.replaying import told
from taskengine.recording.values import values
from taskengine.security.keys import KeyRing
from tests.engine import Engine, deadline, wait_until

pytestmark = pytest.mark.system


def calls(folder: Path) -> list[str]:
    """The tasks whose calls were recorded."""
    if not list(folder.glob("*.mcap")):
        return []
    return [each["task"] for each in told(messages([folder])) if each["kind"] == "command"]


def test_the_engine_records_itself_also_when_its_recorder_is_killed(tmp_path: Path) -> None:
    with Engine(record=tmp_path) as engine, Client(engine.address, timeout=deadline(20)) as client:
        wait_until(lambda: list(tmp_path.glob("*.mcap")), 20, "the recording")
        assert client.call("task_count", 2, 3) == 2.5
        wait_until(lambda: calls(tmp_path) == ["task_count"], 20, "the call")
        [recorder] = engine.pids("recorder")
        os.kill(recorder, signal.SIGKILL)
        wait_until(lambda: len(list(tmp_path.glob("*.mcap"))) == 2, 20, "the next recorder")
        assert client.call("task_echo", "again") == "again"
        wait_until(lambda: calls(tmp_path) == ["task_count", "task_echo"], 20, "the next call")
        assert client.stats().restarts == {"recorder": 1}
        [row, *_] = values(tmp_path, "cpu.load")
        assert {"value", "restart"}.isdisjoint(row[1] if isinstance(row[1], dict) else ())
    for path in tmp_path.glob("*.mcap"):
        with path.open("rb") as file:
            assert make_reader(file, validate_crcs=True).get_summary() is not None, "mended, or ended with the engine"
    events = [each["event"] for each in told(messages([tmp_path])) if each["kind"] == "event"]
    assert events[-1] == "end"


def test_with_curve_it_is_let_in_by_a_key_that_is_in_no_file(tmp_path: Path) -> None:
    folder, keys = tmp_path / "recordings", tmp_path / "keys"
    with Engine(curve="on", keys=keys, record=folder):
        wait_until(lambda: folder.exists() and list(folder.glob("*.mcap")), 20, "the recording")
        wait_until(lambda: {"cpu.load"} <= {each.topic for each in messages([folder])}, 20, "a source")
        assert KeyRing(keys).allowed() == {}


def test_where_it_cannot_write_the_engine_goes_on(tmp_path: Path) -> None:
    taken = tmp_path / "a-file"
    taken.write_text("no folder")
    with Engine(record=taken) as engine, Client(engine.address, timeout=deadline(20)) as client:
        wait_until(lambda: "[RECORDER] " in engine.output().replace("Starting [RECORDER]", ""), 20, "the reason")
        assert client.call("task_count", 2, 3) == 2.5
        assert client.stats().restarts == {}
        assert engine.output().count("trying again every 60 s") == 1
