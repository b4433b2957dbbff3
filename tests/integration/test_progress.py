"""What tasks say of their progress reaches who called them, against a real engine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import zmq

from taskengine import BadArguments, Client, Executor, Progress, TaskFailed, _fastpath, aio
from taskengine.client.task_future import TaskFuture
from taskengine.protocol.messages import (
    PartialReply,
    Request,
    RequestKind,
    decode_reply,
    encode_request,
    wanting_progress,
)
from taskengine.protocol.progress import REPORT_BURST, REPORT_RATE, as_reports
from taskengine.router.tuning import UNREAD_REPORTS
from tests.engine import Engine, deadline, wait_until

TASKS = """
import asyncio, os, threading, time
from pathlib import Path
from taskengine import progress, task

def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.005)

async def await_for(path):
    while not Path(path).exists():
        await asyncio.sleep(0.005)

@task
def load(path, done=1, total=4, message="loading"):
    progress(done, total, message)
    wait_for(path)
    return done

def steps(path):
    progress(1)
    yield 1
    progress(2, 2, "yielded")
    wait_for(path)
    yield 2

def flood(seconds):
    end, turns = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        turns += 1
        progress(turns)
    return turns

def elsewhere(path):
    thread = threading.Thread(target=progress, args=(9,))
    thread.start()
    thread.join()
    pid = os.fork()
    if not pid:
        progress(8)
        os._exit(0)
    os.waitpid(pid, 0)
    progress(3, 3, "the task itself")
    wait_for(path)

def odd(what):
    progress(what)

async def aload(path, done=1, total=4, message="loading"):
    progress(done, total, message)
    await await_for(path)
    return done

async def athread(path):
    await asyncio.to_thread(progress, 5, 6, "in a thread")
    await await_for(path)

async def leave(path):
    asyncio.get_running_loop().call_later(0.2, progress, 99)

for function in load, steps, flood, elsewhere, odd:
    task(function, name=function.__name__)
async def drum(path, number):
    for done in range(10):
        progress(done + 1)
    Path(path + str(number)).touch()
    await await_for(path)

left = []

async def linger(path):
    async def go_on():
        while not Path(path).exists():
            progress(99)
            await asyncio.sleep(0.05)

    left.append(asyncio.create_task(go_on()))

for lane in "a", "io":
    for function in aload, athread, leave, drum, linger:
        task(function, name=f"{lane}.{function.__name__}", lane=lane)
