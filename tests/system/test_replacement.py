"""A robot that gets a new SD card, and a laptop that was stolen: with the commands that a user types."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taskengine import Client, NotAllowed, TaskTimeout
from tests.engine import Engine, deadline

pytestmark = pytest.mark.system


def keys(*arguments: str, folder: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run `taskengine keys` for the keys in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "taskengine", "keys", *arguments, "--keys", str(folder)],
        input=given,
        capture_output=True,
        text=True,
        timeout=deadline(60),
        check=False,
        cwd=folder.parent,
    )


def pair(robot: Path, laptop: Path, name: str, address: str) -> None:
    line = keys("pair", name, "--line", "--address", address, folder=robot).stdout
    assert keys("accept", folder=laptop, given=line).returncode == 0


def test_a_new_card_is_the_same_robot_and_a_stolen_laptop_is_cut_off(tmp_path: Path) -> None:
    old, new, laptop, other = (tmp_path / name for name in ("old", "new", "laptop", "other"))
    file = tmp_path / "robot.keys"
    with Engine(curve="on", keys=old) as engine:
        pair(old, laptop, "laptop", engine.address)
        pair(old, other, "other", engine.address)
        with Client(engine.address, keys=laptop, timeout=deadline(20)) as client:
            assert client.call("task_count", 2, 3) == 2.5
        exported = keys("export", str(file), "--passphrase", "--json", folder=old, given="hush\n")
        told = json.loads(exported.stdout)
        assert (told["clients"], told["engine"] is None) == (["laptop", "other"], False)
        assert (file.stat().st_mode & 0o777, exported.stderr) == (0o600, "")
        assert keys("export", str(file), folder=old).returncode == 2
        noted = [json.loads(line)["event"] for line in (old / "audit.jsonl").read_text().splitlines()]
        assert noted.count("keys export") == 1  # the engine notes the keys that it has read meanwhile
        settings = engine.settings
    assert keys("import", str(file), folder=new, given="wrong\n").returncode == 2
    assert keys("import", str(file), folder=new, given="hush\n").returncode == 0
    with Engine(**{**settings, "keys": new}) as again:
        with Client(again.address, keys=laptop, timeout=deadline(20)) as client:
            assert client.call("task_count", 2, 3) == 2.5
        is_cut_off_within_a_second(again, new, laptop, other)


def may_call(client: Client) -> bool:
    try:
        client.options(timeout=deadline(0.5)).call("task_count", 2, 3)
    except TaskTimeout:  # what was in flight when its key was revoked gets no answer
        return may_call(client)
    except NotAllowed:
        return False
    return True


def is_cut_off_within_a_second(engine: Engine, robot: Path, laptop: Path, other: Path) -> None:
    """Revoke the laptop's key by the command, while the laptop calls, waits and subscribes on open connections."""
    with (
        Client(engine.address, keys=laptop, timeout=deadline(20)) as stolen,
        Client(engine.address, keys=other, timeout=deadline(20)) as kept,
        stolen.subscribe("drive") as feed,
    ):
        kept.publish("drive", 1)
        assert feed.get(deadline(20)).value == 1
        assert stolen.call("task_count", 2, 3) == 2.5
        assert keys("revoke", "laptop", folder=robot).returncode == 0
        revoked = time.monotonic()
        while may_call(stolen):
            assert time.monotonic() - revoked < deadline(1.0), "it still may"
        time.sleep(max(0.0, revoked + deadline(1.0) - time.monotonic()))
        kept.publish("drive", 2)
        with pytest.raises(TaskTimeout):
            feed.get(0.5)
        assert kept.call("task_count", 2, 3) == 2.5
        stolen.close(0.0)
    assert '"event":"key revoked","client":"laptop"' in (robot / "audit.jsonl").read_text()


def test_a_passphrase_on_a_terminal_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    robot, file = tmp_path / "robot", tmp_path / "robot.keys"
    keys("show", folder=robot)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "taskengine", "keys", "export", str(file), "--passphrase", "--keys", str(robot)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path) as process:
        os.close(theirs)
        seen = b""
        for answer in (b"hush\n", b"hush\n"):
            count = seen.count(b": ")
            while seen.count(b": ") == count:
                seen += os.read(ours, 1024)
            os.write(ours, answer)
        assert process.wait(deadline(30)) == 0
    os.close(ours)
    assert b"hush" not in seen
    assert keys("import", str(file), folder=tmp_path / "new", given="hush\n").returncode == 0
