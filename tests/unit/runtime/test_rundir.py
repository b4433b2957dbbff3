from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import pytest

from taskengine.runtime.rundir import BACKEND, FRONTEND, LONGEST_PATH, RunDir, nearest

ADDRESS = "tcp://127.0.0.1:9000"


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path_factory.mktemp("r")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    return base


def listen(rundir: RunDir) -> socket.socket:
    """A socket where the frontend's would be."""
    path = rundir.address(FRONTEND)
    assert path is not None
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path.removeprefix("ipc://"))
    listener.listen(1)
    return listener


def test_only_its_user_gets_in_and_it_is_gone_when_closed(base: Path) -> None:
    rundir = RunDir("127.0.0.1", 9000)
    (folder,) = base.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert rundir.address(BACKEND) == f"ipc://{folder}/backend"
    rundir.close()
    rundir.close()
    assert list(base.iterdir()) == []
    assert rundir.address(BACKEND) is None


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", ADDRESS),
        ("127.0.0.1", "tcp://localhost:9000"),
        ("0.0.0.0", ADDRESS),
        ("::1", "tcp://[::1]:9000"),
        ("::", "tcp://[::1]:9000"),
    ],
)
def test_a_client_here_finds_the_socket(base: Path, host: str, address: str) -> None:
    rundir = RunDir(host, 9000)
    assert nearest(address) == address, "the engine does not listen yet"
    with listen(rundir):
        assert nearest(address) == rundir.address(FRONTEND)
        for other in ("tcp://127.0.0.1:9001", "tcp://192.168.0.9:9000", "ipc:///x", "tcp://robot.local:9000", "foo"):
            assert nearest(other) == other
    rundir.close()


def test_a_folder_that_others_could_have_made_is_not_trusted(base: Path) -> None:
    rundir = RunDir("127.0.0.1", 9000)
    (folder,) = base.iterdir()
    with listen(rundir):
        folder.chmod(0o755)
        assert nearest(ADDRESS) == ADDRESS
        folder.chmod(0o700)
        folder.rename(base / "elsewhere")
        folder.symlink_to(base / "elsewhere")
        assert nearest(ADDRESS) == ADDRESS
    rundir.close()


def test_what_a_killed_engine_left_is_not_used_and_swept(base: Path) -> None:
    left = base / f"taskengine-{os.getuid()}-127.0.0.1-9000"
    living = base / f"taskengine-{os.getuid()}-127.0.0.1-9100"
    other = base / "taskengine-notes"
    for folder in (left, living, other):
        folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(left / FRONTEND))
        assert nearest(ADDRESS) == ADDRESS
    lock = os.open(living, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    rundir = RunDir("127.0.0.1", 9200)
    assert not left.exists()
    assert living.exists()
    assert other.exists()
    rundir.close()
    os.close(lock)


def test_what_a_task_forked_does_not_keep_the_folder(base: Path) -> None:
    read, write = os.pipe()
    ready, is_ready = os.pipe()
    supervisor = os.fork()
    if not supervisor:
        RunDir("127.0.0.1", 9000)
        if not os.fork():
            os.write(is_ready, b".")
            os.close(write)  # lives on until the test ends
            os.read(read, 1)
        os._exit(0)
    os.waitpid(supervisor, 0)
    assert os.read(ready, 1)
    rundir = RunDir("127.0.0.1", 9000)
    assert rundir.address(BACKEND) is not None
    rundir.close()
    for fd in (read, write, ready, is_ready):
        os.close(fd)


def test_a_full_backlog_is_a_living_engine(base: Path) -> None:
    rundir = RunDir("127.0.0.1", 9000)
    with listen(rundir):
        assert {nearest(ADDRESS) for _ in range(9)} == {rundir.address(FRONTEND)}
    rundir.close()


def test_where_there_can_be_no_socket_there_is_none(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = RunDir("127.0.0.1", 9000), RunDir("127.0.0.1", 9000)
    assert second.address(BACKEND) is None
    second.close()
    assert first.address(BACKEND) is not None
    first.close()
    deep = base / ("x" * LONGEST_PATH)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    rundir = RunDir("127.0.0.1", 9000)
    assert rundir.address(BACKEND) is None
    rundir.close()


@pytest.mark.parametrize("whose", ["the folder", "above it", "open to all"])
def test_a_folder_in_which_another_user_has_a_hand_is_not_used(
    base: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """XDG_RUNTIME_DIR is another user's after `su` and `sudo -E`."""
    theirs = base / "theirs"
    inner = theirs / "inner" if whose == "above it" else theirs
    inner.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(inner))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(inner))
    before = RunDir("127.0.0.1", 9000)
    assert before.address(BACKEND) == f"ipc://{inner}/taskengine-{os.geteuid()}-127.0.0.1-9000/backend"
    if whose == "open to all":
        theirs.chmod(0o777)
    else:
        os.chown(theirs, 65534, 65534)
    with listen(before):
        assert nearest(ADDRESS) == ADDRESS
        rundir = RunDir("127.0.0.1", 9100)
        assert rundir.address(BACKEND) is None
        assert rundir.listen(BACKEND) is None
        rundir.close()
        theirs.chmod(0o1777)
        os.chown(theirs, 0, 0)
        assert nearest(ADDRESS) == before.address(FRONTEND), "a sticky folder of root, as /tmp is"
    before.close()