"""
DRUMS = 10
LOADS = pytest.mark.parametrize("task", ["load", "a.aload", "io.aload"])


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks") / "telling.py"
    path.write_text(TASKS)
    return path


@pytest.fixture(scope="module")
def engine(module: Path) -> Iterator[Engine]:
    settings: dict[str, Any] = {"task_workers": 2, "lanes": "a=1,io=1x20", "enable_stdout": "false"}
    # so that nothing else wakes a router that is to look whether a client has read
    settings |= {"heartbeat_interval": 30, "heartbeat_limit": 90}
    with Engine(tasks=f"taskengine.tasks,{module}", **settings) as made:
        yield made


@pytest.fixture
def end(tmp_path: Path) -> Path:
    """The file that lets a task end."""
    return tmp_path / "end"


def pack(calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]]) -> list[bytes]:
    """Return the frames of a package whose client wants to know the progress of its tasks."""
    index, body = _fastpath.pack_calls(calls, {})
    names = sorted({name for name, *_ in calls})
    return [wanting_progress(encode_request(Request(RequestKind.PACKAGE, 1, "ARM", names))), index, body]


def heard(future: TaskFuture, progress: Progress) -> None:
    wait_until(lambda: future.progress() == progress, 10.0, f"{progress}, not {future.progress()}")


@LOADS
def test_a_future_tells_what_its_task_said_last(client: Client, end: Path, task: str) -> None:
    future = client.submit(task, str(end))
    heard(future, Progress(1, 4, "loading"))
    assert not future.done()
    said: list[Progress] = []
    future.add_progress_callback(said.append)
    assert said == [Progress(1, 4, "loading")]
    end.touch()
    assert future.result() == 1
    assert future.progress() == Progress(1, 4, "loading")


def test_each_of_many_tasks_has_its_own(client: Client, end: Path) -> None:
    futures = [client.submit("io.aload", str(end), number, None, f"task {number}") for number in range(20)]
    for number, future in enumerate(futures):
        heard(future, Progress(number, None, f"task {number}"))
    end.touch()
    assert [future.result() for future in futures] == list(range(20))


def test_nothing_said_is_no_progress(client: Client) -> None:
    future = client.submit("task_count", 2, 3)
    assert (future.result(), future.progress()) == (2.5, None)


def test_calls_and_streams_tell_a_function(client: Client, end: Path) -> None:
    said: list[Progress] = []

    def listen(progress: Progress) -> None:
        said.append(progress)
        if progress.done in (2, 7):
            end.touch()

    watching = client.options(progress=listen)
    assert watching.call("load", str(end), 7) == 7
    assert said == [Progress(7, 4, "loading")]
    end.unlink()
    said.clear()
    assert list(watching.stream("steps", str(end))) == [1, 2]
    assert said == [Progress(1), Progress(2, 2, "yielded")]
    end.unlink()
    said.clear()
    assert watching.map("load", [str(end)] * 2, [3, 2]) == [3, 2]
    assert set(said) == {Progress(3, 4, "loading", position=0), Progress(2, 4, "loading", position=1)}


def test_a_function_may_call_the_engine_and_may_fail(
    client: Client, end: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    means: list[float] = []
    printed: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: printed.append(str(told.exc_value)))

    def call(progress: Progress) -> None:
        means.append(client.call("task_count", 2, progress.done))
        end.touch()
        raise ValueError("the listener stumbled")

    assert client.options(progress=call).call("load", str(end), 4) == 4
    assert means == [3.0]
    assert printed == ["the listener stumbled"]


def test_a_loop_that_reports_each_turn_sends_a_few(client: Client) -> None:
    said: list[Progress] = []
    began = time.monotonic()
    turns = client.options(progress=said.append).call("flood", 0.5)
    most = REPORT_BURST + REPORT_RATE * (time.monotonic() - began) + 1
    assert turns > most
    assert REPORT_BURST <= len(said) <= most
    assert said == sorted(said)


def test_where_nobody_asked_it_costs_next_to_nothing(client: Client) -> None:
    before = client.stats().late
    assert client.call("flood", 0.2) > 20_000 * 0.2
    assert client.stats().late == before


def test_other_threads_and_processes_of_a_task_say_nothing(client: Client, end: Path) -> None:
    said: list[Progress] = []
    future = client.options(progress=said.append).submit("elsewhere", str(end))
    heard(future, Progress(3, 3, "the task itself"))
    end.touch()
    future.result()
    assert said == [Progress(3, 3, "the task itself")]


@pytest.mark.parametrize("lane", ["a", "io"])
def test_a_thread_below_a_coroutine_tells_for_it(client: Client, end: Path, lane: str) -> None:
    future = client.submit(f"{lane}.athread", str(end))
    heard(future, Progress(5, 6, "in a thread"))
    end.touch()
    future.result()


@pytest.mark.parametrize("lane", ["a", "io"])
def test_what_a_task_left_on_the_loop_tells_for_no_other(client: Client, end: Path, lane: str) -> None:
    assert client.submit(f"{lane}.leave", str(end)).result() is None
    said: list[Progress] = []
    future = client.options(progress=said.append).submit(f"{lane}.aload", str(end))
    heard(future, Progress(1, 4, "loading"))
    time.sleep(0.4)
    end.touch()
    future.result()
    assert said == [Progress(1, 4, "loading")]


def test_what_a_task_left_on_the_loop_says_nothing_to_the_next_router(module: Path, end: Path) -> None:
    said: list[Progress] = []
    with Engine(tasks=str(module), lanes="a=1,io=1x20", task_workers=1, enable_stdout="false") as engine:
        with Client(engine.address, timeout=deadline(20)) as client:
            for lane in "a", "io":
                client.submit(f"{lane}.linger", str(end) + "not").result()
            [router] = engine.pids("router")
            os.kill(router, signal.SIGKILL)
            wait_until(lambda: engine.pids("router") not in ([], [router]), 10.0, "the next router")
        with Client(engine.address, timeout=deadline(20)) as client:
            futures = [client.options(progress=said.append).submit(f"{lane}.aload", str(end)) for lane in ("a", "io")]
            for future in futures:  # their jobs have the numbers of those that linger
                heard(future, Progress(1, 4, "loading"))
            time.sleep(0.3)
            end.touch()
            assert [future.result() for future in futures] == [1, 1]
    assert said == [Progress(1, 4, "loading")] * 2


@pytest.mark.parametrize("ends_first", [False, True])
def test_a_client_that_reads_late_gets_the_newest_of_what_runs(
    engine: Engine, client: Client, end: Path, ends_first: bool
) -> None:
    echo = pack([("task_echo", (bytes(2**20),), {})])
    with zmq.Context() as context, context.socket(zmq.DEALER) as stalled:
        stalled.linger, stalled.rcvhwm, stalled.rcvbuf = 0, 1, 4096
        stalled.connect(engine.address)
        answered = client.stats().answered
        for _ in range(4):
            stalled.send_multipart(echo)
        wait_until(lambda: client.stats().answered == answered + 4, 10.0, "the replies that are not read")
        stalled.send_multipart(pack([("io.drum", (str(end), number), {}) for number in range(DRUMS)]))
        wait_until(lambda: len(list(end.parent.iterdir())) == DRUMS, 10.0, "all that the tasks say")
        assert client.call("io.aload", str(end) + "0") == 1, "behind the reports"
        if ends_first:
            end.touch()
            wait_until(lambda: client.stats().answered == answered + 5 + DRUMS, 10.0, "the end")
        newest: dict[int, float] = {}
        messages = replies = 0
        while replies < 4 + ends_first or not (ends_first or newest == dict.fromkeys(range(DRUMS), 10.0)):
            assert stalled.poll(int(deadline(10) * 1000)), f"{newest} of {messages} messages"
            head, *frames = stalled.recv_multipart()
            reply = decode_reply(head)
            if isinstance(reply, PartialReply):
                messages += 1
                for report in as_reports(_fastpath.unpack(frames[0], reply.count, bytes)):
                    newest[report.position] = report.done
            else:
                replies += 1
        if ends_first:
            assert not stalled.poll(100), "a report behind the end"
        else:
            end.touch()
            assert stalled.poll(int(deadline(10) * 1000))
    assert messages <= UNREAD_REPORTS + (not ends_first)


@pytest.mark.parametrize("what", ["half", None, float("nan"), [1]])
def test_what_is_no_number_is_an_error_of_the_task(client: Client, what: Any) -> None:
    with pytest.raises(BadArguments, match="progress: done is a finite number"):
        client.submit("odd", what).result()


def test_numbers_of_numpy_are_numbers(client: Client, end: Path) -> None:
    future = client.submit("load", str(end), 2**70, None, "x" * 1000)
    wait_until(future.progress, 10.0, "a report")
    progress = future.progress()
    assert progress is not None
    assert (progress.done, type(progress.done), progress.message[:3]) == (2.0**70, float, "xxx")
    assert len(progress.message) < 210
    end.touch()
    future.result()


def test_with_asyncio(engine: Engine, end: Path) -> None:
    async def run() -> None:
        said: list[tuple[Progress, int]] = []

        def listen(progress: Progress) -> None:
            said.append((progress, threading.get_ident()))
            end.touch()

        async with aio.Client(engine.address, timeout=deadline(20)) as client:
            future = client.submit("load", str(end))
            future.add_progress_callback(listen)
            assert await future == 1
            assert future.progress() == Progress(1, 4, "loading")
            end.unlink()
            assert await client.options(progress=listen).call("a.aload", str(end)) == 1
            assert said == [(Progress(1, 4, "loading"), threading.get_ident())] * 2
            with pytest.raises(TaskFailed, match="it failed"):
                await client.submit("task_fail", "it failed")
            lost = client.submit("load", str(end) + "not")
            lost.cancel()
            with pytest.raises(asyncio.CancelledError):
                await lost
            bar = Bar()
            assert await client.map("task_count", range(50), range(50), progress=bar) == list(range(50))
            assert sum(bar.updates) == 50
            Path(str(end) + "not").touch()

    asyncio.run(run())


def test_futures_of_an_executor_tell_too(engine: Engine, end: Path) -> None:
    with Executor(engine.address) as executor:
        future = executor.submit("load", str(end))
        assert isinstance(future, TaskFuture)
        heard(future, Progress(1, 4, "loading"))
        end.touch()
        assert future.result() == 1


class Bar:
    """What tqdm's bar looks like from outside."""

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self.updates: list[int] = []
        self.is_closed = False
        Bar.last = self

    last: Bar

    def update(self, ended: int) -> None:
        self.updates.append(ended)

    def close(self) -> None:
        self.is_closed = True


