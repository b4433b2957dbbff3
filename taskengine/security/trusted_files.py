"""Checks whose files a command reads: root loads and reads nothing that another user can change.

`from taskengine import …` would slow the start of every command, so this imports only modules that Python has loaded.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from taskengine.errors import SettingsError


def changeable(paths: Iterable[Path], trusted: Collection[int]) -> Iterator[Path]:
    """Yield those of the paths, and of all folders above them, that a user who is not `trusted` can change.

    In a sticky folder, such as /tmp, nobody can replace another user's files. But a file that is added to a folder of
    tasks is loaded, so a sticky folder among `paths` itself counts.
    """
    seen: set[Path] = set()
    for path in paths:
        for whole in (path.absolute(), path.resolve()):
            for part in (whole, *whole.parents):
                if part in seen or not os.path.exists(part):  # Path.exists raises if we may not look
                    continue
                seen.add(part)
                found = part.stat()
                is_kept = part != whole and found.st_mode & stat.S_ISVTX
                if found.st_uid not in trusted or (found.st_mode & 0o022 and not is_kept):
                    yield part


def _user() -> int:
    """Return the number of the user that we are; -1, nobody's, where users have none, as on Windows."""
    return os.geteuid() if hasattr(os, "geteuid") else -1


def trusted_users(*others: int) -> frozenset[int]:
    """Return the ids of the users whose files this process accepts: root, itself, the caller of sudo, and `others`."""
    caller = os.environ.get("SUDO_UID", "")
    sudo = [int(caller)] if _user() == 0 and caller.isascii() and caller.isdigit() else []
    return frozenset((0, _user(), *sudo, *others))


def use_current_folder(config: Path | None = None) -> None:
    """Let task modules lie in the folder of the settings `config`, and in the current folder.

    They are last on the path, so that no file there hides a module of Python. If we are root, a folder that another
    user can change is left out.
    """
    here = os.getcwd()
    folders = [here] if config is None else list(dict.fromkeys([os.path.dirname(os.path.abspath(config)), here]))
    sys.path[:] = [entry for entry in sys.path if entry not in ("", *folders)]
    for folder in folders:
        if _user() or not any(changeable([Path(folder)], trusted_users())):
            sys.path.append(folder)


def refuse_changeable(what: str, paths: Iterable[Path], trusted: Collection[int]) -> None:
    """Keep root from `what`, read from `paths`, if another user can change one of them.

    Raises SettingsError, which says what to type.
    """
    if _user():
        return
    for path in changeable(paths, trusted):
        owner = path.stat().st_uid
        if owner not in trusted:
            raise SettingsError(f"{what}: {path} is user {owner}'s, and root would load it: run `chown root {path}`")
        raise SettingsError(f"{what}: other users can change {path}, and root would load it: run `chmod go-w {path}`")
