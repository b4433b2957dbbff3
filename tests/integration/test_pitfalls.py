"""Pitfalls of ZeroMQ, each tried on a real engine."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import zmq

from taskengine import Client, Overloaded
from taskengine.client.requests import Options
from taskengine.client.session import Session
from taskengine.protocol.messages import decode_reply
from taskengine.router.tuning import UNREAD_BYTES
from tests.engine import Engine, deadline, resident, wait_until

MIB = 2**20


@pytest.fixture
def dealer(engine: Engine) -> Iterator[zmq.Socket[bytes]]:
    """A socket to the engine that is read only when the test reads it."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = 0
        socket.connect(engine.address)
        yield socket


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    module = tmp_path_factory.mktemp("tasks") / "big.py"
    module.write_text("def task_big(size):\n    return bytes(size)\n")
    with Engine(tasks=f"{module},taskengine.tasks", enable_stdout="false") as running:
        yield running


def request(session: Session, name: str, *args: Any) -> list[bytes]:
    return session.package([(name, args, {})], [Future()], Options(), each=True).frames


def test_no_reply_of_twenty_thousand_is_dropped_at_a_high_water_mark(engine: Engine, dealer: zmq.Socket[bytes]) -> None:
    session = Session("flood", engine.address)
    for number in range(20_000):
        dealer.send_multipart(request(session, "task_echo", number))
    serials = set()
    for _ in range(20_000):
        assert dealer.poll(int(deadline(20) * 1000))
        serials.add(decode_reply(dealer.recv_multipart()[0]).serial)
    assert serials == set(range(1, 20_001))


def test_who_does_not_read_costs_its_own_replies_after_a_bound(engine: Engine, dealer: zmq.Socket[bytes]) -> None:
    dealer.rcvhwm = 1
    with zmq.Context() as context, context.socket(zmq.DEALER) as stalled:
        stalled.linger = 0
        stalled.rcvhwm = 1
        stalled.connect(engine.address)
        (router,) = engine.pids("router")
        before = resident(router)
        session = Session("stalled", engine.address)
        with Client(engine.address, timeout=deadline(20)) as other:
            answered = other.stats().answered
            for _ in range(100):
                stalled.send_multipart(request(session, "task_big", MIB))
                assert other.call("task_count", 2, 3) == 2.5
            wait_until(lambda: other.stats().answered == answered + 200, 20, "the packages")
            grown = resident(router) - before
        assert grown < UNREAD_BYTES + 12 * MIB, f"{grown / MIB:.0f} MiB more than before"
        replies = []
        for _ in range(100):
            assert stalled.poll(int(deadline(20) * 1000))
            replies.append(decode_reply(stalled.recv_multipart()[0]))
    assert {reply.serial for reply in replies} == set(range(1, 101))
    refused = [reply.error for reply in replies if reply.error is not None]
    assert 10 < len(refused) < 95
    assert {error[0] for error in refused} == {Overloaded.code}
