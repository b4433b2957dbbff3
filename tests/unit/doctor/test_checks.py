"""Each check of `taskengine doctor` on a made-up machine: what it says where all is well, and of each thing amiss."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from taskengine.doctor.examination import CHECKS, examine
from taskengine.doctor.observation import Chip, EngineAnswer, Observation, Space
from taskengine.doctor.operation import ROOMS
from tests.unit.doctor.made_up import ADDRESS, HARDWARE, SERVICE, MadeUp, case, idle

SHARED_MEMORY = ROOMS[-1][0]
NO_SERVICE = {("systemctl", "show", "taskengine"): "LoadState=not-found\nActiveState=inactive\n"}
PINS_OFF: dict[str, Any] = {"hardware": {}}


def service(**shown: str) -> dict[str, Any]:
    """A machine on which the service shows this."""
    lines = dict(line.split("=") for line in SERVICE.splitlines()) | shown
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    return {"commands": {("systemctl", "show", "taskengine"): text}}


def throttled(bits: str) -> dict[str, Any]:
    return {"commands": {("vcgencmd", "get_throttled"): f"throttled={bits}\n"}}


def room(path: str, free: int) -> dict[str, Any]:
    return {"rooms": {path: Space(free, 2**30)}}


# what is amiss with the case, and with the machine; the row and its state, what it says, and the line to type
AMISS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str, str]] = {
    "old python": ({"python": (3, 9, 2)}, {}, "wrong python", "needs 3.11", "full-upgrade"),
    "no venv": ({"in_venv": False}, {}, "warning python", "no virtual environment", "python3 -m venv"),
    "no msgspec": ({}, {"versions": {"msgspec": None}}, "wrong packages", "not installed: msgspec", "pip install"),
    "new pyzmq": ({}, {"versions": {"pyzmq": "28.0"}}, "warning packages", "pyzmq 28.0", "pip install"),
    "no lgpio": ({}, {"versions": {"lgpio": None}}, "wrong packages", "lgpio", "'taskengine-robot[hardware]'"),
    "old gpiozero": (
        {},
        {"versions": {"gpiozero": "1.6.2"}},
        "warning packages",
        "gpiozero 1.6.2",
        "'taskengine-robot[hardware]'",
    ),
    "wrong processor": (
        {},
        {"failures": {"taskengine._socket": "no ELF"}},
        "wrong compiled",
        "_socket: no ELF",
        "pip install",
    ),
    "old libzmq": ({"libzmq": (4, 3, 4)}, {}, "warning libzmq", "4.3.4 is older", "pip install -U pyzmq"),
    "bad settings": ({"problem": "line 3: not TOML"}, {}, "wrong settings", "line 3", "taskengine check"),
    "weak settings": ({"weaknesses": ("CURVE is off",)}, {}, "warning settings", "CURVE", "taskengine check"),
    "no group": ({}, {"closed": {"/dev/i2c-1"}}, "warning group i2c", "/dev/i2c-1", "sudo usermod -aG i2c pi"),
    "no group gpio": (
        {"user": "ann"},
        {"closed": {"/dev/gpiochip0"}},
        "wrong group gpio",
        "ann may not use",
        "sudo usermod -aG gpio ann",
    ),
    "old session": ({}, {"closed": {"/dev/gpiochip0"}}, "wrong group gpio", "log out and in", "newgrp gpio"),
    "no udev rule": (
        {},
        {"closed": {"/dev/gpiochip0"}, "groups": {"/dev/gpiochip0": "root"}},
        "wrong group gpio",
        "only root",
        'SUBSYSTEM=="gpio"',
    ),
    "no serial group": ({}, {"closed": {"/dev/ttyAMA0"}}, "warning group dialout", "ttyAMA0", "-aG dialout pi"),
    "no chip": ({}, {"devices": []}, "wrong gpiochip", "no /dev/gpiochip*", "--pins mock"),
    "closed chip": ({}, {"chips": {}}, "warning gpiochip", "none can be opened", ""),
    "chip of a Pi 5 before 6.6.45": (
        {"settings": {"hardware": {"chip": 4}}},
        {},
        "wrong gpiochip",
        "names chip 4",
        'chip = "pinctrl-rp1"',
    ),
    "a label that no chip has": (
        {"settings": {"hardware": {"chip": "pinctrl-bcm2711"}}},
        {},
        "wrong gpiochip",
        "names chip pinctrl-bcm2711",
        'chip = "pinctrl-rp1"',
    ),
    "another chip": (
        {"settings": {"hardware": {"chip": 1}}},
        {"devices": ["gpiochip0", "gpiochip1"], "chips": {"/dev/gpiochip1": Chip("brcmvirt-gpio", 8)}},
        "wrong gpiochip",
        "brcmvirt-gpio, which is not the header",
        'chip = "pinctrl-rp1"',
    ),
    "another chip's label": (
        {"settings": {"hardware": {"chip": "brcmvirt-gpio"}}},
        {"devices": ["gpiochip0", "gpiochip1"], "chips": {"/dev/gpiochip1": Chip("brcmvirt-gpio", 8)}},
        "wrong gpiochip",
        "brcmvirt-gpio, which is not the header",
        'chip = "pinctrl-rp1"',
    ),
    "a board with several chips": (
        {},
        {
            "devices": ["gpiochip0", "gpiochip1"],
            "chips": {"/dev/gpiochip0": Chip("gpio0", 32), "/dev/gpiochip1": Chip("gpio1", 32)},
        },
        "wrong gpiochip",
        "none has the label of a Pi's header",
        'chip = "gpio0"',
    ),
    "another board": ({}, {"chips": {"/dev/gpiochip0": Chip("INT34C5:00", 98)}}, "warning gpiochip", "INT34C5", ""),
    "no bus for a board": (
        {"settings": {"hardware": HARDWARE | {"boards": {"hat": {"type": "PCA9685", "bus": 7}}}}},
        {},
        "wrong i2c",
        "there is no /dev/i2c-7 of hat",
        "do_i2c 0",
    ),
    "no smbus2 for a board": (
        {"settings": {"hardware": HARDWARE | {"boards": {"hat": {"type": "PCA9685"}}}}},
        {"versions": {"smbus2": None}},
        "wrong packages",
        "not installed: smbus2",
        "[hardware,boards]",
    ),
    "i2c has the pins": ({"devices": {2: "lamp (LED, lane hardware)"}}, {}, "wrong pins", "i2c is on", "do_i2c 1"),
    "spi has the pins": ({"devices": {8: "lamp (LED, lane hardware)"}}, {}, "wrong pins", "spi is on", "do_spi 1"),
    "console has the pins": (
        {"devices": {14: "lamp (LED, lane hardware)"}},
        {"texts": {"/proc/cmdline": "console=serial0,115200"}},
        "wrong pins",
        "serial is on",
        "do_serial_cons 1",
    ),
    "console": (
        {},
        {"texts": {"/proc/cmdline": "console=ttyAMA10,115200"}},
        "warning serial",
        "the kernel's console is on ttyAMA10",
        "do_serial_cons 1",
    ),
    "pins held": (
        {"reply": idle(), "used": {18: "lg"}},
        {"commands": NO_SERVICE, "running": {812: "python"}, "holders": [812]},
        "wrong pins",
        "GPIO18 (lg); by python [812]",
        "lsof",
    ),
    "pigpiod": ({}, {"running": {7: "pigpiod"}}, "warning pins", "pigpiod [7]", "disable --now pigpiod"),
    "undervoltage": ({}, throttled("0x50005"), "wrong power", "now: undervoltage, throttled", "5 V"),
    "undervoltage before": ({}, throttled("0x50000"), "warning power", "there was: undervoltage", "5 V"),
    "clock capped": ({}, throttled("0x2"), "warning power", "now: clock capped", ""),
    "undervoltage by sysfs": (
        {},
        {
            "commands": {("vcgencmd", "get_throttled"): None},
            "texts": {"/sys/devices/platform/soc/soc:firmware/get_throttled": "1\n"},
        },
        "wrong power",
        "now: undervoltage",
        "5 V",
    ),
    "warm": ({}, {"texts": {"/sys/class/thermal/thermal_zone0/temp": "72000"}}, "warning temperature", "72", ""),
    "hot": ({}, {"texts": {"/sys/class/thermal/thermal_zone0/temp": "83000"}}, "wrong temperature", "83", ""),
    "port taken": (
        {"reply": idle()},
        {"commands": NO_SERVICE, "taken": {9001: "Address already in use"}},
        "wrong ports",
        "127.0.0.1:9001 (Address already in use)",
        "ss -ltnp 'sport = :9001'",
    ),
    "stop port taken": (
        {"reply": idle()},
        {"commands": NO_SERVICE, "taken": {9002: "Address already in use"}},
        "wrong ports",
        ":9002",
        ":9002",
    ),
    "nobody let in": ({"settings": {"host": "0.0.0.0"}}, {}, "warning keys", "no client has a key", "keys pair"),
    "clock of 1970": ({}, {"commands": {("date", "+%s"): "86400"}}, "wrong clock", "1970-01-01", "set-ntp true"),
    "clock by itself": (
        {},
        {"commands": {("timedatectl", "show"): "NTPSynchronized=no\n"}},
        "warning clock",
        "no time server",
        "set-ntp true",
    ),
    "service failed": (
        {},
        service(ActiveState="failed", Result="exit-code"),
        "wrong service",
        "exit-code",
        "journalctl",
    ),
    "service restarts": ({}, service(SubState="auto-restart"), "wrong service", "active", "journalctl -u taskengine"),
    "service flaps": ({}, service(NRestarts="7"), "warning service", "7 times", "journalctl -u taskengine"),
    "service stopped": ({}, service(ActiveState="inactive"), "warning service", "inactive", "systemctl start"),
    "service disabled": ({}, service(UnitFileState="disabled"), "warning service", "not started", "systemctl enable"),
    "little room": ({}, room("/", 2**28), "warning disk", "256 MiB free of 1,024 in /", "du -xh"),
    "no room": ({}, room("/home/pi/robot", 2**20), "wrong disk", "1 MiB free", "du -xh"),
    "little shared memory": ({}, room(SHARED_MEMORY, 2**22), "warning disk", SHARED_MEMORY, "mount -o remount"),
    "slow": (
        {"reply": EngineAnswer(ADDRESS, 0.3, release="0.2.0")},
        {},
        "warning engine",
        "300.00 ms",
        "taskengine top",
    ),
    "an older engine": (
        {"reply": EngineAnswer(ADDRESS, 0.0003)},
        {},
        "warning engine",
        "is a taskengine before 0.2, and this is 0.2.0",
        "taskengine service install",
    ),
    "another engine": (
        {"reply": EngineAnswer(ADDRESS, 0.0003, release="0.3.0")},
        {},
        "warning engine",
        "is taskengine 0.3.0, and this is 0.2.0: restart it",
        "taskengine service install",
    ),
    "silent": (
        {"reply": EngineAnswer(ADDRESS, None, "nobody answers", True)},
        {},
        "wrong engine",
        "does not answer",
        "top",
    ),
}


def looked(known: dict[str, Any], machine: dict[str, Any]) -> list[Observation]:
    return examine(case(**known), MadeUp(**machine))


def row(observations: list[Observation], check: str) -> Observation:
    (found,) = (observation for observation in observations if observation.check == check)
    return found


def test_on_a_sound_machine_every_row_is_ok_and_all_are_there() -> None:
    observations = looked({}, {})
    assert [observation for observation in observations if observation.state != "ok"] == []
    assert [observation.check for observation in observations] == [
        *("python", "packages", "compiled", "libzmq", "settings", "groups", "gpiochip", "i2c", "spi", "serial"),
        *("pins", "power", "temperature", "ports", "keys", "clock", "service", "disk", "engine"),
    ]
    assert row(observations, "gpiochip").found == "gpiochip0 pinctrl-rp1 (54 lines); the header is a Pi 5's"
    assert row(observations, "groups").found == "pi may use gpio, i2c, spi, dialout"
    assert row(observations, "engine").found == f"{ADDRESS} answers in 0.40 ms"


@pytest.mark.parametrize("name", AMISS)
def test_one_thing_amiss_is_one_row_with_the_line_to_type(name: str) -> None:
    known, machine, wanted, says, line = AMISS[name]
    (observation,) = (observation for observation in looked(known, machine) if observation.state != "ok")
    assert f"{observation.state} {observation.check}" == wanted
    assert says in observation.found
    assert line in observation.line
    assert bool(line) == bool(observation.line)


def test_every_check_has_something_amiss_above() -> None:
    cases = [(case(**known), MadeUp(**machine)) for known, machine, *_ in AMISS.values()]
    for check in CHECKS:
        assert any(observation.state != "ok" for each in cases for observation in check(*each)), check


def test_no_engine_and_no_hardware_are_nothing_wrong() -> None:
    bare: dict[str, Any] = {
        "texts": {},
        "devices": [],
        "chips": {},
        "commands": {},
        "rooms": {},
    }
    observations = looked({"settings": PINS_OFF, "reply": idle(), "devices": {}}, bare)
    assert {observation.state for observation in observations} == {"ok"}
    assert row(observations, "engine").line == "taskengine serve"
    assert row(observations, "gpiochip").found == "none, and the settings want none"
    assert "systemd does not run" in row(observations, "service").found


def test_the_service_of_another_user_has_its_ports_and_pins() -> None:
    """It may not let us in, and then only systemd tells that it is there."""
    observations = looked({"reply": idle("no key"), "used": {18: "lg"}}, {"taken": {9000: "Address already in use"}})
    assert {observation.state for observation in observations} == {"ok"}


def test_buses_that_are_off_are_ok_and_say_how_to_switch_them_on() -> None:
    observations = looked({}, {"devices": ["gpiochip0"]})
    lines = {observation.check: (observation.state, observation.line) for observation in observations}
    for bus in ("i2c", "spi"):
        assert lines[bus] == ("ok", f"sudo raspi-config nonint do_{bus} 0")
    assert lines["serial"] == ("ok", "sudo raspi-config nonint do_serial_hw 0")


def test_a_converter_on_the_spi_bus_has_the_pins_of_the_bus_by_right() -> None:
    devices = dict.fromkeys((8, 9, 10, 11), "light (MCP3008, lane hardware)")
    assert {observation.state for observation in looked({"devices": devices}, {})} == {"ok"}


def test_pins_of_this_machine_are_not_asked_for_where_they_are_simulated() -> None:
    mock = {"settings": {"pins": "mock"}}
    observations = looked(mock, {"devices": [], "versions": {"lgpio": None}, "running": {7: "pigpiod"}})
    assert {observation.state for observation in observations} == {"ok"}
    assert row(observations, "pins").found == "1 named, driven by PINS = mock"


def test_an_engine_whose_address_nobody_knows_is_not_asked() -> None:
    seen = row(looked({"reply": EngineAnswer("", why="no settings")}, {}), "engine")
    assert (seen.state, seen.found, seen.line) == ("ok", "not asked: no settings", "")


def test_pins_of_a_chip_that_cannot_be_opened_are_not_called_free() -> None:
    assert "nobody can tell" in row(looked({"reply": idle()}, {"chips": {}, "commands": NO_SERVICE}), "pins").found
    assert "all are free" in row(looked({"reply": idle()}, {"commands": NO_SERVICE}), "pins").found


def test_the_metrics_port_is_looked_at_where_it_is_set() -> None:
    machine = {"commands": NO_SERVICE, "taken": {9100: "Address already in use"}}
    assert row(looked({"reply": idle()}, machine), "ports").state == "ok"
    observations = looked({"reply": idle(), "settings": {"metrics_port": 9100}}, machine)
    assert row(observations, "ports").state == "wrong"


def test_the_page_tells_of_every_row() -> None:
    page = (Path(__file__).parents[3] / "docs/doctor.md").read_text()
    table = page[page.index("| row |") :]
    told = set(re.findall(r"[a-z0-9]+", " ".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    checks = {word for row in looked({}, {}) for word in row.check.split()}
    assert checks | {"group", "gpio", "dialout"} == told - {"row"}
