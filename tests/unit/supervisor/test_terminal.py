from __future__ import annotations

import os
from pathlib import Path

from taskengine.supervisor.terminal import PIECE, Terminal


def test_a_file_takes_everything(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        terminal = Terminal(file.fileno())
        terminal.add(b"line\n" * 5000)
        terminal.write()
        assert not terminal.pending
    assert (tmp_path / "out").read_bytes() == b"line\n" * 5000


def test_a_pipe_that_nobody_reads_does_not_block() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer)
    for _ in range(100):
        terminal.add(b"x" * (PIECE - 1) + b"\n")
        terminal.write()
    assert len(terminal._text) > 0
    while terminal.pending:
        os.read(reader, 1 << 16)
        terminal.write()
    os.close(writer)
    with os.fdopen(reader, "rb") as rest:
        assert set(rest.read()) <= {ord("x"), ord("\n")}


def test_a_full_disk_costs_lines_and_says_how_many() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        terminal = Terminal(full.fileno())
        terminal.say("one")
        terminal.say("two")
        assert not terminal.pending
    reader, writer = os.pipe()
    terminal._fd = writer
    terminal._poll.register(writer, 4)
    terminal.say("three")
    os.close(writer)
    with os.fdopen(reader, "rb") as text:
        assert text.read() == b"[SUPERVISOR] 2 lines left out\nthree\n"
