"""Looks up host names: which families of addresses a name has, and whether it has any.

ZeroMQ looks a name up whenever it connects, in a thread of its own. But it takes addresses of one family only, and
reports nothing where there are none. So a client tries IPv4 and IPv6 in turn, and looks the name up itself to report
what is wrong.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable

_HOST = re.compile(r"tcp://(?:[^;]*;)?(.+):\d+")
WRONG_NAME = "the name {} does not resolve ({})"


def host_in(address: str) -> str:
    """Return the host of tcp://HOST:PORT, without brackets; "" where there is none."""
    found = _HOST.fullmatch(address)
    return found[1].strip("[]") if found else ""


def name_in(address: str) -> str:
    """Return the host of tcp://HOST:PORT where it is a name; "" where it is a number, or there is none."""
    host = host_in(address)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return ""


def needs_ipv6(address: str) -> bool:
    """Return whether a socket needs IPv6: the host is an IPv6 address, or a name that has only IPv6 addresses.

    A name is looked up, which may take seconds.
    """
    host = host_in(address)
    return ":" in host or (bool(name_in(address)) and not _has(host, socket.AF_INET) and _has(host, socket.AF_INET6))


def _has(host: str, family: socket.AddressFamily) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None, family, socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        return False


class Lookup:
    """Looks up the name in `address`, in a thread of its own, and tells `say` what is wrong with it, "" for nothing."""

    def __init__(self, address: str, say: Callable[[str], object]) -> None:
        self._name = name_in(address)
        self._say = say
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin to look the name up, unless a look-up runs, or the host is a number."""
        if self._name and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._look, name="taskengine-lookup", daemon=True)
            self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait for the look-up to end, for `seconds` at most."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _look(self) -> None:
        try:
            socket.getaddrinfo(self._name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self._say(WRONG_NAME.format(self._name, getattr(error, "strerror", None) or error))
        else:
            self._say("")
