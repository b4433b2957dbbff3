"""Pairing two machines by a code, with the commands that a user types."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine import Client
from taskengine.security.keys import KeyRing
from tests.engine import Engine, deadline, free_ports

pytestmark = pytest.mark.system
KEYS = [sys.executable, "-m", "taskengine", "keys"]
Command = subprocess.Popen[str]


@contextlib.contextmanager
def pairing(robot: Path, port: int, name: str = "laptop") -> Iterator[tuple[Command, str]]:
    """`keys pair` that waits, and the code that it shows."""
    command = [*KEYS, "pair", name, "--port", str(port), "--keys", str(robot)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def accept(laptop: Path, said: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*KEYS, "accept", *arguments, "--keys", str(laptop)]
    return subprocess.run(command, input=said, capture_output=True, text=True, timeout=deadline(60), check=False)


def test_a_code_lets_a_client_in_and_no_secret_travels(tmp_path: Path) -> None:
    robot, laptop, port = tmp_path / "robot", tmp_path / "laptop", free_ports(1)
    with Engine(curve="on", keys=robot) as engine:
        with pairing(robot, port) as (process, code):
            done = accept(laptop, f"{code}\n", engine.address, "--port", str(port))
            assert done.stdout == f"{engine.address} knows this machine as laptop\n", done.stderr
            assert process.wait(deadline(20)) == 0
        with Client(engine.address, keys=laptop, timeout=deadline(20)) as client:
            assert client.call("task_count", 2, 3) == 2.5
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    (membership,) = KeyRing(laptop).memberships()
    kept = b"".join(path.read_bytes() for path in robot.rglob("*") if path.is_file())
    assert membership.own.public.encode() in kept
    assert membership.own.secret.encode() not in kept
    lines = [json.loads(line) for line in (robot / "audit.jsonl").read_text().splitlines()]
    assert ("keys pair", "laptop") in [(line["event"], line.get("client")) for line in lines]


def test_three_wrong_tries_end_it(tmp_path: Path) -> None:
    robot, port, address = tmp_path / "robot", free_ports(1), "tcp://127.0.0.1:9"
    with pairing(robot, port) as (process, code):
        wrong = "".join(str((int(digit) + 1) % 10) for digit in code if digit.isdigit())
        for left in (2, 1, 0):
            done = accept(tmp_path / "thief", wrong, address, "--port", str(port))
            assert (done.returncode, f"{left} more tries" in done.stderr) == (1, True), done.stderr
        assert process.wait(deadline(20)) == 1
        assert process.stderr is not None
        assert "0 more tries" in process.stderr.read().splitlines()[-1]
        late = accept(tmp_path / "late", code, address, "--port", str(port))
        assert (late.returncode, "waits for the code while it is valid" in late.stderr) == (1, True)
    assert KeyRing(robot).allowed() == {}
    assert KeyRing(tmp_path / "thief").memberships() == []
    events = [json.loads(line)["event"] for line in (robot / "audit.jsonl").read_text().splitlines()]
    assert events == ["keys code refused"] * 3


def test_whoever_only_connects_keeps_nobody_out_and_costs_no_try(tmp_path: Path) -> None:
    port = free_ports(1)
    with pairing(tmp_path / "robot", port) as (process, code), contextlib.ExitStack() as strangers:
        for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", b"{}\n", b"x" * 100_000, b'{"part":"AAAA"}\n'):
            stranger = strangers.enter_context(socket.create_connection(("127.0.0.1", port), deadline(20)))
            with contextlib.suppress(OSError):
                stranger.sendall(garbage)
        done = accept(tmp_path / "laptop", code, "tcp://127.0.0.1:9", "--port", str(port))
        assert done.returncode == 0, done.stderr
        assert process.wait(deadline(20)) == 0


def test_a_name_or_a_port_that_is_taken_shows_no_code(tmp_path: Path) -> None:
    robot = tmp_path / "robot"
    KeyRing(robot).pair("laptop", "tcp://robot:9000")
    command = [*KEYS, "pair", "--keys", str(robot)]
    taken = subprocess.run([*command, "laptop"], capture_output=True, text=True, check=False, timeout=deadline(30))
    assert (taken.returncode, taken.stdout) == (2, "")
    assert "keys revoke laptop" in taken.stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        busy = subprocess.run(
            [*command, "desk", "--port", port], capture_output=True, text=True, check=False, timeout=deadline(30)
        )
    assert (busy.returncode, busy.stdout) == (1, "")
    assert f"cannot listen on 127.0.0.1:{port}" in busy.stderr


def test_the_long_line_comes_from_stdin_and_never_from_the_arguments(tmp_path: Path) -> None:
    line = KeyRing(tmp_path / "robot").pair("laptop", "tcp://robot:9000")
    refused = accept(tmp_path / "laptop", "", line)
    assert (refused.returncode, "every user of this machine" in refused.stderr) == (2, True)
    assert not (tmp_path / "laptop" / "engines").exists()
    assert accept(tmp_path / "laptop", line).stdout == "tcp://robot:9000 knows this machine as laptop\n"
    printed = subprocess.run(
        [*KEYS, "pair", "desk", "--line", "--keys", str(tmp_path / "robot")], capture_output=True, text=True, check=True
    )
    assert "holds the client's secret key" in printed.stderr
