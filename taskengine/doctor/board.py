"""Checks of the board: who may use its devices, its chips, buses and pins, its power and temperature. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from taskengine.doctor.observation import Case, Chip, Observation, Surroundings, ok, runs, warning, wrong
from taskengine.runtime.firmware import BITS, throttled

HEADER_CHIPS = {"pinctrl-bcm2835": "Pi 0 to 3", "pinctrl-bcm2711": "Pi 4", "pinctrl-rp1": "Pi 5"}
"""The labels of the chips that drive the 40-pin header, from the kernel's drivers/pinctrl/bcm."""
WARM, HOT = 70.0, 80.0
"""Degrees Celsius; at 80 a Pi lowers its clock."""
TEMPERATURE = "/sys/class/thermal/thermal_zone0/temp"
SUPPLY = "use the board's own supply (5 V; 3 A for a Pi 4, 5 A for a Pi 5), and feed servos from another one"
I2C_PINS, SPI_SELECTS, SPI_PINS, UART_PINS = (2, 3), (7, 8), (9, 10, 11), (14, 15)


class _Access(NamedTuple):
    """Devices by the beginnings of their names, and the group and subsystem that they have on Raspberry Pi OS."""

    beginnings: tuple[str, ...]
    subsystem: str


ACCESS: Mapping[str, _Access] = {
    "gpio": _Access(("gpiochip",), "gpio"),
    "i2c": _Access(("i2c-",), "i2c-dev"),
    "spi": _Access(("spidev",), "spidev"),
    "dialout": _Access(("ttyAMA", "ttyUSB", "ttyACM"), "tty"),
}


