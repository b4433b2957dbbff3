"""Values of generator tasks, as they are yielded, against a real engine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from taskengine import (
    BadArguments,
    Cancelled,
    Client,
    EngineUnreachable,
    TaskEngineError,
    TaskFailed,
    TaskTimeout,
    UnknownTask,
    WorkerLost,
    aio,
)
from taskengine.client.async_stream import AsyncStream
from taskengine.client.streams import Stream
from taskengine.security.keys import KeyRing
from tests.engine import Engine, deadline, wait_until

TASKS = """
import asyncio, functools, os, signal, time
from taskengine import task

class Ledger:
    "Which value was yielded last, and whether the generator was closed."
    def __init__(self, path):
        self.path = path
        self.lines = []
    def tell(self, line):
        self.lines.append(str(line))
        with open(self.path + ".new", "w") as file:
            file.write(" ".join(self.lines[-2:]))
        os.replace(self.path + ".new", self.path)

def count(number, path="/dev/null.d", size=0):
    ledger = Ledger(path) if path != "/dev/null.d" else None
    try:
        for value in range(number):
            if ledger:
                ledger.tell(value)
            yield bytes(size) if size else value
    finally:
        if ledger:
            ledger.tell("closed")

async def acount(number, path="/dev/null.d", size=0):
    ledger = Ledger(path) if path != "/dev/null.d" else None
    try:
        for value in range(number):
            await asyncio.sleep(0)
            if ledger:
                ledger.tell(value)
            yield bytes(size) if size else value
    finally:
        await asyncio.sleep(0)
        if ledger:
            ledger.tell("closed")

def stumble(number):
    yield from range(number)
    raise ValueError("it stumbled")

async def astumble(number):
    for value in range(number):
        yield value
    raise ValueError("it stumbled")

def die(number):
    yield from range(number)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)

def dawdle(pause, path):
    ledger = Ledger(path)
    try:
        for value in range(1000):
            yield value
            time.sleep(pause)
    finally:
        ledger.tell("closed")

async def adawdle(pause, path):
    ledger = Ledger(path)
    try:
        for value in range(1000):
            yield value
            await asyncio.sleep(pause)
    finally:
        ledger.tell("closed")

def odd(what):
    yield 1
    yield {"thing": object()} if what == "unsendable" else 2

def ramps(number):
    import numpy
    for size in range(number):
        yield numpy.arange(float(size))

def decorated(function):
    @functools.wraps(function)
    def run(*args, **kwargs):
        return function(*args, **kwargs)
    return run

def listing(function):
    @functools.wraps(function)
    def run(*args, **kwargs):
        return list(function(*args, **kwargs))
    return run

asynchronous = [acount, astumble, adawdle]
plain = [count, stumble, die, dawdle, odd, ramps]
for lane, named in ("", plain), ("a", asynchronous), ("io", [*asynchronous, count]):
    prefix = lane and lane + "."
    for function in named:
        task(function, name=prefix + function.__name__, lane=lane)
