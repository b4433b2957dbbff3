"""The user whose rights the engine's processes have: USER, if root has started the engine.

The supervisor stays root, so that it can end its children; each child gives root up before a user's code runs in it.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from taskengine.errors import KeysError, SettingsError


class Identity(NamedTuple):
    """A user's id, group and further groups as its processes are to have them, and its home folder."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    def assume(self) -> None:
        """Become that user, for good. Raises PermissionError if any right of root is left."""
        os.setgroups(self.groups)
        os.setgid(self.gid)
        os.setuid(self.uid)
        groups, own = set(os.getgroups()), (set(os.getresgid()), set(os.getresuid()))
        if own != ({self.gid}, {self.uid}) or groups != set(self.groups) or (self.uid and _may_be_root()):
            raise PermissionError(f"the process did not become user {self.name}")
        os.environ.update(HOME=self.home, USER=self.name, LOGNAME=self.name)

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[None]:
        """Act as that user within the block, so that files are read and made as its own."""
        groups = os.getgroups()
        try:
            os.setgroups(self.groups)
            os.setegid(self.gid)
            os.seteuid(self.uid)
            yield
        finally:
            os.seteuid(0)
            os.setegid(os.getgid())
            os.setgroups(groups)


def _may_be_root() -> bool:
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True


def find_identity(user: str, group: str) -> Identity | None:
    """Return the user that the children are to become; None if they keep the user that started the engine.

    Raises SettingsError for an unknown user or group, and if only root could change to it.
    """
    if not user:
        if group:
            raise SettingsError(f"group: expected a user too, whose group {group} is to be; --user names it")
        return None
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise SettingsError(f"user: expected a user of this machine, there is no {user!r}") from None
    try:
        gid = grp.getgrnam(group).gr_gid if group else account.pw_gid
    except KeyError:
        raise SettingsError(f"group: expected a group of this machine, there is no {group!r}") from None
    if os.geteuid() == 0:
        groups = tuple(sorted(set(os.getgrouplist(user, gid))))
        identity = Identity(user, account.pw_uid, gid, groups, account.pw_dir)
        try:
            with identity.borrowed():
                return identity
        except OSError as error:  # root of a container may lack some of root's rights
            raise SettingsError(f"user: this process may not become {user}: {error.strerror}") from None
    if account.pw_uid != os.geteuid() or gid != os.getegid():
        who = f"{user} with group {group}" if group else user
        raise SettingsError(
            f"user: only root can become {who}: start the engine as root, as that user, or without USER"
        )
    return None


def borrowed(identity: Identity | None) -> contextlib.AbstractContextManager[None]:
    """Act as that user within the block; None changes nothing."""
    return identity.borrowed() if identity else contextlib.nullcontext()


def check_keys(folder: Path, identity: Identity) -> None:
    """Raise KeysError, which says what to run, if the user cannot use the keys in a folder."""
    name = identity.name
    with identity.borrowed():
        outer = next((parent for parent in reversed(folder.parents) if not _may(parent, os.X_OK)), None)
        if outer is not None:
            raise KeysError(
                f"{folder}: user {name} may not enter {outer}. Give it a folder of its own, "
                f"`install -d -o {name} -m 700 /var/lib/taskengine/keys`, and name it with --keys to `serve` and `keys`"
            )
        kept = [
            folder,
            folder / "clients",
            *sorted(folder.glob("*.json*")),
            folder / "metrics.token",
            *sorted((folder / "clients").glob("*.json")),
        ]
        for path in kept:
            # also files that the engine appends to, such as the audit log
            if path.exists() and not _may(path, os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)):
                raise KeysError(f"{path}: user {name} cannot use it: run `chown -R {name} {folder}`")


def _may(path: Path, mode: int) -> bool:
    return not os.path.lexists(path) or os.access(path, mode, effective_ids=True)


def become_owner(path: Path) -> None:
    """Become the owner of the path if we are root and another user owns it."""
    if os.geteuid() == 0 and path.exists() and path.stat().st_uid:
        account = pwd.getpwuid(path.stat().st_uid)
        groups = tuple(sorted(set(os.getgrouplist(account.pw_name, account.pw_gid))))
        Identity(account.pw_name, account.pw_uid, account.pw_gid, groups, account.pw_dir).assume()
