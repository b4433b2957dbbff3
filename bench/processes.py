"""Reads the memory and the processor time of all processes of a running engine from /proc."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from types import TracebackType

KB = 1024
PEAK_S = 0.01


def family(pid: int) -> dict[int, str]:
    """A process and all that come from it: pid to name."""
    parents: dict[int, tuple[int, str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        text = _text(path)
        if text:
            name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
            parents[int(path.parent.name)] = (int(rest[1]), name)
    found = {pid: parents[pid][1]} if pid in parents else {}
    grown = 0
    while grown < len(found):
        grown = len(found)
        found |= {child: name for child, (parent, name) in parents.items() if parent in found}
    return found


def pss(pid: int) -> int:
    """Bytes of memory, those that are shared counted in part (PSS); 0 for a process that is gone."""
    return _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss") * KB


def resident(pid: int) -> int:
    """Bytes of memory in use now."""
    return _field(Path(f"/proc/{pid}/status"), "VmRSS") * KB


def peak(pid: int) -> int:
    """The most bytes of memory in use since `forget_peak`."""
    return _field(Path(f"/proc/{pid}/status"), "VmHWM") * KB


def forget_peak(pid: int) -> None:
    """Measure `peak` from now on. Raises OSError where the kernel does not let us."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_s(pid: int) -> float:
    """Seconds of processor time of all its threads."""
    threads = [_text(path).split() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(fields[0]) for fields in threads if fields) / 1e9


def busy_share(pids: list[int], seconds: float) -> float:
    """How much of a core the processes take, watched for so long."""
    before, start = sum(map(cpu_s, pids)), time.monotonic()
    time.sleep(seconds)
    return (sum(map(cpu_s, pids)) - before) / (time.monotonic() - start)


class Peak:
    """While it is entered, looks again and again at the memory of `pids`; `bytes` is the most that was seen (PSS)."""

    def __init__(self, pids: list[int]) -> None:
        self.bytes = 0
        self._pids = pids
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._ended.is_set():
            self.bytes = max(self.bytes, sum(map(pss, self._pids)))
            self._ended.wait(PEAK_S)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()


def _field(path: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB$", _text(path), re.MULTILINE)
    return int(found[1]) if found else 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended meanwhile
        return ""
