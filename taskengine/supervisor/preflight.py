"""Checks what an engine needs before it starts, so that an engine that cannot serve starts nothing."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket

from taskengine.config.settings import Settings
from taskengine.errors import TaskEngineError
from taskengine.runtime.hosts import needs_ipv6


class StartError(TaskEngineError):
    """The engine cannot start; nothing of it is left running."""


def check_ports(settings: Settings) -> None:
    """Raise StartError if a port is taken, or HOST is no address of this machine."""
    ports = [settings.router_frontend, settings.router_backend, *filter(None, [settings.metrics_port])]
    addresses = [*settings.data_addresses(), *filter(None, [settings.stop_address])]
    ports += [int(address.rpartition(":")[2]) for address in addresses]
    host = settings.frontend.removeprefix("tcp://").rpartition(":")[0]
    family = socket.AF_INET6 if needs_ipv6(settings.frontend) else socket.AF_INET
    taken = []
    for port in ports:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
                probe.listen(1)
            except socket.gaierror as error:
                raise StartError(f"HOST {settings.host!r} is no address of this machine: {error.strerror}") from None
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise StartError(f"HOST {settings.host!r} is no address of this machine") from None
                taken.append(f"{host}:{port} ({os.strerror(error.errno or 0)})")
    if taken:
        raise StartError(
            f"cannot listen on {', '.join(taken)}; is another engine running? "
            "Other ports are set by ROUTER_FRONTEND, ROUTER_BACKEND, STARTING_PORT, STOP_PORT and METRICS_PORT"
        )


def check_metrics(settings: Settings) -> None:
    """Raise StartError if METRICS_PORT is set and prometheus-client is not installed."""
    if settings.metrics_port and importlib.util.find_spec("prometheus_client") is None:
        raise StartError("METRICS_PORT needs prometheus-client: `pip install 'taskengine-robot[metrics]'`")


def check_record(settings: Settings) -> None:
    """Raise StartError if RECORD is set and mcap is not installed, or nothing is published."""
    if settings.record and importlib.util.find_spec("mcap") is None:
        raise StartError("RECORD needs mcap: `pip install 'taskengine-robot[record]'`")
    if settings.record and not settings.data_workers:
        raise StartError("RECORD needs a data worker, and DATA_WORKERS is 0")
