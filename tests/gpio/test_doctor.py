"""`taskengine doctor` on a machine with a gpiochip: its label, and who has the pins that the settings name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from taskengine.config.loading import load
from taskengine.doctor.observation import Chip
from taskengine.doctor.this_machine import ThisMachine
from taskengine_hardware import backends, read
from taskengine_hardware.chips import find_chip
from tests.system.test_cli_output import run

ROBOT = """
[hardware]
board = "a020d3"
[hardware.devices.lamp]
type = "LED"
pin = 17
"""


def rows(folder: Path) -> dict[str, Any]:
    return {row["check"]: row for row in json.loads(run(folder, "doctor", "--json").stdout)}


def test_the_label_and_the_holder_of_a_pin(tmp_path: Path) -> None:
    backends.warm_up("lgpio")
    chips = {name: ThisMachine().chip(f"/dev/{name}") for name in os.listdir("/dev") if name.startswith("gpiochip")}
    assert chips == {"gpiochip0": Chip("brcmvirt-gpio", 8), "gpiochip1": Chip("pinctrl-bcm2835", 54)}
    assert [find_chip(wanted) for wanted in (None, "pinctrl-bcm2835", "brcmvirt-gpio", 7)] == [1, 1, 0, 7]
    tmp_path.chmod(0o755)
    (tmp_path / "taskengine.toml").write_text(ROBOT)
    settings = load(tmp_path / "taskengine.toml", {}, {})
    free = rows(tmp_path)
    assert "pinctrl-bcm2835 (54 lines); the header is a Pi 0 to 3's" in free["gpiochip"]["found"]
    assert (free["pins"]["state"], free["pins"]["found"]) == ("ok", "1 named, and all are free")
    factory = backends.lgpio(read(settings.hardware))
    try:
        factory.pin(17).claim(False, False)
        held = rows(tmp_path)["pins"]
        assert held["state"] == "wrong"
        assert f"[{os.getpid()}]" in held["found"]
        assert "GPIO17" in held["found"]
    finally:
        factory.close()
