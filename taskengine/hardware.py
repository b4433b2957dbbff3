"""Where the engine meets `taskengine_hardware`, loaded by that name where the settings have a `[hardware]` table."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from taskengine.errors import SettingsError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PACKAGE = "taskengine_hardware"
GUARDIAN = "guardian"
"""The role of its process."""


class Layout(Protocol):
    """The devices, as far as the engine is concerned."""

    @property
    def lanes(self) -> list[str]:
        """The lanes that own pins."""


class Machine:
    """The devices of a `[hardware]` table, and which setting PINS drives them; raises SettingsError."""

    def __init__(self, table: Mapping[str, Any], pins: str) -> None:
        self._pins = pins
        self.layout: Layout = _package().read(table)
        self.stop_lanes: Mapping[str, str] = _package().stop_tasks(self.layout)
        """The names of the tasks that stop the machine, with the lane of each."""
        self.stop_tasks = frozenset(self.stop_lanes)
        self._panel: Any = None

    @property
    def lanes(self) -> list[str]:
        """The lanes that own pins, each with one worker."""
        return self.layout.lanes

    def share(self) -> None:
        """Make what its processes share, before they are forked."""
        self._panel = _package().Panel(self.layout)

    def tasks(self) -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
        """Its tasks, each with what `@task` takes."""
        yield from _package().tasks(self.layout)

    def own(self, lane: str, say: Callable[[str], None]) -> Callable[[], None]:
        """Get the pins of a lane; how to let go of them. Raises RuntimeError, SettingsError."""
        owner = _package().own(self.layout, lane, self._panel, self._pins, say)
        close: Callable[[], None] = owner.close
        return close

    def owners(self) -> dict[int, str]:
        """What has which GPIO: a device, its type and its lane, and which process of this machine has the line."""
        owners: dict[int, str] = _package().owners(self.layout, self._pins)
        return owners

    def make_safe(self) -> None:
        """Bring every output to its safe state, where no engine runs. Raises SettingsError where that cannot be."""
        try:
            _package().make_safe(self.layout, self._pins)
        except (RuntimeError, OSError) as error:
            raise SettingsError(f"hardware: {error}") from None

    def is_concerned(self, tasks: Iterable[str]) -> bool:
        """One of the tasks stops the machine."""
        return not self.stop_tasks.isdisjoint(tasks)

    def heed(self, tasks: Iterable[str], now: int) -> None:
        """A client has called these tasks, at `now` in ns: where they stop the machine, stop it.

        Whatever runs in its lanes or waits there; the tasks themselves are answered when their turn comes.
        """
        if self._panel is not None and self.is_concerned(tasks):
            self._panel.stop(now)

    def guard(self, interval: float, control: Connection, say: Callable[[str], None]) -> None:
        """Be its guardian until the supervisor says stop or is gone, who is told every `interval` s that we live."""
        _package().guard(self.layout, self._panel, self._pins, interval, control, say)


def header(owners: Mapping[int, str]) -> Iterator[str]:
    """The lines of the 40-pin header, where these own GPIOs."""
    yield from _package().header_lines(owners)


def _package() -> ModuleType:
    try:
        return importlib.import_module(PACKAGE)
    except ImportError as error:
        raise SettingsError(f"hardware: {PACKAGE} cannot be loaded: {error}") from error
