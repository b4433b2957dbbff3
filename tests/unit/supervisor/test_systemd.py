from __future__ import annotations

import configparser
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine.cli.main import UNIT
from taskengine.config.settings import Settings
from taskengine.runtime.intervals import IMPORT_TIMEOUT_S
from taskengine.supervisor import supervisor, systemd
from taskengine.supervisor.systemd import Notifier, Watchdog, watchdog_limit
from tests.engine import deadline

NEVER = float("inf")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(deadline(5))
        yield receiver


@pytest.fixture
def said() -> list[str]:
    """Return the notifier's lines on the terminal."""
    return []


def notifier(address: str, said: list[str], limit: float = NEVER) -> Notifier:
    return Notifier(address, Watchdog(limit), said.append)


def test_messages_are_those_of_the_manual() -> None:
    assert systemd.ready(42, "Serving 4 tasks\non tcp://[::1]:9000") == (
        "READY=1\nMAINPID=42\nSTATUS=Serving 4 tasks on tcp://[::1]:9000"
    )
    assert systemd.reloading(12.3456789) == "RELOADING=1\nMONOTONIC_USEC=12345678"
    assert systemd.stopping(11.5) == "STOPPING=1\nEXTEND_TIMEOUT_USEC=11500000"


@pytest.mark.parametrize(
    ("usec", "watched", "limit"),
    [
        ("30000000", None, 30.0),
        ("30000000", "42", 30.0),
        ("500", "42", 0.0005),
        ("30000000", "43", NEVER),
        ("30000000", "", NEVER),
        ("30000000", "me", NEVER),
        (None, None, NEVER),
        (None, "42", NEVER),
        ("", None, NEVER),
        ("0", None, NEVER),
        ("-1", None, NEVER),
        ("1e6", None, NEVER),
        ("1_000", None, NEVER),
        ("\u0663", None, NEVER),
        (str(systemd.USEC_INFINITY), None, NEVER),
        ("9" * 10000, None, NEVER),
    ],
)
def test_whom_the_watchdog_watches(usec: str | None, watched: str | None, limit: float) -> None:
    assert watchdog_limit(usec, watched, 42) == limit


def test_beats_are_due_every_half_of_the_limit_from_the_start_on() -> None:
    watchdog = Watchdog(10.0)
    assert (watchdog.due, watchdog.beat(1e9)) == (NEVER, False)
    watchdog.start(100.0)
    assert watchdog.due == 105.0
    assert [now for now in range(100, 121) if watchdog.beat(now)] == [105, 110, 115, 120]


def test_a_late_beat_moves_the_next() -> None:
    watchdog = Watchdog(10.0)
    watchdog.start(0.0)
    assert [watchdog.beat(now) for now in (9.0, 10.0, 13.9, 14.0)] == [True, False, False, True]


def test_without_a_limit_nothing_is_ever_due() -> None:
    watchdog = Watchdog(NEVER)
    watchdog.start(5.0)
    assert (watchdog.due, watchdog.beat(1e9)) == (NEVER, False)


def test_the_variables_are_taken_out_of_the_environment(manager: socket.socket, said: list[str]) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "10", "WATCHDOG_PID": "42", "HOME": "/"}
    taken = Notifier.take(environ, 42, said.append)
    assert environ == {"HOME": "/"}
    taken.start(0.0, "READY=1")
    assert taken.due == 5e-6
    assert manager.recv(100) == b"READY=1"


def test_variables_of_a_watchdog_alone_mean_nothing(said: list[str]) -> None:
    environ = {"WATCHDOG_USEC": "10"}
    taken = Notifier.take(environ, 42, said.append)
    taken.start(0.0, "READY=1")
    assert (environ, taken.due, said) == ({}, NEVER, [])


def test_a_child_does_not_inherit_what_was_taken(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    Notifier.take(os.environ, os.getpid(), said.append)
    with os.popen("env") as child:
        assert "NOTIFY_SOCKET" not in child.read()


def test_it_beats_when_due_and_only_alive(manager: socket.socket, said: list[str]) -> None:
    told = notifier(manager.getsockname(), said, limit=10.0)
    told.start(0.0, "READY=1")
    for now, alive in ((4.0, True), (5.0, False), (6.0, True), (10.0, True)):
        told.beat(now, alive=alive)
    told.tell("STOPPING=1")
    assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]
    assert told.due == 15.0, "who is not alive is asked again later, not at once"


