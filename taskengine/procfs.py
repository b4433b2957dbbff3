"""What the kernel tells of a process (proc(5))."""

from __future__ import annotations

from pathlib import Path


def is_stopped(pid: int) -> bool:
    """A signal, such as SIGSTOP, or a debugger has stopped the process; one that is gone has not been."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    # its name, in brackets, may hold anything
    return stat.rpartition(b")")[2].split()[:1] in ([b"T"], [b"t"])
