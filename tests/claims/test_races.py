from __future__ import annotations

from pathlib import Path

from tests.claims.programs import compiled, race

ROUNDS = 3000


def test_between_processes_each_task_goes_to_one(tmp_path: Path) -> None:
    told = race(compiled("races.c", tmp_path / "races", "-pthread"), "processes", ROUNDS)
    assert told.startswith("exit code 0:"), told
    assert f"{ROUNDS} rounds" in told
