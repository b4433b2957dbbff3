"""`taskengine service` on a made-up systemd: what is run, in which order, and that nothing is done without consent."""

from __future__ import annotations

import json
import os
import pwd
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from taskengine.cli import service
from taskengine.cli.main import cli
from taskengine.supervisor.unit_file import is_ours

# it keeps what it was called with, and fails for the word in `fails`; it starts no unit with the word in `unfit`
SYSTEMCTL = """#!/bin/sh
echo "$@" >> {folder}/calls
[ "$1" = show ] && cat {folder}/shown
[ "$1" = "$(cat {folder}/fails)" ] && exit 1
[ "$1" = restart ] && grep -qf {folder}/unfit {folder}/units/taskengine.service && exit 1
exit 0
"""
SUDO = """#!/bin/sh
[ "$1" = -u ] && shift 3
exec "$@"
"""
# it stands for the Python of the service: it keeps what it was called with, and says why it does not start
PYTHON = """#!/bin/sh
echo "$(id -un) $PWD $@" >> {folder}/tried
cat {folder}/complaint >&2
[ ! -s {folder}/complaint ]
"""
SHOWN = "LoadState=loaded\nActiveState={state}\nSubState=running\nUnitFileState=enabled\nNRestarts=0\n"


class Made:
    """A machine with systemd in a folder, and a robot whose settings are in the current folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unit = folder / "units/taskengine.service"
        for name in ("units", "bin", "robot"):
            (folder / name).mkdir(mode=0o755)
        for name, text in (("systemctl", SYSTEMCTL), ("sudo", SUDO)):
            (folder / "bin" / name).write_text(text.format(folder=folder))
            (folder / "bin" / name).chmod(0o755)
        (folder / "bin/python").write_text(PYTHON.format(folder=folder))
        (folder / "bin/python").chmod(0o755)
        for name in ("calls", "fails", "unfit", "shown", "tried", "complaint"):
            (folder / name).write_text("")
        (folder / "tried").chmod(0o666)
        (folder / "robot/taskengine.toml").write_text("pins = 'mock'\n")

    def calls(self) -> list[str]:
        """What systemctl was called with so far, but for questions."""
        return [line for line in (self.folder / "calls").read_text().splitlines() if not line.startswith("show")]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the service's user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def made(place: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made(place)
    folders = f"{place}/bin:{service.SYSTEM_FOLDERS}"
    monkeypatch.setattr(service, "SYSTEM_FOLDERS", folders)
    monkeypatch.setattr(service, "UNITS", place / "units")
    monkeypatch.setattr(service, "BOOTED", place)
    monkeypatch.setenv("PATH", folders)
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(sys, "executable", str(place / "bin/python"))
    monkeypatch.chdir(place / "robot")
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["service", *arguments])


def install(*arguments: str) -> Result:
    return run("install", "--user", "daemon", "--yes", *arguments)


def test_it_is_installed_and_removed_without_a_trace(made: Made) -> None:
    before = sorted(path for path in made.folder.rglob("*") if path.name not in ("calls", "tried"))
    done = install()
    assert done.exit_code == 0, done.output
    assert "journalctl -u taskengine" in done.stdout
    text = made.unit.read_text()
    assert is_ours(text)
    assert "\nUser=daemon\n" in text
    assert f"\nWorkingDirectory={made.folder}/robot\n" in text
    assert made.unit.stat().st_mode & 0o777 == 0o644
    assert made.calls() == ["daemon-reload", "enable taskengine", "restart taskengine"]
    (made.folder / "units/taskengine.service.d").mkdir()
    (made.folder / "units/taskengine.service.d/override.conf").write_text("")
    done = run("remove", "--yes")
    assert done.exit_code == 0, done.output
    assert made.calls()[3:] == ["disable --now taskengine", "daemon-reload", "reset-failed taskengine"]
    assert sorted(path for path in made.folder.rglob("*") if path.name not in ("calls", "tried")) == before


def test_it_can_be_installed_again(made: Made) -> None:
    assert install().exit_code == 0
    (made.folder / "robot/other.toml").write_text("pins = 'mock'\n")
    assert install("--config", "other.toml").exit_code == 0
    assert "serve --config other.toml\n" in made.unit.read_text()


def test_without_consent_nothing_is_done(made: Made) -> None:
    done = run("install", "--user", "daemon")
    assert (done.exit_code, "--yes" in done.stderr) == (2, True)
    assert "[Service]" in done.stdout
    assert "systemctl restart taskengine" in done.stdout
    assert (made.calls(), made.unit.exists()) == ([], False)
    assert install().exit_code == 0
    calls = made.calls()
    assert run("remove").exit_code == 2
    assert (made.calls(), made.unit.exists()) == (calls, True)


def test_a_unit_of_somebody_else_is_left_alone(made: Made) -> None:
    made.unit.write_text("[Service]\n")
    for done in (install(), run("remove", "--yes")):
        assert (done.exit_code, "not from" in done.stderr) == (2, True)
    assert (made.calls(), made.unit.read_text()) == ([], "[Service]\n")


def test_a_service_that_does_not_start_is_an_error_with_its_log(made: Made) -> None:
    (made.folder / "fails").write_text("restart")
    done = install()
    assert (done.exit_code, "journalctl -u taskengine -n 50" in done.stderr) == (1, True)


def update(made: Made, *, state: str) -> tuple[Result, str]:
    """Install, and then a unit that does not start, while the service is in a state; return also the unit before."""
    assert install().exit_code == 0
    before = made.unit.read_text()
    (made.folder / "robot/other.toml").write_text("pins = 'mock'\n")
    (made.folder / "unfit").write_text("other.toml\n")
    (made.folder / "calls").write_text("")
    (made.folder / "shown").write_text(SHOWN.format(state=state))
    return install("--config", "other.toml"), before


def test_it_is_tried_out_as_its_user_before_anything_is_changed(made: Made) -> None:
    assert install().exit_code == 0
    user = "daemon" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    tried = f"{user} {made.folder}/robot -m taskengine check --config taskengine.toml\n"
    assert (made.folder / "tried").read_text() == tried
    (made.folder / "complaint").write_text("Traceback\ntaskengine: robot.py: no such module\n")
    before = made.unit.read_text()
    (made.folder / "calls").write_text("")
    done = install()
    assert done.exit_code == 1
    assert "as daemon the service would not start, and nothing was changed: robot.py: no such module" in done.stderr
    assert (made.calls(), made.unit.read_text()) == ([], before)


def test_a_python_that_is_not_there_changes_nothing(made: Made) -> None:
    (made.folder / "bin/python").unlink()
    done = install()
    assert (done.exit_code, "No such file" in done.stderr, made.unit.exists()) == (1, True, False)


def test_an_update_that_does_not_start_leaves_the_old_one_running(made: Made) -> None:
    done, before = update(made, state="active")
    assert (done.exit_code, "The unit before is back, and runs again" in done.stderr) == (1, True), done.output
    assert made.unit.read_text() == before
    again = ["daemon-reload", "enable taskengine", "restart taskengine", "daemon-reload", "restart taskengine"]
    assert made.calls() == again


def test_a_service_that_was_stopped_stays_so_after_a_failed_update(made: Made) -> None:
    done, before = update(made, state="inactive")
    assert (done.exit_code, done.stderr.endswith("The unit before is back\n")) == (1, True), done.output
    assert made.unit.read_text() == before
    assert made.calls()[-1] == "daemon-reload"


def test_what_would_not_serve_is_not_installed(made: Made) -> None:
    settings = made.folder / "robot/taskengine.toml"
    assert "root" in run("install", "--user", "root", "--yes").stderr
    assert "no 'nobody-at-all'" in run("install", "--user", "nobody-at-all", "--yes").stderr
    settings.write_text("hots = 1\n")
    assert "no such setting" in install().stderr
    settings.write_text(f"host = '0.0.0.0'\nkeys = '{made.folder}/keys'\n")
    assert "`taskengine keys pair NAME` first" in install().stderr
    settings.unlink()
    assert "there is no such file" in install().stderr
    assert (made.calls(), made.unit.exists()) == ([], False)


def test_the_user_is_the_one_who_types_it_also_with_sudo(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "daemon")
    assert run("install", "--yes").exit_code == 0
    assert "\nUser=daemon\n" in made.unit.read_text()
    monkeypatch.delenv("SUDO_USER")
    me = pwd.getpwuid(os.geteuid()).pw_name
    done = run("install", "--yes")
    assert done.exit_code == (2 if me == "root" else 0)
    assert me == "root" or f"\nUser={me}\n" in made.unit.read_text()


def test_the_status(made: Made) -> None:
    (made.folder / "shown").write_text("LoadState=not-found\nActiveState=inactive\n")
    done = run("status")
    assert (done.exit_code, "service install" in done.stdout) == (1, True)
    assert install().exit_code == 0
    (made.folder / "shown").write_text(SHOWN.format(state="active"))
    done = run("status")
    assert (done.exit_code, "active (running)" in done.stdout) == (0, True)
    assert "starts with the machine" in done.stdout
    told = json.loads(run("status", "--json").stdout)
    assert (told["ActiveState"], told["ours"]) == ("active", True)


def test_a_systemd_that_does_not_answer_is_no_service_that_is_not_installed(made: Made) -> None:
    done = run("status")
    assert (done.exit_code, done.stdout, "does not answer" in done.stderr) == (1, "", True)


def test_where_systemd_does_not_run(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BOOTED", made.folder / "nothing")
    for done in (install(), run("status")):
        assert (done.exit_code, "systemd does not run here" in done.stderr) == (1, True)
    assert not made.unit.exists()
