"""A lease of devices: while it runs, they do as they were told; when it lapses, they go to their safe states."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from taskengine.errors import BadArguments, TaskEngineError


def calls(devices: Sequence[str], lane: str) -> tuple[str, list[str]]:
    """Return the prefix of the lane's task names, and the devices as a list. Raises BadArguments for no devices."""
    if not devices:
        raise BadArguments("a lease is of one device at least")
    return f"{lane}." if lane else "", list(devices)


def _wish(*, take_over: bool) -> dict[str, bool]:
    """Return the keyword for `lease.acquire` only if it is wanted: an engine of version 0.1.0 does not know it."""
    return {"take_over": True} if take_over else {}


class Lease:
    """The leases of `devices`, renewed by `call`, which calls a task; `leave` does so when an exception ends the block.

    A lease lapses by itself. The loop that drives calls `renew`, or commands the devices; never a thread that would go
    on when that loop hangs. Leaving the `with` block lets others have the devices at once.
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
        """How long the lease runs without renewal, in s: the shortest of the devices' leases."""

    def renew(self) -> None:
        """Renew the lease.

        Raises NotAllowed if it had lapsed and another client holds a device exclusively, or if the machine was stopped.
        """
        self._call(f"{self._prefix}lease.renew", self._devices)

    def release(self) -> None:
        """Let others have the devices; the last commands stay in force until the lease lapses."""
        self._call(f"{self._prefix}lease.release", self._devices)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.release()
            return
        with contextlib.suppress(TaskEngineError):  # the first error tells more; do not wait long
            self._leave(f"{self._prefix}lease.release", self._devices)


class AsyncLease:
    """The asyncio version of `Lease`: `async with await client.lease("pan") as lease: await lease.renew()`."""

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
        """Begin the lease."""
        wish = _wish(take_over=take_over)
        self.seconds = await self._call(f"{self._prefix}lease.acquire", self._devices, exclusive, **wish)
        return self

    async def renew(self) -> None:
        """Renew the lease; see `Lease.renew`."""
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
