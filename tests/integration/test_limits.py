"""A message that is too long, too late or too large is refused, and costs nobody else anything."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from taskengine import (
    BadArguments,
    Client,
    EngineUnreachable,
    Overloaded,
    ProtocolError,
    TaskEngineError,
    TaskFailed,
    UnknownTask,
    _fastpath,
)
from taskengine.broker import legacy_json
from taskengine.broker.package import encode_head, lanes_of
from taskengine.protocol.layouts import ARRAY_EXT, MAGIC
from taskengine.protocol.messages import NOWHERE, Request, RequestKind, encode_request
from taskengine.runtime.rlimits import SPARE_FILES
from tests.batches import join_frames
from tests.engine import Engine, deadline, resident, wait_until
from tests.integration.seedclient import SeedClient, meta
from tests.zmtp import MORE, Peer, frame

MIB = 2**20


def ask(engine: Engine, *frames: bytes) -> list[bytes]:
    """The reply to a message that no client would send."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(engine.address)
        dealer.send_multipart(frames)
        assert dealer.poll(int(deadline(20) * 1000))
        return dealer.recv_multipart()


@pytest.mark.parametrize("deadline_s", [float("nan"), float("inf"), -1.0, 1e12, 1e300])
def test_no_deadline_stops_the_router(engine: Engine, client: Client, deadline_s: float) -> None:
    pid = engine.pids("router")
    index, body = _fastpath.pack_calls([("task_count", (2, 3), {})], {})
    ask(engine, encode_request(Request(RequestKind.PACKAGE, 1, "x", ["task_count"], deadline=deadline_s)), index, body)
    assert client.call("task_count", 2, 3) == 2.5
    assert engine.pids("router") == pid


@pytest.mark.parametrize("frames", [[MAGIC + bytes(2**17)], [b'{"serial": "%b"}' % (b"x" * 2**17)]])
def test_a_first_frame_that_is_too_long_is_refused(engine: Engine, frames: list[bytes]) -> None:
    assert b"at most 65536 bytes" in b"".join(ask(engine, *frames))


def test_long_names_kill_no_worker(engine: Engine, client: Client) -> None:
    """Each error names its task; ten that are megabytes long made an answer too large to be sent."""
    before = engine.pids("task")
    calls: list[tuple[str, tuple[()], dict[str, object]]] = [(f"{n}" * 6_000, (), {}) for n in range(10)]
    errors = client.options(errors="return").run(calls * 1000)
    assert {type(error) for error in errors} == {UnknownTask}
    long = b'{"task": "%b"}' % (b"\x7f" * 4_000_000)
    with SeedClient(engine.address) as seed:
        _, *frames = seed.ask(b"{}", *[long] * 10)
    assert sum("no task is named" in entry for frame in frames for entry in frame["data"]) == 10
    assert engine.pids("task") == before


def test_what_cannot_be_answered_is_told(tmp_path: Path) -> None:
    module = tmp_path / "big.py"
    module.write_text("def task_big(n): raise ValueError('x' * 3000)\n")
    with Engine(tasks=module, chunking="false") as engine, Client(engine.address, timeout=deadline(60)) as client:
        before = engine.pids("task")
        errors = client.options(errors="return").map("task_big", range(30_000))
        assert all(isinstance(error, (TaskFailed, BadArguments)) for error in errors)
        assert engine.pids("task") == before


def encoded_request(kind: RequestKind) -> bytes:
    return encode_request(Request(kind, 1, "x"))


def test_a_value_is_not_decoded_by_the_router(engine: Engine, client: Client) -> None:
    """A MiB of empty maps is 72 MiB once decoded, and maps whose keys collide take for ever."""
    before = resident(engine.pids("router")[0])
    value = b"\x92\xa1t\xdd" + (4 * MIB).to_bytes(4) + b"\x80" * (4 * MIB)
    assert ask(engine, encoded_request(RequestKind.PUBLISH), value)
    assert resident(engine.pids("router")[0]) - before < 64 * MIB


