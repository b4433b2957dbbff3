"""A client as the seed wrote it: JSON frames over a plain socket."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import zmq

from taskengine.datatypes import MetaFrame, TaskFrame, prepare
from tests.engine import deadline


class SeedClient:
    """A REQ, or a DEALER that sends the empty delimiter, at `address`."""

    def __init__(self, address: str, kind: int = zmq.REQ) -> None:
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(kind)
        self._socket.linger = 0
        self._socket.sndhwm = 0
        self._socket.connect(address)
        self._delimiter = [b""] if kind == zmq.DEALER else []

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart([*self._delimiter, *frames])

    def receive(self) -> list[dict[str, Any]]:
        """The frames of the next reply, read."""
        if not self._socket.poll(int(deadline(20.0) * 1000)):
            raise AssertionError("no reply came")
        frames = self._socket.recv_multipart()[len(self._delimiter) :]
        return [json.loads(frame) for frame in frames]

    def ask(self, *frames: bytes) -> list[dict[str, Any]]:
        self.send(*frames)
        return self.receive()

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def __enter__(self) -> SeedClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def meta(**fields: Any) -> bytes:
    """A META frame of a request; `fields` replace the usual ones."""
    pack = time.time()
    usual = {"id": "CLIENT", "role": "requestor", "version": 0.1, "type": "REQ", "pack": pack}
    return bytes(prepare(MetaFrame(pack), usual | fields))


def task(name: str, *args: Any, pack: Any = "p", **kwargs: Any) -> bytes:
    """A TASK frame."""
    return bytes(prepare(TaskFrame(pack), {"task": name, "args": list(args), "kwargs": kwargs, "pack": pack}))


def entries(reply: Sequence[dict[str, Any]]) -> list[str]:
    """The response entries of a reply, over all DATA frames."""
    return [entry for data in reply[1:] for entry in data["data"]]
