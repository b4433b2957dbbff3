"""Writes wheels and sdists that the same files always give the same bits: sorted, with one date, mode and owner."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import time
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

EARLIEST = 315532800
"""1980-01-01, in s since 1970: zip knows none before."""


def epoch(root: Path) -> int:
    """Return the date of what is built, in s since 1970: SOURCE_DATE_EPOCH, else that of the last commit in `root`."""
    told = os.environ.get("SOURCE_DATE_EPOCH")
    if told is None:
        told = subprocess.run(
            ["git", "log", "-1", "--format=%ct"], cwd=root, check=True, capture_output=True, text=True
        ).stdout
    return max(int(told), EARLIEST)


def write_wheel(
    folder: Path, name: str, version: str, tag: str, files: Mapping[str, bytes], info: Mapping[str, bytes], date: int
) -> Path:
    """Write a wheel into a folder, and return its path.

    `files` are by their paths in site-packages, `info` by their names in the dist-info folder, METADATA among them.
    `date` is in s since 1970.
    """
    stem = f"{name.replace('-', '_')}-{version}"
    pure = "true" if tag.endswith("-none-any") else "false"
    about = f"Wheel-Version: 1.0\nGenerator: taskengine release\nRoot-Is-Purelib: {pure}\nTag: {tag}\n"
    whole = dict(files) | {f"{stem}.dist-info/{path}": data for path, data in info.items()}
    whole[f"{stem}.dist-info/WHEEL"] = about.encode()
    record = f"{stem}.dist-info/RECORD"
    rows = [f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in sorted(whole.items())]
    whole[record] = "".join([*rows, f"{record},,\n"]).encode()
    wheel = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(whole, key=lambda path: (".dist-info/" in path, path)):  # the metadata last, as PEP 427 asks
            entry = zipfile.ZipInfo(path, time.gmtime(date)[:6])
            entry.create_system = 3  # Unix, whose modes the next line has
            entry.external_attr = (0o100755 if path.endswith(".so") else 0o100644) << 16
            archive.writestr(entry, whole[path], zipfile.ZIP_DEFLATED, 9)
    return wheel


def read_wheel(wheel: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the files and the metadata of a wheel, as `write_wheel` takes them."""
    files: dict[str, bytes] = {}
    info: dict[str, bytes] = {}
    with zipfile.ZipFile(wheel) as archive:
        for path in archive.namelist():
            folder, _, rest = path.partition("/")
            if path.endswith("/"):
                continue
            if not folder.endswith(".dist-info"):
                files[path] = archive.read(path)
            elif rest not in ("RECORD", "WHEEL"):
                info[rest] = archive.read(path)
    return files, info


def rewrite_sdist(made: Path, folder: Path, date: int) -> Path:
    """Write the files of an sdist again, into a folder, without what its maker's machine and clock have left in it."""
    packed = io.BytesIO()
    with tarfile.open(made) as old, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted((member for member in old if member.isfile()), key=lambda member: member.name):
            entry = tarfile.TarInfo(member.name)
            entry.size, entry.mtime, entry.mode = member.size, date, 0o644
            new.addfile(entry, old.extractfile(member))
    sdist = folder / made.name
    sdist.write_bytes(gzip.compress(packed.getvalue(), mtime=0))
    return sdist


def _digest(data: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
