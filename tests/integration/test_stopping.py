"""How a client stops the machine: by every way, none of which needs another, and never behind a queue."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskengine import Client, EngineUnreachable, NotAllowed, TaskFailed, UnknownTask, aio
from taskengine.client import stop_requests, stopping
from taskengine.client.calls import Order
from taskengine.client.stopping import Stopping, Target, new_order
from taskengine.protocol.messages import Info, Priority, RequestKind
from tests.engine import deadline, free_ports, wait_until
from tests.integration.listener import INFO, SILENCE, Heard, Listener, unreadable

LATE = TaskFailed("stopped, but not safe yet", type="NotConfirmed", traceback="")
OLD = Info(2, 0.005, 10, 2, [], 1)
NOWHERE = "tcp://127.0.0.1:1"


def orders(listener: Listener) -> list[tuple[bytes, str]]:
    """The stops that came by STOP: ids and reasons."""
    return [
        (id, why)
        for heard in listener.heard
        if heard.request.kind == RequestKind.STOP
        for id, why in [msgspec.msgpack.decode(heard.body[0])]
    ]


class Guardian:
    """A guardian's socket in a thread; `answer` gives what each stop is answered, None for nothing."""

    def __init__(self, path: Path, answer: Callable[[int], Any] = lambda count: [1, []]) -> None:
        self.heard: list[tuple[bytes, str]] = []
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(path))
        self._socket.listen(16)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                message = connection.recv(4096)
                if message == b"end":
                    return
                if not message:  # it was looked whether somebody listens
                    continue
                id, why = msgspec.msgpack.decode(message)
                self.heard.append((id, why))
                answer = self._answer(len(self.heard))
                if answer is not None:
                    connection.send(msgspec.msgpack.encode(answer))

    def close(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as last:
            last.connect(str(path))
            last.send(b"end")
        self._thread.join()
        self._socket.close()


@contextmanager
def guardian(
    monkeypatch: pytest.MonkeyPatch, folder: Path, answer: Callable[[int], Any] = lambda count: [1, []]
) -> Iterator[Guardian]:
    """One of every engine."""
    path = folder / "stop"
    made = Guardian(path, answer)
    monkeypatch.setattr(stopping, "stop_path", lambda address: path)
    try:
        yield made
    finally:
        made.close(path)


def test_the_router_stops_where_info_names_the_capability() -> None:
    with Listener() as engine, Client(engine.address, timeout=deadline(10)) as client:
        client.info()
        client.call("x")
        client.stop("a hand in the gears")
        assert {why for _, why in orders(engine)} == {"a hand in the gears"}
        assert engine.names() == ["x"]


def test_an_engine_of_0_1_0_is_stopped_by_its_task() -> None:
    def answer(heard: Heard) -> Any:
        return unreadable() if heard.request.kind == RequestKind.STOP else None

    with Listener(answer, info=OLD) as engine, Client(engine.address, timeout=deadline(10)) as client:
        client.stop()
        assert engine.names()[0] == "system.stop"
        assert engine.requests()[0].priority == Priority.URGENT


def test_no_engine_and_no_answer_are_told_apart_from_a_refusal() -> None:
    with pytest.raises(EngineUnreachable):
        Stopping(Target(f"tcp://127.0.0.1:{free_ports(1)}", None), new_order(), 0.2).run()
    with Listener(lambda heard: SILENCE) as engine, pytest.raises(TimeoutError):
        Stopping(Target(engine.address, None), new_order(), deadline(0.5)).run()


@pytest.mark.parametrize("error", [NotAllowed("you may not"), UnknownTask("no machine")])
def test_a_refusal_is_told(error: Exception) -> None:
    with Listener(lambda heard: error) as engine, Client(engine.address) as client:
        began = time.monotonic()
        with pytest.raises(type(error), match=str(error)):
            client.stop()
        assert time.monotonic() - began < deadline(3)


def test_a_stop_that_is_not_confirmed_yet_is_asked_for_again_under_the_same_id() -> None:
    answers = iter([LATE, LATE])
    with Listener(lambda heard: next(answers, None)) as engine, Client(engine.address) as client:
        client.stop(timeout=deadline(5))
        assert len(orders(engine)) == 3
        assert len(set(orders(engine))) == 1


def test_one_that_stays_unconfirmed_is_told() -> None:
    with (
        Listener(lambda heard: LATE) as engine,
        Client(engine.address) as client,
        pytest.raises(TaskFailed, match="not safe yet") as caught,
    ):
        client.stop(timeout=0.5)
    assert caught.value.type == "NotConfirmed"


def test_a_router_that_comes_back_is_stopped_by_a_repetition() -> None:
    port = free_ports(1)
    stopped = Stopping(Target(f"tcp://127.0.0.1:{port}", None), new_order(), deadline(10))
    stopped.begin()
    time.sleep(0.3)
    with Listener(port=port) as engine:
        assert stopped.future.result(deadline(10)) is None
        assert len(set(orders(engine))) == 1


def test_the_stop_port_is_a_way_past_a_router_that_hangs() -> None:
    with (
        Listener() as port,
        Listener(lambda heard: SILENCE, msgspec.structs.replace(INFO, stop_address=port.address)) as engine,
        Client(engine.address, timeout=deadline(10)) as client,
    ):
        client.submit("hangs")
        wait_until(engine.names, 10, "the call")
        client.stop("past it")
        assert [why for _, why in orders(port)] == ["past it"]
        client.close(0)


def test_where_the_stop_port_is() -> None:
    def port(address: str, **fields: Any) -> str | None:
        return Target(address, None, **fields).stop_port()

    def info(stop_address: str) -> Info:
        return Info(2, 0.005, 10, 2, [], 1, ["stop"], [], stop_address)

    assert port("tcp://robot:9000") == "tcp://robot:9002"
    # what listens on another engine's port would confirm a stop of the wrong machine
    assert port("tcp://robot:9100") is None
    assert port("tcp://robot:9100", stop_address="tcp://robot:9102") == "tcp://robot:9102"
    assert port("tcp://robot:9100", info=info("tcp://0.0.0.0:9107")) == "tcp://robot:9107"
    assert port("tcp://robot:9000", info=info("")) is None


def test_the_guardians_socket_is_a_way_past_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with guardian(monkeypatch, tmp_path) as made:
        Stopping(Target(NOWHERE, None), Order(b"id", "why"), deadline(5)).run()
        assert made.heard == [(b"id", "why")]


def test_a_guardian_that_is_late_or_silent_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = {1: [1, ["legs"]], 2: None}
    with guardian(monkeypatch, tmp_path, lambda count: answers.get(count, [1, []])) as made:
        Stopping(Target(NOWHERE, None), Order(b"id", ""), deadline(10)).run()
        assert made.heard == [(b"id", "")] * 3


@pytest.mark.parametrize(
    ("answer", "error"), [([0, ["you may not"]], NotAllowed), ([1, ["legs"]], TaskFailed), (["what"], ValueError)]
)
def test_what_a_guardian_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Any, error: type[Exception]
) -> None:
    with guardian(monkeypatch, tmp_path, lambda count: answer), pytest.raises(error):
        Stopping(Target(NOWHERE, None), new_order(), 0.7).run()


