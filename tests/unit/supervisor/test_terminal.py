from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from taskengine.runtime.log_format import LogStyle
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


def test_a_level_leaves_out_lines_and_the_form_is_the_settings() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer, LogStyle("json", logging.WARNING, has_priorities=True))
    terminal.say("start")
    terminal.warn("careful")
    os.close(writer)
    with os.fdopen(reader, "rb") as text:
        (line,) = text.read().splitlines()
    assert line.startswith(b"<4>{")
    entry = json.loads(line[3:])
    assert (entry["process"], entry["level"], entry["message"]) == ("supervisor", "warning", "careful")


def test_no_line_that_is_left_out_is_forgotten_while_the_disk_stays_full() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        terminal = Terminal(full.fileno())
        for _ in range(10):
            terminal.say("line")
        reader, writer = os.pipe()
        terminal._fd = writer
        terminal.write()
    os.close(writer)
    with os.fdopen(reader, "rb") as text:
        assert text.read() == b"[SUPERVISOR] 10 lines left out\n"


def test_the_supervisors_logger_prints_on_it_without_forms_of_its_own() -> None:
    reader, writer = os.pipe()
    terminal = Terminal(writer).log_by()
    logger = logging.getLogger("taskengine.supervisor")
    try:
        terminal.say("100% done")
        terminal.warn("careful")
        logger.error("%s", "failed")
        logger.debug("no")
    finally:
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    os.close(writer)
    with os.fdopen(reader, "rb") as text:
        assert text.read() == b"100% done\ncareful\nfailed\n"
