"""Fetches packages of Debian for other processors and unpacks them, once. Nothing of them is installed or run.

A package is known by the index of its release, which has its SHA-256. The index comes over TLS from MIRROR.
"""

from __future__ import annotations

import hashlib
import lzma
import tempfile
import urllib.request
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from release.running import run
from release.targets import BuildError, Processor, Target, cache

MIRROR = "https://deb.debian.org/debian"
WAIT_S = 60


def fetch(url: str, sha256: str | None = None) -> bytes:
    """Return what lies at an https URL. Raises BuildError if it cannot be had, or has not this SHA-256."""
    if not url.startswith("https://"):
        raise BuildError(f"{url} is no https URL")
    try:
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            data: bytes = answer.read()
    except OSError as error:
        raise BuildError(f"{url}: {error}") from None
    if sha256 is not None and (have := hashlib.sha256(data).hexdigest()) != sha256:
        raise BuildError(f"{url} has the SHA-256 {have}, not {sha256}")
    return data


def unpacked(name: str, suite: str, processor: Processor) -> Path:
    """Return the folder with a package's files, which is fetched if it is not there yet. Raises BuildError."""
    folder = cache() / "release" / f"{suite}-{processor.debian}" / name
    if folder.is_dir():
        return folder
    fields = _fields(name, suite, processor.debian)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="half-") as half:
        archive, files = Path(half, "package.deb"), Path(half, "files")
        archive.write_bytes(fetch(f"{MIRROR}/{fields['Filename']}", fields["SHA256"]))
        files.mkdir()
        run(["dpkg-deb", "--extract", str(archive), str(files)])
        if not folder.exists():  # which another build may have made meanwhile
            files.rename(folder)
    return folder


def headers(target: Target) -> list[Path]:
    """Return the include folders of a target's Python alone: the C library's would hide the compiler's own."""
    python = f"python{target.version.number}"
    include = unpacked(f"lib{python}-dev", target.version.suite, target.processor) / "usr/include"
    ours = include.parent / "only-python"
    nested = ours / target.processor.triplet
    if not nested.is_dir():
        nested.mkdir(parents=True)
        (nested / python).symlink_to(include / target.processor.triplet / python)
        (ours / python).symlink_to(include / python)
    return [ours / python, ours]


def _fields(name: str, suite: str, architecture: str) -> dict[str, str]:
    for paragraph in _index(suite, architecture).split("\n\n"):
        if paragraph.startswith(f"Package: {name}\n"):
            return dict(_lines(paragraph))
    raise BuildError(f"{MIRROR} has no {name} for {architecture} in {suite}")


def _lines(paragraph: str) -> Iterator[tuple[str, str]]:
    for line in paragraph.splitlines():
        if not line.startswith(" "):
            key, _, value = line.partition(": ")
            yield key, value


@lru_cache
def _index(suite: str, architecture: str) -> str:
    url = f"{MIRROR}/dists/{suite}/main/binary-{architecture}/Packages.xz"
    return lzma.decompress(fetch(url)).decode()
