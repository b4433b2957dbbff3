"""The control channel of a process: reports go to the supervisor, orders come from it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable

from taskengine.errors import ProtocolError
from taskengine.runtime.control import PACKET_BYTES, Order, OrderReader, Report, StopProcess, UnknownMessage, packets


def new_channel() -> tuple[socket.socket, socket.socket]:
    """Return the supervisor's end of a control channel, and the process's end."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:  # a packet has to fit, also where the system's default is small
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * PACKET_BYTES)
    return ends


class ControlChannel:
    """The process's end of a control channel; `say` logs a line."""

    def __init__(self, end: socket.socket, say: Callable[[str], None]) -> None:
        self._end = end
        self._say = say
        self._reader = OrderReader()

    def fileno(self) -> int:
        """Return the descriptor, which is readable where an order has come, or the supervisor is gone."""
        return self._end.fileno()

    def poll(self) -> bool:
        """Return whether an order has come, or the supervisor is gone."""
        return bool(select.select([self._end], [], [], 0)[0])

    def is_lost(self) -> bool:
        """Return whether the supervisor has closed its end, or is gone."""
        poll = select.poll()
        poll.register(self._end, 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def send(self, report: Report) -> None:
        """Report to the supervisor, waiting until it takes the report. Raises OSError where it is gone."""
        for packet in packets(report):
            self._end.send(packet)

    def offer(self, report: Report) -> None:
        """Report to the supervisor unless it does not read, being stopped itself. Raises OSError where it is gone."""
        with contextlib.suppress(BlockingIOError):
            for packet in packets(report):
                self._end.send(packet, socket.MSG_DONTWAIT)

    def receive(self) -> Order | None:
        """Wait for an order; None for an unknown one, which is logged. Raises EOFError where the supervisor is gone."""
        while True:
            try:
                packet = self._end.recv(PACKET_BYTES)
            except OSError as error:
                raise EOFError(str(error)) from error
            if not packet:
                raise EOFError("the supervisor is gone")
            try:
                order = self._reader.read(packet)
            except ProtocolError as error:
                self._say(f"[CONTROL-{os.getpid()}] Ignored an order: {error}")
                return None
            if isinstance(order, UnknownMessage):
                self._say(f"[CONTROL-{os.getpid()}] Ignored an unknown order: {order.tag!r}")
                return None
            if order is not None:
                return order

    def next_order(self) -> Order | None:
        """Do as `receive`; return StopProcess where the supervisor is gone."""
        try:
            return self.receive()
        except EOFError:
            return StopProcess()

    def close(self) -> None:
        """Close our end."""
        self._end.close()
