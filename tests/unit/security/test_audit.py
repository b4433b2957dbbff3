from __future__ import annotations

import fcntl
import multiprocessing
import os
import re
import socket
import stat
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskengine.config.policy import Entry
from taskengine.config.settings import Settings
from taskengine.security import audit
from taskengine.security.audit import LOCK_S, Audit, file_of, verify_file
from taskengine.supervisor.roles import GUARDIAN_PATIENCE_S
from tests.engine import deadline, no_descriptors


def entries(path: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


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


def test_a_flood_of_refusals_hides_no_change_of_a_key_and_no_line_is_long(tmp_path: Path) -> None:
    log = Audit(tmp_path / "audit.jsonl", print)
    for _ in range(200):
        log.note("refused", tasks=["x" * 10_000])
    log.note("key revoked", client="tablet")
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert msgspec.json.decode(lines[-1])["event"] == "key revoked"
    assert max(map(len, lines)) < 8192
    assert len(lines) < 150


def _write_much(path: Path) -> None:
    log = Audit(path, print, deadline(10))
    for number in range(100):
        log.note("key allowed", client=f"{os.getpid()}-{number}")


def test_processes_that_write_at_once_make_room_once_and_seal_all_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    monkeypatch.setattr(audit, "LARGEST", 50_000)  # there are 4 times 100 lines of 200 bytes
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_write_much, args=(path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    findings = verify_file(path)
    assert [finding.wrong for _, finding in findings] == [[], []]
    assert sum(finding.sealed for _, finding in findings) == 400


@pytest.mark.parametrize("patience", [LOCK_S, GUARDIAN_PATIENCE_S, 0.0])
def test_a_process_that_stands_still_costs_lines_and_not_time(tmp_path: Path, patience: float) -> None:
    said: list[str] = []
    path = tmp_path / "audit.jsonl"
    log = Audit(path, said.append, patience)
    log.note("refused", client="a")
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        began = time.monotonic()
        log.note("refused", client="b")
        assert time.monotonic() - began < deadline(2)
    log.note("refused", client="c")
    assert [entry["client"] for entry in entries(path)] == ["a", "c"]
    assert len(said) == 1
    assert "another process has it locked" in said[0]


def test_a_stranger_uses_up_no_line_of_an_insider(tmp_path: Path) -> None:
    log = Audit(tmp_path / "audit.jsonl", print)
    for number in range(2000):
        log.note("not let in", domain="frontend", fingerprint=f"{number:039}", address="10.0.0.7")
    log.note("refused", client="laptop", tasks=["gpio.write"])
    lines = entries(tmp_path / "audit.jsonl")
    assert lines[-1]["client"] == "laptop"
    assert len(lines) < 200
    assert (tmp_path / "audit.jsonl").stat().st_size < 64 * 1024


def test_a_line_that_finds_no_room_is_not_even_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Audit(tmp_path / "audit.jsonl", print)
    made: list[str] = []
    line = audit._line

    def make(event: str, fields: dict[str, Any]) -> bytes:
        made.append(event)
        return line(event, fields)

    monkeypatch.setattr(audit, "_line", make)
    for _ in range(5000):
        log.note("refused", client="laptop")
    assert len(made) < 200


def test_what_was_left_out_is_told_when_nothing_else_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Audit(tmp_path / "audit.jsonl", print)
    for _ in range(500):
        log.note("refused", client="laptop")
    written = len(entries(tmp_path / "audit.jsonl"))
    log.summarise(time.monotonic() + 61)
    last = entries(tmp_path / "audit.jsonl")[-1]
    assert (last["event"], last["of"], last["client"]) == ("left out", "refused", "laptop")
    assert last["lines"] == 500 - written


def test_a_line_that_was_changed_is_found_and_so_is_a_log_that_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "LARGEST", 1000)
    path = tmp_path / "audit.jsonl"
    for number in range(9):
        Audit(path, print).note("refused", client="laptop", number=number)
    assert [finding.wrong for _, finding in verify_file(path)] == [[], []]
    text = path.read_bytes()
    path.write_bytes(text.replace(b"laptop", b"nobody", 1))
    assert [number for number, _ in verify_file(path)[1][1].wrong] == [1]
    path.write_bytes(text.partition(b"\n")[2])
    assert verify_file(path)[1][1].wrong
    path.unlink()
    path.with_name("audit.jsonl.1").rename(tmp_path / "kept")
    Audit(path, print).note("refused", client="laptop")
    (tmp_path / "kept").rename(path.with_name("audit.jsonl.1"))
    assert verify_file(path)[1][1].wrong == [(1, "it does not continue audit.jsonl.1")]


def test_a_log_from_before_goes_on_and_a_torn_line_is_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"event":"old"}\n')
    Audit(path, print).note("refused", client="a")
    Audit(path, print).note("refused", client="b")
    ((_, found),) = verify_file(path)
    assert (found.sealed, found.wrong) == (2, [])
    with path.open("ab") as file:
        file.write(b'{"event":"half')
    Audit(path, print).note("refused", client="c")
    ((_, found),) = verify_file(path)
    assert found.wrong[0] == (4, "the line has no seal")
    assert path.read_text().splitlines()[4].endswith('"}'), "the next line is whole"


@pytest.mark.parametrize(
    ("target", "pattern"),
    [
        (
            "journald",
            r"PRIORITY=5\nSYSLOG_IDENTIFIER=taskengine-audit\nTASKENGINE_EVENT=refused\nMESSAGE=(\{.*\})\n\Z",
        ),
        ("syslog", r"<85>taskengine-audit\[\d+\]: (\{.*\})\Z"),
    ],
)
def test_the_systems_logs_get_it_where_that_is_wanted(
    target: str, pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, target.upper(), str(tmp_path / "log"))
    said: list[str] = []
    chosen = file_of(Settings(audit=target))
    assert chosen == target
    log = Audit(chosen, said.append)
    log.note("refused", client="laptop", tasks=["x\ny"])
    assert len(said) == 1, "nobody listens"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(str(tmp_path / "log"))
        log.note("refused", client="laptop", tasks=["x\ny"])
        found = re.match(pattern, system.recv(65536).decode(), re.DOTALL)
    assert found is not None
    assert msgspec.json.decode(found[1])["tasks"] == ["x\ny"]


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
    assert 300 <= older.stat().st_size < 800
    assert not path.exists() or path.stat().st_size < 300


def test_where_it_lies() -> None:
    assert file_of(Settings()) is None
    assert file_of(Settings(curve="on", keys="/k")) == Path("/k/audit.jsonl")
    assert file_of(Settings(policy={"a": Entry()}, keys="/k")) == Path("/k/audit.jsonl")
    assert file_of(Settings(audit="/a.log")) == Path("/a.log")


@pytest.mark.parametrize("target", ["file", "journald"])
def test_lines_are_written_with_no_descriptor_left(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that had used up all descriptors did not appear in the log."""
    monkeypatch.setattr(audit, "LARGEST", 700)
    monkeypatch.setattr(audit, "JOURNALD", str(tmp_path / "journal"))
    said: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        path = tmp_path / "audit.jsonl"
        log = Audit(path if target == "file" else "journald", said.append)
        log.open()
        with no_descriptors():
            for number in range(6):
                log.note("key revoked", client=f"tablet {number}")
        assert said == []
        if target == "file":
            findings = verify_file(path)
            assert [finding.wrong for _, finding in findings] == [[], []], "it made room once"
            assert sum(finding.sealed for _, finding in findings) == 6
        else:
            assert b"tablet 5" in [journal.recv(4096) for _ in range(6)][-1]
