"""What the checks get from the machine that we run on, and what it tells of things that are not there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from taskengine.doctor import this_machine
from taskengine.doctor.observation import Surroundings
from taskengine.doctor.this_machine import CHIP_INFO, ThisMachine
from tests.engine import free_ports
from tests.unit.doctor.made_up import MadeUp

HERE: Surroundings = ThisMachine()
BOTH: tuple[Surroundings, ...] = (HERE, MadeUp())


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"Raspberry Pi 5\0")
    assert HERE.text(str(file)) == "Raspberry Pi 5"
    assert HERE.names(str(tmp_path)) == ["model"]
    assert HERE.may_use(str(file))
    assert HERE.group_of("/etc/passwd") == "root"
    space = HERE.space(str(tmp_path))
    assert space is not None
    assert 0 < space.free <= space.total


def test_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    nothing = str(tmp_path / "nothing")
    for around in BOTH:
        assert around.text(nothing) is None
        assert around.names(nothing) == []
        assert around.space(nothing) is None
        assert around.chip(nothing) is None
        assert around.run("no-such-command") is None
        assert around.version("no-such-distribution") is None
    assert not HERE.may_use(nothing)
    assert HERE.group_of(nothing) == ""


def test_commands() -> None:
    told = HERE.run("date", "+%s")
    assert told is not None
    assert told.strip().isdigit()
    assert HERE.run("false") is None


def test_a_command_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_machine, "COMMAND_S", 0.05)
    assert HERE.run("sleep", "60") is None


def test_a_command_of_a_folder_in_path_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vcgencmd-of-mine").write_text("#!/bin/sh\necho mine\n")
    (tmp_path / "vcgencmd-of-mine").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert HERE.run("vcgencmd-of-mine") is None


def test_ports() -> None:
    port = free_ports(1)
    assert HERE.refusal("127.0.0.1", port) == ""
    with socket.create_server(("127.0.0.1", port)):
        assert HERE.refusal("127.0.0.1", port) == "Address already in use"
    assert "assign" in HERE.refusal("192.0.2.1", port)


def test_python() -> None:
    assert HERE.version("msgspec") is not None
    assert HERE.failure("taskengine._socket") == ""
    assert "no_such" in HERE.failure("taskengine.no_such")


def test_processes() -> None:
    assert HERE.processes()[os.getpid()]
    assert os.getpid() not in HERE.pin_holders()


def test_a_file_that_is_no_gpiochip_is_none() -> None:
    """The size is that of the kernel's struct."""
    assert CHIP_INFO.size == 68
    assert HERE.chip("/dev/null") is None
