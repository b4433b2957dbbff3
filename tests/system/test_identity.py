"""An engine that root starts for another user; where the tests are not run by root, that it refuses to."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine import Client
from tests.engine import Engine, alive, deadline, wait_until

pytestmark = pytest.mark.system
ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")
SERVE = [sys.executable, "-m", "taskengine", "serve"]
ROBOT = """
import os
from taskengine import task

AT_IMPORT = os.getresuid()

@task
def who():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    rights = [status[name].strip() for name in ("NoNewPrivs", "CapEff")]
    return [AT_IMPORT, os.getresuid(), os.getresgid(), os.getgroups(), *rights]
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a task module that every user may enter, which those of pytest are not."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    (path / "robot.py").write_text(ROBOT)
    yield path
    shutil.rmtree(path)


def refusal(*flags: str) -> str:
    """The one line of an engine that does not start."""
    done = subprocess.run([*SERVE, *flags], capture_output=True, text=True, timeout=deadline(30), check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    return line


def status(pid: int, name: str) -> list[str]:
    """A line of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.split()
    raise AssertionError(name)


def test_every_process_gains_no_rights(folder: Path) -> None:
    with Engine(tasks=folder / "robot.py") as engine:
        assert len(engine.pids()) == 4
        assert {tuple(status(pid, "NoNewPrivs")) for pid in engine.pids()} == {("1",)}


def test_who_is_not_root_cannot_become_another(folder: Path) -> None:
    if not ROOT:
        assert "only root can become nobody" in refusal("--user", "nobody")
        return
    (folder / "serve.py").write_text(
        "import os, sys\nimport taskengine.supervisor.supervisor\nfrom taskengine.cli.main import main\n"
        f"os.setgroups([])\nos.setgid({NOBODY.pw_gid})\nos.setuid({NOBODY.pw_uid})\n"
        "sys.argv[1:] = ['serve', '--user', 'daemon']\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "serve.py"], cwd=folder, capture_output=True, text=True, timeout=deadline(30), check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "only root can become daemon" in done.stderr


def test_an_unknown_user_is_named() -> None:
    assert "there is no 'no-such-user'" in refusal("--user", "no-such-user")


def test_every_process_but_the_supervisor_gives_root_up(folder: Path) -> None:
    if not ROOT:
        assert "only root can become nobody" in refusal("--user", "nobody", "--tasks", str(folder / "robot.py"))
        return
    with Engine(user="nobody", group="daemon", tasks=folder / "robot.py") as engine:
        own = [str(NOBODY.pw_uid)] * 4, ["1"] * 4
        for pid in engine.pids():
            assert (status(pid, "Uid"), status(pid, "Gid")) == own
            assert int(status(pid, "CapEff")[0], 16) == 0
            look = ["/bin/cat", f"/proc/{pid}/environ"]
            looked = subprocess.run(look, user="nobody", group="daemon", capture_output=True, check=False)
            assert looked.returncode != 0, "what holds keys is shut to other processes of its user"
        with Client(engine.address, timeout=deadline(20)) as client:
            nobody, groups = (NOBODY.pw_uid,) * 3, sorted({1, *os.getgrouplist("nobody", 1)})
            assert client.call("who") == [nobody, nobody, (1,) * 3, groups, "1", "0" * 16]
            client.reload()
            assert client.call("who")[0] == nobody
        for pid in engine.pids("task"):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(engine.pids("task")) == 2, 10, "new workers")
        assert status(engine.pids("task")[0], "Uid") == own[0]
        pids = engine.pids()
        engine.process.kill()
        wait_until(
            lambda: not any(map(alive, pids)), 5, "the end of all, which the kernel sees to after the change of user"
        )


def test_the_keys_have_to_be_the_users(folder: Path) -> None:
    keys = folder / "keys"
    pair = [sys.executable, "-m", "taskengine", "keys", "pair", "laptop", "--line", "--keys", str(keys)]
    accept = [sys.executable, "-m", "taskengine", "keys", "accept", "--keys", str(folder / "mine")]
    if not ROOT:
        assert "only root can become nobody" in refusal("--user", "nobody", "--curve", "on", "--keys", str(keys))
        return
    subprocess.run(pair, capture_output=True, check=True)
    line = refusal("--user", "nobody", "--curve", "on", "--keys", str(keys))
    assert f"run `chown -R nobody {keys}`" in line
    subprocess.run(["chown", "-R", "nobody", keys], check=True)
    (keys / "clients" / "laptop.json").unlink()
    with Engine(user="nobody", curve="on", keys=keys, tasks=folder / "robot.py") as engine:
        made = subprocess.run([*pair, "--address", engine.address], capture_output=True, text=True, check=True)
        assert (keys / "clients" / "laptop.json").stat().st_uid == NOBODY.pw_uid, "root keeps the files the user's"
        subprocess.run(accept, input=made.stdout, text=True, capture_output=True, check=True)
        with Client(engine.address, keys=folder / "mine", timeout=deadline(20)) as client:
            assert client.call("who")[1] == (NOBODY.pw_uid,) * 3
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(deadline(20)) == 0
