"""The engine as a `System`: by its Python client, with lists and with columns, and by wire 0.1 from a plain socket."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq

from bench.span import Job
from bench.system import ARGUMENTS, TASK, Done, report
from taskengine import Client
from taskengine.datatypes import MetaFrame, TaskFrame, prepare

NAME = "Task Engine"
TIMEOUT_S = 30.0


class NoReply(Exception):
    """The engine did not answer a message of wire 0.1."""


class Ours:
    """The engine at `address` by `taskengine.Client`."""

    def __init__(self, name: str, address: str, keys: Path | None = None) -> None:
        self.name = name
        self.client = Client(address, timeout=TIMEOUT_S, keys=keys, insecure=keys is None)

    def package(self, tasks: int) -> Job:
        first, second = [ARGUMENTS[0]] * tasks, [ARGUMENTS[1]] * tasks
        return Job(lambda: self.client.map(TASK, first, second))

    def one(self) -> Any:
        return self.client.call(TASK, *ARGUMENTS)

    def policy(self) -> int:
        """The scheduling policy of the engine's processes, which is the router's."""
        return os.sched_getscheduler(self.client.info().pid)

    def offer(self, done: Done) -> None:
        self.client.submit(TASK, *ARGUMENTS).add_done_callback(lambda future: report(future, done))

    def close(self) -> None:
        self.client.close()


class AtOnce(Ours):
    """The same, but what is offered leaves at once, as a call does, and does not wait for others."""

    def offer(self, done: Done) -> None:
        super().offer(done)
        self.client.flush()


class Columns(Ours):
    """The same, with arguments as numpy arrays, and results as one."""

    def package(self, tasks: int) -> Job:
        import numpy

        first, second = (numpy.full(tasks, argument, dtype=float) for argument in ARGUMENTS)
        return Job(lambda: self.client.map(TASK, first, second), list)


class Seed:
    """The engine at `address` by wire 0.1: JSON frames over a plain DEALER."""

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
        return read(self._reply())

    def _reply(self) -> list[bytes]:
        if not self._socket.poll(int(TIMEOUT_S * 1000)):
            raise NoReply(f"no reply within {TIMEOUT_S:g} s")
        return self._socket.recv_multipart()

    def package(self, tasks: int) -> Job:
        """The frames are made before, each sent by itself, and the reply's are read after."""
        *frames, last = [b"", *message(tasks)]

        def run() -> list[bytes]:
            send = self._socket.send
            for frame in frames:
                send(frame, zmq.SNDMORE)
            send(last)
            return self._reply()

        return Job(run, lambda reply: results(read(reply)))

    def one(self) -> Any:
        return results(self.exchange(message(1)))[0]

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def over_tcp(address: str) -> str:
    """The same address, written so that the client does not look for the Unix socket beside the port."""
    return address.replace("127.0.0.1", "127.1")


def message(tasks: int) -> list[bytes]:
    """The frames of so many calls, as the seed's formatting sample makes them; each task's pack is an md5."""
    now = time.time()
    fields = {"id": "CLIENT", "role": "requestor", "version": 0.1, "type": "REQ", "pack": now}
    meta = prepare(MetaFrame(now), {**fields, "length": tasks, "serial": md5(f"{now}")})
    call = {"task": TASK, "args": list(ARGUMENTS), "kwargs": {}}
    packs = [md5(f"{now}-{number}") for number in range(tasks)]
    return [meta, *(prepare(TaskFrame(pack), {**call, "pack": pack}) for pack in packs)]


def read(reply: Sequence[bytes]) -> list[dict[str, Any]]:
    """The frames of a reply behind the delimiter."""
    return [json.loads(frame) for frame in reply[1:]]


def results(frames: Sequence[dict[str, Any]]) -> list[float]:
    """The numbers in a reply's DATA frames."""
    return [float(entry.rpartition(" ")[2]) for data in frames[1:] for entry in data["data"]]


def md5(text: str) -> str:
    """The hash that the seed names its packs with."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
