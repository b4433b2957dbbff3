"""A system without what most have: a home, a folder for temporary files, folders that we may look into."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from taskengine import Client, KeysError, SettingsError, rundir
from taskengine.audit import file_of
from taskengine.cli import cli
from taskengine.configuration import load
from taskengine.inspection import inspect
from taskengine.keys import default_folder, find_membership, known_folder
from taskengine.rundir import FRONTEND, RunDir
from taskengine.settings import Settings
from taskengine.trust import changeable
from taskengine_hardware import backends
from tests.engine import free_ports

LOOPBACK = "tcp://127.0.0.1:9000"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder that can be written to is left, and XDG_RUNTIME_DIR names none."""

    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", nowhere)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_a_client_speaks_in_clear_on_loopback_as_ever() -> None:
    with Client(LOOPBACK):
        assert find_membership(LOOPBACK, None) is None
    assert known_folder(None) is None
    with pytest.raises(KeysError, match="no key is known for"):
        Client("tcp://192.0.2.1:9000")
    with pytest.raises(KeysError, match="Set HOME, or name a folder"):
        Client(LOOPBACK, engine="robot")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_an_engine_serves_where_it_needs_no_keys() -> None:
    facts = inspect(Settings(), None, None, 0)
    assert (facts.keys, facts.has_metrics_token) == ((), False)
    assert CliRunner().invoke(cli, ["check"]).exit_code == 0
    needed = CliRunner().invoke(cli, ["check", "--curve", "on"])
    assert (needed.exit_code, "Set HOME, or name a folder" in needed.stderr) == (2, True)
    shown = CliRunner().invoke(cli, ["keys", "show"])
    assert (shown.exit_code, "Set HOME, or name a folder" in shown.stderr) == (2, True)


@pytest.mark.usefixtures("homeless")
def test_a_path_in_a_home_that_there_is_not_is_named() -> None:
    settings = load(None, {}, {"keys": "~/keys", "audit": "~/log", "curve": "on"})
    with pytest.raises(SettingsError, match="keys: ~/keys begins with ~"):
        assert settings.keys_folder
    with pytest.raises(SettingsError, match="audit: ~/log begins with ~"):
        file_of(settings)
    done = CliRunner().invoke(cli, ["check", "--curve", "on", "--keys", "~/keys"])
    assert (done.exit_code, "begins with ~" in done.stderr) == (2, True)


def test_a_home_that_we_may_not_look_into_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/closed")
    real = os.stat

    def closed(path: object, *rest: object, **named: object) -> object:
        if str(path).startswith("/closed/"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", closed)
    assert default_folder() == Path("/closed/taskengine/keys")
    assert find_membership(LOOPBACK, None) is None
    assert inspect(Settings(), None, None, 0).keys == ()
    assert not list(changeable([Path("/closed/taskengine")], (0, os.geteuid())))


def test_keys_of_another_user_are_none_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As after `sudo -E` or su, which keep the variables."""
    folder = tmp_path / "taskengine" / "keys"
    (folder / "engines").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    real = os.stat

    def closed(path: object, *rest: object, **named: object) -> object:
        if str(path).startswith(f"{folder}/"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", closed)
    assert find_membership(LOOPBACK, None) is None


def test_a_folder_that_we_may_not_look_into_has_no_settings_for_us(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(path: Path, **named: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(SettingsError, match="Permission denied"):
        load(None, {}, {})
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert load(None, {}, {}) == Settings()
    with pytest.raises(SettingsError, match="Permission denied"):
        load(Path("robot.toml"), {}, {})


@pytest.mark.usefixtures("read_only")
def test_without_a_folder_to_write_to_there_are_no_unix_sockets() -> None:
    port = free_ports(1)
    folder = RunDir("127.0.0.1", port)
    assert (folder.address(FRONTEND), folder.listen(rundir.STOP)) == (None, None)
    folder.close()
    address = f"tcp://127.0.0.1:{port}"
    assert rundir.nearest(address) == address
    with Client(address):
        pass


@pytest.mark.usefixtures("read_only")
def test_without_a_folder_to_write_to_lgpio_says_what_it_needs() -> None:
    with pytest.raises(OSError, match="mount a tmpfs on /tmp"):
        backends._fine()


def test_a_runtime_folder_that_cannot_be_written_to_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, *rest, **named: Path(path) != tmp_path and may(path, *rest, **named))
    assert rundir._base() != tmp_path
