"""`taskengine record`, `log` and `replay` beside an engine with mock pins, and recorders that are killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcap.reader import make_reader

from taskengine import Client, NotAllowed, TaskFailed
from taskengine.client.subscription import Subscription
from taskengine.recording.channels import PUBLICATION, value_of
from taskengine.recording.reading import files_of, messages
from tests.engine import Engine, deadline, wait_until

SETTINGS = """
tasks = ["robot.py", "taskengine.tasks"]
pins = "mock"
record_commands = true
[hardware.devices.pan]
type = "AngularServo"
pin = 18
lease = 2
[hardware.devices.lamp]
type = "LED"
pin = 4
"""
ROBOT = """
import itertools
from taskengine import source, task
numbers = itertools.count()

@source("count", period=0.01)
def count():
    return next(numbers)

@source("camera", period=0.1)
def camera():
    return b"\\xff\\xd8\\xff" + bytes(range(256)) * 20

@task
async def later(x):
    return x
"""
PERIOD = 0.01


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("robot")
    (folder / "taskengine.toml").write_text(SETTINGS)
    (folder / "robot.py").write_text(ROBOT)
    with Engine(cwd=folder, enable_stdout="false") as engine:
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(20)) as client:
        yield client


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Kill what a test that failed has left running."""
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.communicate()
    STARTED.clear()


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "taskengine", *map(str, words)]


def started(engine: Engine, folder: Path, *options: str, before: str = "") -> subprocess.Popen[str]:
    """A recorder that has begun to write."""
    words = command("record", folder, "--address", engine.address, "--keep-free", 0, *options)
    if before:
        words = ["sh", "-c", f'{before}; exec "$@"', "sh", *words]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    STARTED.append(process)
    before_it = set(folder.glob("*.mcap"))
    wait_until(lambda: set(folder.glob("*.mcap")) - before_it or process.poll() is not None, 30, "the recording")
    return process


def ended(process: subprocess.Popen[str], number: int | None = signal.SIGTERM) -> tuple[int, str, str]:
    if number is not None:
        process.send_signal(number)
    out, err = process.communicate(timeout=deadline(30))
    return process.returncode, out, err


def run(*words: object) -> tuple[int, str, str]:
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=deadline(60))
    return done.returncode, done.stdout, done.stderr


def told(folder: Path) -> list[dict[str, Any]]:
    code, out, err = run("log", folder, "--json")
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def counted(*paths: Path) -> list[int]:
    """What was recorded of the source."""
    return [value_of(PUBLICATION, each.message.data) for each in messages(paths) if each.topic == "count"]


def test_what_was_published_called_and_happened_is_recorded(engine: Engine, client: Client, tmp_path: Path) -> None:
    recorder = started(engine, tmp_path)
    client.publish("note", {"text": "hello"})
    assert client.call("task_count", 2, b=3) == 2.5
    assert client.call("later", 4) == 4
    with pytest.raises(TaskFailed):
        client.call("task_fail", "on purpose")
    client.call("servo.set", "pan", angle=20)
    wait_until(lambda: {"note", "taskengine.commands"} <= {each.topic for each in messages([tmp_path])}, 20, "a sync")
    code, out, err = ended(recorder)
    assert (code, err) == (0, f"recording into {tmp_path}\n")
    assert out.startswith("recorded ")
    calls = {each["task"]: each for each in told(tmp_path) if each["kind"] == "command"}
    assert list(calls) == ["task_count", "later", "task_fail", "servo.set"]
    half = calls["task_count"]
    assert (half["args"], half["kwargs"], half["result"]) == ([2], {"b": 3}, 2.5)
    assert half["sent"] <= half["received"] <= half["began"] <= half["ended"]
    assert calls["task_fail"]["error"]["type"] == "RuntimeError"
    assert next(each["event"] for each in told(tmp_path) if each["kind"] == "event") == "recording"
    code, table, _ = run("log", tmp_path)
    assert "task_count(2, b=3) → 2.5  [waited " in table
    [file] = files_of([tmp_path])
    with file.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None
        assert {channel.topic for channel in summary.channels.values()} >= {"note", "count", "camera", "hardware.pan"}
        assert {schema.name for schema in summary.schemas.values()} >= {"foxglove.CompressedImage", PUBLICATION}
        [metadata] = [each.metadata for each in reader.iter_metadata()]
        assert metadata["topics"] == "*"
    numbers = counted(tmp_path)
    assert numbers == list(range(numbers[0], numbers[-1] + 1)), "each was recorded, once and in order"


def kill_some(engine: Engine, client: Client, folder: Path, times: int, seed: int = 0) -> None:
    """Kill recorders at random; every file opens then, and lacks at most its last second."""
    draw = random.Random(seed)
    with client.subscribe("count", newest=True) as feed:
        for _ in range(times):
            recorder = started(engine, folder, "--topics", "count", "--topics", "camera")
            time.sleep(draw.uniform(0.0, 2.5))
            latest = last_of(feed)
            recorder.kill()
            recorder.communicate()
            recorded = counted(files_of([folder])[-1])
            assert recorded == list(range(recorded[0], recorded[-1] + 1)) if recorded else True
            if recorded:
                assert (latest - recorded[-1]) * PERIOD < deadline(1.6), "a second, and what waits for it"
    recorder = started(engine, folder)
    code, _, err = ended(recorder)
    assert code == 0
    assert err.count("taskengine: mended ") == 1, "each recorder mends what the one before it left"
    for file in files_of([folder]):
        with file.open("rb") as stream:
            summary = make_reader(stream, validate_crcs=True).get_summary()
            assert summary is not None, file
            assert summary.statistics is not None
            assert summary.statistics.message_count == len(list(messages([file])))