def test_a_hanging_callback_does_not_delay_a_stop() -> None:
    entered, end = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        entered.set()
        end.wait()

    with Listener() as engine, Client(engine.address, timeout=deadline(10)) as client:
        client.submit("x").add_done_callback(hang)
        assert entered.wait(deadline(10))
        try:
            client.stop()
            client.call("system.stop")
            client.submit("legs.system.stop").result(deadline(10))
            assert len(set(orders(engine))) == 3
        finally:
            end.set()


@pytest.mark.parametrize("info", [INFO, OLD], ids=["new", "0.1.0"])
@pytest.mark.parametrize("verb", ["call", "submit", "send", "map", "run"])
def test_a_stop_by_whatever_verb_is_not_queued(verb: str, info: Info) -> None:
    verbs: dict[str, Callable[[Client], Any]] = {
        "call": lambda client: client.call("system.stop"),
        "submit": lambda client: client.submit("system.stop").result(deadline(10)),
        "send": lambda client: client.send("system.stop"),
        "map": lambda client: client.map("system.stop", [], []),
        "run": lambda client: client.run([("system.stop", (), {})] * 2),
    }

    def answer(heard: Heard) -> Any:
        return unreadable() if heard.request.kind == RequestKind.STOP and info is OLD else None

    with Listener(answer, info=info) as engine, Client(engine.address, timeout=deadline(10)) as client:
        client.call("before")
        client._queue._response_time = 1e9  # it is not sent by itself
        client.send("queued")
        result = verbs[verb](client)
        assert result == {"map": [], "run": [None, None]}.get(verb)
        wait_until(lambda: orders(engine) or "system.stop" in engine.names(), 10, "the stop")
        assert "queued" not in engine.names()
        stops = [request for request in engine.requests() if "system.stop" in request.names]
        assert all(request.priority == Priority.URGENT for request in stops)


