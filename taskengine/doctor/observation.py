"""An observation of `taskengine doctor`, and what a check may look at. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

import msgspec

from taskengine.config.settings import Settings

SERVICE = "taskengine"
"""The name of the systemd service."""


class Observation(msgspec.Struct, frozen=True):
    """A row of the table: what was checked, its state, what was found, and the line to type, "" for none."""

    check: str
    state: Literal["ok", "warning", "wrong"]
    found: str
    line: str = ""


def ok(check: str, found: str, line: str = "") -> Observation:
    """Return an observation that needs nothing; `line` is what one may type all the same."""
    return Observation(check, "ok", found, line)


def warning(check: str, found: str, line: str = "") -> Observation:
    """Return an observation that does not keep the engine from working."""
    return Observation(check, "warning", found, line)


def wrong(check: str, found: str, line: str = "") -> Observation:
    """Return an observation that keeps the engine, or a part of it, from working."""
    return Observation(check, "wrong", found, line)


class Chip(NamedTuple):
    """A gpiochip: its driver's label, such as "pinctrl-rp1", and how many lines it has."""

    label: str
    lines: int


class Space(NamedTuple):
    """The room on a file system, in bytes."""

    free: int
    total: int


class Surroundings(Protocol):
    """The files, commands and sockets of a machine, as far as checks look at them."""

    def text(self, path: str) -> str | None:
        """Return a file's text; None if there is none that can be read."""

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder; none if it cannot be read."""

    def may_use(self, path: str) -> bool:
        """Return whether this user may read and write a file or device."""

    def group_of(self, path: str) -> str:
        """Return the name of a file's group; "" if it has none."""

    def run(self, *command: str) -> str | None:
        """Return what a command prints; None if there is no such command, or it fails."""

    def chip(self, path: str) -> Chip | None:
        """Return a gpiochip; None if it cannot be opened."""

    def space(self, path: str) -> Space | None:
        """Return the room where a path lies; None if it does not exist."""

    def refusal(self, host: str, port: int) -> str:
        """Return why nobody can listen on a port, "" if one can."""

    def version(self, distribution: str) -> str | None:
        """Return the version of an installed distribution; None if it is not installed."""

    def failure(self, module: str) -> str:
        """Return why a module of Python cannot be imported, "" if it can."""

    def processes(self) -> dict[int, str]:
        """Return the names of the running processes, by their ids."""

    def pin_holders(self) -> list[int]:
        """Return the ids of the processes that have lines of a gpiochip, as far as this user may see."""


class EngineAnswer(NamedTuple):
    """What came from the engine: its round trip in s, or else why there was none.

    `address` is "" if nobody knows it. `is_ours` tells whether an engine of this user runs there, answered or not.
    `release` is the engine's, "" if it does not say it.
    """

    address: str
    seconds: float | None = None
    why: str = ""
    is_ours: bool = False
    release: str = ""


class Case(msgspec.Struct, frozen=True):
    """The engine that is looked at, and the Python that looks."""

    settings: Settings
    reply: EngineAnswer
    user: str = "pi"
    folder: str = "/home/pi/robot"
    """The folder of the settings' file."""
    problem: str = ""
    """Why the settings cannot be used; the other checks take the defaults then."""
    release: str = "0.2.0"
    """That of the taskengine that looks."""
    python: tuple[int, ...] = (3, 13, 0)
    machine: str = "aarch64"
    """The kind of processor."""
    prefix: str = "/home/pi/robot/.venv"
    """The folder of this Python."""
    in_venv: bool = True
    libzmq: tuple[int, ...] = (4, 3, 5)
    weaknesses: tuple[str, ...] = ()
    """What `taskengine check` warns of, but for libzmq."""
    clients: int = 0
    """The number of clients whose keys are let in."""
    devices: Mapping[int, str] = {}
    """The device of each GPIO that the settings name."""
    used: Mapping[int, str] = {}
    """The user of each of these GPIOs, as the kernel calls it."""

    @property
    def needs_pins(self) -> bool:
        """Return whether the settings want the pins of this machine."""
        return bool(self.settings.hardware) and self.settings.pins in ("auto", "lgpio")

    @property
    def i2c_boards(self) -> dict[str, list[str]]:
        """The boards of the settings that are on I2C, by the paths of their buses."""
        found: dict[str, list[str]] = {}
        for name, board in self.settings.hardware.get("boards", {}).items():
            if board["type"] == "PCA9685":
                bus = board.get("bus", 1)
                found.setdefault(f"/dev/i2c-{bus}" if isinstance(bus, int) else bus, []).append(name)
        return found


def runs(case: Case, around: Surroundings) -> bool:
    """Return whether the engine runs: it answered, or is this user's, or is the service of another user."""
    if case.reply.is_ours or case.reply.seconds is not None:
        return True
    return "ActiveState=active\n" in (around.run("systemctl", "show", SERVICE) or "")
