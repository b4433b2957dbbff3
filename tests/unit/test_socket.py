"""Whole messages through libzmq: what pyzmq would give, in one call."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import zmq

from taskengine._socket import Debt, Port, Waiter
from tests.engine import deadline, wait_until

FRAME_BYTES = 128
A_WHILE_MS = int(deadline(20) * 1000)


class Pair(NamedTuple):
    """A ROUTER that refuses what nobody takes, and a DEALER with identity `peer`, connected."""

    router: zmq.Socket[bytes]
    dealer: zmq.Socket[bytes]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
        router.router_mandatory = 1
        router.linger = dealer.linger = 0
        router.sndhwm = 4
        dealer.rcvhwm = 1
        dealer.identity = b"peer"
        port = router.bind_to_random_port("tcp://127.0.0.1")
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.send(b"hello")
        assert router.recv_multipart() == [b"peer", b"hello"]
        yield Pair(router, dealer)


@pytest.mark.parametrize(
    "frames", [[b""], [b"a"], [b"", b"x" * 40, b"", b"y" * 100_000], [b"%d" % n for n in range(999)]]
)
def test_a_message_goes_and_comes_whole(pair: Pair, frames: list[bytes]) -> None:
    port = Port(pair.dealer)
    port.send(frames)
    assert Waiter(Port(pair.router)).wait(A_WHILE_MS) == 1
    assert Port(pair.router).receive() == [b"peer", *frames]
    Port(pair.router).send([b"peer", *frames], Debt())
    assert Waiter(port).wait(A_WHILE_MS) == 1
    assert port.receive() == frames
    assert port.receive() is None


def test_what_is_queued_is_told_again_although_the_descriptor_is_edge_triggered(pair: Pair) -> None:
    port = Port(pair.router)
    waiter = Waiter(port)
    for number in range(3):
        pair.dealer.send(b"%d" % number)
    for number in range(3):
        assert waiter.wait(A_WHILE_MS) == 1
        assert port.receive() == [b"peer", b"%d" % number]
    assert waiter.wait(0) == 0
    Port(pair.router).send([b"peer", b"consumes the edge"])
    pair.dealer.send(b"after")
    assert waiter.wait(A_WHILE_MS) == 1


def test_each_source_has_its_bit(pair: Pair) -> None:
    reading, writing = os.pipe()
    waiter = Waiter(Port(pair.router), reading, Port(pair.dealer))
    assert waiter.wait(0) == 0
    os.write(writing, b"x")
    assert waiter.wait(A_WHILE_MS) == 2
    pair.router.send_multipart([b"peer", b"x"])
    wait_until(lambda: waiter.wait(100) == 6, 10, "the message")
    os.close(reading)
    os.close(writing)
    with pytest.raises(ValueError, match="at most 30"):
        Waiter(*range(31))


def test_a_signal_ends_the_wait(pair: Pair) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        assert Waiter(Port(pair.router)).wait(A_WHILE_MS) == 0
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


def test_who_is_not_there_and_who_does_not_read_are_told_apart(pair: Pair) -> None:
    port, debt = Port(pair.router), Debt()
    with pytest.raises(zmq.ZMQError) as caught:
        port.send([b"nobody", b"x"])
    assert caught.value.errno == zmq.EHOSTUNREACH
    big = b"x" * 1_000_000

    def fill() -> None:
        for _ in range(100):
            port.send([b"peer", big], debt)

    with pytest.raises(zmq.Again):
        fill()
    assert 0 < debt.unsent <= 9 * len(big)


def test_what_is_owed_is_owed_by_the_whole_too(pair: Pair) -> None:
    port, whole = Port(pair.router), Debt()
    debts = [Debt(whole), Debt(whole)]
    big = b"x" * 16_000_000
    for debt in debts * 2:
        port.send([b"peer", big], debt)
    assert whole.unsent >= 2 * len(big), "the system takes less than that"
    assert all(debt.unsent for debt in debts)
    del debt, debts
    for _ in range(4):
        assert pair.dealer.poll(A_WHILE_MS)
        assert len(pair.dealer.recv()) == len(big)
    wait_until(lambda: whole.unsent == 0, 10, "the debts to be paid")


def test_a_debt_is_paid_as_its_receiver_reads_and_outlives_its_object(pair: Pair) -> None:
    port, debt = Port(pair.router), Debt()
    big = b"x" * 1_000_000
    for number in range(2):
        port.send([b"peer", b"%d" % number, big], debt)
    assert debt.unsent in (0, FRAME_BYTES + len(big), 2 * (FRAME_BYTES + len(big)))
    receiver = Port(pair.dealer)
    waiter = Waiter(receiver)
    for number in range(2):
        assert waiter.wait(A_WHILE_MS) == 1
        assert receiver.receive() == [b"%d" % number, big]
    wait_until(lambda: debt.unsent == 0, 10, "the debt to be paid")
    for _ in range(2):
        port.send([b"peer", big], Debt())
    for _ in range(2):
        assert waiter.wait(A_WHILE_MS) == 1
        assert receiver.receive() == [big]


@pytest.mark.parametrize("debt", [None, Debt()])
def test_a_frame_may_come_in_pieces(pair: Pair, debt: Debt | None) -> None:
    Port(pair.dealer).send([b"head", [b"a" * 600, b"", b"b" * 600], []], debt)
    assert pair.router.recv_multipart() == [b"peer", b"head", b"a" * 600 + b"b" * 600, b""]


def test_only_bytes_are_sent(pair: Pair) -> None:
    for frames in ([b"first", bytearray(b"x")], [b"first", "x"], [b"first", None], [b"first", [b"", "x"]], [(b"x",)]):
        with pytest.raises(TypeError, match="frame is bytes"):
            Port(pair.dealer).send(frames)  # type: ignore[arg-type]
    Port(pair.dealer).send([b"second"])
    assert pair.router.recv_multipart() == [b"peer", b"second"]


def test_a_closed_socket_is_an_error(pair: Pair) -> None:
    port = Port(pair.dealer)
    pair.dealer.close()
    with pytest.raises(zmq.ZMQError) as caught:
        port.receive()
    assert caught.value.errno == zmq.ENOTSOCK
