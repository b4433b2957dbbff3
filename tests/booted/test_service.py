"""`taskengine service` under a real systemd: start, SIGKILL, watchdog, boot, stop with pins, and removal."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted.machine import USER, BootedMachine
from tests.booted.robot import make_robot, moves_a_servo
from tests.engine import wait_until

UNITS = "/etc/systemd/system"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BootedMachine]:
    folder = tmp_path_factory.mktemp("booted")
    with BootedMachine(folder / "log", folder / "disk") as machine:
        make_robot(machine)
        yield machine


@pytest.fixture
def service(machine: BootedMachine) -> Iterator[BootedMachine]:
    installed = machine.taskengine("service", "install", "--user", USER, "--yes")
    assert installed.returncode == 0, installed.stderr
    yield machine
    removed = machine.taskengine("service", "remove", "--yes")
    assert removed.returncode == 0, removed.stderr


def test_it_serves_and_starts_with_the_machine(service: BootedMachine) -> None:
    assert moves_a_servo(service)
    status = service.taskengine("service", "status")
    assert status.returncode == 0
    assert "active (running)" in status.stdout
    assert "starts with the machine" in status.stdout
    wanted = service.run("systemctl", "list-dependencies", "--plain", "multi-user.target").stdout
    assert "taskengine.service" in wanted


def test_it_is_shut(service: BootedMachine) -> None:
    told = service.run("systemd-analyze", "security", "--no-pager", "taskengine").stdout
    (exposure,) = re.findall(r"Overall exposure level for .*?: ([\d.]+)", told)
    assert float(exposure) <= 2.5


def test_it_comes_back_after_sigkill_and_after_hanging(service: BootedMachine) -> None:
    for restarts, signal, seconds in (("1", "KILL", 30), ("2", "STOP", 60)):
        service.run("systemctl", "kill", "--kill-whom=main", f"--signal={signal}", "taskengine")

        def is_back(wanted: str = restarts) -> bool:
            shown = service.shown()
            return (shown["NRestarts"], shown["ActiveState"]) == (wanted, "active")

        wait_until(is_back, seconds, f"the service after SIG{signal}; it is {service.shown()}")
        assert moves_a_servo(service)


def test_it_stops_with_its_pins_and_leaves_no_process(service: BootedMachine) -> None:
    assert moves_a_servo(service)
    assert service.run("systemctl", "stop", "taskengine").returncode == 0
    shown = service.shown()
    assert (shown["ActiveState"], shown["Result"]) == ("inactive", "success")
    assert service.run("pgrep", "-u", USER).stdout == ""


NEXT = "/srv/next/bin/python"
"""The Python of another version, beside the one that is installed,"""
MAKE_NEXT = """
set -e
/srv/python/bin/python3 -m venv --without-pip --clear /srv/next
cd /srv/next/lib/python3*/site-packages
echo /srv/venv/lib/python3*/site-packages >installed.pth
echo "import sys; sys.exit(7) if sys.orig_argv[3:4] == ['{word}'] else None" >broken.pth
"""
"""which fails at a word in its command."""


def update(machine: BootedMachine, word: str) -> subprocess.CompletedProcess[str]:
    """Update the service to a version that fails at that word."""
    made = machine.run("sh", "-c", MAKE_NEXT.format(word=word))
    assert made.returncode == 0, made.stderr
    command = ["-m", "taskengine", "service", "install", "--user", USER, "--yes"]
    return machine.run(NEXT, *command, folder="/srv/robot")


def test_an_update_that_fails_leaves_the_old_version_running(service: BootedMachine) -> None:
    before = service.shown()
    done = update(service, "check")
    assert (done.returncode, "nothing was changed" in done.stderr) == (1, True), done
    assert service.shown()["MainPID"] == before["MainPID"]
    done = update(service, "serve")
    assert (done.returncode, "The unit before is back, and runs again" in done.stderr) == (1, True), done
    shown = service.shown()
    assert (shown["ActiveState"], shown["ExecStart"].split()[1]) == ("active", before["ExecStart"].split()[1])
    assert moves_a_servo(service)


def test_an_update_that_starts_replaces_the_version(service: BootedMachine) -> None:
    done = update(service, "nothing")
    assert done.returncode == 0, done.stderr
    shown = service.shown()
    assert (shown["ActiveState"], NEXT in shown["ExecStart"]) == ("active", True)
    assert moves_a_servo(service)


def test_a_service_that_cannot_start_is_told(machine: BootedMachine) -> None:
    machine.run("sh", "-c", "echo 'task_workers = 0' >/srv/robot/wrong.toml")
    done = machine.taskengine("service", "install", "--user", USER, "--yes", "--config", "wrong.toml")
    assert (done.returncode, "task_workers" in done.stderr) == (2, True)
    assert machine.shown()["LoadState"] == "not-found"


def test_nothing_of_it_is_left(machine: BootedMachine) -> None:
    before = machine.run("find", UNITS, "/var/lib", "-newer", "/srv/venv", "-path", "*taskengine*").stdout
    assert machine.taskengine("service", "install", "--user", USER, "--yes").returncode == 0
    assert "taskengine.service" in machine.run("find", UNITS).stdout
    assert machine.taskengine("service", "remove", "--yes").returncode == 0
    assert machine.run("find", UNITS, "/var/lib", "-newer", "/srv/venv", "-path", "*taskengine*").stdout == before
    assert machine.run("find", UNITS, "-name", "*taskengine*").stdout == ""
    assert machine.shown()["LoadState"] == "not-found"
    assert machine.taskengine("service", "status").returncode == 1


def test_the_log_of_the_boot_has_no_complaint_about_the_unit(machine: BootedMachine) -> None:
    text = Path(machine.log).read_text(errors="replace")
    assert not re.search(r"taskengine\.service:\d+: .*", text), text
