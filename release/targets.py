"""The Pythons and processors that wheels are built for, and what compiles for each."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path

GLIBC = (2, 34)
"""The oldest C library that a wheel asks for; Debian 12 has 2.36. auditwheel holds every wheel to it."""
FLAGS = ("-O2", "-g0", "-fPIC", "-fwrapv", "-fstack-protector-strong", "-DNDEBUG", "-D_FORTIFY_SOURCE=2")
LINKED = ("-shared", "-s", "-Wl,-z,relro,-z,now", "-Wl,--as-needed", "-Wl,--build-id=none")


class BuildError(Exception):
    """Something to build with is missing, or what was built is not what it should be."""


@dataclass(frozen=True)
class Processor:
    """A processor: its names for wheels, Debian and compilers, and the flags for the oldest one of its kind."""

    name: str
    debian: str
    triplet: str
    flags: tuple[str, ...] = ()

    @property
    def package(self) -> str:
        """The Debian package that has its C compiler."""
        return "gcc" if self.debian == "amd64" else f"gcc-{self.triplet.replace('_', '-')}"

    def tool(self, name: str) -> str:
        """Return the path of one of its tools, like gcc. Raises BuildError if it is not installed."""
        path = shutil.which(f"{self.triplet}-{name}")
        if path is None:
            raise BuildError(f"{self.triplet}-{name} is missing: apt install {self.package.replace('gcc', name, 1)}")
        return path


@dataclass(frozen=True)
class Version:
    """A Python, and the release of Debian and of Raspberry Pi OS that has it."""

    number: str
    suite: str

    @property
    def tag(self) -> str:
        """What wheels name it, like cp311."""
        return f"cp{self.number.replace('.', '')}"


@dataclass(frozen=True)
class Target:
    """A Python on a processor."""

    version: Version
    processor: Processor

    @property
    def platform(self) -> str:
        """The platform of its wheels, like manylinux_2_34_aarch64."""
        return f"manylinux_{GLIBC[0]}_{GLIBC[1]}_{self.processor.name}"

    @property
    def tag(self) -> str:
        """The tag of its wheels, like cp311-cp311-manylinux_2_34_aarch64."""
        return f"{self.version.tag}-{self.version.tag}-{self.platform}"

    @property
    def suffix(self) -> str:
        """How a compiled module's name ends, as this Python looks for it."""
        return f".cpython-{self.version.tag.removeprefix('cp')}-{self.processor.triplet}.so"

    def __str__(self) -> str:
        return f"{self.version.tag}-{self.processor.name}"


X86_64 = Processor("x86_64", "amd64", "x86_64-linux-gnu")
AARCH64 = Processor("aarch64", "arm64", "aarch64-linux-gnu", ("-march=armv8-a",))
ARMV7L = Processor(
    "armv7l", "armhf", "arm-linux-gnueabihf", ("-march=armv7-a+vfpv3-d16", "-mfloat-abi=hard", "-mthumb")
)
BOOKWORM = Version("3.11", "bookworm")
TRIXIE = Version("3.13", "trixie")
TARGETS = tuple(
    Target(version, processor) for version, processor in product((BOOKWORM, TRIXIE), (X86_64, AARCH64, ARMV7L))
)


def chosen(names: list[str]) -> tuple[Target, ...]:
    """Return the named targets, like cp313-aarch64; all for no name. Raises BuildError for an unknown one."""
    known = {str(target): target for target in TARGETS}
    if unknown := set(names) - known.keys():
        raise BuildError(f"no target {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return tuple(known[name] for name in names) or TARGETS


def cache() -> Path:
    """Return the folder for what is made or fetched once, outside the repository."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "taskengine"
