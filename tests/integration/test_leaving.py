"""How a client leaves: nobody waits longer than there is something to wait for, and what is lost is said."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from taskengine import Client, EngineUnreachable, aio
from taskengine.link import CLOSE_S
from tests.engine import deadline, free_ports, wait_until
from tests.integration.listener import SILENCE, Listener

SOON_S = 0.6
"""Well below what was waited: a second, or five."""


@pytest.fixture
def mute() -> Iterator[Listener]:
    """An engine that says hello, and then nothing."""
    with Listener(lambda heard: SILENCE) as engine:
        yield engine


@pytest.fixture
def nowhere() -> str:
    return f"tcp://127.0.0.1:{free_ports(1)}"


def seconds(leave: Callable[[], object], error: type[BaseException]) -> float:
    """How long it takes until that is raised."""
    began = time.monotonic()
    with pytest.raises(error):
        leave()
    return time.monotonic() - began


def after(wait: Callable[[], object], then: Callable[[], object]) -> None:
    """Do something in a thread once what is waited for is there."""

    def run() -> None:
        wait()
        then()

    threading.Thread(target=run, daemon=True).start()


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_what_was_sent_to_no_engine_is_said_to_be_lost(nowhere: str) -> None:
    def leave() -> None:
        with Client(nowhere) as client:
            client.send("arm.wave", times=2)
            client.options(reply="none").submit("arm.wave")

    began = time.monotonic()
    with pytest.raises(EngineUnreachable, match=f"2 calls not sent: no engine answers at {nowhere}"):
        leave()
    assert time.monotonic() - began < deadline(CLOSE_S / 2)


def test_so_it_is_with_asyncio(nowhere: str) -> None:
    async def leave() -> None:
        async with aio.Client(nowhere) as client:
            client.send("arm.wave")

    assert seconds(lambda: asyncio.run(leave()), EngineUnreachable) < deadline(CLOSE_S / 2)


def test_what_failed_itself_is_not_hidden_by_what_was_lost(nowhere: str) -> None:
    def leave() -> None:
        with Client(nowhere) as client:
            client.send("arm.wave")
            raise LookupError

    assert seconds(leave, LookupError) < deadline(SOON_S)


def test_nothing_is_said_where_all_was_sent_or_somebody_has_the_future(nowhere: str) -> None:
    with Listener(lambda heard: None) as engine:
        with Client(engine.address) as client:
            client.send("arm.wave")
        engine.await_names("arm.wave")
    with Client(nowhere) as client:
        future = client.submit("arm.wave")
    assert future.exception(0) is not None


def test_an_engine_that_comes_in_time_gets_what_was_sent() -> None:
    port = free_ports(1)
    client = Client(f"tcp://127.0.0.1:{port}")
    client.send("arm.wave")
    with Listener(lambda heard: None, port=port) as engine:
        client.close()
        engine.await_names("arm.wave")


@pytest.mark.parametrize("error", [KeyboardInterrupt, LookupError])
def test_an_exception_waits_for_no_reply(mute: Listener, error: type[BaseException]) -> None:
    def leave() -> None:
        with Client(mute.address) as client:
            client.submit("x")
            mute.await_names("x")
            raise error

    assert seconds(leave, error) < deadline(SOON_S)


@pytest.mark.parametrize("is_inside", [True, False])
def test_a_timeout_of_asyncio_is_kept(mute: Listener, is_inside: bool) -> None:
    async def inside() -> None:
        async with aio.Client(mute.address) as client, asyncio.timeout(0.1):
            await client.call("x")

    async def outside() -> None:
        async with asyncio.timeout(0.1), aio.Client(mute.address) as client:
            await client.call("x")

    run: Callable[[], Awaitable[None]] = inside if is_inside else outside
    assert seconds(lambda: asyncio.run(run()), TimeoutError) < deadline(SOON_S)  # type: ignore[arg-type]


def test_a_timeout_of_asyncio_ends_the_wait_of_a_client_that_closes(mute: Listener) -> None:
    async def leave() -> None:
        async with asyncio.timeout(0.2), aio.Client(mute.address) as client:
            client.submit("x")

    assert seconds(lambda: asyncio.run(leave()), TimeoutError) < deadline(SOON_S)


def test_ctrl_c_in_asyncio_does_not_wait(mute: Listener) -> None:
    async def leave() -> None:
        async with aio.Client(mute.address) as client:
            await client.call("x")

    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        press_ctrl_c()

    after(lambda: wait_until(lambda: mute.names() == ["x"], 10, "the call"), press)
    seconds(lambda: asyncio.run(leave()), KeyboardInterrupt)
    assert time.monotonic() - pressed[0] < deadline(SOON_S)


@pytest.mark.parametrize("error", [KeyboardInterrupt, LookupError])
def test_a_lease_is_left_soon_where_the_engine_is_gone(error: type[BaseException]) -> None:
    with Listener(lambda heard: 0.5 if "lease.acquire" in heard.request.names else SILENCE) as engine:

        def leave() -> None:
            with Client(engine.address) as client, client.lease("pan"):
                raise error

        async def leave_too() -> None:
            async with aio.Client(engine.address) as client, await client.lease("pan"):
                raise error

        for run in (leave, lambda: asyncio.run(leave_too())):
            assert seconds(run, error) < deadline(1.5)
        assert engine.names().count("lease.release") == 2
