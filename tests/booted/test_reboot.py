"""An installed service comes back with the machine, after a power cut too."""

from __future__ import annotations

from pathlib import Path

from tests.booted.machine import USER, BootedMachine
from tests.booted.robot import make_robot, moves_a_servo
from tests.engine import wait_until


def test_it_serves_again_when_the_machine_boots_after_a_power_cut(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with BootedMachine(tmp_path / "before", disk) as machine:
        make_robot(machine)
        installed = machine.taskengine("service", "install", "--user", USER, "--yes")
        assert installed.returncode == 0, installed.stderr
        assert moves_a_servo(machine)
    with BootedMachine(tmp_path / "after", disk) as machine:
        wait_until(lambda: machine.shown()["ActiveState"] == "active", 30, "the service, which nobody starts")
        assert machine.shown()["NRestarts"] == "0"
        assert moves_a_servo(machine)
        assert machine.taskengine("service", "remove", "--yes").returncode == 0
    with BootedMachine(tmp_path / "at last", disk) as machine:
        assert machine.shown()["LoadState"] == "not-found"
