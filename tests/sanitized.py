"""`python -m tests.sanitized COMMAND…`: run a Python module on a build with AddressSanitizer and UBSan.

The build lies in build/sanitized, beside the one in place, which it never touches. Its code also counts where it has
been, for tests.fuzz (see tests/fuzz/guide.c).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "sanitized"
GUIDE = ROOT / "tests" / "fuzz" / "guide.c"
LIBRARY = FOLDER / "guide.so"
SANITIZE = "-fsanitize=address,undefined"
COMPILE = (
    f"-O1 -g1 -fno-omit-frame-pointer {SANITIZE} -fsanitize=float-cast-overflow -fno-sanitize-recover=all "
    "-fsanitize-coverage=trace-pc,trace-cmp"
)
OPTIONS = {
    # CPython keeps memory until it exits
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:abort_on_error=0:allocator_may_return_null=1:exitcode=86"
    ":verify_asan_link_order=0:malloc_context_size=2:quarantine_size_mb=32",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1:exitcode=86",
    # so that an object has its own redzones
    "PYTHONMALLOC": "malloc",
    "PYTHONHASHSEED": "0",
    # the folder that one is in must not come before the build
    "PYTHONSAFEPATH": "1",
}
REPORTS = ("ERROR: AddressSanitizer", "runtime error:")
"""The mark that a sanitizer prints where it has found something."""


class CannotBuild(Exception):
    """A part that the build needs is missing, or the compiler failed."""


def compiler() -> list[str]:
    """The C compiler, as setuptools finds it."""
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    if shutil.which(command[0]) is None:
        raise CannotBuild(f"the C compiler {command[0]} is missing: apt install gcc libc6-dev")
    return command


def _runtime(*names: str) -> str:
    """A library that comes with the compiler, by the first of the names that it knows."""
    for name in names:
        found = subprocess.run(
            [*compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        if os.path.isabs(found):
            return os.path.realpath(found)
    raise CannotBuild(f"{names[0]}, which comes with gcc, is missing: apt install gcc")


def _stamp() -> str:
    """The sources of the build."""
    digest = hashlib.sha256(f"{sys.version} {compiler()} {COMPILE}".encode())
    sources = (ROOT / "taskengine").rglob("*.p[xy]*")
    for path in sorted([*sources, ROOT / "setup.py", GUIDE]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def build() -> Path:
    """Return the folder that holds the package with sanitizers; compile it anew where a source has changed.

    Of the processes that ask at once, one compiles, and the others wait for it.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER.parent / "sanitized.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _built()


def _built() -> Path:
    stamp, lib = FOLDER / "stamp", FOLDER / "lib"
    if stamp.is_file() and stamp.read_text() == _stamp():
        return lib
    shutil.rmtree(FOLDER)
    FOLDER.mkdir()
    guide = FOLDER / "guide.o"
    _run([*compiler(), "-O2", "-fPIC", "-fvisibility=hidden", "-c", str(GUIDE), "-o", str(guide)])
    _run([*compiler(), "-O2", "-fPIC", "-shared", str(GUIDE), "-o", str(LIBRARY)])
    flags = {"CFLAGS": COMPILE, "LDFLAGS": f"{SANITIZE} {guide}"}
    _run([sys.executable, "setup.py", "-q", "build", "--build-base", str(FOLDER), "--build-lib", str(lib)], **flags)
    stamp.write_text(_stamp())
    return lib


def _run(command: list[str], **extra: str) -> None:
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **extra}, capture_output=True, text=True)
    if done.returncode:
        raise CannotBuild(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def environment() -> dict[str, str]:
    """The environment in which Python runs on the build."""
    lib = build()
    # libstdc++ beside the sanitizer: otherwise it does not find the exceptions of libzmq, which is loaded later
    libraries = [str(LIBRARY), _runtime("libasan.so"), _runtime("libstdc++.so.6", "libstdc++.so")]
    return {**os.environ, **OPTIONS, "LD_PRELOAD": ":".join(libraries), "PYTHONPATH": f"{lib}:{ROOT}"}


def main() -> None:
    """Run the command."""
    try:
        env = environment()
    except CannotBuild as error:
        sys.exit(f"tests.sanitized: {error}")
    sys.exit(subprocess.run([sys.executable, "-m", *sys.argv[1:]], env=env).returncode)


if __name__ == "__main__":
    main()
