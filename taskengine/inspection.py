"""Looks at the machine for what `weaknesses` judges: who can change and read which files, who we are, which libzmq."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import zmq

from taskengine.configuration import CONFIG_FILE
from taskengine.identity import Identity
from taskengine.keys import KeyRing
from taskengine.registry import places
from taskengine.settings import Settings
from taskengine.weaknesses import Facts


def libzmq_version() -> tuple[int, ...]:
    """The version of the libzmq that pyzmq brings along or found."""
    return zmq.zmq_version_info()


def inspect(settings: Settings, config: Path | None, identity: Identity | None, clients: int) -> Facts:
    """The facts about an engine of these settings, read from `config`, or from the current folder if that is None.

    Its tasks run as `identity`, or as who we are; so many `clients` are let in.
    """
    uid = identity.uid if identity else os.geteuid()
    file = Path(CONFIG_FILE) if config is None else config
    folder = KeyRing(settings.keys_folder).folder
    machine = settings.machine()
    return Facts(
        settings=settings,
        clients=clients,
        is_root=uid == 0,
        libzmq=libzmq_version(),
        keys=tuple(str(path) for path in (folder, folder / "clients", folder / "engines") if _is_open(path)),
        config=tuple(_changeable([file] if file.exists() else [], uid)),
        tasks=tuple(_changeable((place for entry in settings.tasks for place in places(entry)), uid)),
        stops={} if machine is None else machine.stop_lanes,
    )


def _is_open(folder: Path) -> bool:
    return folder.is_dir() and bool(stat.S_IMODE(folder.stat().st_mode) & 0o077)


def _changeable(paths: Iterable[Path], uid: int) -> Iterator[str]:
    """Of the files and folders, and the folders that they lie in, those that not only root and `uid` can change."""
    seen: set[Path] = set()
    for path in paths:
        for part in (path.absolute(), path.absolute().parent):
            if part in seen or not part.exists():
                continue
            seen.add(part)
            found = part.stat()
            # what others may add to a sticky folder replaces nothing; but in a folder of tasks it is loaded
            kept = part != path.absolute() and found.st_mode & stat.S_ISVTX
            if found.st_uid not in (0, uid) or (found.st_mode & 0o022 and not kept):
                yield str(part)
