"""Makes this process look like one on Windows or macOS, and runs a program in it: `elsewhere.py FOLDER PROGRAM …`.

FOLDER holds the files of the client's wheel. What Python's own modules and the libraries need of Linux they have taken
before it is hidden. Whatever the client asks for later raises, as it would there: AttributeError, ModuleNotFoundError.
"""

from __future__ import annotations

import asyncio.unix_events
import functools
import importlib.util
import mmap
import os
import pathlib
import runpy
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from types import ModuleType

import click
import msgspec
import rich.console
import zmq.utils.monitor

HIDDEN: dict[ModuleType, tuple[str, ...]] = {
    os: (
        *("eventfd", "eventfd_read", "eventfd_write", "memfd_create", "pidfd_open", "pipe2", "register_at_fork"),
        *("geteuid", "getuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "setuid", "setgid"),
        *("setgroups", "seteuid", "setegid", "waitid", "WNOHANG", "sched_getaffinity", "sched_setaffinity", "sysconf"),
        *("O_DIRECTORY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "killpg", "getpgid", "setsid", "uname", "statvfs"),
        *("chown", "fchown", "lchown", "posix_spawn", "EFD_CLOEXEC", "EFD_NONBLOCK"),
    ),
    time: ("clock_gettime", "clock_gettime_ns", "CLOCK_BOOTTIME", "CLOCK_MONOTONIC", "CLOCK_REALTIME", "tzset"),
    socket: ("AF_UNIX", "SO_PEERCRED", "TCP_INFO", "MSG_DONTWAIT", "SOCK_SEQPACKET", "SOCK_CLOEXEC", "SOCK_NONBLOCK"),
    signal: ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGQUIT", "pthread_sigmask", "sigtimedwait"),
    mmap: tuple(name for name in dir(mmap) if name.startswith(("MADV_", "MAP_", "PROT_"))),
}
MODULES = ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog")
NEEDED = (asyncio.unix_events, click, msgspec, rich.console, tempfile, threading, zmq.utils.monitor)


class NoSuchModule:
    """Finds none of the modules of MODULES, for whoever has not imported them yet."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Raise for a module that is hidden."""
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def hide() -> None:
    """Take away what only Linux, or only Unix, has."""
    assert rich.console.Console().size.width  # it asks by modules that are hidden now
    # as on Windows, where Python makes such a pair of TCP sockets
    vars(socket)["socketpair"] = functools.partial(socket.socketpair, socket.AF_UNIX)
    for module, names in HIDDEN.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    for gone in MODULES:
        sys.modules.pop(gone, None)
    sys.meta_path.insert(0, NoSuchModule)


def use(folder: str) -> None:
    """Have `taskengine` imported from a folder alone, not from where it is installed for development."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
    sys.path[:] = [folder, *(path for path in sys.path if pathlib.Path(path, "taskengine").is_dir() is False)]
    found = importlib.util.find_spec("taskengine")
    assert found is not None
    assert found.origin == os.path.join(folder, "taskengine", "__init__.py")


if __name__ == "__main__":
    folder, program, *sys.argv[1:] = sys.argv[1:]
    use(folder)
    hide()
    if program == "-m":
        from taskengine.cli.main import main

        main()
    else:
        runpy.run_path(program, run_name="__main__")
