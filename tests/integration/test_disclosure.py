"""No client learns the engine's folders, over either wire, from tasks, data workers or a reload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine import Client, TaskEngineError, TaskFailed
from tests.engine import Engine, deadline
from tests.integration.seedclient import SeedClient, entries, meta, task

ROBOT = """
def task_read():
    open(__file__ + ".gone")

class Wrong:
    def __repr__(self): return __file__

def task_wrong():
    raise ValueError(Wrong())
"""


@pytest.fixture(params=["on", "off"])
def tracebacks(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(tmp_path: Path, tracebacks: str) -> Iterator[Engine]:
    (tmp_path / "robot.py").write_text(ROBOT)
    with Engine(tasks=tmp_path / "robot.py", tracebacks=tracebacks) as engine:
        yield engine


def test_folders_are_told_only_where_tracebacks_are(engine: Engine, tracebacks: str, tmp_path: Path) -> None:
    told = tracebacks == "on"
    with Client(engine.address, timeout=deadline(20)) as client:
        with pytest.raises(TaskFailed, match=r"robot\.py\.gone") as caught:
            client.call("task_read")
        assert (str(tmp_path) in str(caught.value)) == told
        assert bool(caught.value.traceback) == told
        with pytest.raises(TaskEngineError) as failed:
            client.call("task_wrong")
        assert (str(tmp_path) in str(failed.value)) == told
        (tmp_path / "robot.py").write_text("raise OSError(__file__)")
        with pytest.raises(TaskFailed, match=r"robot\.py") as refused:
            client.reload()
        assert (str(tmp_path) in str(refused.value)) == told
    assert str(tmp_path) in engine.output(), "its own terminal is told all"
    with SeedClient(engine.address) as seed:
        reply = seed.ask(meta(length=2), task("task_read"), task("task_wrong"))
    assert all(": ERROR: " in entry for entry in entries(reply))
    assert any(str(tmp_path) in entry for entry in entries(reply)) == told