def last_of(feed: Subscription) -> int:
    time.sleep(3 * PERIOD)
    return int(feed.get(deadline(20)).value)


@pytest.mark.alone
def test_a_recorder_that_is_killed_loses_a_second(engine: Engine, client: Client, tmp_path: Path) -> None:
    kill_some(engine, client, tmp_path, 4)


@pytest.mark.alone
@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_recorder_that_is_killed_a_hundred_times_loses_a_second_each(
    engine: Engine, client: Client, tmp_path: Path, seed: int
) -> None:
    kill_some(engine, client, tmp_path, 10, seed)


def test_a_full_disk_ends_the_recorder_in_one_line_and_the_engine_goes_on(
    engine: Engine, client: Client, tmp_path: Path
) -> None:
    recorder = started(engine, tmp_path, before="ulimit -f 40")
    code, out, err = ended(recorder, None)
    assert (code, out) == (1, "")
    _, line = err.splitlines()
    assert line.startswith(f"taskengine: recording in {tmp_path} ended: File too large")
    assert line.endswith("has what was recorded until then")
    assert counted(tmp_path)
    assert client.call("task_count", 2, 3) == 2.5


def test_topics_are_published_again_at_their_times(engine: Engine, client: Client, tmp_path: Path) -> None:
    recorder = started(engine, tmp_path, "--topics", "count", "--topics", "camera")
    wait_until(lambda: len(counted(tmp_path)) > 100, 30, "a recording of a second")
    ended(recorder)
    numbers = counted(tmp_path)
    with client.subscribe("again.*", binary=True) as feed:
        code, out, err = run("replay", tmp_path, "--prefix", "again.", "--from", "0.5", "--address", engine.address)
        assert (code, err) == (0, "")
        samples = [feed.get(deadline(20)) for _ in range(int(out.split()[1]))]
    found = [sample for sample in samples if sample.topic == "again.count"]
    values = [sample.value for sample in found]
    assert values == numbers[-len(values) :]
    assert len(numbers) - 60 < len(values) < len(numbers) - 30
    assert {type(sample.value) for sample in samples if sample.topic == "again.camera"} == {bytes}
    took, recorded = found[-1].time - found[0].time, (len(values) - 1) * PERIOD
    assert took == pytest.approx(recorded, rel=0.2, abs=deadline(0.05))
    code, out, err = run("replay", tmp_path, "--topics", "count", "--speed", 50, "--address", engine.address)
    assert (code, out) == (1, "replayed 0 publications\n")
    assert err == "taskengine: left out count: topic count is a source's: no client publishes there\n"


def test_commands_are_played_to_devices_until_a_stop(engine: Engine, client: Client, tmp_path: Path) -> None:
    angles = [-30, 0, 20, 45]
    recorder = started(engine, tmp_path)
    for angle in angles:
        client.call("servo.set", "pan", angle=angle)
        time.sleep(0.1)
    client.call("gpio.write", "lamp", True)
    client.call("task_count", 1, 2)
    wait_until(lambda: sum(each.topic == "taskengine.commands" for each in messages([tmp_path])) == 6, 20, "a sync")
    ended(recorder)
    client.call("device.rest", "pan")
    with client.subscribe("hardware.pan") as feed:
        code, out, err = run("replay", tmp_path, "--commands", "--address", engine.address)
        assert (code, out, err) == (0, "replayed 5 commands\n", "")
        seen: list[float | None] = [None]
        while seen[-2:] != [45, None]:  # the last one, and its rest at the end
            value = feed.get(deadline(20)).value["value"]
            if value != seen[-1]:
                seen.append(value)
    assert [value for value in seen if value is not None] == angles
    with client.lease("pan", exclusive=True):
        code, out, err = run("replay", tmp_path, "--commands", "--address", engine.address)
        assert (code, out) == (1, "")
        assert err.startswith("taskengine: NotAllowed: ")
    slow = subprocess.Popen(
        command("replay", tmp_path, "--commands", "--speed", 0.01, "--address", engine.address),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(slow)
    wait_until(lambda: client.call("devices.state", "pan")["pan"]["value"] == angles[0], 30, "the first command")
    client.stop("the test ends it")
    code, out, err = ended(slow, None)
    assert (code, out) == (1, "")
    assert err.startswith("taskengine: NotAllowed: ")
    client.arm()


def test_topics_of_the_engine_are_its_own(client: Client) -> None:
    with pytest.raises(NotAllowed, match="topics that begin with taskengine"):
        client.publish("taskengine.commands", {"commands": []})


def test_what_is_no_recording_is_told(tmp_path: Path) -> None:
    other = tmp_path / "other.mcap"
    other.write_text("something else")
    assert run("log", other) == (1, "", f"taskengine: {other} is no MCAP file\n")
    code, _, err = run("replay", other, "--from", "yesterday")
    assert (code, err.count("\n")) == (2, 1)
    assert "'yesterday' is neither seconds nor a time" in err
