"""A folder of the running engine, in which only its own user can find the socket of the local workers."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

PREFIX = "taskengine-"
LONGEST_PATH = 107
"""What fits into the address of a Unix socket, in bytes (sockaddr_un, without the closing zero)."""


class RunDir:
    """A folder with mode 0700, gone when it is closed; what killed engines have left is removed on the way."""

    def __init__(self) -> None:
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        if not base.is_dir():
            base = Path(tempfile.gettempdir())
        _sweep(base)
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))

    def address(self, name: str, otherwise: str) -> str:
        """The address of the socket `name` in the folder, or `otherwise` where its path is too long for a socket."""
        path = self.path / name
        return f"ipc://{path}" if len(os.fsencode(path)) <= LONGEST_PATH else otherwise

    def close(self) -> None:
        """Remove the folder. May be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)


def _sweep(base: Path) -> None:
    """Remove the folders of engines of this user that are no more."""
    for folder in base.glob(f"{PREFIX}*"):
        found = re.fullmatch(rf"{PREFIX}(\d+)-.*", folder.name)
        if found and not Path(f"/proc/{found[1]}").exists() and folder.lstat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)
