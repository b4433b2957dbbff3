"""What the system lets a process of the engine have, whatever others do to it (getrlimit(2))."""

from __future__ import annotations

import os
import resource

from taskengine.config.settings import Settings

SPARE_FILES = 256
"""Files beside connections: sockets and pipes of the process's own, and what ZeroMQ needs for them."""
DEFAULT_SHARE = 2
"""Without a setting the router, or a task worker, may have this part of the machine's memory: one half."""


def router_memory(settings: Settings) -> int:
    """Return the most bytes that the router's own memory may have."""
    return settings.router_memory or _share()


def worker_memory(settings: Settings) -> int:
    """Return the most bytes that the own memory of a task worker may have."""
    return settings.worker_memory or _share()


def _share() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // DEFAULT_SHARE


def limit_files(settings: Settings) -> None:
    """Have this process take no more connections than CONNECTIONS, or than the system lets it."""
    _limit(resource.RLIMIT_NOFILE, settings.connections + SPARE_FILES)


def most_connections(settings: Settings) -> int:
    """Return how many connections leave a process the descriptors that it needs itself."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(settings.connections, max(1, soft - SPARE_FILES))


def limit_memory(size: int) -> None:
    """Give this process no more than `size` bytes for itself, and end it where it cannot do without."""
    _limit(resource.RLIMIT_DATA, size)


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
