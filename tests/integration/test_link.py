"""Events that must not stop a client's link, nor leave anybody waiting: against a real engine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from taskengine import Cancelled, Client, EngineUnreachable, TaskEngineError, aio
from taskengine.client import transport
from taskengine.client.connection import Connection
from taskengine.client.requests import Options
from taskengine.protocol.messages import RequestKind
from tests.engine import Engine, deadline, free_ports, wait_until
from tests.zmtp import GREETING


class Failing:
    """Does as `real`, but fails as long as it is `broken`."""

    def __init__(self, real: Callable[..., Any], error: BaseException) -> None:
        self.real, self.error, self.broken = real, error, True
        self.failures = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.broken:
            self.failures += 1
            raise self.error
        return self.real(*args, **kwargs)


def test_a_connection_that_cannot_be_made_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine() as engine, Client(engine.address, timeout=deadline(20)) as client:
        sleeping = client.submit("task_sleep", 60)
        wait_until(client.progress, 10, "the package")
        connect = Failing(Connection, zmq.ZMQError(errno.EMFILE))
        monkeypatch.setattr(transport, "Connection", connect)
        os.kill(engine.pids("router")[0], signal.SIGKILL)
        assert isinstance(sleeping.exception(deadline(20)), EngineUnreachable)
        hasty = client.options(timeout=0.05)
        assert isinstance(hasty.submit("task_count", 2, 3).exception(deadline(20)), EngineUnreachable)
        with pytest.raises(EngineUnreachable):
            hasty.call("task_count", 2, 3)
        patient = client.submit("task_count", 2, 3)
        wait_until(lambda: connect.failures > 1, 10, "another attempt")
        connect.broken = False
        assert patient.result(deadline(20)) == 2.5
        assert client.call("task_count", 2, 3) == 2.5


def test_a_client_that_cannot_be_made_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise zmq.ZMQError(errno.EMFILE)

    address = f"tcp://127.0.0.1:{free_ports(1)}"
    monkeypatch.setattr(zmq.Socket, "get_monitor_socket", refuse)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(zmq.ZMQError):
        Client(address)
    assert len(os.listdir("/proc/self/fd")) == len(before)


class Tripping:
    """A lock that raises KeyboardInterrupt, once, where the main thread would take it for the `number`th time."""

    def __init__(self, lock: threading.Lock, number: int) -> None:
        self.lock, self.left = lock, number

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def others_go_on(client: Client) -> bool:
    """Whether a call and a submitted call of another thread get their results."""
    results: list[float] = []

    def play() -> None:
        results.append(client.call("task_count", 2, 3))
        results.append(client.submit("task_count", 4, 4).result(deadline(20)))

    other = threading.Thread(target=play)
    other.start()
    other.join()
    return results == [2.5, 4.0]


class TestSignalsAndCallbacks:
    """Code that is not ours raises within the link, or calls it: the rules are in `client/transport.py`."""

    def test_a_callback_that_exits_does_not_stop_the_link(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reports: list[Any] = []
        monkeypatch.setattr(threading, "excepthook", reports.append)
        for _ in range(2):
            future: Future[Any] = client.submit("task_count", 2, 3)
            future.add_done_callback(lambda _: sys.exit(1))
            assert client.submit("task_count", 4, 4).result(deadline(20)) == 4.0
        assert [report.exc_type for report in reports] == [SystemExit] * 2

    @pytest.mark.parametrize("number", [1, 2])
    def test_one_that_is_interrupted_where_it_begins_or_ends_to_lead(self, client: Client, number: int) -> None:
        client.call("task_count", 2, 3)
        pending = Future[Any]()  # for the one that leads next
        client._queue.add(("task_sleep", (0.2,), {}), pending, client._options, time.monotonic())
        client._link._lock = Tripping(client._link._lock, number)  # type: ignore[assignment]  # as a lock is used here
        with pytest.raises(KeyboardInterrupt):
            client.call("task_count", 2, 3)
        if number == 2:
            assert pending.result(deadline(20)) == 0.2
        assert others_go_on(client)
        assert pending.result(deadline(20)) == 0.2
        client.close()
        assert client._link._leader in (transport.NOBODY, threading.get_ident())

    def test_one_that_is_interrupted_before_it_leads(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        client.call("task_count", 2, 3)
        clock = Failing(time.monotonic, KeyboardInterrupt())
        with monkeypatch.context() as patch:
            patch.setattr(transport, "time", SimpleNamespace(monotonic=clock))
            with pytest.raises(KeyboardInterrupt):
                client.call("task_count", 2, 3)
        assert clock.failures > 0
        assert others_go_on(client)

    def test_one_that_comes_back_and_is_said_to_lead_does_so_no_longer(self, client: Client) -> None:
        client._link._leader = threading.get_ident()
        assert client.call("task_count", 2, 3) == 2.5
        assert client._link._leader == transport.NOBODY

    def test_what_the_interrupted_has_received_is_resolved_by_the_next(self, client: Client) -> None:
        client.call("task_count", 2, 3)
        receive, left = client._session.receive, []

        def interrupted(frames: Sequence[bytes], now: int = 0) -> Any:
            client._session.receive = receive  # type: ignore[method-assign]  # it is interrupted once
            left.append(list(client._link._inbox))
            raise KeyboardInterrupt

        client._session.receive = interrupted  # type: ignore[method-assign]
        other: Future[Any] = Future()
        client._link._outbox.append(client._session.request(RequestKind.INFO, other, Options()))
        with pytest.raises(KeyboardInterrupt):
            client.call("task_count", 2, 3)
        assert len(left[0]) >= 1
        assert other.result(deadline(20))
        assert client.call("task_count", 4, 4) == 4.0
        assert not client._link._inbox

    def test_an_error_nobody_has_thought_of_is_told_to_all_who_wait(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reports: list[Any] = []
        monkeypatch.setattr(threading, "excepthook", reports.append)
        client.call("task_count", 2, 3)
        unforeseen = RuntimeError("unforeseen")
        with monkeypatch.context() as patch:
            patch.setattr(client._session, "receive", Failing(client._session.receive, unforeseen))
            error = client.submit("task_count", 2, 3).exception(deadline(20))
        assert type(error) is TaskEngineError
        assert error.__cause__ is unforeseen
        assert reports[0].exc_value is unforeseen
        assert others_go_on(client)

    def test_closing_does_not_wait_for_a_callback_without_end(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transport, "GIVE_UP_S", 0.05)
        client = Client(engine.address)
        entered, end = threading.Event(), threading.Event()

        def dawdle(_: Future[Any]) -> None:
            entered.set()
            end.wait()

        client.submit("task_count", 2, 3).add_done_callback(dawdle)
        assert entered.wait(deadline(20))
        late = client.submit("task_count", 2, 3)
        client.close(timeout=0.05)
        assert isinstance(late.exception(0), Cancelled)
        assert client._link._wakeup >= 0
        end.set()
        wait_until(lambda: client._link._wakeup < 0, 10, "the socket's end")

    def test_closing_that_is_interrupted_closes(self, engine: Engine) -> None:
        client = Client(engine.address)
        with client._link._lock:  # queued, and nobody leads yet
            client._queue.add(("task_count", (2, 3), {}), waiting := Future[Any](), client._options, time.monotonic())
        client._link._lead = Failing(client._link._lead, KeyboardInterrupt())  # type: ignore[method-assign]  # as by ctrl-c
        with pytest.raises(KeyboardInterrupt):
            client.close()
        assert isinstance(waiting.exception(0), Cancelled)
        assert client._link._wakeup < 0


def test_a_thread_that_has_ended_is_replaced(client: Client) -> None:
    ended = threading.Thread()
    ended.start()
    ended.join()
    client._link._thread = ended
    assert client.submit("task_count", 2, 3).result(deadline(20)) == 2.5


def in_a_fork(play: Callable[[], str]) -> str:
    """Return the result of `play` in a forked child."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which is what is tested
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(int(deadline(20)))
            os.write(writing, play().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as said:
        text = said.read()
    os.waitpid(pid, 0)
    return text


@pytest.mark.parametrize("held", [False, True])
def test_a_client_does_not_survive_a_fork_and_says_so(client: Client, held: bool) -> None:
    waiting = client.submit("task_sleep", 0.2)
    asynchronous = aio.Client(client.address, timeout=deadline(20))

    async def play_along() -> None:
        async with asynchronous:
            await asynchronous.call("task_count", 2, 3)

    def refused(verb: Callable[[], object]) -> bool:
        try:
            verb()
        except Cancelled as error:
            return "forked" in str(error)
        return False

    def play() -> str:
        verbs: list[Callable[[], object]] = [
            lambda: client.call("task_count", 2, 3),
            lambda: client.submit("task_count", 2, 3),
            lambda: client.send("task_count", 2, 3),
            client.flush,
            client.info,
            lambda: asyncio.run(play_along()),
        ]
        told = [refused(verb) for verb in verbs]
        client.close()
        client.close()
        with Client(client.address, timeout=deadline(20)) as own:
            return f"{told} {own.call('task_count', 2, 3)}"

    with client._link._lock if held else contextlib.nullcontext():  # as another thread may, just then
        said = in_a_fork(play)
    assert said == f"{[True] * 6} 2.5"
    assert client.call("task_count", 2, 3) == 2.5
    assert waiting.result(deadline(20)) == 0.2
    asyncio.run(asynchronous.close())


def test_an_engine_that_is_killed_while_it_lets_us_in_has_refused_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with Client(address, timeout=deadline(1)) as client:
            future = threads.submit(client.call, "task_count", 2, 3)
            peer, _ = server.accept()
            peer.sendall(GREETING)
            peer.recv(64)  # its own
            server.close()
            peer.close()
            with pytest.raises(EngineUnreachable):
                future.result(deadline(10))
