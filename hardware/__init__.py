"""Servos, pins and sensors for Task Engine, on gpiozero; the engine loads it if the settings have `[hardware]`.

read       read the table into a `HardwareConfig`
tasks      the tasks that the lanes' workers run
SharedState  the memory that the owners of pins and the guardian share
own        get the pins, in the lane's worker
keep_memory  protect this process when memory runs out
guard      run the guardian
make_safe  bring every output to its safe state while no process has the pins
owners     what uses which pin
board_lines  the boards, and what uses which channel
robot      in a task of your own that runs in a lane with pins: its commands, as methods
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from taskengine import SettingsError

from .device_config import HardwareConfig, prefix_of, read
from .header import lines as header_lines
from .shared_state import SharedState

if TYPE_CHECKING:
    from .commands import Commands
    from .owner import Owner

SAFE_S = 2.0
"""How long, in s, `make_safe` waits for boards."""
__all__ = [
    "HardwareConfig",
    "SharedState",
    "board_headings",
    "board_lines",
    "channels",
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


def tasks(layout: HardwareConfig) -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
    """Yield the tasks of all lanes, each with what `taskengine.task` takes beside it."""
    from .commands import Commands, tasks_of

    for lane in layout.lanes:
        _commands[lane] = Commands(layout, lane)
        yield from tasks_of(_commands[lane], lane)


def own(layout: HardwareConfig, lane: str, panel: SharedState, pins: str, say: Callable[[str], None]) -> Owner:
    """Get the pins of a lane for its tasks, in the process of its worker.

    Raises RuntimeError if they cannot be had, SettingsError if this machine has none. Closing the owner brings every
    output to its safe state.
    """
    try:
        from .owner import Owner
    except ImportError as error:
        raise SettingsError(f"hardware: {error}: `pip install 'taskengine-robot[hardware]'`") from None
    owner = Owner(layout, lane, panel, pins, say)
    owner.open()
    _commands[lane].start(owner)
    _owned.append(lane)
    return owner


def keep_memory() -> None:
    """Ask the kernel to end this process last when memory runs out, because it is about to own pins."""
    from . import priority

    priority.keep_memory()


def guard(layout: HardwareConfig, panel: SharedState, pins: str, **links: Any) -> None:
    """Run the guardian until the supervisor says stop or is gone; `links` are the fields of `guardian.Links`."""
    from .guardian import Links, main

    main(layout, panel, pins, Links(**links))


def stop_tasks(layout: HardwareConfig) -> dict[str, str]:
    """Return the names of the tasks that stop the machine, with the lane of each."""
    return {f"{prefix_of(lane)}system.stop": lane for lane in layout.lanes}


def rest_tasks(layout: HardwareConfig) -> dict[str, str]:
    """Return the names of the tasks that bring one device to its safe state, with the lane of each."""
    names = ("motor.stop", "robot.stop", "device.rest")
    return {f"{prefix_of(lane)}{name}": lane for lane in layout.lanes for name in names}


def owners(layout: HardwareConfig, pins: str) -> dict[int, str]:
    """Return what uses each GPIO: a device of the layout, and the process that has the line, if the kernel tells."""
    from .lines import users

    enables = [(board.output_enable, board.name) for board in layout.boards.values()]
    found = {gpio: f"output_enable of {name}" for gpio, name in enables if gpio is not None}
    for device in layout.devices.values():
        found |= dict.fromkeys(device.gpios(), f"{device.name} ({device.type}, lane {device.lane})")
    for number, user in users(layout, pins).items():
        found[number] = f"{found[number]}, in use by {user}" if number in found else f"in use by {user}"
    return found


def channels(layout: HardwareConfig) -> dict[str, str]:
    """Return the device of each channel of a board, such as "hat:3"."""
    from .board_text import users

    return users(layout)


def board_headings(layout: HardwareConfig, pins: str) -> list[str]:
    """Return a line about each board. Raises SettingsError for an unknown setting PINS, if there are boards."""
    from .board_text import headings

    return [line for _, line in headings(layout, emulated=_has_emulated(layout, pins))]


def board_lines(layout: HardwareConfig, pins: str) -> list[str]:
    """Return the boards, and what uses which channel, as text. Raises as `board_headings` does."""
    from .board_text import lines

    return [*lines(layout, emulated=_has_emulated(layout, pins))]


def _has_emulated(layout: HardwareConfig, pins: str) -> bool:
    """Return whether there are boards that exist in memory only; without boards PINS may be of no use to them."""
    from .backends import are_emulated
    from .board_text import told

    return bool(told(layout)) and are_emulated(pins)


def make_safe(layout: HardwareConfig, pins: str) -> None:
    """Claim every output at its safe value, and release it. Raises RuntimeError if one cannot be had, SettingsError."""
    from .backends import factory_of
    from .device_set import DeviceSet
    from .outputs import safe_value

    outputs = [device for device in layout.devices.values() if device.kind.is_output]
    device_set = DeviceSet(outputs, factory_of(pins, layout, outputs), lambda device: safe_value(device, None))
    try:
        failed = list(device_set.rest(outputs, lambda device: None))
        if not device_set.wait_for_boards(lambda station: station.machine.is_settled, SAFE_S):
            failed += device_set.board_faults()
        failed += device_set.unread_boards()
    finally:
        device_set.close()
    if failed:
        raise RuntimeError(f"not made safe: {'; '.join(failed)}")


def robot() -> Commands:
    """Return the commands of the lane whose pins this process has. Raises RuntimeError if it has none."""
    if not _owned:
        raise RuntimeError("this process has no pins: give the task the lane of the devices, @task(lane='hardware')")
    return _commands[_owned[-1]]
