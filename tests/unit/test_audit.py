from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest

from taskengine import audit
from taskengine.audit import Audit, Throttle, file_of
from taskengine.policy import Entry
from taskengine.settings import Settings


def test_a_line_is_json_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "new" / "audit.jsonl"
    said: list[str] = []
    log = Audit(path, said.append)
    log.note("refused", client="laptop", tasks=["x\ny"])
    log.note("key revoked", client="tablet")
    first, second = map(msgspec.json.decode, path.read_text().splitlines())
    assert (first["event"], first["client"], first["tasks"]) == ("refused", "laptop", ["x\ny"])
    assert second["event"] == "key revoked"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert said == []


def test_a_flood_is_counted() -> None:
    throttle = Throttle(3)
    assert [throttle.lets_through(7.0 + n / 100) for n in range(5)] == [True, True, True, False, False]
    assert throttle.lets_through(8.0)
    assert throttle.left_out() == 2
    assert throttle.left_out() == 0


def test_what_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    said: list[str] = []
    log = Audit(tmp_path / "file" / "audit.jsonl", said.append)
    (tmp_path / "file").write_text("")
    for _ in range(3):
        log.note("refused")
    assert len(said) == 1
    assert "audit.jsonl" in said[0]


def test_a_full_file_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "LARGEST", 300)
    path = tmp_path / "audit.jsonl"
    log = Audit(path, print)
    for number in range(20):
        log.note("refused", number=number)
    older = path.with_name("audit.jsonl.1")
    assert 300 <= older.stat().st_size < 500
    assert not path.exists() or path.stat().st_size < 300


def test_where_it_lies() -> None:
    assert file_of(Settings()) is None
    assert file_of(Settings(curve="on", keys="/k")) == Path("/k/audit.jsonl")
    assert file_of(Settings(policy={"a": Entry()}, keys="/k")) == Path("/k/audit.jsonl")
    assert file_of(Settings(audit="/a.log")) == Path("/a.log")
