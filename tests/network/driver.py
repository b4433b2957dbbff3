"""A program that drives wheels over a line, 20 times a second, by each wire: until it is killed.

`python -m tests.network.driver ADDRESS FOLDER NAME` drives the wheels that are called NAME and the wire. Before each
call it appends the time (monotonic, a double) to `NAME-WIRE.calls` in the folder, and each answer of wire 0.1, once, to
`NAME-seed.said`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import zmq

import taskengine.aio
from taskengine import Client, TaskEngineError
from tests.integration.seedclient import meta, task

PERIOD_S = 0.05
PATIENCE_S = 1.0
"""How long one call may take; the next one does not wait for it."""
WIRES = ("seed", "fast", "asyncio")
"""Wire 0.1, wire 0.2, and wire 0.2 by asyncio."""
TASK = "motor.forward"


def wheel(name: str, wire: str) -> str:
    """The device that the driver of this name drives by that wire."""
    return f"{name}-{wire}"


def calls_file(folder: Path, wheel: str) -> Path:
    """When it was driven."""
    return folder / f"{wheel}.calls"


def said_file(folder: Path, wheel: str) -> Path:
    """Return the answer."""
    return folder / f"{wheel}.said"


def read_calls(folder: Path, wheel: str) -> list[float]:
    """When it was driven, monotonic s."""
    data = calls_file(folder, wheel).read_bytes()
    return [moment for (moment,) in struct.iter_unpack("d", data[: len(data) // 8 * 8])]


class Beat:
    """Says when the next call is, and notes when each was."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._next = time.monotonic()

    def pause(self) -> float:
        """How many seconds until the next call; what was missed is left out."""
        now = time.monotonic()
        self._next = max(self._next + PERIOD_S, now)
        return self._next - now

    def note(self) -> None:
        """A call is made now."""
        os.write(self._file, struct.pack("d", time.monotonic()))


def by_seed(address: str, folder: Path, wheel: str) -> None:
    """Wire 0.1, a bare socket that waits for no reply."""
    beat, said = Beat(calls_file(folder, wheel)), set[bytes]()
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(address)
        while True:
            beat.note()
            socket.send_multipart([b"", meta(length=1), task(TASK, wheel, 1.0)])
            while socket.poll(0):
                reply = socket.recv_multipart()[-1]
                if reply not in said and len(said) < 100:
                    said.add(reply)
                    with said_file(folder, wheel).open("ab") as file:
                        file.write(reply + b"\n")
            time.sleep(beat.pause())


def by_fast(address: str, folder: Path, wheel: str) -> None:
    """Wire 0.2, whose results nobody wants."""
    beat = Beat(calls_file(folder, wheel))
    with Client(address, timeout=PATIENCE_S, insecure=True) as client:
        while True:
            beat.note()
            with contextlib.suppress(TaskEngineError):
                client.send(TASK, wheel, 1.0)
                client.flush()
            time.sleep(beat.pause())


def by_asyncio(address: str, folder: Path, wheel: str) -> None:
    """Wire 0.2 by asyncio, calls that wait for their results beside each other."""

    async def call(client: taskengine.aio.Client) -> None:
        with contextlib.suppress(TaskEngineError):
            await client.call(TASK, wheel, 1.0)

    async def drive() -> None:
        beat, calls = Beat(calls_file(folder, wheel)), set[asyncio.Task[None]]()
        async with taskengine.aio.Client(address, timeout=PATIENCE_S, insecure=True) as client:
            while True:
                beat.note()
                one = asyncio.create_task(call(client))
                calls.add(one)
                one.add_done_callback(calls.discard)
                await asyncio.sleep(beat.pause())

    asyncio.run(drive())


WAYS: dict[str, Callable[[str, Path, str], None]] = {"seed": by_seed, "fast": by_fast, "asyncio": by_asyncio}


if __name__ == "__main__":
    address, folder, name = sys.argv[1:]
    threads = [
        threading.Thread(target=way, args=(address, Path(folder), wheel(name, wire))) for wire, way in WAYS.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
