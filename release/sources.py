"""Fetches the sources of libraries, by pinned URLs and SHA-256, and unpacks them once."""

from __future__ import annotations

import io
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from release.debian import fetch
from release.targets import cache

FILES = "https://files.pythonhosted.org/packages"


@dataclass(frozen=True)
class Source:
    """A tar archive at a URL; all of it lies in one folder."""

    url: str
    sha256: str

    def unpacked(self) -> Path:
        """Return the folder with the files, which is fetched if it is not there yet. Raises BuildError."""
        place = cache() / "release" / "sources" / self.sha256[:16]
        if not place.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            data = fetch(self.url, self.sha256)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix="half-") as half:
                files = Path(half, "files")
                with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                    archive.extractall(files, filter="data")
                if not place.exists():
                    files.rename(place)
        [folder] = place.iterdir()
        return folder


MSGSPEC = Source(
    f"{FILES}/7b/72/c9d89595763e54800d2c136efadfb65c8ae789bc85b8a0c890358f967667/msgspec-0.23.0.tar.gz",
    "a0d57d3ca7734542eb6861e72d974ab051e6cf73ea6b01b263f77170593362be",
)
LGPIO = Source(
    f"{FILES}/56/33/26ec2e8049eaa2f077bf23a12dc61ca559fbfa7bea0516bf263d657ae275/lgpio-0.2.2.0.tar.gz",
    "11372e653b200f76a0b3ef8a23a0735c85ec678a9f8550b9893151ed0f863fff",
)
