"""A lease of devices: while it runs, they do as they were told; when it lapses, they go to their safe states."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from taskengine.errors import BadArguments, TaskEngineError


def calls(devices: Sequence[str], lane: str) -> tuple[str, list[str]]:
    """What the names of the lane's tasks begin with, and the devices as a list. Raises BadArguments for none."""
    if not devices:
        raise BadArguments("a lease is of one device at least")
    return f"{lane}." if lane else "", list(devices)


def _wish(*, take_over: bool) -> dict[str, bool]:
    """A keyword for `lease.acquire`, only where it is wanted: an engine of version 0.1.0 does not know it."""
    return {"take_over": True} if take_over else {}


class Lease:
    """The leases of `devices`, begun anew by `call`, which calls a task; `leave` does so where an exception ends it.

    It ends by itself: whoever drives calls `renew`, or commands the devices, from the loop that drives, and never from
    a thread that would go on when that loop hangs. Leaving the `with` block lets others have the devices at once.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        devices: Sequence[str],
        *,
        exclusive: bool,
        lane: str,
        take_over: bool = False,
        leave: Callable[..., Any] | None = None,
    ) -> None:
        self._call = call
        self._leave = leave or call
        self._prefix, self._devices = calls(devices, lane)
        wish = _wish(take_over=take_over)
        self.seconds: float = call(f"{self._prefix}lease.acquire", self._devices, exclusive, **wish)
        """How long it runs if it is not renewed: that of the device whose lease is the shortest."""

    def renew(self) -> None:
        """Begin it anew. Raises NotAllowed where it had lapsed and another client has a device for itself, or where the
        machine was stopped."""
        self._call(f"{self._prefix}lease.renew", self._devices)

    def release(self) -> None:
        """Let others have the devices; what they were told last stays until the lease lapses."""
        self._call(f"{self._prefix}lease.release", self._devices)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.release()
            return
        with contextlib.suppress(TaskEngineError):  # what went wrong before says more, and waits for little
            self._leave(f"{self._prefix}lease.release", self._devices)


class AsyncLease:
    """As `Lease`, for asyncio: `async with await client.lease("pan") as lease: await lease.renew()`."""

    def __init__(
        self,
        call: Callable[..., Awaitable[Any]],
        devices: Sequence[str],
        lane: str,
        leave: Callable[..., Awaitable[Any]] | None = None,
    ) -> None:
        self._call = call
        self._leave = leave or call
        self._prefix, self._devices = calls(devices, lane)
        self.seconds = 0.0

    async def acquire(self, *, exclusive: bool, take_over: bool = False) -> Self:
        """Begin it."""
        wish = _wish(take_over=take_over)
        self.seconds = await self._call(f"{self._prefix}lease.acquire", self._devices, exclusive, **wish)
        return self

    async def renew(self) -> None:
        """Begin it anew; see `Lease.renew`."""
        await self._call(f"{self._prefix}lease.renew", self._devices)

    async def release(self) -> None:
        """Let others have the devices."""
        await self._call(f"{self._prefix}lease.release", self._devices)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.release()
            return
        with contextlib.suppress(TaskEngineError):
            await self._leave(f"{self._prefix}lease.release", self._devices)
