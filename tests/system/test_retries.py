"""Tasks of a running engine that run again after errors of their own."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from taskengine import BadArguments, Cancelled, Client, TaskFailed
from tests.engine import Engine, deadline, wait_until
from tests.system.test_docs import blocks

pytestmark = pytest.mark.system

MODULE = """
from pathlib import Path
from taskengine import task

HERE = Path(__file__).parent

@task(retries=3, backoff=0.02, retry_on=(OSError,))
def fetch(key, failures=2):
    with open(HERE / "runs", "a") as file:
        file.write(f"{key}\\n")
    tries = (HERE / "runs").read_text().split().count(str(key))
    if tries <= failures:
        raise OSError(f"try {tries}")
    return [key, tries]

@task(retries=3, retry_on=OSError)
def other():
    raise ValueError("no")

@task(retries=5, backoff=30.0)
def patient():
    raise ValueError("later")

@task(every=0.2, retries=1, backoff=0.01)
def periodic():
    (HERE / "periodic").open("a").write("x")
    if len((HERE / "periodic").read_text()) % 2:
        raise OSError("every other time")
    return "done"

@task
def plain(value):
    return value
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("retries")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    (folder / "robot.py").write_text(MODULE)
    [example] = [block for block in blocks("docs/tasks.md", "python") if "read_temperature" in block]
    (folder / "example.py").write_text(re.sub(r'Path\(".*"\)', f'Path("{folder}/thermometer")', example))
    with Engine(cwd=folder, tasks="robot.py,example.py") as running:
        yield running


def runs(folder: Path, key: str) -> int:
    return (folder / "runs").read_text().split().count(key)


def retried(client: Client, name: str) -> int:
    """How often that task ran again; `stats` counts the periodic one too, all the time."""
    return sum(task.retry.retried for task in client.tasks() if task.name == name and task.retry)


def test_a_call_gets_the_result_of_the_try_that_worked(client: Client, folder: Path) -> None:
    assert client.call("fetch", "a") == ["a", 3]
    assert client.submit("fetch", "b").result(deadline(10)) == ["b", 3]
    assert client.map("fetch", [f"m{k}" for k in range(40)]) == [[f"m{k}", 3] for k in range(40)]
    assert runs(folder, "m7") == 3


def test_a_call_whose_last_try_failed_gets_that_error(client: Client, folder: Path) -> None:
    with pytest.raises(TaskFailed, match="OSError: try 4"):
        client.call("fetch", "c", 9)
    assert runs(folder, "c") == 4


def test_other_errors_and_arguments_that_do_not_fit_are_not_tried_again(client: Client) -> None:
    with pytest.raises(TaskFailed, match="ValueError: no"):
        client.call("other")
    with pytest.raises(BadArguments):
        client.call("other", 1)
    assert retried(client, "other") == 0


def test_the_example_of_the_page_gets_over_a_thermometer_that_does_not_answer(client: Client, folder: Path) -> None:
    reading = client.submit("read_temperature")
    wait_until(lambda: retried(client, "read_temperature"), 20, "its first error")
    (folder / "thermometer").write_text("21500")
    assert reading.result(deadline(20)) == 21.5


def test_neighbours_in_a_package_keep_their_places(client: Client) -> None:
    calls = [("plain", (1,), {}), ("fetch", ("x",), {}), ("plain", (2,), {}), ("fetch", ("y",), {"failures": 0})]
    assert client.run(calls) == [1, ["x", 3], 2, ["y", 1]]


def test_tasks_without_a_reply_run_again_too(client: Client, folder: Path) -> None:
    client.send("fetch", "sent")
    wait_until(lambda: runs(folder, "sent") == 3, 20, "its third run")


def test_a_worker_is_free_while_a_task_waits_for_its_next_try(client: Client) -> None:
    before = retried(client, "patient")
    waiting = [client.submit("patient") for _ in range(8)]
    wait_until(lambda: retried(client, "patient") == before + 8, 20, "that all wait for their next try")
    assert client.stats().lanes[0].queued in (8, 9)  # the periodic one may wait for its next try too
    began = time.monotonic()
    assert client.call("plain", 1) == 1
    assert time.monotonic() - began < deadline(5)
    client.cancel()
    ends = [future.exception(deadline(10)) for future in waiting]
    assert [type(error) for error in ends if not isinstance(error, Cancelled)] == []


def test_no_try_is_waited_for_that_would_begin_after_the_deadline(client: Client) -> None:
    began = time.monotonic()
    with pytest.raises(TaskFailed, match="later"):
        client.options(deadline=10.0).call("patient")
    assert time.monotonic() - began < deadline(5)


def test_what_was_tried_again_is_counted(client: Client) -> None:
    listed = {task.name: task.retry for task in client.tasks()}
    assert listed["plain"] is None
    assert listed["fetch"] is not None
    assert (listed["fetch"].retries, listed["fetch"].backoff) == (3, 0.02)
    assert listed["fetch"].retried > 80
    assert client.stats().retried >= listed["fetch"].retried


def test_a_run_of_a_periodic_task_is_tried_again(client: Client) -> None:
    def state() -> tuple[int, int]:
        [found] = client.stats().schedules
        return found.runs, found.failed

    wait_until(lambda: state()[0] > 2, 20, "some runs")
    assert state()[1] == 0


def test_tasks_of_wire_01_run_again_too(engine: Engine) -> None:
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(engine.address)
        frames = [
            b'{"type":"REQ","id":"X","role":"requestor","serial":"s","length":3,"part":0,"size":0,"version":0.1,"pack":"p"}',
            b'{"task":"plain","args":[1],"pack":"1"}',
            b'{"task":"fetch","args":["old"],"pack":"2"}',
            b'{"task":"fetch","args":["new"],"kwargs":{"failures":1},"pack":"3"}',
        ]
        socket.send_multipart(frames)
        assert socket.poll(int(deadline(20) * 1000))
        told = b"".join(socket.recv_multipart()[1:])
    assert [text in told for text in (b'"job-1: 1"', b'job-2: [\\"old\\",3]', b'job-3: [\\"new\\",2]')] == [True] * 3
    assert b"ERROR" not in told
