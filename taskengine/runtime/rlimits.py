"""Limits the memory and the files of a process of the engine (getrlimit(2))."""

from __future__ import annotations

import os
import resource

from taskengine.config.settings import Settings

SPARE_FILES = 256
"""Descriptors beside those of connections: the process's own sockets and pipes, and ZeroMQ's for them."""
DEFAULT_SHARE = 2
"""Without a setting the router, and each task worker, may have the machine's memory divided by this: one half."""


def router_memory(settings: Settings) -> int:
    """Return the most bytes that the router's own memory may have."""
    return settings.router_memory or _share()


def worker_memory(settings: Settings) -> int:
    """Return the most bytes that a task worker's own memory may have."""
    return settings.worker_memory or _share()


def _share() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // DEFAULT_SHARE


def limit_files(settings: Settings) -> None:
    """Limit the descriptors of this process to what CONNECTIONS needs, or to what the system allows if that is less."""
    _limit(resource.RLIMIT_NOFILE, settings.connections + SPARE_FILES)


def most_connections(settings: Settings) -> int:
    """Return the most connections that leave this process the descriptors that it needs itself."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(settings.connections, max(1, soft - SPARE_FILES))


def limit_memory(size: int) -> None:
    """Limit this process's own memory to `size` bytes; an allocation beyond that fails."""
    _limit(resource.RLIMIT_DATA, size)


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
