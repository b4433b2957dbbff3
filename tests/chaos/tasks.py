"""The tasks that chaos offers: each writes its id into the ledger of its process, and gives it back."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import resource
import time
from collections.abc import AsyncIterator, Iterator

from taskengine import task

LEDGER = "CHAOS_LEDGER"
"""The environment variable that names the folder of the tasks' own ledger."""

CLOSED = "closed:"
"""What a generator writes before its id, in its `finally`."""


@functools.cache
def _ledger(pid: int) -> int:
    return os.open(os.path.join(os.environ[LEDGER], str(pid)), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _note(id: str) -> str:
    os.write(_ledger(os.getpid()), f"{id}\n".encode())  # one write: whole, or not there
    return id


@task(name="chaos.note")
def note(id: str, seconds: float = 0.0) -> str:
    """Run once, for so long."""
    _note(id)
    time.sleep(seconds)
    return id


@task(name="chaos.again", idempotent=True)
def again(id: str, seconds: float = 0.0) -> str:
    """Run once, or again where the worker died."""
    return note(id, seconds)


@task(name="chaos.lane", lane="chaos")
def lane(id: str, seconds: float = 0.0) -> str:
    """Run in a lane with one worker."""
    return note(id, seconds)


@task(name="chaos.turn", lane="turn")
async def turn(id: str, seconds: float = 0.0) -> str:
    """Run as a coroutine in a lane that runs one at a time in each worker."""
    _note(id)
    await asyncio.sleep(seconds)
    return id


@task(name="chaos.beside", lane="beside", timeout=5.0)
async def beside(id: str, seconds: float = 0.0) -> str:
    """Run beside others."""
    return await turn(id, 10 * seconds)


@task(name="chaos.beside.again", lane="beside", idempotent=True)
async def beside_again(id: str, seconds: float = 0.0) -> str:
    """Run beside others, or again where the worker died."""
    return await turn(id, 10 * seconds)


def value_of(id: str, number: int) -> str:
    """Return the value of a stream with this number."""
    return f"{id}/{number}"


@task(name="chaos.stream", timeout=10.0)
def stream(id: str, count: int, seconds: float = 0.0, fails: bool = False) -> Iterator[str]:
    """Yield so many values, one in so many s; then raise, if it is to fail."""
    _note(id)
    try:
        for number in range(count):
            time.sleep(seconds)
            yield value_of(id, number)
        if fails:
            raise ValueError(id)
    finally:
        _note(CLOSED + id)


@task(name="chaos.stream.again", idempotent=True, timeout=10.0)
def stream_again(id: str, count: int, seconds: float = 0.0, fails: bool = False) -> Iterator[str]:
    """Yield as `stream`, or again where the worker died before the first value."""
    yield from stream(id, count, seconds, fails)


@task(name="chaos.stream.beside", lane="beside", timeout=10.0)
async def stream_beside(id: str, count: int, seconds: float = 0.0, fails: bool = False) -> AsyncIterator[str]:
    """Yield as `stream`, beside others."""
    _note(id)
    try:
        for number in range(count):
            await asyncio.sleep(seconds)
            yield value_of(id, number)
        if fails:
            raise ValueError(id)
    finally:
        await asyncio.sleep(0)
        _note(CLOSED + id)


@task(name="chaos.ping")
def ping(size: int = 0) -> bytes:
    """So many bytes; writes nothing down."""
    return bytes(size)


@task(name="chaos.exit")
def exit_at_once(id: str) -> None:
    """End the process."""
    _note(id)
    os._exit(7)


@task(name="chaos.exit.again", idempotent=True)
def exit_again(id: str) -> None:
    """End every process that runs it."""
    exit_at_once(id)


@task(name="chaos.segfault")
def segfault(id: str) -> None:
    """End the process as a broken extension does."""
    _note(id)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


@task(name="chaos.loop", timeout=0.3)
def loop(id: str) -> None:
    """Never end, whatever is raised."""
    _note(id)
    while True:
        pass


@task(name="chaos.fail")
def fail(id: str) -> None:
    """Raise."""
    _note(id)
    raise ValueError(id)
