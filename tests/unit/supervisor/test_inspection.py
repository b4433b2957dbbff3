"""Facts about the machine: which users can change which files, and from which files tasks are loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zmq

from taskengine.config.settings import Settings
from taskengine.config.weaknesses import Facts
from taskengine.registry.modules import places
from taskengine.security.credentials import libzmq_version
from taskengine.supervisor.inspection import inspect


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with settings, tasks and keys that are nobody else's."""
    monkeypatch.chdir(tmp_path)
    for name in ("tasks", "keys", "keys/clients"):
        (tmp_path / name).mkdir(mode=0o700)
    for name in ("taskengine.toml", "tasks/arm.py"):
        (tmp_path / name).touch(mode=0o644)
    return tmp_path


def found() -> Facts:
    return inspect(Settings(tasks=["tasks"], keys="keys"), None, None, 3)


def test_a_tidy_folder_is_sound(folder: Path) -> None:
    facts = found()
    assert (facts.keys, facts.config, facts.tasks, facts.clients) == ((), (), (), 3)
    assert facts.is_root == (os.geteuid() == 0)
    assert facts.libzmq == libzmq_version() == zmq.zmq_version_info()


@pytest.mark.parametrize("mode", [0o002, 0o020])
def test_what_others_can_write_is_found(folder: Path, mode: int) -> None:
    (folder / "taskengine.toml").chmod(0o644 | mode)
    (folder / "tasks" / "arm.py").chmod(0o644 | mode)
    assert found().config == (str(folder / "taskengine.toml"),)
    assert found().tasks == (str(folder / "tasks" / "arm.py"),)


def test_so_is_a_folder_where_others_can_put_files(folder: Path) -> None:
    (folder / "tasks").chmod(0o777)
    assert found().tasks == (str(folder / "tasks"),)
    (folder / "tasks").chmod(0o1777)
    assert found().tasks == (str(folder / "tasks"),), "what is added to it is loaded"
    (folder / "tasks").chmod(0o700)
    folder.chmod(0o1777)
    assert found().tasks == found().config == (), "in a sticky folder nobody replaces what is another's"
    folder.chmod(0o777)
    assert found().config == (str(folder),)


@pytest.mark.parametrize("name", ["keys", "keys/clients"])
def test_keys_that_others_can_see_are_found(folder: Path, name: str) -> None:
    (folder / name).chmod(0o750)
    assert found().keys == (str(Path("keys") / Path(name).relative_to("keys")),)


def test_files_of_a_third_user_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    strangers = os.getuid() != 0
    assert bool(found().tasks) == bool(found().config) == strangers, "root's files are trusted"


def test_the_tasks_that_stop_a_machine_are_known(folder: Path) -> None:
    devices = {"lamp": {"type": "LED", "pin": 17}, "hip": {"type": "Servo", "pin": 18, "lane": "legs"}}
    settings = Settings(tasks=["tasks"], keys="keys", hardware={"devices": devices})
    assert inspect(settings, None, None, 3).stops == {"system.stop": "hardware", "legs.system.stop": "legs"}
    assert found().stops == {}


def test_where_tasks_come_from(folder: Path) -> None:
    assert places("tasks") == [Path("tasks"), Path("tasks/arm.py")]
    assert places("tasks/arm.py") == [Path("tasks/arm.py"), Path("tasks")]
    assert [path.name for path in places("taskengine.tasks")] == ["__init__.py", "tasks.py"]
    assert places("no_such_module") == places("sys") == []
