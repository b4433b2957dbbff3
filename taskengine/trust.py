"""Whose files a command takes in: root loads and reads nothing that another user can change.

`from taskengine import …` costs the start of every command, so this imports what Python has loaded anyway.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from taskengine.errors import SettingsError


def changeable(paths: Iterable[Path], trusted: Collection[int]) -> Iterator[Path]:
    """Of the files and folders, and all folders above them, those that a user who is not `trusted` can change.

    In a sticky folder, such as /tmp, nobody replaces what is another's; but what is added to a folder of tasks is
    loaded, so a sticky folder among `paths` itself counts.
    """
    seen: set[Path] = set()
    for path in paths:
        for whole in (path.absolute(), path.resolve()):
            for part in (whole, *whole.parents):
                if part in seen or not os.path.exists(part):  # Path.exists raises where we may not look
                    continue
                seen.add(part)
                found = part.stat()
                is_kept = part != whole and found.st_mode & stat.S_ISVTX
                if found.st_uid not in trusted or (found.st_mode & 0o022 and not is_kept):
                    yield part


def trusted_users(*others: int) -> frozenset[int]:
    """Numbers of the users whose files this process takes in: root, itself, whoever called sudo, and `others`."""
    caller = os.environ.get("SUDO_UID", "")
    sudo = [int(caller)] if os.geteuid() == 0 and caller.isascii() and caller.isdigit() else []
    return frozenset((0, os.geteuid(), *sudo, *others))


def use_current_folder(config: Path | None = None) -> None:
    """Let task modules lie in the folder of the settings `config`, and in the current folder.

    They are last on the path, so that no file there hides a module of Python, and nowhere where we are root and another
    user can change them.
    """
    here = os.getcwd()
    folders = [here] if config is None else list(dict.fromkeys([os.path.dirname(os.path.abspath(config)), here]))
    sys.path[:] = [entry for entry in sys.path if entry not in ("", *folders)]
    for folder in folders:
        if os.geteuid() or not any(changeable([Path(folder)], trusted_users())):
            sys.path.append(folder)


def refuse_changeable(what: str, paths: Iterable[Path], trusted: Collection[int]) -> None:
    """Keep root from `what`, which is read from `paths`, where another user can change one of them.

    Raises SettingsError, which says what to type.
    """
    if os.geteuid():
        return
    for path in changeable(paths, trusted):
        owner = path.stat().st_uid
        if owner not in trusted:
            raise SettingsError(f"{what}: {path} is user {owner}'s, and root takes it in: run `chown root {path}`")
        raise SettingsError(f"{what}: other users can change {path}, and root takes it in: run `chmod go-w {path}`")
