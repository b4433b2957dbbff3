"""`python -m tests.gpio`: run the tests of this folder under a kernel that has a gpiochip and an I2C bus.

It is built once. It is user-mode Linux with gpio-sim and i2c-stub, a process like others; its root is this machine's,
read-only. With arguments after `--` it runs them instead: `python -m tests.gpio -- python -m bench.hardware`.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from release.targets import cache

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
LIMIT_S = 600
LINES = 54
"""Of the BCM2837."""
I2C_CHIPS = (0x40, 0x41)
MEMORY = "1G"
INIT = """#!/bin/sh
export PATH={path} HOME=/run TMPDIR=/run PYTHONDONTWRITEBYTECODE=1 GPIO_SIM=1 TERM=dumb
export HYPOTHESIS_STORAGE_DIRECTORY=/run/hypothesis
mount -t proc proc /proc; mount -t sysfs sys /sys; mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm; mount -t tmpfs run /run
cp {work}/command /run/command
busybox ifconfig lo 127.0.0.1 up
mount -t configfs none /sys/kernel/config 2>/dev/null
chip=/sys/kernel/config/gpio-sim/pi; mkdir -p $chip/bank0
# it is gpiochip0, so that the header's, which is the first folder of gpio-sim, is not
other=/sys/kernel/config/gpio-sim/expander; mkdir -p $other/bank0
echo 8 >$other/bank0/num_lines; echo brcmvirt-gpio >$other/bank0/label; echo 1 >$other/live
echo {lines} >$chip/bank0/num_lines; echo pinctrl-bcm2835 >$chip/bank0/label; echo 1 >$chip/live
{python} -S -E {folder}/entropy.py
cd {root}; timeout {limit} sh /run/command; echo "EXIT=$?"
poweroff -f 2>/dev/null || busybox poweroff -f
"""


def kernel() -> Path:
    """The kernel, from the cache, or built by what lies in this folder."""
    recipe = b"".join((FOLDER / name).read_bytes() for name in ("build-kernel.sh", "uml.config"))
    folder = cache() / f"gpio-sim-{hashlib.sha256(recipe).hexdigest()[:12]}"
    if not (folder / "linux").is_file():
        print("building a kernel with gpio-sim, about 2 minutes", flush=True)
        subprocess.run([str(FOLDER / "build-kernel.sh"), str(folder)], check=True, stdout=sys.stderr)
    return folder / "linux"


def run(command: list[str]) -> int:
    """Run a command under the kernel; its exit code."""
    linux = kernel()
    if shutil.which("busybox") is None:
        sys.exit("tests.gpio: busybox is missing: apt install busybox-static")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "command").write_text(f"exec {shlex.join(command)}\n")
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        text = INIT.format(
            path=path, work=work, lines=LINES, python=sys.executable, folder=FOLDER, root=ROOT, limit=LIMIT_S
        )
        (work / "init").write_text(text)
        (work / "init").chmod(0o755)
        boot = ["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={work}/init"]
        # two chips of i2c-stub: bytes that remember what was written
        boot.append(f"i2c_stub.chip_addr={','.join(map(hex, I2C_CHIPS))}")
        console = ["con=null", "con0=null,fd:1", "quiet"]
        process = subprocess.Popen(
            [str(linux), f"mem={MEMORY}", *boot, *console],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        code = None
        for line in process.stdout or ():
            if line.startswith("EXIT="):
                code = int(line.removeprefix("EXIT="))
            elif not line.startswith("reboot:"):
                print(line, end="", flush=True)
        process.wait()
    return 1 if code is None else code


if __name__ == "__main__":
    arguments = sys.argv[1:]
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/gpio"]
    sys.exit(run(arguments[1:] if arguments[:1] == ["--"] else [*pytest, *arguments]))