def test_what_a_meta_frame_repeats_is_short(engine: Engine) -> None:
    reply = ask(engine, b'{"pack":"%b"}' % (b"p" * 2000), *[b'{"task":"task_count","args":[1,2]}'] * 3000)
    assert b"pack has at most 1024 bytes" in b"".join(reply)


@pytest.mark.parametrize("raw", [b'"\xff"', b"1e400", b'["a"]'])
def test_a_refusal_is_json_whatever_it_repeats(engine: Engine, raw: bytes) -> None:
    (reply,) = ask(engine, b'{"serial":%b,"pack":%b,"length":"x"}' % (raw, raw))
    assert "error" in json.loads(reply)


def test_a_data_request_of_wire_0_1_has_a_limit(engine: Engine) -> None:
    with SeedClient(engine.address) as seed:
        (reply,) = seed.ask(meta(type="PUB"), b'{"data":{"topic":"t","value":"%b"}}' % (b"x" * 2**20))
    assert "at most 1048576 bytes" in reply["error"]


def test_a_value_without_text_kills_no_data_worker(engine: Engine, client: Client) -> None:
    """Numpy raises SystemError for a code point that there is not."""
    before = engine.pids("data")
    array = b"\x03<U1\x01" + (1).to_bytes(8, "little") + b"\xff\xff\xff\x7f"
    value = msgspec.msgpack.encode(["t", msgspec.msgpack.Ext(ARRAY_EXT, array)])
    ask(engine, encoded_request(RequestKind.PUBLISH), value)
    client.publish("t", 1)
    assert engine.pids("data") == before


def test_a_stranger_s_answer_is_not_read(engine: Engine, client: Client) -> None:
    before = resident(engine.pids("router")[0])
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 1000
        dealer.connect(engine.backend)
        dealer.send((MIB).to_bytes(4, "little") + (b"\xff" * 28 + bytes(4)) * MIB)
    for _ in range(20):
        assert client.call("task_count", 2, 3) == 2.5
    assert resident(engine.pids("router")[0]) - before < 128 * MIB


