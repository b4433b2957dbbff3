from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from taskengine.runtime.log_buffer import MAX_TEXT_BYTES, LogBuffer


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    yield reader, writer
    os.close(writer)
    with contextlib.suppress(OSError):  # a test may have closed it
        os.close(reader)


def drain(fd: int) -> str:
    text = b""
    try:
        while data := os.read(fd, 1 << 16):
            text += data
    except BlockingIOError:
        return text.decode()
    return text.decode()


def test_notes_become_text_only_when_flushed(pipe: tuple[int, int]) -> None:
    journal = LogBuffer(pipe[1], enabled=True)
    journal.note(lambda name: [f"one {name}", f"two {name}"], "x")
    assert journal.pending
    assert drain(pipe[0]) == ""
    journal.flush()
    assert drain(pipe[0]) == "one x\ntwo x\n"
    assert not journal.pending


def test_a_line_says_it_keeps_the_order_and_stays_one_line(pipe: tuple[int, int]) -> None:
    journal = LogBuffer(pipe[1], enabled=True)
    journal.note(lambda: ["first"])
    journal.say("second\nhalf")
    assert drain(pipe[0]) == "first\nsecond half\n"


def test_what_would_command_the_terminal_is_shown(pipe: tuple[int, int]) -> None:
    LogBuffer(pipe[1], enabled=True).say("\x1b[2J\x07\x9b\u202e é")
    assert drain(pipe[0]) == "\\x1b[2J\\x07\\x9b\\u202e é\n"


def test_a_full_pipe_costs_lines_and_says_how_many(pipe: tuple[int, int]) -> None:
    journal = LogBuffer(pipe[1], enabled=True)
    line = "x" * 1000
    for _ in range(2 * MAX_TEXT_BYTES // 1000):
        journal.say(line)
    text = drain(pipe[0])
    while journal.pending:
        journal.flush()
        text += drain(pipe[0])
    journal.say("after")
    text += drain(pipe[0])
    assert "lines left out\nafter\n" in text
    assert all(row in (line, "after") or row.endswith("lines left out") for row in text.splitlines())


def test_a_reader_that_is_gone_is_no_error(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    journal = LogBuffer(pipe[1], enabled=True)
    journal.say("to nobody")
    assert not journal.pending