def test_map_moves_a_bar_as_its_calls_end(client: Client) -> None:
    bar = Bar()
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.extend(client.map("task_sleep", [0.0, 0.0, 0.0, 1.0], progress=bar)))
    thread.start()
    wait_until(lambda: sum(bar.updates) == 3, 10.0, "three ended calls")
    assert thread.is_alive()
    thread.join()
    assert (sum(bar.updates), len(ended), bar.is_closed) == (4, 4, False)


def test_map_makes_a_bar_and_closes_it(client: Client) -> None:
    assert client.map("task_count", [1, 2], [3, 4], progress=Bar) == [2, 3]
    assert (Bar.last.total, sum(Bar.last.updates), Bar.last.is_closed) == (2, 2, True)
    means = client.map("task_count", numpy.arange(4000.0), numpy.arange(4000.0), progress=lambda total: Bar(total))
    assert isinstance(means, numpy.ndarray)
    assert means.tolist() == list(range(4000))
    assert (Bar.last.total, sum(Bar.last.updates), Bar.last.is_closed) == (4000, 4000, True)
    assert client.map("task_count", [], [], progress=Bar) == []


def test_map_with_a_bar_raises_or_returns_errors_in_their_places(client: Client) -> None:
    with pytest.raises(TaskFailed, match="first"):
        client.map("task_fail", ["first", "second"], progress=Bar)
    assert Bar.last.is_closed
    found = client.options(errors="return").map("task_fail", ["first", "second"], progress=Bar)
    assert ["first" in str(found[0]), "second" in str(found[1])] == [True, True]
    with pytest.raises(BadArguments, match=r"a method `update\(n\)`"):
        client.map("task_count", [1], [2], progress="bar")
    with pytest.raises(BadArguments, match="progress is a function"):
        client.options(progress=3)  # type: ignore[arg-type]


