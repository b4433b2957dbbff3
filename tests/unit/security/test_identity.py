"""Whose rights the processes have: who may become whom, in which order, and what is checked. As root and as not."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from taskengine.errors import KeysError, SettingsError
from taskengine.security import identity
from taskengine.security.identity import Identity, become_owner, borrowed, check_keys, find_identity

ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")
OURSELVES = pwd.getpwuid(os.geteuid()).pw_name


def refused(user: str, group: str = "") -> str:
    with pytest.raises(SettingsError) as caught:
        find_identity(user, group)
    return str(caught.value)


def test_without_a_user_nobody_changes() -> None:
    assert find_identity("", "") is None
    with borrowed(None):
        assert os.geteuid() == os.getuid()


def test_what_is_no_user_or_group_is_named() -> None:
    assert "'no-such-user'" in refused("no-such-user")
    assert "'no-such-group'" in refused(OURSELVES, "no-such-group")
    assert "expected a user too" in refused("", "daemon")


def test_only_root_can_become_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "only root can become nobody: start the engine as root" in refused("nobody")
    assert "only root can become nobody with group daemon" in refused("nobody", "daemon")
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    monkeypatch.setattr(os, "getegid", lambda: NOBODY.pw_gid)
    assert find_identity("nobody", "") is None, "who is that user already has nothing to give up"


def test_root_finds_all_groups_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, 997, 998])
    monkeypatch.setattr(Identity, "borrowed", lambda self: borrowed(None))
    found = find_identity("nobody", "daemon")
    assert found is not None
    assert (found.uid, found.gid, found.groups) == (NOBODY.pw_uid, 1, (1, 997, 998))


def test_root_that_may_not_change_is_told_so_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*numbers: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("setgroups", "setegid", "seteuid"):
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises((SettingsError, PermissionError)):
        find_identity("nobody", "")


class Kernel:
    """Notes the calls that change who a process is, and answers as the kernel does, but for what is `kept`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kept: str = "") -> None:
        self.calls: list[str] = []
        self.ids = {"groups": [0], "gid": 0, "uid": 0}
        for name in ("groups", "gid", "uid"):
            monkeypatch.setattr(os, f"set{name}", lambda value, name=name: self._set(name, value, kept))
        monkeypatch.setattr(os, "getgroups", lambda: list(self.ids["groups"]))  # type: ignore[call-overload]
        monkeypatch.setattr(os, "getresgid", lambda: (self.ids["gid"],) * 3)
        monkeypatch.setattr(os, "getresuid", lambda: (self.ids["uid"],) * 3)
        for name in ("HOME", "USER", "LOGNAME"):
            monkeypatch.setenv(name, "root's")
        self._kept = kept

    def _set(self, name: str, value: object, kept: str) -> None:
        self.calls.append(name)
        if name == "uid" and self.ids["uid"] and value == 0 and kept != "the way back":
            raise PermissionError
        if name != kept:
            self.ids[name] = value


PI = Identity("pi", 1000, 1001, (1001, 997), "/home/pi")


def test_groups_go_first_and_the_user_last(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    PI.assume()
    assert kernel.calls == ["groups", "gid", "uid", "uid"], "and at the end it is tried whether there is a way back"
    assert kernel.ids == {"groups": (1001, 997), "gid": 1001, "uid": 1000}
    assert [os.environ[name] for name in ("HOME", "USER", "LOGNAME")] == ["/home/pi", "pi", "pi"]


@pytest.mark.parametrize("kept", ["groups", "gid", "uid", "the way back"])
def test_what_is_left_of_root_is_noticed(monkeypatch: pytest.MonkeyPatch, kept: str) -> None:
    Kernel(monkeypatch, kept)
    with pytest.raises(PermissionError, match="did not become user pi"):
        PI.assume()


def test_keys_that_the_user_cannot_use_are_refused_with_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Identity, "borrowed", lambda self: borrowed(None))
    folder = tmp_path / "keys"
    check_keys(folder, PI)
    (folder / "clients").mkdir(parents=True)
    for name in ("clients/laptop.json", "engine.json", "audit.jsonl"):
        (folder / name).touch()
    check_keys(folder, PI)
    for file in ("audit.jsonl", "engine.json"):
        monkeypatch.setattr(identity, "_may", lambda path, mode, file=file: path != folder / file)
        with pytest.raises(KeysError, match=f"{file}: user pi cannot use it"):
            check_keys(folder, PI)
    hidden = {folder / "clients" / "laptop.json"}
    monkeypatch.setattr(identity, "_may", lambda path, mode: path not in hidden)
    with pytest.raises(KeysError, match=f"laptop.json: user pi cannot use it: run `chown -R pi {folder}`"):
        check_keys(folder, PI)
    hidden = {tmp_path}
    with pytest.raises(KeysError, match=rf"user pi may not enter {tmp_path}\. .*install -d -o pi"):
        check_keys(folder, PI)


def test_acting_as_another_is_for_a_while(tmp_path: Path) -> None:
    if not ROOT:
        assert "only root can become nobody" in refused("nobody")
        return
    found = find_identity("nobody", "")
    assert found is not None
    tmp_path.chmod(0o700)
    with found.borrowed():
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (found.uid, found.gid, list(found.groups))
    assert (os.geteuid(), os.getegid(), os.getuid()) == (0, 0, 0)
    with pytest.raises(KeysError, match="may not enter"):
        check_keys(tmp_path / "keys", found)


def test_only_root_becomes_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become = []
    monkeypatch.setattr(Identity, "assume", lambda self: become.append(self.uid))
    become_owner(tmp_path / "missing")
    become_owner(tmp_path)
    assert become == []
    if ROOT:
        os.chown(tmp_path, NOBODY.pw_uid, NOBODY.pw_gid)
        become_owner(tmp_path)
        assert become == [NOBODY.pw_uid]
