"""Works out where and when clients' messages were sent, from their clock to ours, and orders packages. Pure.

Clients are told CLOCK_BOOTTIME, which goes on while a machine sleeps; the engine's processes go by CLOCK_MONOTONIC.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

import msgspec

from taskengine.errors import ProtocolError
from taskengine.protocol.limits import MAX_TOKEN
from taskengine.protocol.messages import Origin, Request

NS = 10**9


class Moment(msgspec.Struct, frozen=True, gc=False):
    """One moment by both clocks, in ns."""

    monotonic: int
    boottime: int


class Origins:
    """Makes the origin of each package; `epoch` tells this router's connections from those of earlier routers."""

    def __init__(self, epoch: bytes) -> None:
        self._epoch = epoch
        self._last = 0

    def next(self, now: int) -> int:
        """Return `now` in ns, or the next later value that is greater than all before, as packages and stops get."""
        self._last = now if now > self._last else self._last + 1
        return self._last

    def of(
        self, client: str, identity: bytes, moment: Moment, request: Request | None = None, *, is_local: bool = True
    ) -> Origin:
        """Return the origin of what the client sent, at this moment, by the connection that has this identity.

        `request` is its head, None for wire 0.1, which does not say when it was sent. Raises ProtocolError.
        """
        received = self.next(moment.monotonic)
        connection = self._epoch + identity
        if request is None:
            return Origin(client, connection, connection, received, is_local=is_local)
        if len(request.token) > MAX_TOKEN:
            raise ProtocolError(f"a client's token has at most {MAX_TOKEN} bytes, not {len(request.token)}")
        holder = client.encode() + b"\0" + request.token if request.token else connection
        sent = bound = since = 0
        ahead = moment.boottime - moment.monotonic
        if request.sent > 0 and request.bound >= 0:
            bound = request.bound
            sent = _earliest(request.sent - bound - ahead, received)
        if request.token and request.since > 0:
            since = _earliest(request.since - bound - ahead, received)
        return Origin(client, connection, holder, received, sent, bound, since, is_local)


def _earliest(moment: int, received: int) -> int:
    """Return the earliest moment that a client can mean, if it has passed, else 0 for "not told"."""
    return min(moment, received) if moment > 0 else 1


def latest_sending(origin: Origin) -> float:
    """Return the latest moment, in s, at which the client can have sent it: its deadlines count from there."""
    if not origin.sent:
        return origin.received / NS
    return min(origin.received, origin.sent + 2 * origin.bound) / NS


@lru_cache(1024)
def is_near(peer: str) -> bool:
    """Return whether libzmq's `Peer-Address` is on this machine: loopback, or a Unix socket, which shows a name."""
    try:
        address = ip_address(peer)
    except ValueError:
        return bool(peer)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
