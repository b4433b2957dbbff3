"""Strangers, which send garbage to the engine, and packages whose replies they do not read."""

from __future__ import annotations

import os
import random
import socket
import threading

import zmq

from taskengine.client.calls import Call
from taskengine.client.requests import Options
from taskengine.client.session import Session
from taskengine.protocol.layouts import MAGIC
from taskengine.runtime.topology import HELLO

STALLED_PACKAGES = 400
_TASKS_EACH = 20
_REPLY_BYTES = 10_000


def _package(address: str) -> list[bytes]:
    """A package whose reply is large, as it is sent."""
    calls: list[Call] = [("chaos.ping", (_REPLY_BYTES,), {})] * _TASKS_EACH
    return Session("STRANGER", address).package(calls, (), Options(), each=False).frames


def _spoilt(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    """The frames with a few bytes changed."""
    spoilt = [bytearray(frame) for frame in frames]
    for frame in spoilt:
        for _ in range(chance.randrange(1, 4)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
    return [bytes(frame) for frame in spoilt]


def send_garbage(port: int, chance: random.Random) -> None:
    """Messages without sense, and bytes that are not even ZeroMQ."""
    address = f"tcp://127.0.0.1:{port}"
    whole = _package(address)
    messages = [
        [chance.randbytes(chance.randrange(100)) for _ in range(chance.randrange(1, 6))],
        [HELLO, os.urandom(32), b"\x93\xa7TASK-99\xa0\x00"],
        [b"", b"{}", b"{", chance.randbytes(20)],
        [MAGIC, chance.randbytes(30)],
        whole[:-1],
        _spoilt(chance, whole),
    ]
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 500
        dealer.connect(address)
        for message in chance.choices(messages, k=10):
            dealer.send_multipart(message)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as raw:
            raw.sendall(chance.randbytes(200))
    except OSError:  # the router is being killed
        return


def stall(address: str, seconds: float) -> None:
    """Ask for much more than 16 MiB of replies, and read none of them."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.sndhwm = 0
        dealer.rcvhwm = 1
        dealer.connect(address)
        for _ in range(STALLED_PACKAGES):
            dealer.send_multipart(_package(address))
        threading.Event().wait(seconds)
