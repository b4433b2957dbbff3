"""Collects the facts that `weaknesses` judges: the rights to files, our own user, the version of libzmq."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from taskengine.config.loading import CONFIG_FILE
from taskengine.config.settings import Settings
from taskengine.config.weaknesses import Facts
from taskengine.registry.modules import places
from taskengine.security.credentials import libzmq_version
from taskengine.security.identity import Identity
from taskengine.security.keys import TOKEN_FILE, known_folder
from taskengine.security.trusted_files import changeable, refuse_changeable, trusted_users


def inspect(settings: Settings, config: Path | None, identity: Identity | None, clients: int) -> Facts:
    """Return the facts about an engine of these settings, read from `config`, or from the current folder if it is None.

    Its tasks run as `identity`, or as our own user; `clients` is the number of allowed keys.
    """
    uid = identity.uid if identity else os.geteuid()
    file = Path(CONFIG_FILE) if config is None else config
    folder = known_folder(settings.keys_folder)
    folders = (folder, folder / "clients", folder / "engines") if folder else ()
    machine = settings.machine()
    return Facts(
        settings=settings,
        clients=clients,
        is_root=uid == 0,
        libzmq=libzmq_version(),
        has_metrics_token=folder is not None and os.path.lexists(folder / TOKEN_FILE),
        keys=tuple(str(path) for path in folders if _is_open(path)),
        config=tuple(map(str, changeable([file] if os.path.exists(file) else [], (0, uid)))),
        tasks=tuple(map(str, changeable((place for entry in settings.tasks for place in places(entry)), (0, uid)))),
        stops={} if machine is None else machine.stop_lanes,
    )


def _is_open(folder: Path) -> bool:
    return os.path.isdir(folder) and bool(stat.S_IMODE(folder.stat().st_mode) & 0o077)


def refuse_tasks(settings: Settings, identity: Identity | None) -> None:
    """Raise SettingsError if root would load tasks that a user other than root and `identity` can change."""
    others = (identity.uid,) if identity else ()
    for entry in settings.tasks:
        refuse_changeable(f"tasks: {entry}", places(entry), trusted_users(*others))
    unfound = [entry for entry in settings.tasks if not (places(entry) or entry.endswith(".py"))]
    here = Path.cwd()
    if unfound and str(here) not in sys.path:
        refuse_changeable(f"tasks: {unfound[0]}", [here], trusted_users())
