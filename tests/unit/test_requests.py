"""Messages of clients as a ROUTER takes them: those of wire 0.1 joined, those of wire 0.2 frame by frame."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from taskengine._socket import Port, Waiter
from taskengine.attendance import Attendance
from taskengine.origins import is_near
from taskengine.wire import MAGIC, MAX_MESSAGE
from tests.engine import deadline, wait_until

Exchange = Callable[..., tuple[list[bytes], bytes, bytes]]


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    """Send frames from a DEALER, and give what a ROUTER receives, without the identity."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
        router.bind("inproc://test")
        dealer.connect("inproc://test")
        port = Port(router)

        def exchange(*frames: bytes) -> tuple[list[bytes], bytes, bytes]:
            assert port.receive_request(MAGIC, 2**22) is None
            dealer.send_multipart(frames)
            assert router.poll(int(deadline(10.0) * 1000))
            message = port.receive_request(MAGIC, 2**22)
            assert message is not None
            (_, *shown), index, body = message
            return shown, index, body

        yield exchange


def ends(*places: int) -> bytes:
    return struct.pack(f"<{len(places)}I", *places)


@pytest.mark.parametrize("route", [[], [b""]], ids=["DEALER", "REQ"])
def test_the_frames_behind_a_json_head_are_joined(exchange: Exchange, route: list[bytes]) -> None:
    assert exchange(*route, b"{}", b"one", b"two", b"") == ([*route, b"{}"], ends(3, 6, 6), b"onetwo")
    assert exchange(*route, b"{}", b"", b"one") == ([*route, b"{}"], ends(0, 3), b"one")
    assert exchange(*route, b"{}", MAGIC, MAGIC) == ([*route, b"{}"], ends(3, 6), MAGIC + MAGIC)
    assert exchange(*route, b"{}") == ([*route, b"{}"], b"", b"")


@pytest.mark.parametrize("route", [[], [b""]], ids=["DEALER", "REQ"])
def test_the_frames_behind_a_packed_head_are_not(exchange: Exchange, route: list[bytes]) -> None:
    for frames in ([MAGIC + b"x", b"index", b"body"], [MAGIC], [MAGIC, b"", b"body"], [MAGIC, b"{}", b"{}", b"{}"]):
        assert exchange(*route, *frames) == ([*route, *frames], b"", b"")


def test_a_message_of_empty_frames(exchange: Exchange) -> None:
    assert exchange(b"") == ([b""], b"", b"")
    assert exchange(b"", b"") == ([b"", b""], b"", b"")
    assert exchange(b"", b"", b"", b"x") == ([b"", b""], ends(0, 1), b"x")


def test_many_frames(exchange: Exchange) -> None:
    frames = [b"x" * (number % 300) for number in range(20_000)]
    _, index, body = exchange(b"{", *frames)
    assert body == b"".join(frames)
    assert len(index) == 4 * len(frames)
    assert index[-4:] == ends(len(body))


def test_what_is_too_much_is_left_out_but_counted(exchange: Exchange) -> None:
    half = bytes(MAX_MESSAGE // 2)
    assert exchange(b"{", half, half)[1:] == (ends(len(half), 2 * len(half)), half + half)
    places = [len(half), 2 * len(half), 2 * len(half) + 1]
    assert exchange(b"{", half, half, b"x")[1:] == (ends(*places), b"")


def test_a_closed_socket_is_an_error() -> None:
    with zmq.Context() as context:
        socket: Any = context.socket(zmq.ROUTER)
        port = Port(socket)
        socket.close()
        with pytest.raises(zmq.ZMQError):
            port.receive_request(MAGIC, 2**22)


@pytest.mark.parametrize("way", ["tcp", "ipc"])
def test_where_a_request_came_from(way: str, tmp_path: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
        port = Port(router)
        assert (port.peer, port.descriptor) == ("", -1)
        router.bind("tcp://127.0.0.1:*" if way == "tcp" else f"ipc://{tmp_path}/socket")
        dealer.connect(router.getsockopt_string(zmq.LAST_ENDPOINT))
        for _ in range(2):
            dealer.send_multipart([MAGIC, b"index", b"body"])
            assert router.poll(int(deadline(10.0) * 1000))
            assert port.receive_request(MAGIC, 9) is not None
            assert (port.peer == "127.0.0.1") == (way == "tcp")
            assert is_near(port.peer)
            assert stat.S_ISSOCK(os.fstat(port.descriptor).st_mode)
            assert port.receive_request(MAGIC, 9) is None


def test_news_of_connections_are_signalled_from_the_first_on() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        attendance = Attendance(context, router, Port(router), lambda _: None, 4096, lambda event, **fields: None)
        news = Waiter(attendance.news)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)):
                assert news.wait(int(deadline(10.0) * 1000))
                attendance.read()
            assert news.wait(int(deadline(10.0) * 1000))
            attendance.read()
            assert not news.wait(0)
        attendance.close()


def test_who_has_left() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = Port(router)
        left: list[bytes] = []
        attendance = Attendance(context, router, port, left.append, 4096, lambda event, **fields: None)
        router.bind("tcp://127.0.0.1:*")
        address = router.getsockopt_string(zmq.LAST_ENDPOINT)
        clients: list[bytes] = []
        for _ in range(20):  # descriptors are used again and again
            with context.socket(zmq.DEALER) as dealer:
                dealer.linger = int(deadline(10.0) * 1000)
                dealer.connect(address)
                dealer.send_multipart([MAGIC, b"x"])
        with context.socket(zmq.DEALER) as survivor:
            survivor.connect(address)
            survivor.send_multipart([MAGIC, b"x"])
            while len(clients) < 21:
                assert router.poll(int(deadline(10.0) * 1000))
                message = port.receive_request(MAGIC, 9)
                assert message is not None
                clients.append(message[0][0])
                attendance.greet(clients[-1])

            def have_left() -> bool:
                attendance.read()
                return len(set(left)) >= 20

            wait_until(have_left, 10, "the news of their ends")
            survivor.send_multipart([MAGIC, b"y"])
            assert router.poll(int(deadline(10.0) * 1000))
            alive = port.receive_request(MAGIC, 9)
            assert alive is not None
            assert alive[0][0] not in left
        attendance.close()
