"""The engine as a `System`: by its Python client, and by wire 0.1 from a plain socket."""

from __future__ import annotations

import hashlib
import json
import time
from itertools import repeat
from typing import Any

import zmq

from bench.peers import ARGUMENTS, TASK, Done, report
from taskengine import Client
from taskengine.datatypes import MetaFrame, TaskFrame, prepare

TIMEOUT_S = 30.0


class NoReply(Exception):
    """The engine did not answer a message of wire 0.1."""


class Ours:
    """The engine at `address` by `taskengine.Client`."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self._client = Client(address, timeout=TIMEOUT_S)

    def package(self, tasks: int) -> list[Any]:
        results: list[Any] = self._client.map(TASK, repeat(2, tasks), repeat(3, tasks))
        return results

    def one(self) -> Any:
        return self._client.call(TASK, *ARGUMENTS)

    def offer(self, done: Done) -> None:
        self._client.submit(TASK, *ARGUMENTS).add_done_callback(lambda future: report(future, done))

    def close(self) -> None:
        self._client.close()


class Seed:
    """The engine at `address` by wire 0.1: JSON frames over a plain DEALER, made and read for each message."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        # a DEALER at its high-water mark would block in the middle of a message of many frames
        self._socket.sndhwm = 0
        self._socket.rcvhwm = 0
        self._socket.connect(address)

    def exchange(self, frames: list[bytes]) -> list[dict[str, Any]]:
        """Send a message and read the frames of its reply. Raises NoReply."""
        self._socket.send_multipart([b"", *frames])
        if not self._socket.poll(int(TIMEOUT_S * 1000)):
            raise NoReply(f"no reply within {TIMEOUT_S:g} s")
        return [json.loads(frame) for frame in self._socket.recv_multipart()[1:]]

    def package(self, tasks: int) -> list[Any]:
        reply = self.exchange(message(tasks))
        return [float(entry.rpartition(" ")[2]) for data in reply[1:] for entry in data["data"]]

    def one(self) -> Any:
        return self.package(1)[0]

    def offer(self, done: Done) -> None:
        done(self.one())

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def message(tasks: int) -> list[bytes]:
    """The frames of so many calls, as the seed's formatting sample makes them; each task's pack is an md5."""
    now = time.time()
    fields = {"id": "CLIENT", "role": "requestor", "version": 0.1, "type": "REQ", "pack": now}
    meta = prepare(MetaFrame(now), {**fields, "length": tasks, "serial": md5(f"{now}")})
    call = {"task": TASK, "args": list(ARGUMENTS), "kwargs": {}}
    packs = [md5(f"{now}-{number}") for number in range(tasks)]
    return [meta, *(prepare(TaskFrame(pack), {**call, "pack": pack}) for pack in packs)]


def md5(text: str) -> str:
    """The hash that the seed names its packs with."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
