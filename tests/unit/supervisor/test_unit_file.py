"""The unit of `taskengine service install`: for any user and paths, understood by systemd, and as shut as before."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from taskengine.cli.main import UNIT
from taskengine.errors import SettingsError
from taskengine.supervisor.unit_file import MARK, Installation, is_ours, unit_text

PACKAGED = UNIT.read_text(encoding="utf-8")
HERS = Installation(
    "ann",
    "/home/ann/robot/.venv/bin/python",
    "/home/ann/robot",
    "taskengine.toml",
    ("/home/ann/robot", "/home/ann/.config/taskengine/keys"),
)
ODD_FOLDER = "/srv/50% $HOME robot"
ODD = msgspec.structs.replace(HERS, folder=ODD_FOLDER, file='a "$b".toml', writable=(ODD_FOLDER,))
MOST_EXPOSED = 2.5


def directives(text: str) -> dict[str, list[str]]:
    """The values of each key."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_it_is_for_the_user_the_python_and_the_settings() -> None:
    text = unit_text(PACKAGED, HERS)
    found = directives(text)
    assert found["User"] == ["ann"]
    assert found["WorkingDirectory"] == ["/home/ann/robot"]
    assert found["ExecStart"] == ["/home/ann/robot/.venv/bin/python -m taskengine serve"]
    assert found["ExecStopPost"] == ["-/home/ann/robot/.venv/bin/python -m taskengine pins --safe"]
    assert found["ReadWritePaths"] == ["-/home/ann/robot -/home/ann/.config/taskengine/keys"]
    assert found["ProtectHome"] == ["read-only"]
    assert is_ours(text)
    assert not is_ours(PACKAGED)
    assert "/opt/taskengine" not in text
    assert "/var/lib/taskengine" not in "".join(line for line in text.splitlines() if line[:1] != "#")


def test_all_else_is_as_in_the_packaged_unit() -> None:
    ours, packaged = directives(unit_text(PACKAGED, HERS)), directives(PACKAGED)
    changed = {"User", "WorkingDirectory", "ExecStart", "ExecStopPost", "ProtectHome"}
    assert packaged.keys() - ours.keys() == {"StateDirectory", "StateDirectoryMode"}
    assert ours.keys() - packaged.keys() == {"ReadWritePaths"}
    assert {key for key in ours.keys() & packaged.keys() if ours[key] != packaged[key]} == changed


def test_homes_stay_hidden_where_nothing_of_ours_is_in_one() -> None:
    at_opt = Installation("robot", "/opt/te/bin/python", "/srv/robot", "arm.toml", ("/srv/robot",))
    found = directives(unit_text(PACKAGED, at_opt))
    assert found["ProtectHome"] == ["yes"]
    assert found["ExecStart"] == ["/opt/te/bin/python -m taskengine serve --config arm.toml"]


def test_odd_paths_are_one_word_and_no_variables() -> None:
    found = directives(unit_text(PACKAGED, ODD))
    assert found["WorkingDirectory"] == ["/srv/50%% $HOME robot"]
    assert found["ExecStart"][0].endswith(r'serve --config "a \"$$b\".toml"')
    assert found["ReadWritePaths"] == ['"-/srv/50%% $HOME robot"']
    for path in ("/srv/a\nUser=root", "/srv/\x00"):
        with pytest.raises(SettingsError, match="cannot have the path"):
            unit_text(PACKAGED, msgspec.structs.replace(HERS, folder=path))


@pytest.mark.parametrize("installation", [HERS, ODD])
def test_systemd_understands_it_and_finds_it_shut(installation: Installation, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    text = unit_text(PACKAGED, msgspec.structs.replace(installation, python="/bin/true", user="root"))
    if analyze is None:
        assert all(re.fullmatch("[A-Z][A-Za-z0-9]+", key) for key in directives(text))
        return
    unit = tmp_path / "taskengine.service"
    unit.write_text(text)
    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    complaints = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert (verified.returncode, complaints) == (0, [])
    unit.write_text(unit_text(PACKAGED, installation))
    command = [analyze, "security", "--offline=true", "--no-pager", str(unit)]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    (exposure,) = re.findall(r"Overall exposure level for .*?: ([\d.]+)", told)
    assert float(exposure) <= MOST_EXPOSED
    assert MARK in text
