"""How old a call is when it is sent, as the engine reads it, and what is not sent at all."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from taskengine import Cancelled, Client, aio
from taskengine.errors import EngineUnreachable, NotAllowed
from taskengine.protocol.messages import Info, RequestKind
from tests.engine import deadline, free_ports, wait_until
from tests.integration.listener import SILENCE, Listener

MINUTE = 60 * 10**9
S = 10**9


def test_a_connection_begins_with_a_hello() -> None:
    with Listener() as engine, Client(engine.address, timeout=deadline(10)) as client:
        client.call("x")
        client.call("x")
        assert [heard.request.kind for heard in engine.heard] == [
            RequestKind.INFO,
            RequestKind.PACKAGE,
            RequestKind.PACKAGE,
        ]


@pytest.mark.parametrize("shift", [-MINUTE, 0, MINUTE])
def test_the_age_of_a_call_is_told_in_the_engines_clock(shift: int) -> None:
    with Listener(shift=shift) as engine, Client(engine.address, timeout=deadline(10)) as client:
        before = engine.clock()
        client.call("x")
        (request,) = engine.requests()
        assert before - request.bound <= request.sent <= engine.heard[-1].clock + request.bound
        assert 0 < request.bound < deadline(1) * S


def test_what_waited_for_an_engine_is_as_old_as_it_is() -> None:
    port = free_ports(1)
    with Client(f"tcp://127.0.0.1:{port}", timeout=deadline(20)) as client:
        client.send("first")
        calling = threading.Thread(target=client.call, args=("second",))
        calling.start()
        time.sleep(0.3)
        with Listener(port=port) as engine:
            calling.join()
            engine.await_names("first", "second")
            for heard in engine.heard[1:]:
                assert heard.clock - heard.request.sent > 0.2 * S


def test_the_oldest_of_what_is_flushed_counts() -> None:
    with (
        Listener(info=Info(2, 1e9, 10**6, 1, [], 1, ["clock"])) as engine,
        Client(engine.address, timeout=deadline(20)) as client,
    ):
        client.info()
        client.send("x")
        time.sleep(0.2)
        client.send("x")
        client.flush()
        engine.await_names("x")
        assert engine.heard[-1].clock - engine.requests()[0].sent > 0.15 * S


def call_past_a_loss(client: Client) -> None:
    """Call once more where the loss of the connection to the listener before was not noticed yet."""
    try:
        client.call("x")
    except EngineUnreachable:
        client.call("x")


def test_a_client_keeps_its_token_over_connections_and_shares_it_with_nobody() -> None:
    port = free_ports(1)
    tokens: list[bytes] = []
    with Client(f"tcp://127.0.0.1:{port}", timeout=deadline(20)) as client:
        for _ in range(2):
            with Listener(port=port) as engine, Client(engine.address, timeout=deadline(20)) as other:
                call_past_a_loss(client)
                client.options(timeout=deadline(19)).call("x")
                other.call("x")
                tokens += [request.token for request in engine.requests()]
    assert len(set(tokens[:2] + tokens[3:5])) == 1
    assert len(set(tokens)) == 3
    assert {len(token) for token in tokens} == {16}


@pytest.mark.parametrize("info", [Info(2, 0.005, 10, 2, [], 1), NotAllowed("no INFO for you")])
def test_an_engine_that_takes_no_times_gets_none(info: Any) -> None:
    with Listener(info=info) as engine, Client(engine.address, timeout=deadline(10)) as client:
        engine.answer = lambda heard: NotAllowed("not you") if isinstance(info, NotAllowed) else None
        if isinstance(info, NotAllowed):
            with pytest.raises(NotAllowed, match="not you"):
                client.call("x")
        else:
            client.call("x")
        (request,) = engine.requests()
        assert (request.sent, request.bound, request.token, request.since) == (0, 0, b"", 0)


def test_nothing_is_sent_before_the_hello_is_answered() -> None:
    with Listener() as engine, Client(engine.address, timeout=deadline(0.2)) as client:
        engine.info = SILENCE
        client.send("x")
        with pytest.raises(TimeoutError):
            client.call("x")
        assert [heard.request.kind for heard in engine.heard] == [RequestKind.INFO]


def interrupted(address: str, script: Callable[[Client], None]) -> None:
    """Play a script in `with`, and fail behind it."""
    with pytest.raises(KeyError, match="fails"):
        _play_and_fail(address, script)


def _play_and_fail(address: str, script: Callable[[Client], None]) -> None:
    with Client(address, timeout=deadline(20)) as client:
        script(client)
        raise KeyError("the script fails")


def test_what_is_queued_is_not_sent_when_an_exception_ends_with() -> None:
    futures: list[Future[Any]] = []

    def script(client: Client) -> None:
        client.call("before")
        client._queue._response_time = 1e9  # it is not sent by itself
        futures.extend(client.submit("drive") for _ in range(3))
        client.send("drive")

    with Listener() as engine:
        interrupted(engine.address, script)
        assert [isinstance(future.exception(0), Cancelled) for future in futures] == [True] * 3
        assert engine.names() == ["before"]


def test_nor_is_what_waits_for_a_connection() -> None:
    futures: list[Future[Any]] = []

    def script(client: Client) -> None:
        futures.append(client.submit("drive"))
        client.flush()

    port = free_ports(1)
    interrupted(f"tcp://127.0.0.1:{port}", script)
    assert isinstance(futures[0].exception(0), Cancelled)
    with Listener(port=port) as engine:
        time.sleep(0.3)
        assert engine.heard == []


def test_what_was_sent_before_the_exception_is_waited_for() -> None:
    futures: list[Future[Any]] = []

    def script(client: Client) -> None:
        futures.append(client.submit("drive"))
        wait_until(engine.names, 10, "the call")

    with Listener(answer=lambda heard: time.sleep(0.1)) as engine:
        interrupted(engine.address, script)
        assert futures[0].result(0) is None


def test_a_normal_end_sends_what_is_queued() -> None:
    with Listener() as engine:
        with Client(engine.address, timeout=deadline(10)) as client:
            client.call("before")
            client._queue._response_time = 1e9
            client.send("drive")
        engine.await_names("before", "drive")


def test_what_is_queued_is_not_sent_when_an_exception_ends_async_with() -> None:
    async def main(address: str) -> None:
        async with aio.Client(address, timeout=deadline(10)) as client:
            await client.call("before")
            client._queue._response_time = 1e9
            client.send("drive")
            raise KeyError("the script fails")

    with Listener() as engine:
        with pytest.raises(KeyError):
            asyncio.run(main(engine.address))
        assert engine.names() == ["before"]
