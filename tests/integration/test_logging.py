"""What tasks print, log and warn of, as the engine writes it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from taskengine import Client
from tests.engine import Engine, deadline, wait_until
from tests.integration.seedclient import SeedClient, meta, task

TASKS = """
import logging, os, subprocess, sys, threading, time, warnings
from taskengine import source, task

log = logging.getLogger("arm")
print("imported")

@task
def talk(text):
    print(text)

@task(name="arm.wave")
def wave():
    log.warning("low: %d V", 7)
    log.debug("never told")

@task
def fail():
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("no way")

@task
def warn():
    warnings.warn("careful")

@task
def err():
    sys.stderr.write("bad\\n")
    sys.stderr.buffer.write(b"raw \\x1b[2J\\n")

@task
def half():
    print("half", end="", flush=True)

@task
def start():
    subprocess.run(["sh", "-c", "echo from sh; echo error of sh >&2"])
    os.write(1, b"written past Python\\n")

@task
def fork():
    pid = os.fork()
    if not pid:
        print("from a fork")
        os._exit(0)
    os.waitpid(pid, 0)

@task
def thread():
    other = threading.Thread(target=print, args=("from a thread",))
    other.start()
    other.join()

@task
def flood(lines):
    for i in range(lines):
        print("x" * 200)
    return lines

@source("battery", period=0.05)
def battery():
    if not hasattr(battery, "told"):
        battery.told = print("sampled")
    return 1
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(TASKS)
    return path


def awaited(engine: Engine, *texts: str) -> list[str]:
    """The lines of the engine as soon as each of the patterns is a whole line of its output."""

    def are_there() -> bool:
        return all(re.search(f"^{text}$", engine.output(), re.MULTILINE) for text in texts)

    try:
        wait_until(are_there, 20, repr(texts))
    except AssertionError:
        print(engine.output())
        raise
    return engine.output().splitlines()


def test_a_line_names_the_worker_and_the_task(tasks: Path) -> None:
    with Engine(tasks=tasks) as engine, Client(engine.address, timeout=deadline(20)) as client:
        for name in ("arm.wave", "fail", "warn", "err", "half", "start", "fork", "thread"):
            client.call(name)
        client.run([("talk", ("one",), {}), ("arm.wave", (), {}), ("talk", ("two",), {})])
        worker = r"\[WORKER-\d+\(TASK\)\] "
        lines = awaited(
            engine,
            worker + "imported",
            worker + "arm.wave: WARNING arm: low: 7 V",
            worker + "fail: ERROR arm: no way",
            worker + "fail: ZeroDivisionError: division by zero",
            worker + "warn: WARNING py.warnings: .*own.py:.*UserWarning: careful",
            worker + "err: bad",
            worker + r"err: raw \\x1b\[2J",
            worker + "half: half",
            worker + "from sh",
            worker + "error of sh",
            worker + "written past Python",
            worker + "fork: from a fork",
            worker + "from a thread",
            worker + "talk: one",
            worker + "talk: two",
            r"\[WORKER-\d+\(DATA\)\] source battery: sampled",
        )
    assert not any("never told" in line for line in lines)
    assert sum(line.endswith("from a fork") for line in lines) == 1


def test_tasks_of_wire_0_1_are_named_too(tasks: Path) -> None:
    with Engine(tasks=tasks, task_workers=1) as engine, SeedClient(engine.address) as client:
        # one with keywords takes another way than one with plain arguments
        frames = [task("talk", "a"), task("arm.wave"), task("talk", text="b"), task("talk", "c"), task("arm.wave")]
        client.ask(meta(length=len(frames), serial="s" * 32), *frames)
        lines = awaited(engine, ".* talk: c", r".* arm.wave: WARNING arm: low: 7 V\n(.*\n)*.* arm.wave: .*")
    told = [line.partition("] ")[2] for line in lines if "(TASK)] talk: " in line or "(TASK)] arm.wave: " in line]
    wave = "arm.wave: WARNING arm: low: 7 V"
    assert told == ["talk: a", wave, "talk: b", "talk: c", wave]


