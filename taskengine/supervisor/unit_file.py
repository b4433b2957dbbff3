"""The unit file of a systemd service for one user's engine, made from the one that is packaged. Pure.

systemd.exec(5), systemd.service(5) and systemd.syntax(7) describe its lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from taskengine.errors import SettingsError

MARK = "# Written by `taskengine service install`; `taskengine service remove` removes it."
_NOT_IN_A_PATH = re.compile(r"[\x00-\x1f\x7f]")
_HOMES = ("/home", "/root", "/run/user")


class Installation(msgspec.Struct, frozen=True):
    """What a unit is for: paths are absolute, and `writable` are the folders that the engine and its tasks write to."""

    user: str
    python: str
    """The interpreter of the virtual environment."""
    folder: str
    """The folder of the settings."""
    file: str
    """The name of the settings file."""
    writable: tuple[str, ...] = ()


def unit_text(packaged: str, installation: Installation) -> str:
    """Return the unit for an installation; `packaged` is the text of the unit that comes with the package.

    Raises SettingsError if a path cannot stand in a unit file.
    """
    paths = [installation.python, installation.folder, installation.file, *installation.writable]
    for path in paths:
        if _NOT_IN_A_PATH.search(path):
            raise SettingsError(f"a unit file cannot have the path {path!r}; move it to another one")
    command = f"{_word(installation.python)} -m taskengine"
    config = "" if installation.file == "taskengine.toml" else f" --config {_word(installation.file)}"
    is_in_home = any(f"{path}/".startswith(f"{home}/") for path in paths for home in _HOMES)
    changes = {
        "User": installation.user,
        "WorkingDirectory": _escaped(installation.folder),
        "ExecStart": f"{command} serve{config}",
        "ExecStopPost": f"-{command} pins --safe{config}",
        "ProtectHome": "read-only" if is_in_home else "yes",
        "StateDirectory": None,
        "StateDirectoryMode": None,
    }
    lines = list(_changed(packaged[packaged.index("[Unit]") :].splitlines(), changes))
    # "-": a folder that is not there is no error
    writable = " ".join(_quoted(f"-{path}") for path in installation.writable)
    place = lines.index("PrivateTmp=yes")
    lines[place:place] = [f"ReadWritePaths={writable}"] if writable else []
    return "\n".join([MARK, "", *lines, ""])


def _changed(lines: Iterable[str], changes: dict[str, str | None]) -> Iterable[str]:
    """Yield the lines with other values; without the keys whose value is None, and the comments before changed ones."""
    comments: list[str] = []
    for line in lines:
        if line.startswith("#"):
            comments.append(line)
            continue
        key = line.partition("=")[0]
        if key not in changes:
            yield from comments
            yield line
        elif (value := changes[key]) is not None:
            yield f"{key}={value}"
        comments = []


def _escaped(path: str) -> str:
    return path.replace("%", "%%")


def _quoted(word: str) -> str:
    """Return a path in a list of paths: no specifier, and one word also with spaces."""
    plain = _escaped(word).replace("\\", "\\\\").replace('"', '\\"')
    return plain if re.fullmatch(r"[\w./@%:+-]+", plain) else f'"{plain}"'


def _word(word: str) -> str:
    """Return a word of a command: only there a dollar sign begins a variable, unless it is doubled."""
    return _quoted(word).replace("$", "$$")


def is_ours(text: str) -> bool:
    """Return whether `taskengine service install` wrote a unit."""
    return text.startswith(MARK)