def test_abstract_names(said: list[str]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0taskengine-test-{os.getpid()}")
        receiver.settimeout(deadline(5))
        notifier(f"@taskengine-test-{os.getpid()}", said).tell("READY=1")
        assert receiver.recv(100) == b"READY=1"
    assert said == []


def test_without_a_manager_it_does_nothing(said: list[str]) -> None:
    told = notifier("", said)
    told.tell("READY=1")
    assert said == []


@pytest.mark.parametrize("address", ["missing", "x" * 200, "closed", "stream", "@", "vsock:2:1", "relative"])
def test_a_socket_that_is_no_good_is_one_line(tmp_path: Path, said: list[str], address: str) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as closed,
    ):
        stream.bind(str(tmp_path / "stream"))
        closed.bind(str(tmp_path / "closed"))
        closed.close()
        address = address if address[0] in "@vr" else str(tmp_path / address)
        told = notifier(address, said, limit=10.0)
        told.start(0.0, "READY=1")
        told.beat(5.0, alive=True)
    (line,) = said
    assert line.startswith(f"[SUPERVISOR] Cannot notify systemd at NOTIFY_SOCKET={address}: ")
    assert len(line.splitlines()) == 1


def test_a_manager_that_reads_nothing_is_waited_for_once(
    manager: socket.socket, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "SEND_TIMEOUT_S", 0.01)
    waiting = fill(manager)
    told = notifier(manager.getsockname(), said)
    told.tell("READY=1")
    assert "timed out" in said[0]
    monkeypatch.setattr(systemd, "SEND_TIMEOUT_S", -1.0)  # a ValueError for whoever waits so long
    told.tell("READY=1")
    assert len(said) == 1
    assert [manager.recv(100) for _ in range(waiting)] == [b"x"] * waiting
    told.tell("STOPPING=1")
    assert manager.recv(100) == b"STOPPING=1"


def fill(manager: socket.socket) -> int:
    """Send as many messages as the socket's queue takes; their number."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        for number in itertools.count():
            try:
                other.sendto(b"x", manager.getsockname())
            except BlockingIOError:
                return number
    raise AssertionError


def test_the_units_limits_leave_the_engine_its_time() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    service = parser["Service"]
    assert (service["Type"], service["KillMode"], service["Restart"]) == ("notify", "mixed", "on-failure")
    ending = 3 * supervisor.STOP_TIMEOUT_S + supervisor.LAST_LINES_S
    assert float(service["TimeoutStopSec"]) > Settings().drain_time + ending
    assert float(service["TimeoutStartSec"]) > IMPORT_TIMEOUT_S + 2 * supervisor.START_TIMEOUT_S


def test_the_unit_has_limits_and_goes_before_other_services() -> None:
    unit = dict(directives())
    assert unit["MemoryMax"] == "80%"
    assert int(unit["TasksMax"]) == 1024
    assert int(unit["CPUWeight"]) > 100, "the weight of a service that says nothing"


def directives() -> list[tuple[str, str]]:
    """Every line of the unit, as a key and a value."""
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=") for line in lines if line and line[0] not in "#["]
    return [(key, value) for key, _, value in pairs]


SANDBOX = {
    "User": "taskengine",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "StateDirectory": "taskengine",
    "StateDirectoryMode": "0700",
    "UMask": "0077",
    "DevicePolicy": "closed",
    "MemoryDenyWriteExecute": "yes",
    "RestrictNamespaces": "yes",
    "SystemCallErrorNumber": "EPERM",
}
DEVICES = {
    "gpiochip",
    "/dev/gpiomem",
    "/dev/watchdog",
    "watchdog",
    "pwm",
    "i2c",
    "spi",
    "ttyAMA",
    "ttyS",
    "ttyUSB",
    "ttyACM",
}


def test_the_units_sandbox_is_shut_but_for_what_a_robot_needs() -> None:
    assert SANDBOX.items() <= dict(directives()).items()
    devices = [value for key, value in directives() if key == "DeviceAllow"]
    assert {device.removeprefix("char-") for device in devices} == {f"{name} rw" for name in DEVICES}
    families = dict(directives())["RestrictAddressFamilies"].split()
    assert families == ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"]
    assert [value for key, value in directives() if key == "SystemCallFilter"] == ["@system-service", "~@privileged"]
    # what would take the pins, the PWM below /sys, or what gpiozero reads of /proc
    assert {"PrivateDevices", "ProtectKernelTunables", "ProcSubset"}.isdisjoint(dict(directives()))


def test_systemd_itself_understands_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        assert all(re.fullmatch("[A-Z][A-Za-z0-9]+", key) for key, _ in directives())
        return
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/taskengine/bin/taskengine", "/bin/true"))
    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    complaints = [line for line in verified.stderr.splitlines() if str(unit) in line or UNIT.name in line]
    assert (verified.returncode, complaints) == (0, [])


def test_nothing_of_ours_makes_code_at_run_time() -> None:
    """As MemoryDenyWriteExecute= refuses it; the kernel's own refusal is asked for, where it has one (Linux 6.3)."""
    refuse = (
        "import ctypes; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); import sys; from taskengine.cli.main import main; "
    )
    command = [sys.executable, "-c", f"{refuse} sys.argv[1:] = ['check']; main()"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=deadline(30), check=False)
    assert checked.returncode == 0, checked.stderr
    assert "task task_count" in checked.stdout