def test_tasks_change_lanes_only_so_often() -> None:
    assert lanes_of((str(n // 2 % 2), 1) for n in range(8)) == [("0", 2), ("1", 2)] * 2
    with pytest.raises(ProtocolError, match="at most 8192 times"):
        lanes_of((str(n % 2), 1) for n in range(2**16 + 1))


@pytest.fixture(scope="module")
def narrow() -> Iterator[Engine]:
    with Engine(package_tasks=100, message_bytes=2**16, value_depth=5, client_packages=3) as engine:
        yield engine


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def test_a_package_has_a_number_of_tasks_by_settings(narrow: Engine) -> None:
    with Client(narrow.address, timeout=deadline(20)) as client:
        assert client.map("task_echo", range(100)) == list(range(100))
        with pytest.raises(ProtocolError, match=r"at most 100 tasks \(PACKAGE_TASKS\), not 101"):
            client.map("task_echo", range(101))
        with pytest.raises(ProtocolError, match="PACKAGE_TASKS"):
            client.run([("task_echo", (n,), {}) for n in range(150)])


@pytest.mark.parametrize(("tasks", "refused"), [(100, False), (101, True), (102, True), (5000, True)])
def test_frames_that_are_too_many_are_told_and_left_out(narrow: Engine, tasks: int, refused: bool) -> None:
    with SeedClient(narrow.address) as seed:
        head, *frames = seed.ask(b"{}", *[b'{"task": "task_count", "args": [2, 3]}'] * tasks)
    assert ("PACKAGE_TASKS" in str(head.get("error"))) == refused
    assert sum(frame["size"] for frame in frames) == (0 if refused else 100)
    assert b"not" in b"".join(ask(narrow, encoded_request(RequestKind.PACKAGE), *[b"x"] * tasks))


def test_a_frame_has_a_size_by_settings(narrow: Engine) -> None:
    with Client(narrow.address, timeout=deadline(20)) as client:
        assert len(client.call("task_echo", b"x" * 60_000)) == 60_000
        with pytest.raises(EngineUnreachable):
            client.call("task_echo", b"x" * 70_000)
        assert client.call("task_echo", 1) == 1


def test_values_nest_as_deep_as_settings_say(narrow: Engine) -> None:
    with Client(narrow.address, timeout=deadline(20)) as client:
        assert client.call("task_echo", nested(3)) == nested(3)
        with pytest.raises(TaskEngineError, match="5 deep"):
            client.call("task_echo", nested(6))
        client.publish("deep", nested(3))
        with pytest.raises(TaskEngineError, match="5 deep"):
            client.publish("deep", nested(6))


def test_packages_in_flight_are_limited(narrow: Engine) -> None:
    with Client(narrow.address, timeout=deadline(20)) as client:
        futures = []
        for _ in range(3):
            futures.append(client.submit("task_sleep", deadline(1.0)))
            client.flush()
            wait_until(futures[-1].running, 20, "that it is sent")
        with pytest.raises(Overloaded, match="CLIENT_PACKAGES") as caught:
            client.call("task_echo", 1)
        assert (caught.value.in_flight, caught.value.limit) == (3, 3)
        assert [future.result() for future in futures] == [deadline(1.0)] * 3
        assert client.call("task_echo", 1) == 1


def test_a_message_without_end_is_cut_off_and_costs_others_nothing() -> None:
    """It is in none of ZeroMQ's limits, only in the system's: where no memory is left, its connection is closed."""
    with Engine(router_memory=2**28) as engine, Client(engine.address, timeout=deadline(20)) as client:
        assert client.call("task_echo", 1) == 1
        [router] = engine.pids("router")
        limits = Path(f"/proc/{router}/limits").read_text()
        assert re.search(rf"Max data size +{2**28} ", limits)
        assert re.search(rf"Max open files +{4096 + SPARE_FILES} ", limits)
        before = resident(router)
        with Peer(int(engine.settings["router_frontend"]), deadline(20)) as endless:
            endless.shake_hands()
            with pytest.raises(OSError, match=r"reset|Broken pipe"):
                endless.socket.sendall(frame(bytes(2**20), MORE) * 1000)
        assert client.call("task_echo", 1) == 1
        wait_until(lambda: resident(router) - before < 64 * MIB, 20, "its memory back")
        assert engine.pids("router") == [router]


def test_the_value_of_a_topic_is_not_decoded_by_the_router() -> None:
    """60 MB of it took the router 3 s and 882 MB."""
    index, body = join_frames([b'{"data": {"topic": "x"}}'])
    request = legacy_json.read_package((b"client",), b'{"type": "GET", "pack": 7}', index, body, {}, 1, NOWHERE)
    request.cut(1, {})
    data = b"neither JSON nor MessagePack" * 1000
    assert request.results.put(0, 1, data)
    head, told = request.answer()
    assert told == data
    assert isinstance(head, bytes)
    assert json.loads(head)["size"] == 1


def test_the_data_worker_makes_what_answers_wire_0_1() -> None:
    value = {"x": [1, 2.5, None, "ü"]}
    entry = _fastpath.encode(value)
    of_seed = encode_head("serial", b'"a"')
    assert json.loads(legacy_json.latest_entry(of_seed, entry, 1000)) == {"size": 1, "data": value, "pack": "a"}
    assert legacy_json.latest_entry(encode_head("1", []), entry, 1000) is entry
    with pytest.raises(BadArguments, match="more than 10"):
        legacy_json.latest_entry(of_seed, entry, 10)


def test_a_message_that_unpacks_to_more_than_a_worker_may_have_fails_alone() -> None:
    """An empty list is one byte of a message and 64 of memory."""
    with Engine(worker_memory=2**28, task_workers=1) as engine, Client(engine.address, timeout=deadline(30)) as client:
        assert client.call("task_echo", 1) == 1
        [worker] = engine.pids("task")
        assert re.search(rf"Max data size +{2**28} ", Path(f"/proc/{worker}/limits").read_text())
        with pytest.raises(TaskFailed, match="MemoryError"):
            client.call("task_echo", [[]] * 8_000_000)
        assert client.call("task_echo", 1) == 1
        assert engine.pids("task") == [worker]
        assert resident(worker) < 2**28 + 64 * MIB
