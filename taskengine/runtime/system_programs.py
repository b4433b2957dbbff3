"""Runs programs of the system, by their whole paths: nothing that somebody put into a folder of PATH."""

from __future__ import annotations

import shutil
import subprocess

SYSTEM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for."""
COMMAND_S = 5.0
"""How long a program may take, in s."""


def output_of(*command: str, timeout: float = COMMAND_S) -> str | None:
    """Return what a program prints; None if there is no such program, it fails, or takes longer than `timeout` s."""
    program = shutil.which(command[0], path=SYSTEM_FOLDERS)
    if program is None:
        return None
    try:
        # no shell reads the arguments, which the code has as text
        ran = subprocess.run(  # noqa: S603
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={"PATH": SYSTEM_FOLDERS, "LC_ALL": "C"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout if ran.returncode == 0 else None
