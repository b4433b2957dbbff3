"""One connection of a client: a DEALER socket, and events about its state.

A lost connection is not used again, although ZeroMQ would reconnect it: ZeroMQ would send what it still held to an
engine that comes back later, when nobody wants it any more. (`ZMQ_IMMEDIATE` prevents that too, but drops replies that
came with the last bytes.)
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from functools import partial

import zmq

from taskengine._socket import Port, Waiter
from taskengine.errors import BadArguments
from taskengine.runtime.hosts import host_in, name_in
from taskengine.runtime.rundir import nearest
from taskengine.security.credentials import introduce
from taskengine.security.keys import Membership

LINGER_MS = 1000
CONNECT_MS = 2000
"""How long, in ms, to try one address of a host's name."""
NEVER_MS = 2**31 - 1
KEEPALIVE_S = 1
"""After how many seconds of silence TCP probes whether the other machine is there, and how often it does so then,"""
KEEPALIVES = 4
"""and after how many probes the connection counts as lost (tcp(7))."""
_ADDRESS = re.compile(r"tcp://.+:([0-9]{1,5})|(?:ipc|inproc)://.+")
local_time = (
    partial(time.clock_gettime_ns, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
    if hasattr(time, "clock_gettime_ns")
    else time.monotonic_ns
)
"""Return the clock by which calls are timed, in ns; it goes on while the machine sleeps, if there is such a clock."""
_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_FAILED = zmq.EVENT_CONNECT_RETRIED
_CUT = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


def check_address(address: str) -> None:
    """Raise BadArguments for an invalid address of an engine."""
    found = _ADDRESS.fullmatch(address)
    if found is None or (found[1] and not 0 < int(found[1]) < 2**16):
        raise BadArguments(f"the engine's address is tcp://HOST:PORT, not {address!r}")


class Connection:
    """A DEALER connected to `address`. Raises BadArguments for an invalid address.

    If the host is a name, this is one attempt, by IPv6 if `by_ipv6`; `lost` says when it has failed.

    `monitor` is readable when there are events. Its descriptor `news` becomes readable once all earlier ones were
    taken, and is cheaper to wait for. `refused` means that an engine was there and did not let us in. `is_cut` means
    that it closed the connection during the handshake, which it also does with a client whose encryption differs from
    its own.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        membership: Membership | None = None,
        *,
        by_ipv6: bool = False,
    ) -> None:
        self.connected = False
        self.refused = False
        self.is_cut = False
        with contextlib.ExitStack() as undo:
            self.socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
            undo.callback(self.socket.close, 0)
            self.socket.sndhwm = 0
            self.socket.rcvhwm = 0
            self.socket.linger = LINGER_MS
            # an engine's machine that is gone sends nothing: its silence ends the connection, whatever is in flight
            self.socket.tcp_keepalive = 1
            self.socket.tcp_keepalive_idle = KEEPALIVE_S
            self.socket.tcp_keepalive_intvl = KEEPALIVE_S
            self.socket.tcp_keepalive_cnt = KEEPALIVES
            self.socket.tcp_maxrt = KEEPALIVE_S * (KEEPALIVES + 1) * 1000
            endpoint = nearest(address)
            is_named = bool(name_in(endpoint))
            self.socket.ipv6 = ":" in host_in(endpoint) or (is_named and by_ipv6)
            if is_named:
                self.socket.connect_timeout, self.socket.reconnect_ivl = CONNECT_MS, NEVER_MS
            introduce(self.socket, membership)
            self.monitor: zmq.Socket[bytes] = self.socket.get_monitor_socket(
                zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | _REFUSED | _CUT | (_FAILED if is_named else 0)
            )
            undo.callback(self.monitor.close)
            self.news = self.monitor.FD
            self._news = Waiter(Port(self.monitor))
            self._news.wait(0)  # ZeroMQ signals nothing before the first look
            self._signal = Waiter(self.news)
            try:
                check_address(address)
                self.socket.connect(endpoint)
            except zmq.ZMQError as error:
                text = f"the engine's address is tcp://HOST:PORT, not {address!r} ({error})"
                raise BadArguments(text) from None
            self.port = Port(self.socket)
            undo.pop_all()

    def has_news(self) -> bool:
        """Return whether there are events to take. Costs less than `lost`; not for whoever polls `monitor` itself."""
        return bool(self._signal.wait(0))

    def lost(self) -> bool:
        """Take the events, and return whether the connection has ended."""
        lost = False
        while self._news.wait(0):
            # zmq_socket_monitor(3): the event's number, 16 bits; pyzmq's own reader would load asyncio
            event = int.from_bytes(self.monitor.recv_multipart()[0][:2], sys.byteorder)
            if event & (_REFUSED | _CUT):
                self.refused = self.refused or bool(event & _REFUSED)
                self.is_cut = self.is_cut or bool(event & _CUT)
                continue
            self.connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            lost = lost or not self.connected
        self.connected = self.connected and not lost
        return lost

    def close(self, linger_ms: int = LINGER_MS) -> None:
        """Close, after at most `linger_ms` ms for unsent messages. May be called twice; no events come afterwards."""
        self.connected = False
        self._news = self._signal = Waiter()
        if not self.socket.closed:
            self.socket.disable_monitor()
            self.monitor.close()
            self.socket.close(linger_ms)
