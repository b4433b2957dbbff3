"""Files that hold secrets: they have mode 0600, and are refused if others can read or change them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

from taskengine.errors import KeysError

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}
"""Errors of file systems without hard links, such as those of most USB sticks."""
_TRANSIENT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}
"""Errors caused by the state of the system, not by the file."""


def read_private(path: Path) -> bytes:
    """Return the contents of a file that only we can read.

    Raises KeysError for another file, and OSError if the system prevents all reading, for example when no descriptors
    are left.
    """
    try:
        with path.open("rb") as file:
            check_private(path, file.fileno())
            return file.read()
    except OSError as error:
        if error.errno in _TRANSIENT:
            raise
        raise KeysError(f"{path}: {error.strerror}") from None


def check_private(path: Path, descriptor: int) -> None:
    """Raise KeysError if others can read or change the opened file."""
    # Windows has no modes: a user's folder is closed to others by its access list there
    if hasattr(os, "geteuid") and _is_open(os.fstat(descriptor)):
        raise KeysError(f"{path}: others can read or change it: chmod 600 {path}, or make a new key")


def write_private(path: Path, data: bytes, *, replace: bool, is_secret: bool = True) -> None:
    """Write a file that only we can read, completely or not at all.

    Raises KeysError; if the data `is_secret`, also for a file system on which others could read it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                if is_secret and hasattr(os, "geteuid") and _is_open(os.fstat(file.fileno())):
                    why = "this file system keeps no modes, so that others could read the file"
                    raise KeysError(f"{path}: {why}: write it to another one, or with --passphrase")
            if replace:
                os.replace(name, path)
            else:
                _place(name, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
    except FileExistsError:
        raise KeysError(f"{path} exists already") from None
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}") from None


def _place(name: str, path: Path) -> None:
    """Give a file its name, unless that is taken. Raises OSError."""
    try:
        os.link(name, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.replace(name, path)


def _is_open(found: os.stat_result) -> bool:
    """Return whether others than we and root can read or change a file."""
    return bool(stat.S_IMODE(found.st_mode) & 0o077) or found.st_uid not in (os.geteuid(), 0)