def test_map_draws_a_bar_with_rich(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    assert client.map("task_count", range(30), range(30), progress=True) == list(range(30))
    drawn = capfd.readouterr().err
    assert "task_count" in drawn
    assert "30/30" in drawn


def test_the_command_draws_a_bar_on_a_terminal(engine: Engine, end: Path) -> None:
    command = [sys.executable, "-m", "taskengine", "call", "--address", engine.address]
    ours, theirs = os.openpty()
    environ = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    called = [*command, "load", str(end), "1", "4", "loading \x1b[31mred"]
    with subprocess.Popen(called, stdout=subprocess.PIPE, stderr=theirs, env=environ) as process:
        os.close(theirs)
        drawn = b""
        while b"1/4" not in drawn:
            drawn += os.read(ours, 4096)
        end.touch()
        assert process.communicate(timeout=deadline(20))[0] == b"1\n"
    os.close(ours)
    assert b"load: loading" in drawn
    assert b"\x1b[31mred" not in drawn
    ran = subprocess.run([*command, "load", str(end)], capture_output=True, timeout=deadline(20), check=True)
    assert (ran.stdout, ran.stderr) == (b"1\n", b"")
    ran = subprocess.run([*command, "steps", str(end)], capture_output=True, timeout=deadline(20), check=True)
    assert (ran.stdout, ran.stderr) == (b"1\n2\n", b"")
