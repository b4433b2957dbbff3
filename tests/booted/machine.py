"""A machine with a systemd of its own: namespaces, whose first process it is. Nothing outside of them is changed."""

from __future__ import annotations

import contextlib
import os
import site
import subprocess
import sys
from pathlib import Path

from tests.engine import children, deadline, wait_until

ROOT = Path(__file__).resolve().parents[2]
MANAGER = Path("/lib/systemd/systemd")
CGROUPS = Path("/sys/fs/cgroup")
USER = "daemon"
"""Whom the service runs as; a user that every Linux has."""
PYTHON = "/srv/venv/bin/python"
# what the service reads lies below /srv, since this Python may lie in root's home
BOOT = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys
mount -t tmpfs tmpfs /run -o mode=755
mkdir -p {disk}/srv {disk}/units
mount --bind {disk}/srv /srv; mount --bind {disk}/units /etc/systemd/system
mount -t tmpfs tmpfs /tmp -o mode=1777
umount -R {cgroups} || true
if [ -n "{is_unified}" ]; then
    mount -t cgroup2 cgroup2 {cgroups}
else
    mount -t tmpfs tmpfs {cgroups} -o mode=755; mkdir {cgroups}/systemd
    mount -t cgroup -o none,name=systemd cgroup {cgroups}/systemd
fi
mkdir -p /srv/python /srv/site
mount --bind {base} /srv/python; mount --bind {site} /srv/site
/srv/python/bin/python3 -m venv --without-pip /srv/venv
installed=$(echo /srv/venv/lib/python3*/site-packages)
show() {{ mkdir -p "$installed/$2"; mount --bind "$1" "$installed/$2"; }}
for path in /srv/site/*; do
    case ${{path##*/}} in
        *taskengine* | *.pth | *.a | __pycache__) ;;
        *) if [ -d "$path" ]; then show "$path" "${{path##*/}}"; else cp "$path" "$installed"; fi ;;
    esac
done
show {root}/taskengine taskengine; show {root}/hardware taskengine_hardware
cp /lib/systemd/system/sysinit.target /lib/systemd/system/basic.target /lib/systemd/system/multi-user.target \\
    /lib/systemd/system/network.target /lib/systemd/system/shutdown.target /etc/systemd/system/
exec env -i container=other SYSTEMD_UNIT_PATH=/etc/systemd/system PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    {manager} --system --unit=multi-user.target --log-target=console
"""


class BootedMachine:
    """The machine, booted; leaving it ends all its processes at once, as a power cut does.

    What it keeps lies in a folder, its disk, with which another machine goes on.
    """

    def __init__(self, log: Path, disk: Path) -> None:
        script = BOOT.format(
            disk=disk,
            base=sys.base_prefix,
            site=site.getsitepackages()[0],
            root=ROOT,
            manager=MANAGER,
            cgroups=CGROUPS,
            is_unified="yes" if (CGROUPS / "cgroup.controllers").exists() else "",
        )
        self.log = log
        with log.open("wb") as output:
            namespaces = ["--mount", "--pid", "--fork", "--uts", "--ipc", "--net", "--cgroup", "--kill-child"]
            self._unshare = subprocess.Popen(
                ["unshare", *namespaces, "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self._is_up, 30, "systemd")
        except AssertionError as error:
            self.close()
            raise AssertionError(f"{error}; it printed:\n{log.read_text(errors='replace')}") from error
        self.run("ip", "link", "set", "lo", "up")

    def _is_up(self) -> bool:
        assert self._unshare.poll() is None, "the machine has ended"
        first = children(self._unshare.pid)
        return "systemd" in first.values() and self.run("systemctl", "is-system-running").stdout.strip() == "running"

    def run(self, *command: str, folder: str = "/", user: str = "root") -> subprocess.CompletedProcess[str]:
        """Run a command on the machine."""
        (first,) = children(self._unshare.pid)
        become = [] if user == "root" else ["setpriv", f"--reuid={user}", "--clear-groups"]
        spaces = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"]
        return subprocess.run(
            ["nsenter", f"--target={first}", *spaces, f"--wdns={folder}", *become, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline(120),
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent" if become else "/root"},
        )

    def taskengine(self, *arguments: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        """Run our command in the robot's folder."""
        return self.run(PYTHON, "-m", "taskengine", *arguments, folder="/srv/robot", user=user)

    def shown(self) -> dict[str, str]:
        """What systemd says of the service."""
        told = self.run("systemctl", "show", "taskengine").stdout
        return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)

    def close(self) -> None:
        """End the machine: its first process takes all others with it."""
        for pid in children(self._unshare.pid):
            os.kill(pid, 9)
        self._unshare.kill()
        self._unshare.wait()
        for name in ("systemd/system.slice", "systemd/init.scope", "system.slice", "init.scope"):
            with contextlib.suppress(OSError):  # not ours, or the other kind of control groups
                (CGROUPS / name).rmdir()

    def __enter__(self) -> BootedMachine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
