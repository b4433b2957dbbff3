"""In processes of their own: they take over the standard streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from taskengine.runtime.task_output import MARK, logger_name, sift
from tests.engine import deadline

BEGIN = """
import logging, os, signal, sys, threading
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.runtime.log_format import LogStyle
from taskengine.runtime.task_output import MARK, log_by, print_by

reader, writer = os.pipe()
os.set_blocking(reader, False)
os.set_blocking(writer, False)
real = os.fdopen(os.dup(1), "w")

def drain():
    text = b""
    try:
        while data := os.read(reader, 1 << 16):
            text += data
    except BlockingIOError:
        pass
    return text.replace(b"[WORKER-%d" % os.getpid(), b"[W").decode()

def start(style=LogStyle(), mark=b""):
    journal = LogBuffer(writer, True, style, "task worker 1", mark)
    log_by(journal, "task worker 1", style.level)
    print_by(journal, "task worker 1")
    return journal

def show(text):
    real.write(text)
    real.flush()

"""


def run(code: str) -> str:
    process = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_lines_have_the_task_that_runs() -> None:
    said = run("""
journal = start()
print("nobody")
journal.running = lambda: ("lift", "laptop")
print("one", 2, end="")
journal.running = lambda: ("turn", "laptop")
print("three\\nfour\\n\\nhalf", end="")
show(drain())
journal.flush()
show(drain())
""")
    assert said.splitlines() == [
        "[W(TASK)] nobody",
        "[W(TASK)] lift: one 2",
        "[W(TASK)] turn: three",
        "[W(TASK)] turn: four",
        "[W(TASK)] turn: ",
        "[W(TASK)] turn: half",
    ]


def test_long_lines_are_cut() -> None:
    said = run("journal = start()\nprint('x' * 20000)\nprint('y' * 20000, end='')\njournal.flush()\nshow(drain())")
    lines = [line.removeprefix("[W(TASK)] ") for line in said.splitlines()]
    assert "".join(lines) == "x" * 20000 + "y" * 20000
    assert max(map(len, lines)) == 8192


def test_bytes_and_what_is_no_utf_8() -> None:
    assert run("start()\nsys.stdout.buffer.write(b'\\xff\\n')\nprint('\\udc80')\nshow(drain())").splitlines() == [
        "[W(TASK)] \ufffd",
        "[W(TASK)] \\udc80",
    ]


def test_logging_and_warnings_and_the_engines_own_loggers() -> None:
    said = run("""
import warnings
journal = start()
logging.getLogger("arm").warning("low %d", 7)
logging.getLogger("arm").debug("no")
logging.getLogger("taskengine.worker").info("as it is")
journal.warn("100% as it is")
logging.basicConfig()
logging.info("%s", "root")
warnings.warn("careful", stacklevel=1)
import logging.config
logging.config.dictConfig({"version": 1})
journal.say("still here")
show(drain())
""")
    assert said.splitlines()[:4] == [
        "[W(TASK)] WARNING arm: low 7",
        "as it is",
        "100% as it is",
        "[W(TASK)] INFO root: root",
    ]
    assert "UserWarning: careful" in said
    assert said.endswith("still here\n")


def test_a_record_that_cannot_be_formatted_is_told() -> None:
    assert "TypeError" in run("start()\nlogging.warning('%d', 'x')\nshow(drain())")


def test_a_signal_in_the_middle_of_a_print_stops_nothing() -> None:
    pause = deadline(0.0005)  # on a slow machine a handler takes longer than that, and nothing else would run
    said = run(f"""
start()
signal.signal(signal.SIGALRM, lambda *_: print("from a handler"))
signal.setitimer(signal.ITIMER_REAL, {pause}, {pause})
text = ""
for i in range(5000):
    print("line", i)
    text += drain()
signal.setitimer(signal.ITIMER_REAL, 0)
show(text + drain())
""")
    assert "from a handler" in said
    assert [line.split()[-1] for line in said.splitlines() if "line" in line and "handler" not in line]


def test_a_full_pipe_blocks_nobody_and_lines_are_counted() -> None:
    said = run("""
journal = start()
for i in range(30000):
    print("x" * 100)
text = drain()
while journal.pending:
    journal.flush()
    text += drain()
lines = text.splitlines()
left_out = sum(int(line.split()[1]) for line in lines if line.endswith("lines left out"))
show(f"{left_out > 0} {left_out + sum(line.endswith('x' * 100) for line in lines)}")
""")
    assert said == "True 30000"


def test_a_fork_begins_with_nothing() -> None:
    said = run("""
journal = start()
journal.note(lambda: ["noted"])
print("begun", end="")
pid = os.fork()
if not pid:
    print("of the fork")
    journal.flush()
    os._exit(0)
os.waitpid(pid, 0)
print(" and ended")
show(drain())
""")
    assert said.splitlines() == ["[W(TASK)] of the fork", "noted", "[W(TASK)] begun and ended"]


def test_a_traceback_is_a_message_of_its_own_in_json() -> None:
    said = run("""
journal = start(LogStyle("json"))
journal.running = lambda: ("lift", "laptop")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("arm").exception("no")
show(drain())
""")
    (line,) = said.splitlines()
    entry = json.loads(line)
    assert entry["message"].startswith("arm: no\nTraceback")
    assert (entry["task"], entry["client"], entry["level"]) == ("lift", "laptop", "error")


def test_after_a_task_has_closed_the_pipe_printing_does_nothing() -> None:
    assert run("start()\nos.close(writer)\nprint('x')\nshow('alive')") == "alive"


@pytest.mark.parametrize(
    ("lines", "sifted"),
    [
        (b"", b""),
        (b"\x1eone\n\x1etwo\n", b"one\ntwo\n"),
        (b"raw\n\x1etwo\n", b"<raw>\ntwo\n"),
        (b"\x1eone\nraw\n", b"one\n<raw>\n"),
        (b"raw\x1eone\n", b"<raw>\none\n"),
        (b"\x1eone\x1etwo\n", b"one\ntwo\n"),
        (b"\n", b"<>\n"),
        (b"\x1b\xff\n", b"<\\x1b\xef\xbf\xbd>\n"),
    ],
)
def test_lines_without_a_mark_are_told_from_others(lines: bytes, sifted: bytes) -> None:
    assert MARK == b"\x1e"
    assert sift(lines, lambda text: f"<{text}>".encode()) == sifted


def test_any_bytes_can_be_sifted() -> None:
    for _ in range(200):
        lines = os.urandom(200).replace(b"\r", MARK) + b"\n"
        assert sift(lines, str.encode).endswith(b"\n")


def test_loggers_have_the_names_of_processes() -> None:
    names = [logger_name(role) for role in ("router", "task worker arm 1", "data worker 2", "stop listener")]
    assert names == ["taskengine.router", "taskengine.worker", "taskengine.worker", "taskengine.stop_listener"]
