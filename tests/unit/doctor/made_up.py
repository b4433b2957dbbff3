"""A made-up machine for the checks: by default a Pi 5 on which all is well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from taskengine.config.settings import Settings
from taskengine.doctor.observation import Case, Chip, EngineAnswer, Space
from taskengine.doctor.operation import ROOMS

ADDRESS = "tcp://127.0.0.1:9000"
HARDWARE = {"devices": {"pan": {"type": "AngularServo", "pin": 18}}}
SERVICE = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nNRestarts=0\nResult=success\n"


class MadeUp:
    """A machine of dictionaries: what is not in them does not exist."""

    def __init__(self, **parts: Any) -> None:
        self.texts: Mapping[str, str] = {
            "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0",
            "/proc/cmdline": "console=tty1 root=PARTUUID=1",
            "/etc/group": "gpio:x:993:pi\ndialout:x:20:\n",
            "/sys/class/thermal/thermal_zone0/temp": "48300\n",
            "/home/pi/robot/taskengine.toml": "",
        }
        self.devices = ["gpiochip0", "i2c-1", "spidev0.0", "ttyAMA0"]
        self.closed: set[str] = set()
        self.groups: Mapping[str, str] = {
            "/dev/gpiochip0": "gpio",
            "/dev/i2c-1": "i2c",
            "/dev/spidev0.0": "spi",
            "/dev/ttyAMA0": "dialout",
        }
        self.commands: Mapping[tuple[str, ...], str] = {
            ("vcgencmd", "get_throttled"): "throttled=0x0\n",
            ("date", "+%s"): "1796000000\n",
            ("date", "+%Y-%m-%d"): "1970-01-01\n",
            ("timedatectl", "show"): "NTP=yes\nNTPSynchronized=yes\n",
            ("systemctl", "show", "taskengine"): SERVICE,
        }
        self.chips: Mapping[str, Chip] = {"/dev/gpiochip0": Chip("pinctrl-rp1", 54)}
        self.rooms: Mapping[str, Space] = {
            path: Space(2**33, 2**35) for path in ("/home/pi/robot", *(room[0] for room in ROOMS))
        }
        self.taken: Mapping[int, str] = {}
        self.versions: Mapping[str, str] = {
            "pyzmq": "27.3.0",
            "msgspec": "0.23.0",
            "click": "8.5.1",
            "rich": "15.0.0",
            "gpiozero": "2.0.1.post3",
            "lgpio": "0.2.2.0",
            "smbus2": "0.6.1",
        }
        self.failures: Mapping[str, str] = {}
        self.running: dict[int, str] = {1: "systemd"}
        self.holders: list[int] = []
        for name, part in parts.items():
            before = getattr(self, name)
            setattr(self, name, {**before, **part} if isinstance(before, Mapping) and part else part)

    def text(self, path: str) -> str | None:
        return self.texts.get(path)

    def names(self, folder: str) -> list[str]:
        return sorted(self.devices) if folder == "/dev" else []

    def may_use(self, path: str) -> bool:
        return path not in self.closed

    def group_of(self, path: str) -> str:
        return self.groups.get(path, "root")

    def run(self, *command: str) -> str | None:
        return self.commands.get(command)

    def chip(self, path: str) -> Chip | None:
        return self.chips.get(path)

    def space(self, path: str) -> Space | None:
        return self.rooms.get(path)

    def refusal(self, host: str, port: int) -> str:
        return self.taken.get(port, "")

    def version(self, distribution: str) -> str | None:
        return self.versions.get(distribution)

    def failure(self, module: str) -> str:
        return self.failures.get(module, "")

    def processes(self) -> dict[int, str]:
        return self.running

    def pin_holders(self) -> list[int]:
        return self.holders


def case(settings: Mapping[str, Any] | None = None, **known: Any) -> Case:
    """An engine that runs and answers, with a servo on GPIO18, but for what is given."""
    sound = Case(
        settings=Settings(**{"hardware": HARDWARE, **(settings or {})}),
        reply=EngineAnswer(ADDRESS, 0.0004, is_ours=True, release="0.2.0"),
        devices={18: "pan (AngularServo, lane hardware)"},
    )
    return msgspec.structs.replace(sound, **known)


def idle(why: str = "nobody answers") -> EngineAnswer:
    """No engine runs."""
    return EngineAnswer(ADDRESS, why=why)
