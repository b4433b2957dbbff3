"""The machine of a measurement, and the versions of the programs on it."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path

import msgspec
import zmq

PACKAGES = ("taskengine-robot", "pyzmq", "msgspec", "Cython")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as a reader needs to know it to compare figures."""

    name: str
    cpu: str
    cores: int
    memory_mb: int
    system: str
    versions: dict[str, str]


def busy_elsewhere(seconds: float) -> float:
    """How much of all cores others use, what a host takes of a virtual machine among it, while we wait so long."""
    before = _times()
    time.sleep(seconds)
    idle, total = (after - then for after, then in zip(_times(), before, strict=True))
    return 1 - idle / total if total else 0.0


def _times() -> tuple[int, int]:
    """Idle time of all cores, and time in all, in ticks."""
    first = _text("/proc/stat").partition("\n")[0].split()[1:9]
    return sum(map(int, first[3:5])), sum(map(int, first))


def this_machine() -> Machine:
    """The machine at hand."""
    model = _text("/proc/device-tree/model").strip("\0 \n")
    cpu = _cpu() or platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0))
    return Machine(
        name=model or f"{cpu}, {cores} cores, {platform.machine()}",
        cpu=cpu,
        cores=cores,
        memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        system=f"{platform.system()} {platform.release()}",
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    versions = {platform.python_implementation(): platform.python_version(), "libzmq": zmq.zmq_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _cpu() -> str:
    """The model of the CPU; a Pi's kernel names only the hardware."""
    fields = (line.partition(":") for line in _text("/proc/cpuinfo").splitlines())
    known = {key.strip().lower(): value.strip() for key, _, value in fields}
    return known.get("model name") or known.get("hardware") or ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:  # this kernel does not tell
        return ""
