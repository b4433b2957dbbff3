"""The files, commands and sockets of the machine that we run on."""

from __future__ import annotations

import fcntl
import grp
import importlib
import importlib.metadata
import os
import socket
import struct
from pathlib import Path

from taskengine.doctor.observation import Chip, Space
from taskengine.runtime.system_programs import output_of

COMMAND_S = 5.0
"""How long a command may take, in s."""
# <linux/gpio.h>: struct gpiochip_info { char name[32]; char label[32]; __u32 lines; }, GPIO_GET_CHIPINFO_IOCTL
CHIP_INFO = struct.Struct("=32s32sI")
GET_CHIP_INFO = 0x8044B401


class ThisMachine:
    """The machine that we run on, as `Surroundings` describes it."""

    def text(self, path: str) -> str | None:
        """Return a file's text, without the zeros of a device tree; None if there is none that can be read."""
        try:
            return Path(path).read_text("utf-8", "replace").rstrip("\0")
        except OSError:
            return None

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder; none if it cannot be read."""
        try:
            return sorted(os.listdir(folder))
        except OSError:
            return []

    def may_use(self, path: str) -> bool:
        """Return whether this user may read and write a file or device."""
        return os.access(path, os.R_OK | os.W_OK, effective_ids=True)

    def group_of(self, path: str) -> str:
        """Return the name of a file's group; "" if it has none."""
        try:
            return grp.getgrgid(os.stat(path).st_gid).gr_name
        except (OSError, KeyError):
            return ""

    def run(self, *command: str) -> str | None:
        """Return what a command prints; None if there is no such command, or it fails."""
        return output_of(*command, timeout=COMMAND_S)

    def chip(self, path: str) -> Chip | None:
        """Return a gpiochip; None if it cannot be opened."""
        try:
            device = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            _, label, lines = CHIP_INFO.unpack(fcntl.ioctl(device, GET_CHIP_INFO, bytes(CHIP_INFO.size)))
        except OSError:
            return None
        finally:
            os.close(device)
        return Chip(label.split(b"\0")[0].decode("utf-8", "replace"), lines)

    def space(self, path: str) -> Space | None:
        """Return the room where a path lies; None if it does not exist."""
        try:
            found = os.statvfs(path)
        except OSError:
            return None
        return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)

    def refusal(self, host: str, port: int) -> str:
        """Return why nobody can listen on a port, "" if one can."""
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen(1)
        except OSError as error:
            return str(error.strerror or error)
        return ""

    def version(self, distribution: str) -> str | None:
        """Return the version of an installed distribution; None if it is not installed."""
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            return None

    def failure(self, module: str) -> str:
        """Return why a module of Python cannot be imported, "" if it can."""
        try:
            importlib.import_module(module)
        except ImportError as error:
            return str(error)
        return ""

    def processes(self) -> dict[int, str]:
        """Return the names of the running processes, by their ids."""
        names = {int(name): self.text(f"/proc/{name}/comm") for name in self.names("/proc") if name.isdigit()}
        return {pid: name.strip() for pid, name in names.items() if name is not None}

    def pin_holders(self) -> list[int]:
        """Return the ids of the processes that have lines of a gpiochip, as far as this user may see."""
        return [int(name) for name in self.names("/proc") if name.isdigit() and _has_lines(f"/proc/{name}/fd")]


def _has_lines(folder: str) -> bool:
    try:
        targets = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
    except OSError:  # it ended, or is another user's
        return False
    return any(target.startswith("/dev/gpiochip") or "gpio-line" in target for target in targets)
