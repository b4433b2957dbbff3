"""`python -m tests.arm [ROOT ...]`: install our wheel in roots of ARM under QEMU, and test it there.

Each root is made once, in some 3 minutes, into the user's cache.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from release.targets import AARCH64, BuildError
from tests.arm import machine, roots
from tests.arm.roots import ROOTS, Root

NEEDED = {
    "mmdebstrap": "mmdebstrap",
    "swig": "swig",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf",
    "arch-test": "arch-test",
    "qemu-aarch64": "qemu-user",
    "ip": "iproute2",
}
"""Programs, each with the Debian package that has it."""
PLACE = "/srv"
NOT_HERE = (
    *("tests/unit/bench", "tests/unit/release"),
    *(f"tests/unit/test_{name}.py" for name in ("container", "github", "packaging")),
)
"""What tests the sources rather than what is installed, and needs a compiler, setuptools or PyYAML for it."""
SHORT = (
    *("tests/unit", "tests/property"),
    *(
        f"tests/integration/test_{name}.py"
        for name in ("client", "aio", "seed_wire", "values", "plain_pyzmq", "streams")
    ),
)
"""What fits into CI."""
LONG = ("tests/unit", "tests/property", "tests/integration")


def prepare() -> None:
    """Have what is needed, or end."""
    missing = sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})
    if missing:
        print(f"installing {' '.join(missing)}", file=sys.stderr, flush=True)
        subprocess.run(["apt-get", "update", "-qq"], check=True, stdout=sys.stderr)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(install, check=True, stdout=sys.stderr)
    machine.check()


def in_root(root: Root, script: str, words: list[str]) -> int:
    """Run a script of this folder in a root, beside its wheelhouse; its exit code."""
    with tempfile.TemporaryDirectory(prefix="taskengine-wheelhouse-") as name:
        fill = [sys.executable, "-m", "release.wheelhouse", str(root.target), "--dist", name]
        subprocess.run(fill, cwd=machine.REPOSITORY, check=True)
        house = Path(name, str(root.target))
        shown = {f"{PLACE}/repository": machine.REPOSITORY, f"{PLACE}/wheelhouse": house}
        # by the name of this folder the engine knows what is installed, whose files it does not survey for tasks
        kept = {f"{PLACE}/tools/site-packages": roots.make_tools(root)}
        command = ["sh", f"{PLACE}/repository/tests/arm/{script}", *words]
        return machine.run(root.architecture, command, root=roots.make(root), shown=shown, kept=kept)


def main() -> int:
    """The exit code: 0, or that of what failed first."""
    parser = argparse.ArgumentParser(prog="python -m tests.arm", description=__doc__)
    parser.add_argument("roots", nargs="*", metavar="ROOT", help=f"of {', '.join(ROOTS)} [default: the first]")
    parser.add_argument("--servo", action="store_true", help="test nothing; install, serve, move a servo, within 120 s")
    parser.add_argument("--long", action="store_true", help="run all integration tests, rather than some")
    parser.add_argument(
        "--counting", action="store_true", help="only make the arm64 roots, and print them for PI_ROOTS"
    )
    parser.add_argument("--pytest", metavar="WORDS", help="what pytest is to run instead")
    options = parser.parse_args()
    if unknown := set(options.roots) - ROOTS.keys():
        parser.error(f"no root {', '.join(sorted(unknown))}; there are {', '.join(ROOTS)}")
    chosen = [ROOTS[name] for name in options.roots] or [next(iter(ROOTS.values()))]
    given = shlex.split(options.pytest) if options.pytest else LONG if options.long else SHORT
    jobs = str(os.cpu_count())
    words = [
        *given,
        "-m",
        "not alone",
        "-q",
        "-n",
        jobs,
        "--dist",
        "loadfile",
        *(f"--ignore={path}" for path in NOT_HERE),
    ]
    try:
        prepare()
        if options.counting:
            made = [roots.make_site(root) for root in ROOTS.values() if root.processor is AARCH64]
            print(":".join(map(str, made)))
            return 0
        for root in chosen:
            start = time.monotonic()
            code = in_root(root, "first_servo.sh" if options.servo else "suite.sh", words)
            print(f"{root}: exit code {code} after {time.monotonic() - start:.0f} s", flush=True)
            if code:
                return code
    except (machine.NoMachine, BuildError, subprocess.CalledProcessError) as error:
        print(f"tests.arm: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