def check_groups(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check that this user may use the devices that are there."""
    devices = around.names("/dev")
    usable = []
    for group, access in ACCESS.items():
        nodes = [f"/dev/{name}" for name in devices if name.startswith(access.beginnings)]
        closed = [path for path in nodes if not around.may_use(path)]
        if closed:
            state = wrong if group == "gpio" and case.needs_pins else warning
            yield state(f"group {group}", *_way_in(case, around, closed[0], access.subsystem, group))
        elif nodes:
            usable.append(group)
    if usable:
        yield ok("groups", f"{case.user} may use {', '.join(usable)}")


def _way_in(case: Case, around: Surroundings, path: str, subsystem: str, group: str) -> tuple[str, str]:
    """Return why a device is closed to the user, and the line that opens it."""
    owner = around.group_of(path)
    if owner in ("", "root"):
        rule = f'SUBSYSTEM=="{subsystem}", GROUP="{group}", MODE="0660"'
        tee = f"sudo tee /etc/udev/rules.d/60-{group}.rules"
        return f"only root may use {path}", f"sudo groupadd -f {group}; echo '{rule}' | {tee}; sudo udevadm trigger"
    if case.user in _members(around.text("/etc/group") or "", owner):
        return f"{case.user} is in the group {owner}, but not in this session: log out and in", f"newgrp {owner}"
    return f"{case.user} may not use {path}: the group {owner} may", f"sudo usermod -aG {owner} {case.user}"


def _members(groups: str, group: str) -> list[str]:
    found = re.search(rf"^{re.escape(group)}:[^:]*:[^:]*:(.*)$", groups, re.MULTILINE)
    return found[1].split(",") if found else []


def check_chips(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check that there is a chip with the header's pins, and that the settings have the right one."""
    paths = [f"/dev/{name}" for name in around.names("/dev") if name.startswith("gpiochip")]
    chips = {path: chip for path in paths if (chip := around.chip(path)) is not None}
    told = ", ".join(f"{path.removeprefix('/dev/')} {chip.label} ({chip.lines} lines)" for path, chip in chips.items())
    headers = [path for path, chip in chips.items() if chip.label in HEADER_CHIPS]
    named = case.settings.hardware.get("chip") if case.needs_pins else None
    if not paths:
        if case.needs_pins:
            yield wrong(
                "gpiochip", "there is no /dev/gpiochip*, and the settings want pins", "taskengine serve --pins mock"
            )
        else:
            yield ok("gpiochip", "none, and the settings want none")
    elif not chips:
        yield warning("gpiochip", f"{len(paths)} there, and none can be opened (see the group gpio)")
    elif named is not None:
        yield _named_chip(named, chips, headers, told)
    elif not headers and case.needs_pins and len(set(chips.values())) > 1:
        line = f'chip = "{next(iter(chips.values())).label}"'
        yield wrong("gpiochip", f"none has the label of a Pi's header: {told}; [hardware] names none of them", line)
    elif not headers and case.needs_pins:
        yield warning("gpiochip", f"{told} has not the label of a Pi's header; it is taken, as the only one")
    else:
        yield ok("gpiochip", told + _whose(chips, headers))


def _named_chip(named: object, chips: Mapping[str, Chip], headers: Sequence[str], told: str) -> Observation:
    """Return what is to be said of the chip that the settings name, by its number or its label."""
    found = [path for path, chip in chips.items() if named == chip.label or path == f"/dev/gpiochip{named}"]
    line = f'chip = "{chips[headers[0]].label}"' if headers else ""
    if not found:
        return wrong("gpiochip", f"[hardware] names chip {named}, and there are {told}", line)
    label = chips[found[0]].label
    if headers and label not in HEADER_CHIPS:
        return wrong("gpiochip", f"[hardware] names chip {named}, {label}, which is not the header; {told}", line)
    return ok("gpiochip", told + _whose(chips, headers))


def _whose(chips: Mapping[str, Chip], headers: Sequence[str]) -> str:
    return f"; the header is a {HEADER_CHIPS[chips[headers[0]].label]}'s" if headers else ""


def check_buses(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check which buses are on, and that no device's pins are a bus's at the same time."""
    is_pi = (around.text("/proc/device-tree/model") or "").startswith("Raspberry Pi")
    devices = around.names("/dev")
    has_i2c, has_spi = "i2c-1" in devices, any(name.startswith("spidev0") for name in devices)
    ports = [name for name in devices if name.startswith(ACCESS["dialout"].beginnings) or name == "serial0"]
    console = re.search(r"\bconsole=(serial0|ttyAMA\d+|ttyS0)\b", around.text("/proc/cmdline") or "")
    yield from _taken(case, "i2c", I2C_PINS if has_i2c else (), "sudo raspi-config nonint do_i2c 1")
    yield from _taken(case, "spi", (*SPI_SELECTS, *SPI_PINS) if has_spi else (), "sudo raspi-config nonint do_spi 1")
    yield from _taken(
        case, "serial", UART_PINS if is_pi and console else (), "sudo raspi-config nonint do_serial_cons 1"
    )
    yield from _board_buses(case, devices)
    for bus, is_on in (("i2c", has_i2c), ("spi", has_spi)):
        if bus == "i2c" and case.i2c_boards:
            continue
        if is_on or is_pi:
            yield ok(bus, "on" if is_on else "off", "" if is_on else f"sudo raspi-config nonint do_{bus} 0")
    if is_pi and console and not case.devices.keys() & set(UART_PINS):
        line = "sudo raspi-config nonint do_serial_cons 1"
        yield warning("serial", f"the kernel's console is on {console[1]}, and writes to what is connected there", line)
    elif ports:
        yield ok("serial", ", ".join(ports))
    elif is_pi:
        yield ok("serial", "off", "sudo raspi-config nonint do_serial_hw 0")


def _board_buses(case: Case, devices: Sequence[str]) -> Iterator[Observation]:
    """Check that each I2C bus is there that a board of the settings is on."""
    for bus, boards in case.i2c_boards.items():
        told = f"{bus} of {', '.join(boards)}"
        if bus.removeprefix("/dev/") in devices:
            yield ok("i2c", f"on: {told}")
        elif case.needs_pins:
            yield wrong("i2c", f"there is no {told}", "sudo raspi-config nonint do_i2c 0")
        else:
            yield ok("i2c", f"{told}: emulated, PINS = {case.settings.pins}")


def _taken(case: Case, bus: str, pins: tuple[int, ...], line: str) -> Iterator[Observation]:
    """Yield an observation if devices that are not on a bus have its pins."""
    on_bus = ("(MCP",)
    clash = [f"GPIO{pin} of {case.devices[pin]}" for pin in pins if pin in case.devices]
    if clash and not (bus == "spi" and all(any(mark in text for mark in on_bus) for text in clash)):
        yield wrong("pins", f"{', '.join(clash)}: {bus} is on, and has these pins", line)


def check_pins(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check that nobody else holds the pins that the settings name."""
    processes = around.processes()
    daemons = [f"{name} [{pid}]" for pid, name in processes.items() if name == "pigpiod"]
    if daemons and case.needs_pins:
        told = f"{daemons[0]} runs, and can move the same pins past the kernel"
        yield warning("pins", told, "sudo systemctl disable --now pigpiod")
    if not case.devices:
        yield ok("pins", "the settings name none")
    elif case.used and not runs(case, around):
        holders = ", ".join(f"{processes.get(pid, '?')} [{pid}]" for pid in around.pin_holders())
        pins = ", ".join(f"GPIO{pin} ({user})" for pin, user in sorted(case.used.items()))
        told = f"in use: {pins}" + (f"; by {holders}" if holders else "")
        yield wrong("pins", told, "sudo lsof /dev/gpiochip*")
    elif case.used:
        yield ok("pins", f"{len(case.used)} of {len(case.devices)} in use, and the engine runs")
    elif not case.needs_pins:
        yield ok("pins", f"{len(case.devices)} named, driven by PINS = {case.settings.pins}")
    elif not any(around.chip(f"/dev/{name}") for name in around.names("/dev") if name.startswith("gpiochip")):
        yield ok("pins", f"{len(case.devices)} named; without a chip nobody can tell whether they are free")
    else:
        yield ok("pins", f"{len(case.devices)} named, and all are free")


def check_power(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check for undervoltage and for a clock that was lowered."""
    bits = throttled(around.text, around.run)
    if bits is None:
        return
    now = [name for bit, name in BITS.items() if bits >> bit & 1]
    before = [name for bit, name in BITS.items() if bits >> (bit + 16) & 1 and name not in now]
    if now:
        state = wrong if "undervoltage" in now else warning
        yield state("power", f"now: {', '.join(now)} ({bits:#x})", SUPPLY if "undervoltage" in now else "")
    if before:
        line = SUPPLY if "undervoltage" in before else ""
        yield warning("power", f"since the start there was: {', '.join(before)} ({bits:#x})", line)
    if not now and not before:
        yield ok("power", "no undervoltage since the start")


def check_temperature(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check that the processor is cool enough to keep its clock."""
    text = (around.text(TEMPERATURE) or "").strip()
    if not re.fullmatch(r"-?\d+", text):
        return
    degrees = int(text) / 1000
    told = f"{degrees:.0f} °C"
    if degrees >= HOT:
        yield wrong("temperature", f"{told}: the clock is lowered from {HOT:.0f} °C on; it needs a fan or a heat sink")
    elif degrees >= WARM:
        yield warning("temperature", f"{told}: at {HOT:.0f} °C the clock is lowered; a fan or a heat sink helps")
    else:
        yield ok("temperature", told)
