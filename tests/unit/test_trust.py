"""Whose files are taken in: by root only those that no other user can change."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from taskengine import trust
from taskengine.errors import SettingsError
from taskengine.inspection import refuse_tasks
from taskengine.settings import Settings
from taskengine.trust import changeable, refuse_changeable, trusted_users, use_current_folder

OWN = frozenset((0, os.geteuid()))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, two below one that is only ours, with a settings file and a task module."""
    folder = tmp_path / "home" / "robot"
    folder.mkdir(parents=True, mode=0o755)
    for name in ("taskengine.toml", "robot_of_a_test.py"):
        (folder / name).touch(mode=0o644)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return folder


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """The same, as a root whose files are those of whoever runs the test."""
    monkeypatch.setattr(trust, "trusted_users", lambda *others: frozenset((*OWN, *others)))
    monkeypatch.setattr("taskengine.inspection.trusted_users", lambda *others: frozenset((*OWN, *others)))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return folder


def test_a_file_is_changed_by_whom_any_folder_above_it_lets(folder: Path) -> None:
    file = folder / "taskengine.toml"
    assert not list(changeable([file], OWN))
    for part, mode in ((file, 0o664), (folder, 0o775), (folder.parent, 0o757)):
        before = part.stat().st_mode
        part.chmod(mode)
        assert list(changeable([file], OWN)) == [part]
        part.chmod(before)
    folder.chmod(0o1777)
    assert not list(changeable([file], OWN)), "in a sticky folder nobody replaces what is another's"
    assert list(changeable([folder], OWN)) == [folder], "but may add to it"


def test_a_link_is_as_safe_as_what_it_leads_to(folder: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "real.toml").touch(mode=0o644)
    theirs.chmod(0o777)
    link = folder / "link.toml"
    link.symlink_to(theirs / "real.toml")
    assert list(changeable([link], OWN)) == [theirs]


def test_a_third_users_file_is_found() -> None:
    assert not list(changeable([Path("/")], (os.stat("/").st_uid,)))
    assert list(changeable([Path("/")], (12345,))) == [Path("/")]


def test_whom_we_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert trusted_users(7) == {0, 7, 1234}, "whoever calls sudo is root when it likes"
    monkeypatch.setenv("SUDO_UID", "root")
    assert trusted_users() == {0}
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setattr(os, "geteuid", lambda: 5)
    assert trusted_users() == {0, 5}, "only root was called by sudo"


def test_the_current_folder_is_last_on_the_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    sys.path[:0] = ["", str(folder)]
    use_current_folder()
    use_current_folder()
    assert [place for place, entry in enumerate(sys.path) if entry in ("", str(folder))] == [len(sys.path) - 1]


def test_the_folder_of_the_settings_is_before_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    use_current_folder(Path("robot/x.toml"))
    assert sys.path[-2:] == [str(folder / "robot"), str(folder)]
    sys.path.remove(str(folder / "robot"))


def test_root_has_no_folder_on_the_path_that_others_can_change(root: Path) -> None:
    use_current_folder()
    assert sys.path[-1] == str(root)
    root.chmod(0o1777)
    use_current_folder()
    assert str(root) not in sys.path


def test_root_is_told_what_to_type(root: Path) -> None:
    file = root / "taskengine.toml"
    refuse_changeable("the settings", [file], OWN)
    file.chmod(0o646)
    with pytest.raises(SettingsError, match=rf"the settings: other users can change {file}, .*`chmod go-w {file}`"):
        refuse_changeable("the settings", [file], OWN)
    with pytest.raises(SettingsError, match=r"user \d+'s, and root takes it in: run `chown root /"):
        refuse_changeable("the settings", [file], (12345,))


def test_others_than_root_read_what_they_like(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    (folder / "taskengine.toml").chmod(0o666)
    refuse_changeable("the settings", [folder / "taskengine.toml"], (12345,))


@pytest.mark.parametrize("entry", ["robot_of_a_test.py", ".", "robot_of_a_test"])
def test_root_loads_no_task_that_others_can_change(root: Path, entry: str) -> None:
    use_current_folder()
    refuse_tasks(Settings(tasks=["taskengine.tasks", entry]), None)
    root.chmod(0o777)
    use_current_folder()
    with pytest.raises(SettingsError, match=rf"tasks: {entry}: .* run `chmod go-w {root}`"):
        refuse_tasks(Settings(tasks=["taskengine.tasks", entry]), None)
