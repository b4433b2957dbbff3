"""The engine's interface to `taskengine_hardware`, which is imported only if the settings have a `[hardware]` table."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from taskengine.errors import SettingsError

if TYPE_CHECKING:
    import socket

PACKAGE = "taskengine_hardware"
GUARDIAN = "guardian"
"""The role of its process."""


class MachineLayout(Protocol):
    """The devices as the engine sees them."""

    @property
    def lanes(self) -> list[str]:
        """The lanes that own pins."""

    @property
    def devices(self) -> Mapping[str, Any]:
        """The devices, by their names."""

    @property
    def longest_stop(self) -> float:
        """How long, in s, a stop takes at most until all outputs are at rest."""

    def members(self, name: str) -> Sequence[str]:
        """Return the names of the devices of a group; another name is one device's."""


class PinOwner(Protocol):
    """The owner of a lane's pins."""

    def close(self) -> None:
        """Bring every output to its safe state, and release the pins."""

    def rest_at_once(self) -> None:
        """Bring every output to its safe state, from any thread, whatever the others do; the process ends then."""


class Machine:
    """The devices of a `[hardware]` table, driven as the setting PINS says; raises SettingsError."""

    def __init__(self, table: Mapping[str, Any], pins: str) -> None:
        self._pins = pins
        self.layout: MachineLayout = _package().read(table)
        self.stop_lanes: Mapping[str, str] = _package().stop_tasks(self.layout)
        """The tasks that stop the machine, with the lane of each."""
        self.stop_tasks = frozenset(self.stop_lanes)
        self.rest_tasks: Mapping[str, str] = _package().rest_tasks(self.layout)
        """The tasks that bring one device to its safe state, with the lane of each."""
        self._panel: Any = None

    @property
    def lanes(self) -> list[str]:
        """The lanes that own pins, each with one worker."""
        return self.layout.lanes

    def share(self) -> None:
        """Create the memory that its processes share, before they are forked."""
        self._panel = _package().SharedState(self.layout)

    @property
    def ramp_ns(self) -> int:
        """How much longer, in ns, a stop may take because outputs ramp down."""
        return int(self.layout.longest_stop * 1e9)

    @property
    def descriptors(self) -> list[int]:
        """The open files of the shared memory."""
        return [] if self._panel is None else list(self._panel.descriptors)

    def tasks(self) -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
        """Yield its tasks, each with what `@task` takes."""
        yield from _package().tasks(self.layout)

    def own(self, lane: str, say: Callable[[str], None]) -> PinOwner:
        """Get the pins of a lane. Raises RuntimeError, SettingsError."""
        _package().keep_memory()
        owner: PinOwner = _package().own(self.layout, lane, self._panel, self._pins, say)
        return owner

    def owners(self) -> dict[int, str]:
        """Return what uses each GPIO: a device with type and lane, and the process that has the line."""
        owners: dict[int, str] = _package().owners(self.layout, self._pins)
        return owners

    def channels(self) -> dict[str, str]:
        """Return what uses each channel of a board, such as "hat:3": a device with type and lane."""
        channels: dict[str, str] = _package().channels(self.layout)
        return channels

    def boards(self, *, with_channels: bool = True) -> list[str]:
        """Return the boards as text, with what uses their channels if wanted."""
        package = _package()
        told = package.board_lines if with_channels else package.board_headings
        lines: list[str] = told(self.layout, self._pins)
        return lines

    def make_safe(self) -> None:
        """Bring every output to its safe state while no engine runs. Raises SettingsError if that fails."""
        try:
            _package().make_safe(self.layout, self._pins)
        except (RuntimeError, OSError) as error:
            raise SettingsError(f"hardware: {error}") from None

    def stop(self, now: int, *, by: str = "", why: str = "", id: bytes = b"") -> int:
        """Stop the machine, whatever runs in its lanes or waits there; return the number of the stop.

        `now` is in ns, CLOCK_MONOTONIC. A repeated `id` does not stop the machine again. Before `share` there is
        nothing to stop, and the number is 0.
        """
        number: int = 0 if self._panel is None else self._panel.stop(now, by=by, why=why, id=id)
        return number

    def unconfirmed(self) -> list[str]:
        """Return the lanes that are not confirmed to be safe since the latest stop."""
        lanes: list[str] = [] if self._panel is None else self._panel.unconfirmed()
        return lanes

    def stop_number(self) -> int:
        """Return the number of the stop that is in force, 0 for none."""
        panel = self._panel
        number: int = panel.number if panel is not None and panel.is_stopped else 0
        return number

    def rest(self, task: str, device: object, order: int, position: int) -> bool:
        """Bring a device, or those of a group, to rest, as one of `rest_tasks` asks; return False without such outputs.

        Commands of packages before `order`, and of that one before `position`, move it no more.
        """
        names = self.layout.members(device) if isinstance(device, str) else ()
        found = [self.layout.devices[name] for name in names if name in self.layout.devices]
        if self._panel is None or not found or any(one.lane != self.rest_tasks.get(task) for one in found):
            return False
        if not all(one.kind.is_output for one in found):
            return False
        for one in found:
            self._panel.rest(one.lane, one.place, order, position)
        return True

    def guard(
        self,
        interval: float,
        control: object,
        say: Callable[[str], None],
        warn: Callable[[str], None],
        note: Callable[..., object],
        publish: Callable[[str, Any], None],
        listener: socket.socket | None,
        *,
        strangers_may: bool,
    ) -> None:
        """Run the guardian until the supervisor says stop or is gone; report to it every `interval` s.

        `control` is what `taskengine_hardware.guardian.SupervisorLink` describes. `say` logs a line, `warn` a warning,
        `note` writes to the audit log, and `publish` publishes the guardian's messages. Connections to `listener` can
        stop the machine, also those of other users if `strangers_may`.
        """
        links = {"control": control, "interval": interval, "say": say, "warn": warn, "note": note}
        links |= {"publish": publish, "listener": listener, "strangers_may": strangers_may}
        _package().guard(self.layout, self._panel, self._pins, **links)


def header(owners: Mapping[int, str]) -> Iterator[str]:
    """Yield the lines of the 40-pin header, with the user of each GPIO."""
    yield from _package().header_lines(owners)


def _package() -> ModuleType:
    try:
        return importlib.import_module(PACKAGE)
    except ImportError as error:
        raise SettingsError(f"hardware: {PACKAGE} cannot be loaded: {error}") from error
