"""`make wheels`: the sdist and the wheels, for every target or for those that are named.

`python -m release.wheels cp313-aarch64` makes only that wheel, and no sdist; `client` is the one for laptops.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

from release.archive import epoch, rewrite_sdist, write_wheel
from release.client import TAG, client_files
from release.compiling import compile_module, judge
from release.contents import ROOT, Contents, contents, copy_sources, make_sdist
from release.targets import TARGETS, BuildError, Target, chosen

CLIENT = "client"


def build(names: list[str], dist: Path) -> list[Path]:
    """Build the named targets' wheels, or everything for no name, into `dist`, and return the paths.

    Raises BuildError.
    """
    dist.mkdir(parents=True, exist_ok=True)
    date = epoch(ROOT)
    with tempfile.TemporaryDirectory(prefix="taskengine-wheels-") as place:
        copy, out = copy_sources(Path(place, "copy")), Path(place, "out")
        out.mkdir()
        made = [] if names else [rewrite_sdist(make_sdist(copy, out), dist, date)]
        ours = contents(copy, out)
        if not names or CLIENT in names:
            files = client_files(ours.files)
            made.append(write_wheel(dist, ours.name, ours.version, TAG, files, ours.info, date))
        targets = [name for name in names if name != CLIENT]
        return made + [_wheel(target, ours, out, dist, date) for target in chosen(targets) if targets or not names]


def _wheel(target: Target, ours: Contents, out: Path, dist: Path, date: int) -> Path:
    files = dict(ours.files)
    for module, source in ours.sources.items():
        library = out / str(target) / f"{module}{target.suffix}"
        library.parent.mkdir(exist_ok=True)
        files[f"taskengine/{library.name}"] = compile_module(target, [source], library)
    wheel = write_wheel(dist, ours.name, ours.version, target.tag, files, ours.info, date)
    judge(wheel)
    return wheel


def main(arguments: list[str]) -> int:
    """Build, and print the size and the SHA-256 of each file."""
    parser = argparse.ArgumentParser("python -m release.wheels", description="Build the sdist and the wheels.")
    known = ", ".join([CLIENT, *map(str, TARGETS)])
    parser.add_argument("targets", nargs="*", help=f"of {known} [default: all, and the sdist]")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="the folder for them [default: dist]")
    options = parser.parse_args(arguments)
    try:
        for path in build(options.targets, options.dist):
            data = path.read_bytes()
            print(f"{hashlib.sha256(data).hexdigest()}  {len(data) / 1024:7.0f} KiB  {path.name}", flush=True)
    except BuildError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
