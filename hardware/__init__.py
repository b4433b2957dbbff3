"""Servos, pins and sensors for Task Engine, on gpiozero; the engine loads it where the settings have `[hardware]`.

read       the table, as a `Layout`
tasks      what the lanes' workers run
Panel      what the owner of the pins and the guardian share
own        get the pins, in the lane's worker
keep_memory  and be ended last where memory runs out
guard      be the guardian
make_safe  what the guardian does, at once, where nobody has the pins
owners     what has which pin
robot      in a task of your own that runs in a lane with pins: its commands, as methods
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from taskengine import SettingsError
from taskengine_hardware.header import lines as header_lines
from taskengine_hardware.layout import Layout, prefix_of, read
from taskengine_hardware.panel import Panel

if TYPE_CHECKING:
    from taskengine_hardware.commands import Commands
    from taskengine_hardware.owner import Owner

__all__ = [
    "Layout",
    "Panel",
    "guard",
    "header_lines",
    "keep_memory",
    "make_safe",
    "own",
    "owners",
    "read",
    "rest_tasks",
    "robot",
    "stop_tasks",
    "tasks",
]

_commands: dict[str, Commands] = {}
_owned: list[str] = []


def tasks(layout: Layout) -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
    """The tasks of all lanes, each with what `taskengine.task` takes beside it."""
    from taskengine_hardware.commands import Commands, tasks_of

    for lane in layout.lanes:
        _commands[lane] = Commands(layout, lane)
        yield from tasks_of(_commands[lane], lane)


def own(layout: Layout, lane: str, panel: Panel, pins: str, say: Callable[[str], None]) -> Owner:
    """Get the pins of a lane, whose tasks act from here on, in the process of its worker.

    Raises RuntimeError where they cannot be had, SettingsError where this machine has none. Closing the owner brings
    every output to its safe state.
    """
    try:
        from taskengine_hardware.owner import Owner
    except ImportError as error:
        raise SettingsError(f"hardware: {error}: in the clone, `.venv/bin/pip install '.[hardware]'`") from None
    owner = Owner(layout, lane, panel, pins, say)
    owner.open()
    _commands[lane].start(owner)
    _owned.append(lane)
    return owner


def keep_memory() -> None:
    """Have this process, which is about to own pins, be ended last where memory runs out."""
    from taskengine_hardware import priority

    priority.keep_memory()


def guard(layout: Layout, panel: Panel, pins: str, **links: Any) -> None:
    """Be the guardian, until the supervisor says stop or is gone; `links` are those of `guardian.Links`."""
    from taskengine_hardware.guardian import Links, main

    main(layout, panel, pins, Links(**links))


def stop_tasks(layout: Layout) -> dict[str, str]:
    """The names of the tasks that stop the machine, with the lane of each."""
    return {f"{prefix_of(lane)}system.stop": lane for lane in layout.lanes}


def rest_tasks(layout: Layout) -> dict[str, str]:
    """The names of the tasks that bring one device to its safe state, with the lane of each."""
    names = ("motor.stop", "robot.stop", "device.rest")
    return {f"{prefix_of(lane)}{name}": lane for lane in layout.lanes for name in names}


def owners(layout: Layout, pins: str) -> dict[int, str]:
    """What has which GPIO: the devices of the layout, and, where the kernel knows it, who uses a line now."""
    from taskengine_hardware.lines import users

    found: dict[int, str] = {}
    for device in layout.devices.values():
        found |= dict.fromkeys(device.gpios(), f"{device.name} ({device.type}, lane {device.lane})")
    for number, user in users(layout, pins).items():
        found[number] = f"{found[number]}, in use by {user}" if number in found else f"in use by {user}"
    return found


def make_safe(layout: Layout, pins: str) -> None:
    """Claim every output at its safe value, and let go. Raises RuntimeError where one cannot be had, SettingsError."""
    from taskengine_hardware.backends import BACKENDS
    from taskengine_hardware.rig import Rig

    outputs = [device for device in layout.devices.values() if device.kind.is_output]
    rig = Rig(outputs, BACKENDS[pins](layout))
    try:
        failed = list(rig.rest(outputs, lambda device: None))
    finally:
        rig.close()
    if failed:
        raise RuntimeError(f"not made safe: {'; '.join(failed)}")


def robot() -> Commands:
    """The commands of the lane that this process has the pins of. Raises RuntimeError where it has none."""
    if not _owned:
        raise RuntimeError("this process has no pins: give the task the lane of the devices, @task(lane='hardware')")
    return _commands[_owned[-1]]
