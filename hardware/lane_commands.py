"""The base of the commands of a lane: the open owner, and a command on its outputs under the owner's lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from taskengine import TaskFailed, check_device, origin, position

from .device_config import HardwareConfig, Value
from .device_types import Role
from .outputs import Output

if TYPE_CHECKING:  # importing gpiozero costs a Pi a quarter of a second, which only the owner is to spend
    from .owner import Owner


class LaneCommands:
    """The needs of all commands of a lane; `start` gives them an open owner."""

    def __init__(self, layout: HardwareConfig, lane: str) -> None:
        self._layout = layout
        self._devices = {device.name: device for device in layout.of(lane)}
        self._owner: Owner | None = None

    def start(self, owner: Owner) -> None:
        """Have tasks act on the owner's pins from now on."""
        self._owner = owner

    def _open(self) -> Owner:
        if self._owner is None:
            raise TaskFailed("this process has no pins: hardware tasks run in their lane only", type="RuntimeError")
        return self._owner

    @contextmanager
    def _outputs(self, device: str, *roles: Role) -> Iterator[tuple[Owner, list[Output], float]]:
        """Have the owner's lock, the outputs of a device or a group, and the time."""
        check_device(device)
        owner = self._open()
        with owner.lock:
            outputs = [owner.control.find(name, *roles) for name in self._members(device)]
            try:
                yield owner, outputs, time.monotonic()
            finally:
                owner.hurry()

    def _members(self, device: str) -> tuple[str, ...]:
        return self._layout.members(device) if isinstance(device, str) else (device,)

    def _command(self, device: str, role: Role, read: Callable[..., Value], *given: Any) -> None:
        check_device(device)
        owner = self._owner or self._open()
        with owner.lock:
            control = owner.control
            output = control.find(device, role)
            now = time.monotonic()
            try:
                control.command(output, read(output, *given), origin(), now)
            finally:
                if control.due < owner.asleep_until or control.due <= now:
                    owner.hurry()

    def _bring_to_rest(self, device: str, *roles: Role) -> None:
        with self._outputs(device, *roles) as (owner, outputs, now):
            for output in outputs:
                owner.control.bring_to_rest(output, origin(), position(), now)


class Running:
    """A command on one output: the lock, the output, and the time."""

    def __init__(self, owner: Owner, device: str, *roles: Role) -> None:
        check_device(device)
        self._owner, self._device, self._roles = owner, device, roles

    def __enter__(self) -> tuple[Owner, Output, float]:
        self._owner.lock.acquire()
        try:
            return self._owner, self._owner.control.find(self._device, *self._roles), time.monotonic()
        except BaseException:
            self._owner.lock.release()
            raise

    def __exit__(self, *exception: object) -> None:
        self._owner.hurry()
        self._owner.lock.release()
