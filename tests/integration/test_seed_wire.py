"""Wire 0.1 against a real engine; what broke in the seed's first implementation is marked (broke)."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import zmq

from taskengine import Client, TaskEngineError, WorkerLost
from tests.engine import Engine, deadline, wait_until
from tests.integration.seedclient import SeedClient, entries, meta, task


@pytest.fixture(params=[zmq.REQ, zmq.DEALER], ids=["REQ", "DEALER"])
def seed(request: pytest.FixtureRequest, engine: Engine) -> Any:
    with SeedClient(engine.address, request.param) as client:
        yield client


def count_tasks(number: int) -> list[bytes]:
    return [task("task_count", i, i + 1, pack=f"{i:032x}") for i in range(number)]


def expected(number: int) -> list[str]:
    return [f"job-{i:032x}: {(i + i + 1) / 2}" for i in range(number)]


@pytest.mark.parametrize("number", [1, 2, 9, 10, 11, 21, 31, 63, 101, 4001])
def test_every_size_comes_back_in_order(seed: SeedClient, number: int) -> None:  # (broke) 1 modulo CHUNKING_SIZE
    reply = seed.ask(meta(length=number, serial="s" * 32), *count_tasks(number))
    assert entries(reply) == expected(number)
    assert all(data["size"] == len(data["data"]) <= 10 for data in reply[1:])


def test_the_seeds_sample_is_eight_chunks(seed: SeedClient) -> None:
    serial = "a0e366bb6cac9043957f11506778ab44"
    reply = seed.ask(meta(length=63, serial=serial, pack=1483507553.307392, part=0), *count_tasks(63))
    head = reply[0]
    assert len(reply) == 9
    assert head.pop("id").startswith("TASK-")
    assert head == {
        "length": 1,
        "version": 0.1,
        "role": "assembler",
        "part": 8,
        "serial": serial,
        "size": 8,
        "type": "ACK",
        "pack": 1483507553.307392,
    }
    assert {data["pack"] for data in reply[1:]} == {1483507553.307392}


def test_an_empty_package_is_acknowledged(seed: SeedClient) -> None:  # (broke)
    (head,) = seed.ask(meta(length=0))
    assert (head["type"], head["size"], head["part"]) == ("ACK", 0, 0)
    assert "error" not in head


def test_a_lone_meta_is_acknowledged(seed: SeedClient) -> None:
    (head,) = seed.ask(meta(type="ACK", serial="x"))
    assert (head["type"], head["size"], head["serial"]) == ("ACK", 0, "x")


def test_a_hundred_thousand_tasks(engine: Engine) -> None:
    with SeedClient(engine.address, zmq.DEALER) as client:
        reply = client.ask(meta(length=100_000), *count_tasks(100_000))
    assert entries(reply) == expected(100_000)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("d41d8cd98f00b204e9800998ecf8427e", "d41d8cd98f00b204e9800998ecf8427e"),
        (7, "7"),
        (1483507553.307392, "1483507553.307392"),
    ],
)
def test_packs_are_echoed_as_they_came(seed: SeedClient, given: Any, shown: str) -> None:
    assert entries(seed.ask(meta(), task("task_count", 2, 3, pack=given))) == [f"job-{shown}: 2.5"]


def test_digits_of_a_number_survive(seed: SeedClient) -> None:
    frame = b'{"task": "task_count", "args": [2, 3], "kwargs": {}, "pack": 1.50e3}'
    assert entries(seed.ask(meta(), frame)) == ["job-1.50e3: 2.5"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [("text", "text"), (None, "None"), (True, "True"), (2.0, "2.0"), ([1, "a"], '[1,"a"]'), ({"a": 1}, '{"a":1}')],
)
def test_results_are_text(seed: SeedClient, value: Any, shown: str) -> None:
    assert entries(seed.ask(meta(), task("task_echo", value))) == [f"job-p: {shown}"]


def test_errors_are_told_from_results_and_touch_no_neighbour(
    seed: SeedClient,
) -> None:  # (broke) errors share the space
    tasks = [
        task("task_count", 1, 1),
        task("task_fail", "boom"),
        task("no_such"),
        task("task_count"),
        task("task_count", 3, 3),
    ]
    reply = seed.ask(meta(length=5), *tasks)
    first, failed, unknown, bad, last = entries(reply)
    assert [frame["data"][place] for frame in reply[1:] for place in frame["errors"]] == [failed, unknown, bad]
    assert (first, last) == ("job-p: 1.0", "job-p: 3.0")
    assert failed == "job-p: ERROR: RuntimeError: boom"
    assert unknown.startswith("job-p: ERROR: no task is named 'no_such'")
    assert bad.startswith("job-p: ERROR: task_count:")


def test_nothing_is_evaluated_by_name(seed: SeedClient) -> None:  # (broke) it ran names through eval
    for name in ("__import__('os').getpid", "os.getpid", "eval", "print", "taskengine.tasks.task_count"):
        (entry,) = entries(seed.ask(meta(), task(name)))
        assert "ERROR: no task is named" in entry


def test_what_the_seeds_sample_leaves_out_is_filled_in(seed: SeedClient) -> None:
    for fields in (
        {},
        {"serial": None, "length": None, "part": None, "id": None},
        {"serial": "", "length": "", "part": ""},
        {"length": 1.0},
    ):
        reply = seed.ask(meta(**fields), task("task_count", 2, 3))
        assert entries(reply) == ["job-p: 2.5"]
        assert len(reply[0]["serial"]) == 32


MALFORMED = {
    "no json": [b"garbage"],
    "not utf-8": [b"{\xff\xfe}"],
    "an array": [b"[1, 2]"],
    "half an object": [b'{"id": "CLIENT"'],
    "deep nesting": [b'{"a":' + b"[" * 100_000],
    "an ill-typed id": [b'{"id": 7}'],
    "a pack that is a list": [b'{"pack": []}'],
    "a wrong length": [meta(length=3), task("task_count", 2, 3)],
    "an unknown type": [meta(type="DANCE"), task("task_count", 2, 3)],
    "a length in words": [meta(length="one"), task("task_count", 2, 3)],
    "a task that is no json": [meta(), b"garbage"],
    "a task that is a list": [meta(), b"[]"],
    "a task without a name": [meta(), b'{"args": []}'],
    "args that are no list": [meta(), b'{"task": "task_count", "args": 2}'],
    "kwargs that are no object": [meta(), b'{"task": "task_count", "kwargs": []}'],
    "a task pack that is an object": [meta(), b'{"task": "task_count", "args": [2, 3], "pack": {}}'],
    "an empty task frame": [meta(), b""],
    "a good task beside a bad one": [meta(), task("task_count", 2, 3), b"{"],
    "two tasks in a frame": [meta(), task("task_count", 2, 3) + b"," + task("task_count", 2, 3)],
    "data without a topic": [meta(type="PUB"), b'{"data": {"value": 1}}'],
    "data without a value": [meta(type="PUB"), b'{"data": {"topic": "x"}}'],
    "data that MessagePack has not": [meta(type="PUB"), b'{"data": {"topic": "x", "value": 18446744073709551616}}'],
    "data that is no object": [meta(type="GET"), b'{"data": 1}'],
    "a data request without data": [meta(type="GET")],
    "a data request with two": [meta(type="GET"), b'{"data": {"topic": "x"}}', b"{}"],
    "zeros": [b"\0" * 1000],
}


@pytest.mark.parametrize("frames", MALFORMED.values(), ids=MALFORMED)
def test_malformed_messages_are_answered_and_stop_nobody(seed: SeedClient, frames: list[bytes]) -> None:  # (broke)
    reply = seed.ask(*frames)
    assert len(reply) == 1
    assert reply[0]["error"]
    assert (reply[0]["type"], reply[0]["size"]) == ("ACK", 0)
    assert entries(seed.ask(meta(), task("task_count", 2, 3))) == ["job-p: 2.5"]


@pytest.mark.parametrize("wrong", [{"length": 9}, {"length": []}, {"id": 7}, {"type": None}])
def test_a_malformed_message_keeps_its_serial_and_pack(seed: SeedClient, wrong: dict[str, Any]) -> None:
    (head,) = seed.ask(meta(serial="mine", pack=12, **wrong), task("task_count", 2, 3))
    assert (head["serial"], head["pack"]) == ("mine", 12)
    assert next(iter(wrong)) in head["error"]


def test_interleaved_packages_and_equal_serials_never_mix(engine: Engine) -> None:  # (broke)
    wrong: list[str] = []

    def play(number: int) -> None:
        with SeedClient(engine.address, zmq.DEALER) as client:
            for round in range(10):
                tasks = [task("task_echo", f"{number}/{round}/{i}", pack=i) for i in range(125)]
                client.send(meta(serial="same", pack=round), *tasks)
            for _ in range(10):
                reply = client.receive()
                round = reply[0]["pack"]
                if entries(reply) != [f"job-{i}: {number}/{round}/{i}" for i in range(125)]:
                    wrong.append(f"{number}/{round}")

    threads = [threading.Thread(target=play, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_few_small_tasks_wait_for_no_second_heavy_chunk(engine: Engine) -> None:  # (broke)
    with Client(engine.address, timeout=deadline(20)) as heavy, SeedClient(engine.address) as small:
        futures = [heavy.submit("task_sleep", 0.05) for _ in range(42)]
        heavy.flush()
        wait_until(heavy.progress, 10, "the package")
        assert len(entries(small.ask(meta(), *count_tasks(4)))) == 4
        done = sum(done for _, done, _ in heavy.progress())
        assert done <= 2 * 10 + 2, "the small package waited for more than the chunks that were running"
        assert [future.result(deadline(20)) for future in futures] == [0.05] * 42


def test_a_killed_worker_costs_its_own_tasks_and_no_other_client(engine: Engine) -> None:  # (broke)
    with SeedClient(engine.address, zmq.DEALER) as unlucky, SeedClient(engine.address) as other:
        unlucky.send(meta(serial="u", length=40), *[task("task_sleep", 0.05, pack=i) for i in range(40)])
        with Client(engine.address, timeout=deadline(20)) as client:
            assert client.call("task_count", 2, 3) == 2.5  # so a worker has ended a chunk of the others
        os.kill(engine.pids("task")[0], signal.SIGKILL)
        reply = unlucky.receive()
        told = entries(reply)
        assert [entry.partition(":")[0] for entry in told] == [f"job-{i}" for i in range(40)]
        lost = [entry for entry in told if "ERROR: worker TASK-" in entry]
        assert 0 < len(lost) <= 20
        assert [frame["data"][place] for frame in reply[1:] for place in frame["errors"]] == lost
        assert {entry.partition(": ")[2] for entry in told if entry not in lost} == {"0.05"}
        assert entries(other.ask(meta(length=21), *count_tasks(21))) == expected(21)


POISON = """
class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no text")

