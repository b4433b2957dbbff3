"""The guardian's link to the supervisor. `taskengine_hardware` uses it, and knows no message of the engine."""

from __future__ import annotations

import contextlib
from typing import Protocol

from taskengine.runtime.control import Alive, Online, OwnerStarted, StopProcess, StrangersMayStop
from taskengine.runtime.control_channel import ControlChannel


class GuardianOrders(Protocol):
    """The orders that a guardian carries out."""

    def meet(self, lane: str, pid: int) -> None:
        """Watch the process that owns the pins of a lane from now on."""

    def let_strangers_stop(self, may: bool) -> None:
        """Let other users stop the machine, or not."""

    def end(self) -> None:
        """End as soon as every owner is dead."""


class GuardianLink:
    """Reports on the guardian to the supervisor through `control`, and gives the guardian its orders."""

    def __init__(self, control: ControlChannel) -> None:
        self._control = control

    def fileno(self) -> int:
        """Return the descriptor, which is readable if `take_order` has something to do."""
        return self._control.fileno()

    def tell_online(self) -> None:
        """Tell the supervisor that the guardian has started. Raises OSError if it is gone."""
        self._control.send(Online())

    def tell_alive(self) -> None:
        """Tell the supervisor that the guardian is alive, unless it does not read, or is gone."""
        with contextlib.suppress(OSError):
            self._control.offer(Alive())

    def take_order(self, guardian: GuardianOrders) -> None:
        """Have the guardian carry out the next order. Raises EOFError if the supervisor is gone."""
        match order := self._control.receive():
            case OwnerStarted():
                guardian.meet(order.lane, order.pid)
            case StrangersMayStop():
                guardian.let_strangers_stop(order.may)
            case StopProcess():
                guardian.end()