def test_a_stop_by_a_task_ends_well_although_the_router_dies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with guardian(monkeypatch, tmp_path, lambda count: None if count == 1 else [1, []]):
        engine = Listener(lambda heard: SILENCE)
        with Client(engine.address, timeout=deadline(10)) as client:
            client.info()
            future = client.submit("system.stop")
            wait_until(lambda: orders(engine), 10, "the stop")
            engine.close()
            assert future.result(deadline(10)) is None


def test_the_link_repeats_the_id_of_the_other_ways() -> None:
    with Listener() as engine, Client(engine.address, timeout=deadline(10)) as client:
        client.call("x")
        client.call("system.stop", why="smoke")
        assert len(set(orders(engine))) == 1
        assert orders(engine)[0][1] == "smoke"


def test_arguments_that_are_wrong_stop_all_the_same() -> None:
    with Listener(lambda heard: None) as engine, Client(engine.address, timeout=deadline(10)) as client:
        client.call("system.stop", object())
        assert orders(engine)


def test_what_brings_a_device_to_its_safe_state_is_not_queued_but_behind_what_was(tmp_path: Path) -> None:
    info = Info(2, 1e9, 10**6, 1, [], 1, ["clock", "stop"], ["motor.stop"])
    with Listener(info=info) as engine, Client(engine.address, timeout=deadline(10)) as client:
        client.call("x")
        client.send("motor.forward")
        client.send("motor.stop", "left")
        engine.await_names("x", "motor.forward", "motor.stop")
        client.run([("motor.stop", ("left",), {})])
        client.run([("motor.stop", ("left",), {}), ("x", (), {})])
        priorities = [request.priority for request in engine.requests()]
        assert priorities == [1, 1, Priority.URGENT, Priority.URGENT, 1]


def test_a_package_that_also_stops_goes_its_way_and_stops_by_all() -> None:
    with Listener() as engine, Client(engine.address, timeout=deadline(10)) as client:
        client.call("x")
        assert client.run([("x", (), {}), ("system.stop", (), {})]) == [None, None]
        wait_until(lambda: orders(engine), 10, "the stop")


@pytest.mark.parametrize("calls", [["system.stop"], ["x", "legs.system.stop"]], ids=["alone", "mixed"])
@pytest.mark.parametrize("verb", ["run", "submit_all"])
@pytest.mark.parametrize("error", [AttributeError("no find_tasks"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_package_that_cannot_be_read_stops_all_the_same(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, verb: str, calls: list[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(stop_requests, "identified", fail)
    with Listener() as engine, Client(engine.address, timeout=deadline(10)) as client:
        client.call("before")
        with pytest.raises(type(error)):
            getattr(client, verb)([(name, (), {}) for name in calls])
        wait_until(lambda: orders(engine), 10, "the stop")
        assert not client._session.pending  # it is not sent again either, after its caller got an error
        assert engine.names() == ["before"]


def test_a_closed_client_still_stops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with guardian(monkeypatch, tmp_path) as made:
        client = Client(NOWHERE, timeout=deadline(5))
        client.close(0)
        client.stop()
        client.call("system.stop")
        assert len(made.heard) == 2


def test_the_asyncio_client_stops_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> None:
        client = aio.Client(NOWHERE, timeout=deadline(10))
        await client.stop("first")
        await client.call("system.stop")
        await client.submit("system.stop")
        assert await client.run([("system.stop", (), {})]) == [None]
        await client.close(0)

    with guardian(monkeypatch, tmp_path) as made:
        asyncio.run(main())
        assert len(made.heard) == 4


def test_an_arm_names_the_stop_that_it_undoes() -> None:
    def named(engine: Listener) -> list[Any]:
        return [
            msgspec.msgpack.decode(heard.body[1]) for heard in engine.heard if heard.request.names == ["system.arm"]
        ]

    async def arm(address: str) -> None:
        async with aio.Client(address, timeout=deadline(10)) as client:
            await client.arm()

    with Listener() as engine, Client(engine.address, timeout=deadline(10)) as client:
        assert client.stop_in_force == 0
        engine.stop = 3
        client.arm()
        assert client.stop_in_force == 3
        engine.stop = 4
        asyncio.run(arm(engine.address))
        engine.stop = 0
        client.arm()
        assert client.stop_in_force == 0
        assert [call[2:] for call in named(engine)] == [[{"stop": 3}], [{"stop": 4}], []]