def test_lines_as_json_hold_what_is_known(tasks: Path) -> None:
    with Engine(tasks=tasks, log_format="json") as engine, Client(engine.address, timeout=deadline(20)) as client:
        for name in ("arm.wave", "fail", "start"):
            client.call(name)
        client.call("talk", "one \u202e \x1b")
        wait_until(lambda: "past Python" in engine.output() and "one " in engine.output(), 20, "the lines")
        engine.stop()
        entries = [json.loads(line) for line in engine.output().splitlines()]
    assert all({"time", "level", "process", "pid", "message"} <= entry.keys() for entry in entries)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"]) for entry in entries)
    by_text = {entry["message"].partition("\n")[0]: entry for entry in entries}
    waved = by_text["arm: low: 7 V"]
    assert waved["level"] == "warning"
    assert waved["task"] == "arm.wave"
    assert waved["process"].startswith("task worker ")
    assert "ZeroDivisionError" in by_text["arm: no way"]["message"]
    assert by_text["one \\u202e \\x1b"]["task"] == "talk"
    assert by_text["from sh"]["process"].startswith("task worker ")
    assert any(entry["process"] == "router" and "Chunking" in entry["message"] for entry in entries)
    assert any(entry["process"] == "supervisor" for entry in entries)


def test_a_level_leaves_out_lines_but_nothing_that_a_task_prints(tasks: Path) -> None:
    with Engine(tasks=tasks, log_level="error") as engine, Client(engine.address, timeout=deadline(20)) as client:
        for name in ("arm.wave", "fail"):
            client.call(name)
        client.call("talk", "hello")
        lines = awaited(engine, ".*: hello", ".*no way")
    assert not any("low: 7 V" in line or "Chunking" in line or "Listener" in line for line in lines)


def serve(engine: Engine, tasks: Path, stdout: int) -> subprocess.Popen[bytes]:
    settings = {**engine.settings, "tasks": tasks}
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    return subprocess.Popen([sys.executable, "-m", "taskengine", "serve", *flags], cwd=tasks.parent, stdout=stdout)


def test_a_terminal_that_nobody_reads_blocks_no_task_that_prints(tasks: Path) -> None:
    with Engine() as engine:
        pass
    process = serve(engine, tasks, stdout=subprocess.PIPE)
    with Client(engine.address, timeout=deadline(30)) as client:
        assert client.map("flood", [10000] * 8) == [10000] * 8
    assert process.stdout is not None
    reader = process.stdout.fileno()
    os.set_blocking(reader, False)
    text = bytearray()

    def is_told() -> bool:
        while (data := _read(reader)) is not None:
            text.extend(data)
        return b"lines left out" in text

    wait_until(is_told, 20, "the number of lines that were left out")
    process.terminate()
    wait_until(lambda: is_told() and process.poll() is not None, 20, "the end")
    process.stdout.close()


def _read(fd: int) -> bytes | None:
    try:
        return os.read(fd, 1 << 16) or None
    except BlockingIOError:
        return None


@pytest.mark.parametrize("is_journal", [True, False])
def test_lines_for_the_journal_have_priorities(tasks: Path, is_journal: bool) -> None:
    with Engine() as engine:
        pass
    reader, writer = os.pipe()
    status = os.fstat(writer)
    os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino if is_journal else 1}"
    try:
        process = serve(engine, tasks, stdout=writer)
    finally:
        del os.environ["JOURNAL_STREAM"]
    os.close(writer)
    with Client(engine.address, timeout=deadline(20)) as client:
        for name in ("arm.wave", "start"):
            client.call(name)
    process.terminate()
    with os.fdopen(reader) as lines:
        text = lines.read()
    process.wait(deadline(20))

    def has(line: str) -> bool:
        return re.search(f"^{line}", text, re.MULTILINE) is not None

    if is_journal:
        assert has(r"<4>\[WORKER-\d+\(TASK\)\] arm.wave: WARNING arm: low")
        assert has(r"<6>\[WORKER-\d+\(TASK\)\] from sh")
        assert has("<6>Starting process")
        assert has(r"<6>\[ROUTER-MASTER\] Routing started")
    else:
        assert "<6>" not in text
        assert has("Starting process")
