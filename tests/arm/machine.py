"""A machine of ARM that is none: namespaces in which QEMU runs its programs, over a root of Debian's.

Since Linux 6.7 binfmt_misc belongs to a user namespace. A private one, which has the users of this machine, registers
QEMU for itself alone: nothing outside is changed, and it works in a container that may make namespaces. Where the
kernel is older, root registers QEMU with this machine, and takes it out again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

from release.debian import unpacked
from release.targets import TRIXIE, X86_64

FOLDER = Path(__file__).parent
REPOSITORY = FOLDER.parents[1]
ENTER = FOLDER / "enter.sh"
USERS = 65536
"""As many users as a root of Debian's may name."""
SPACES = ("--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc")
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
PASSED = ("LIMIT", "TASKENGINE_TEST_TIME_FACTOR")
"""Variables of this machine that a command is given, if they are set."""
CPUS = {"arm64": "cortex-a53", "armhf": "cortex-a7"}
"""Of the Pi 3, and of the Pi 2. The one that QEMU would choose takes ten times as long."""
PROBE = "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc"


class NoMachine(Exception):
    """Programs of ARM cannot be run here; the text says what is missing."""


def run(
    architecture: str,
    command: Sequence[str],
    *,
    root: Path | None = None,
    shown: Mapping[str, Path] | None = None,
    kept: Mapping[str, Path] | None = None,
    network: bool = False,
) -> int:
    """Run a command and give its exit code. Raises NoMachine.

    With `root`, the command finds it as its root, may write everywhere, and leaves nothing behind; `shown` are folders
    of this machine by where it finds them, to be written likewise, and in `kept` ones stays what it writes. Without
    `root`, it runs in this machine's. The network is loopback only, unless `network`.
    """
    if os.geteuid() != 0:
        raise NoMachine("only root may do this")
    with tempfile.TemporaryDirectory(prefix="taskengine-arm-") as name:
        folder = Path(name)
        if root is not None:
            (folder / "root").mkdir()
            (folder / "lower").write_text(str(root))
            for listed, folders in ("shown", shown or {}), ("kept", kept or {}):
                (folder / listed).write_text("".join(f"{path} {where}\n" for where, path in folders.items()))
        spaces = SPACES if network else (*SPACES, "--net")
        inner = ["unshare", *spaces, "sh", str(ENTER), str(folder), "yes" if network else "no", str(qemu()), *command]
        passed = {name: os.environ[name] for name in PASSED if name in os.environ}
        variables = {**ENVIRONMENT, "QEMU_CPU": CPUS[architecture], **passed}
        if is_private():
            return _in_user_namespace(inner, variables)
        return subprocess.run(inner, env=variables, stdin=subprocess.DEVNULL, check=False).returncode


@cache
def qemu() -> Path:
    """Return the folder of the emulators, which are fetched once. Raises BuildError.

    Debian 13's: they are linked statically, and know PR_SET_CHILD_SUBREAPER, as Debian 12's do not.
    """
    return unpacked("qemu-user", TRIXIE.suite, X86_64) / "usr" / "bin"


@cache
def is_private() -> bool:
    """Return whether a user namespace may have a binfmt_misc of its own."""
    probe = ["unshare", *SPACES, "sh", "-c", f"{PROBE} 2>/dev/null"]
    try:
        return _in_user_namespace(probe, ENVIRONMENT) == 0
    except NoMachine:
        return False


def check() -> None:
    """See that this machine can run programs of ARM. Raises NoMachine."""
    if run("arm64", ["true"]):
        raise NoMachine(
            "binfmt_misc is out of reach: Linux 6.7 or newer and user namespaces, or CAP_SYS_ADMIN, are needed"
        )


def _in_user_namespace(command: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run a command as root of a user namespace that has this machine's users. Raises NoMachine."""
    # it must not go on before its users are known, and only a process outside may name so many
    waiting = ["unshare", "--user", "sh", "-c", 'echo; read go && exec "$@" </dev/null', "sh", *command]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(variables)) as process:
        try:
            _let_go(process)
            for line in _stream(process.stdout):
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
        except BaseException:
            process.kill()
            raise
    return process.returncode


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Give a namespace its users, and have its command begin. Raises NoMachine."""
    if not _stream(process.stdout).readline():
        raise NoMachine("the kernel gives no user namespace")
    try:
        for kind in ("uid", "gid"):
            Path(f"/proc/{process.pid}/{kind}_map").write_text(f"0 0 {USERS}\n")
    except OSError as error:
        raise NoMachine(f"a namespace cannot be given {USERS} users: {error}") from error
    go = _stream(process.stdin)
    go.write(b"\n")
    go.close()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "opened as a pipe"
    return stream
