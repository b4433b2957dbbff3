"""Messages of clients as a ROUTER takes them: those of wire 0.1 joined, those of wire 0.2 frame by frame."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from taskengine._socket import Port
from taskengine.broker.origins import is_near
from taskengine.protocol.layouts import MAGIC
from taskengine.protocol.limits import MAX_MESSAGE
from tests.engine import deadline

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