class Bare(taskengine.BadArguments):
    def __init__(self):
        pass

def task_surrogate(): raise ValueError("bad \\udc80")
def task_silent(): raise Silent
def task_bare(): raise Bare
def task_field(): raise taskengine.BadArguments("x", name=object())
def task_number(): raise taskengine.BadArguments(42)
def task_text(): return "x\\udc80"
def task_huge(): return 2**20000
def task_object(): return object()
def task_deep():
    deep = []
    for _ in range(100000): deep = [deep]
    return deep
"""


def test_no_exception_and_no_result_costs_a_worker_or_a_neighbour(tmp_path: Path) -> None:
    module = tmp_path / "poison.py"
    module.write_text(f"import taskengine\n{POISON}".replace("\\\\", "\\"))
    names = re.findall(r"def (task_\w+)", POISON)
    assert len(names) == 9
    with (
        Engine(tasks=f"{module},taskengine.tasks") as engine,
        Client(engine.address, timeout=deadline(20)) as client,
        SeedClient(engine.address) as seed,
    ):
        before = engine.pids()
        for name in names:
            first, told, last = entries(seed.ask(meta(), *[task(n) for n in ("task_echo", name, "task_echo")]))
            assert (first, last) == ("job-p: []", "job-p: []")
            assert told.startswith("job-p: x" if name == "task_text" else "job-p: ERROR: "), name
            calls: list[Any] = [("task_echo", (), {}), (name, (), {}), ("task_echo", (), {})]
            one, error, other = client.run(calls)
            assert (one, other) == ([], [])
            if name == "task_huge":  # wire 0.2 has a form for it
                assert error == 2**20000
                continue
            assert isinstance(error, TaskEngineError), name
            assert not isinstance(error, WorkerLost), name
        assert engine.pids() == before


def test_data_requests(seed: SeedClient) -> None:
    (head,) = seed.ask(
        meta(type="PUB", serial="d"), json.dumps({"data": {"topic": "arm", "value": {"a": [1, 2]}}}).encode()
    )
    assert (head["type"], head["serial"], head["size"]) == ("ACK", "d", 0)
    head, data = seed.ask(meta(type="GET"), b'{"data": {"topic": "arm"}}')
    assert data["data"] == {"a": [1, 2]}
    (head,) = seed.ask(meta(type="GET"), b'{"data": {"topic": "never"}}')
    assert "nothing was published on topic 'never'" in head["error"]


def test_a_dealer_without_delimiter_is_served_too(engine: Engine) -> None:
    with SeedClient(engine.address, zmq.DEALER) as client:
        client._delimiter = []
        assert entries(client.ask(meta(), task("task_count", 2, 3))) == ["job-p: 2.5"]