task(count, name="again", idempotent=True)
task(die, name="die.again", idempotent=True)
task(dawdle, name="brief", timeout=0.4)
task(adawdle, name="a.brief", lane="a", timeout=0.4)
task(count, name="mixed", lane="a")
task(functools.partial(count, 3), name="part")
task(decorated(count), name="decorated")
task(listing(count), name="listed")
"""
COUNTS = pytest.mark.parametrize("task", ["count", "a.acount", "io.acount", "mixed"])
FOREVER = 10**9


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks") / "streaming.py"
    path.write_text(TASKS)
    return path


@pytest.fixture(scope="module")
def engine(module: Path) -> Iterator[Engine]:
    settings: dict[str, Any] = {"lanes": "a=1,io=1x20", "heartbeat_interval": 0.2, "heartbeat_limit": 1.0}
    with Engine(tasks=f"taskengine.tasks,{module}", task_workers=2, enable_stdout="false", **settings) as made:
        yield made


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def read_all(stream: Stream) -> tuple[list[Any], TaskEngineError]:
    """Return the values of a stream that ends in an error, and the error."""
    values = []
    try:
        for value in stream:
            values.append(value)  # those before the error are wanted
    except TaskEngineError as error:
        return values, error
    raise AssertionError(f"{len(values)} values and no error")


def stumble_at(stream: Stream, number: int) -> None:
    """Raise ZeroDivisionError in a loop over a stream."""
    for value in stream:
        1 // (value - number)


async def read_on(stream: AsyncStream) -> None:
    """Read a stream for as long as one lets it, in `async with`."""
    async with stream:
        async for _ in stream:
            pass


def wait_for_end(ledger: Path) -> None:
    wait_until(lambda: ledger.exists() and ledger.read_text().endswith("closed"), 10.0, "the end of a generator")


def last_value(ledger: Path) -> int:
    """Return the last value that was yielded, once that stays so for a while."""
    last, since = "", time.monotonic()
    while time.monotonic() < since + 0.3:
        text = ledger.read_text() if ledger.exists() else ""
        if text != last:
            last, since = text, time.monotonic()
    return int(last.split()[-1])


@COUNTS
def test_values_come_in_order_and_then_the_end(client: Client, task: str) -> None:
    stream = client.stream(task, 500)
    assert list(stream) == list(range(500))
    with pytest.raises(StopIteration):
        next(stream)
    assert list(client.stream(task, 0)) == []


@pytest.mark.parametrize("task", ["part", "decorated", "io.count"])
def test_functions_that_wrap_generators_stream_too(client: Client, task: str) -> None:
    assert list(client.stream(task, *([] if task == "part" else [3]))) == [0, 1, 2]
    assert {"part", "decorated", "count", "a.acount"} <= {each.name for each in client.tasks() if each.streams}


def test_with_asyncio(engine: Engine) -> None:
    async def read() -> None:
        async with aio.Client(engine.address, timeout=deadline(20)) as client:
            for task in "count", "a.acount":
                assert [value async for value in client.stream(task, 300)] == list(range(300))
            with pytest.raises(TaskFailed, match="it stumbled"):
                await read_on(client.stream("stumble", 3))

    asyncio.run(read())


@pytest.mark.parametrize("task", ["stumble", "a.astumble", "io.astumble"])
def test_an_error_comes_after_the_values_before_it(client: Client, task: str) -> None:
    stream = client.stream(task, 100)
    values, error = read_all(stream)
    assert values == list(range(100))
    assert isinstance(error, TaskFailed)
    assert (error.type, str(error)) == ("ValueError", "ValueError: it stumbled")
    assert 'raise ValueError("it stumbled")' in error.traceback
    assert "taskengine/worker" not in error.traceback
    assert list(stream) == []


def test_what_cannot_be_streamed_is_refused_in_words(client: Client) -> None:
    for task, args, error in [
        ("task_count", (2, 3), BadArguments),
        ("listed", (2,), BadArguments),
        ("count", (), BadArguments),
        ("cuont", (2,), UnknownTask),
    ]:
        with pytest.raises(error):
            next(client.stream(task, *args))
    stream = client.stream("odd", "unsendable")
    assert next(stream) == 1
    with pytest.raises(TaskFailed, match="a value cannot be sent"):
        next(stream)


def test_a_call_lists_the_values(client: Client) -> None:
    assert client.call("count", 5) == client.call("a.acount", 5) == client.call("io.acount", 5) == [0, 1, 2, 3, 4]
    assert client.map("count", [1, 2]) == [[0], [0, 1]]
    assert client.call("listed", 2) == [0, 1]
    with pytest.raises(BadArguments, match="`stream` it"):
        client.call("count", FOREVER)
    with pytest.raises(BadArguments, match="`stream` it"):
        client.call("a.acount", FOREVER)
    with pytest.raises(TaskFailed, match="it stumbled"):
        client.call("stumble", 5)


@COUNTS
def test_a_reader_that_waits_holds_the_generator_back(client: Client, ledger: Path, task: str) -> None:
    with client.options(ahead=4).stream(task, FOREVER, str(ledger)) as stream:
        assert last_value(ledger) == 3
        assert next(stream) == 0
        assert last_value(ledger) == 3
        assert next(stream) == 1
        assert last_value(ledger) == 5
        assert [next(stream) for _ in range(100)] == list(range(2, 102))
        assert last_value(ledger) <= 105
    wait_for_end(ledger)


def test_large_values_are_held_back_by_their_bytes(client: Client, ledger: Path) -> None:
    with client.stream("count", FOREVER, str(ledger), 2**20) as stream:
        assert last_value(ledger) == 0
        for number in range(5):
            assert len(next(stream)) == 2**20
            assert last_value(ledger) == number + 1


def test_arrays_are_values(client: Client) -> None:
    arrays = list(client.stream("ramps", 3))
    assert all(isinstance(array, numpy.ndarray) for array in arrays)
    assert [array.tolist() for array in arrays] == [[], [0.0], [0.0, 1.0]]


@COUNTS
def test_leaving_the_loop_closes_the_generator(client: Client, ledger: Path, task: str) -> None:
    for value in client.stream(task, FOREVER, str(ledger)):
        if value == 100:
            break
    wait_for_end(ledger)
    ledger.unlink()
    with pytest.raises(ZeroDivisionError):
        stumble_at(client.stream(task, FOREVER, str(ledger)), 10)
    wait_for_end(ledger)
    assert client.call("task_count", 2, 3) == 2.5


def test_leaving_an_async_loop_closes_the_generator(engine: Engine, ledger: Path) -> None:
    async def leave() -> None:
        async with aio.Client(engine.address, timeout=deadline(20)) as client:
            async for value in client.stream("count", FOREVER, str(ledger)):
                if value == 100:
                    break
            await asyncio.to_thread(wait_for_end, ledger)
            ledger.unlink()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(read_on(client.stream("a.adawdle", 3600.0, str(ledger))), deadline(0.5))
            await asyncio.to_thread(wait_for_end, ledger)

    asyncio.run(leave())


def test_closing_the_client_closes_its_streams(engine: Engine, ledger: Path) -> None:
    client = Client(engine.address, timeout=deadline(20))
    stream = client.stream("count", FOREVER, str(ledger))
    assert next(stream) == 0
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < deadline(3)
    wait_for_end(ledger)
    with pytest.raises(Cancelled):
        list(stream)


def test_a_client_that_dies_closes_its_streams(engine: Engine, ledger: Path) -> None:
    code = f"""
