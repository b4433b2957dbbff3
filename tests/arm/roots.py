"""Roots of Debian for ARM, and what the tests want beside our wheel: made once, in a cache outside the repository."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from release.debian import MIRROR
from release.targets import AARCH64, ARMV7L, BOOKWORM, TRIXIE, Processor, Target, Version, cache
from tests.arm.machine import run

PACKAGES = ("python3", "python3-venv")
DEBIANS = ("python3-zmq", "python3-numpy", "python3-spake2", "python3-cryptography")
"""What only piwheels.org has wheels of for 32-bit ARM."""
SMALL = (
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    '--aptopt=Acquire::Languages "none"',
)
TOOLS = ("pytest>=8", "pytest-xdist>=3.6", "pytest-benchmark>=4", "hypothesis>=6.100", "pigpio>=1.78")
LIBRARIES = ("numpy>=1.24", "prometheus-client>=0.17", "cronsim>=2.6", "spake2>=0.9", "joblib>=1.5", "setuptools>=77")
"""What our extras name and the tests use, where there are wheels: none of numpy and cryptography for armv7l."""
COUNTED = ("pyzmq>=25,<28", "msgspec>=0.18")
"""What the parts of the engine import that `make pi-budget` counts."""
UNWHEELED = ("numpy", "spake2")


@dataclass(frozen=True)
class Root:
    """A release of Debian on a processor."""

    version: Version
    processor: Processor

    @property
    def target(self) -> Target:
        """What wheels for it are called."""
        return Target(self.version, self.processor)

    @property
    def architecture(self) -> str:
        """Its processor, as Debian calls it."""
        return self.processor.debian

    @property
    def folder(self) -> Path:
        """The folder of the root, which is made by what its name has the digest of."""
        return _kept(f"{self}", MIRROR, *self.packages, *SMALL)

    @property
    def packages(self) -> tuple[str, ...]:
        """What the root has beside what Debian calls essential, and apt."""
        return PACKAGES if self.processor is AARCH64 else (*PACKAGES, *DEBIANS)

    @property
    def tools(self) -> Path:
        """The folder of what the tests want, to be put on Python's path."""
        return _kept(f"tools-{self}", *self.wanted)

    @property
    def wanted(self) -> tuple[str, ...]:
        """What the tests want and have a wheel for this target."""
        if self.processor is AARCH64:
            return TOOLS + LIBRARIES
        return TOOLS + tuple(name for name in LIBRARIES if not name.startswith(UNWHEELED))

    def __str__(self) -> str:
        return f"{self.architecture}-{self.version.suite}"


ROOTS = {str(root): root for root in (Root(v, p) for p in (AARCH64, ARMV7L) for v in (TRIXIE, BOOKWORM))}
"""By name, like arm64-trixie; what CI runs is the first."""


def make(root: Root) -> Path:
    """Make a root where it is not there, in some 3 minutes, and return its folder. Raises CalledProcessError."""
    if not root.folder.is_dir():
        print(f"making {root.folder}, about 3 minutes", file=sys.stderr, flush=True)
        half = _half(root.folder)
        half.parent.mkdir(parents=True, exist_ok=True)
        bootstrap = ["mmdebstrap", "--mode=root", f"--architectures={root.architecture}", "--variant=minbase"]
        command = [*bootstrap, f"--include={','.join(root.packages)}", *SMALL, root.version.suite, str(half), MIRROR]
        code = run(root.architecture, command, network=True)
        if code:
            raise subprocess.CalledProcessError(code, command)
        half.rename(root.folder)
    return root.folder


def make_tools(root: Root) -> Path:
    """Fetch what the tests want, where it is not there, and return its folder. Raises CalledProcessError."""
    if not root.tools.is_dir():
        half = _half(root.tools)
        subprocess.run([*pip("install", root.target), "--target", half, "--no-compile", *root.wanted], check=True)
        half.rename(root.tools)
    return root.tools


def make_site(root: Root) -> Path:
    """Make a root, and beside it a folder of what `make pi-budget` imports; return the root's.

    Raises CalledProcessError.
    """
    folder = make(root)
    site = folder.with_name(f"{folder.name}-site")
    if not site.is_dir():
        half = _half(site)
        subprocess.run([*pip("install", root.target), "--target", half, "--no-compile", *COUNTED], check=True)
        half.rename(site)
    return folder


def pip(command: str, target: Target) -> list[str]:
    """Return the words by which pip does something for another Python and processor, with wheels only."""
    glibcs = ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_31", "manylinux_2_34")
    platforms = [word for glibc in glibcs for word in ("--platform", f"{glibc}_{target.processor.name}")]
    which = ["--python-version", target.version.number, "--implementation", "cp", "--only-binary", ":all:"]
    return [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *which, *platforms]


def _kept(name: str, *recipe: str) -> Path:
    return cache() / f"{name}-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"


def _half(folder: Path) -> Path:
    half = folder.with_name(f"{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    return half
