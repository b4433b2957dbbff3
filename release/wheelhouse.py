"""`make wheelhouse`: all that a Pi needs to install the engine without a compiler and without a network.

For each target a folder below dist/wheelhouse with our wheel, the wheels that PyPI has, and those that it lacks, which
are built here (`recipes`). Where neither is possible it says so, and what else brings that library to such a Pi.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from release.archive import epoch
from release.contents import ROOT
from release.recipes import RECIPES
from release.targets import AARCH64, ARMV7L, BOOKWORM, TRIXIE, BuildError, Target, chosen
from release.wheels import build

PIS = tuple(str(Target(version, processor)) for version, processor in product((BOOKWORM, TRIXIE), (AARCH64, ARMV7L)))
"""The four that Raspberry Pi OS is: Bookworm and Trixie, with 64 and with 32 bits."""
EXTRAS = ("hardware", "pair", "metrics", "schedule")
"""The extras that a robot's engine may have; numpy is the tasks' own affair."""
GLIBCS = {BOOKWORM: 36, TRIXIE: 41}
ELSEWHERE = {
    "pyzmq": "from piwheels.org, which pip on Raspberry Pi OS asks by itself; on Trixie also apt install python3-zmq",
    "spake2": "its cffi by apt install python3-cffi-backend, or from piwheels.org; `keys pair --line` needs neither",
}
"""What brings a library to a Pi for which there is no wheel here."""


def requirements() -> list[str]:
    """Return what the engine needs on a Pi, with its extras for robots, as pyproject.toml has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [needed for extra in EXTRAS for needed in project["optional-dependencies"][extra]]
    return [text.partition(";")[0].strip() for text in (*project["dependencies"], *extras)]


def fill(target: Target, house: Path, work: Path) -> Iterator[str]:
    """Fill a target's folder; yield a line for each library that could not be had. Raises BuildError."""
    shutil.rmtree(house, ignore_errors=True)
    build([str(target)], house)
    for needed in requirements():
        name = needed.partition(">")[0]
        if _download(target, needed, house):
            continue
        if name in RECIPES:
            place = work / f"{target}-{name}"
            place.mkdir()
            RECIPES[name](target, house, place, epoch(ROOT))
        else:
            yield f"{target}: {needed} has no wheel on PyPI; {ELSEWHERE.get(name, 'it has to be compiled there')}"


def _download(target: Target, needed: str, house: Path) -> bool:
    """Fetch the wheel of a library and of all that it needs; return whether PyPI has them for this target."""
    tag = target.version.tag
    arch = target.processor.name
    platforms = [f"manylinux_2_{minor}_{arch}" for minor in range(GLIBCS[target.version], 16, -1)]
    options = [f"--platform={platform}" for platform in (*platforms, f"manylinux2014_{arch}", f"linux_{arch}")]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"),
        *(f"--python-version={target.version.number}", "--implementation=cp"),
        *(f"--abi={abi}" for abi in (tag, "abi3", "none")),
        *(*options, f"--find-links={house}", f"--dest={house}", needed),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    # the second, where it is something that the library needs
    if done.returncode and not any(
        text in done.stderr for text in ("No matching distribution", "ResolutionImpossible")
    ):
        raise BuildError(f"pip download {needed}: {done.stderr}")
    return not done.returncode


def main(arguments: list[str]) -> int:
    """Fill the folders, and print what is in them and what is lacking."""
    parser = argparse.ArgumentParser("python -m release.wheelhouse", description="Collect what a Pi installs.")
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(PIS)}, and x86_64 [default: these]")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist" / "wheelhouse", help="[default: dist/wheelhouse]")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="taskengine-wheelhouse-") as work:
            for target in chosen(options.targets or list(PIS)):
                lacking = list(fill(target, options.dist / str(target), Path(work)))
                for path in sorted((options.dist / str(target)).glob("*.whl")):
                    print(f"{path.stat().st_size / 1024:7.0f} KiB  {target}/{path.name}", flush=True)
                for line in lacking:
                    print(f"release: {line}", file=sys.stderr)
    except BuildError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