from taskengine import Client
client = Client({engine.address!r})
for value in client.options(ahead=4).stream("count", 10**9, {str(ledger)!r}):
    if value == 20:
        print("here", flush=True)
"""
    reader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert reader.stdout is not None
    with reader.stdout:
        assert reader.stdout.readline() == b"here\n"
    reader.kill()
    reader.wait()
    wait_for_end(ledger)


@pytest.mark.parametrize("task", ["die", "die.again"])
def test_a_worker_that_dies_ends_its_stream_after_the_values_that_came(client: Client, task: str) -> None:
    """Also that of an idempotent task: what its client has had cannot come again."""
    stream = client.stream(task, 50)
    values, error = read_all(stream)
    assert isinstance(error, WorkerLost)
    assert values == list(range(50))
    assert list(stream) == []


def test_streams_run_beside_each_other(client: Client) -> None:
    streams = [client.stream("count", 200), client.stream("count", 200)]
    assert [(next(streams[0]), next(streams[1])) for _ in range(200)] == [(value, value) for value in range(200)]
    many = [client.options(ahead=2).stream("io.acount", 50) for _ in range(20)]
    assert [[next(stream) for stream in many] for _ in range(50)] == [[value] * 20 for value in range(50)]


def test_one_task_waits_for_a_stream_of_its_worker_and_then_runs(client: Client, ledger: Path) -> None:
    with client.options(ahead=2).stream("mixed", FOREVER, str(ledger)) as stream:
        assert next(stream) == 0
        waiting = client.submit("a.acount", 3)
        client.flush()
        assert [next(stream) for _ in range(50)] == list(range(1, 51))
        assert not waiting.done()
    assert waiting.result(deadline(10)) == [0, 1, 2]


@pytest.mark.parametrize("task", ["dawdle", "a.adawdle", "io.adawdle"])
def test_a_timeout_is_for_each_value_and_closes_the_stream(client: Client, ledger: Path, task: str) -> None:
    stream = client.options(timeout=deadline(0.5)).stream(task, deadline(1.0), str(ledger))
    assert next(stream) == 0
    with pytest.raises(TaskTimeout, match="no reply in"):
        next(stream)
    assert list(stream) == []
    wait_for_end(ledger)
    stream = client.options(timeout=deadline(0.6)).stream(task, 0.1, str(ledger))
    assert [next(stream) for _ in range(8)] == list(range(8)), "in all it takes longer"


@pytest.mark.parametrize("task", ["brief", "a.brief"])
def test_the_tasks_own_timeout_is_for_all_of_it(client: Client, ledger: Path, task: str) -> None:
    before = client.stats().restarts
    stream = client.options(ahead=1).stream(task, 0.0, str(ledger))
    assert next(stream) == 0
    wait_for_end(ledger)
    with pytest.raises(TaskTimeout, match=f"{task} took longer than its timeout of 0.4 s"):
        list(stream)
    assert client.stats().restarts == before


def test_a_deadline_is_for_the_beginning(client: Client, ledger: Path) -> None:
    stream = client.options(deadline=deadline(0.3), ahead=2).stream("count", FOREVER, str(ledger))
    time.sleep(deadline(0.4))
    assert [next(stream) for _ in range(10)] == list(range(10))
    other = client.options(ahead=1).stream("count", FOREVER)
    assert next(other) == 0
    with pytest.raises(TaskTimeout, match="deadline"):
        list(client.options(deadline=deadline(0.3)).stream("count", 3))


def test_an_engine_without_streams_says_so(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskengine.client.session.STREAMS", "not this")
    monkeypatch.setattr("taskengine.client.open_streams.STREAMS", "not this")
    with Client(engine.address, timeout=deadline(20)) as client:
        for _ in range(2):  # before and after the hello
            with pytest.raises(Exception, match="has no streams"):
                list(client.stream("count", 3))


def test_they_are_counted_and_leave_nothing_behind(client: Client) -> None:
    before = client.stats()
    assert len(list(client.stream("count", 100))) == 100
    after = client.stats()
    assert (after.accepted - before.accepted, after.answered - before.answered) == (1, 1)
    assert (after.in_flight, after.bytes_in_flight, after.packages) == (0, 0, 0)


def test_the_command_prints_values_as_they_come(engine: Engine, ledger: Path) -> None:
    command = [sys.executable, "-m", "taskengine", "call", "--address", engine.address]
    counted = subprocess.run([*command, "count", "3"], capture_output=True, text=True, check=True)
    assert (counted.stdout, counted.stderr) == ("0\n1\n2\n", "")
    failed = subprocess.run([*command, "stumble", "2"], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (1, "0\n1\n")
    assert "it stumbled" in failed.stderr
    with subprocess.Popen([*command, "a.adawdle", "0.01", str(ledger)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert [reader.stdout.readline() for _ in range(3)] == [b"0\n", b"1\n", b"2\n"]
        reader.stdout.close()  # as `head` does
    wait_for_end(ledger)


def test_a_router_that_dies_ends_the_streams_and_their_generators(module: Path, tmp_path: Path) -> None:
    ledgers = [tmp_path / task for task in ("count", "a.acount", "io.acount")]
    settings: dict[str, Any] = {"lanes": "a=1,io=1x20", "task_workers": 1}
    with Engine(tasks=str(module), **settings) as engine, Client(engine.address, timeout=deadline(20)) as client:
        streams = [client.options(ahead=2).stream(ledger.name, FOREVER, str(ledger)) for ledger in ledgers]
        assert [next(stream) for stream in streams] == [0, 0, 0]
        [router] = engine.pids("router")
        os.kill(router, signal.SIGKILL)
        for stream, ledger in zip(streams, ledgers, strict=True):
            with pytest.raises(EngineUnreachable):
                list(stream)
            wait_for_end(ledger)
        for ledger in ledgers:
            assert list(client.stream(ledger.name, 5)) == [0, 1, 2, 3, 4], "by the next router"
        ledgers[0].unlink()
        with client.stream("count", FOREVER, str(ledgers[0])) as stream:
            assert next(stream) == 0
            engine.process.terminate()
            wait_for_end(ledgers[0])


def test_over_curve_and_a_key_that_is_revoked(module: Path, tmp_path: Path) -> None:
    ledger, ring = tmp_path / "ledger", KeyRing(tmp_path / "keys")
    with Engine(tasks=str(module), curve="on", keys=ring.folder) as engine:
        ring.accept(ring.pair("reader", engine.address))
        with Client(engine.address, timeout=deadline(5), keys=ring.folder) as client:
            assert list(client.stream("count", 1000)) == list(range(1000))
            stream = client.options(ahead=4).stream("count", FOREVER, str(ledger))
            assert [next(stream) for _ in range(10)] == list(range(10))
            ring.revoke("reader")
            wait_for_end(ledger)
