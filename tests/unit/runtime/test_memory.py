from __future__ import annotations

import subprocess
import sys

from taskengine.runtime.memory import FREED_BYTES, TRIM_PAUSE_S, FreedMemory

FRAGMENTS = """
import mmap
from pathlib import Path
from taskengine.runtime.memory import trim_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
blocks = [bytearray(100_000) for _ in range(1000)]
kept = blocks[::10]
del blocks
before = resident()
trim_memory()
print(before - resident())
"""


def test_memory_is_trimmed_when_much_was_freed_and_not_too_often() -> None:
    freed = FreedMemory()
    assert not freed.is_due(FREED_BYTES - 1, 0.0)
    assert not freed.is_due(0, 1.0)
    assert not freed.is_due(3 * FREED_BYTES, 2.0)
    assert not freed.is_due(2 * FREED_BYTES + 1, 3.0)
    assert freed.is_due(2 * FREED_BYTES, 4.0)
    assert not freed.is_due(2 * FREED_BYTES, 4.5), "nothing was freed since"
    assert not freed.is_due(0, 3.9 + TRIM_PAUSE_S), "too soon"
    assert freed.is_due(0, 4.0 + TRIM_PAUSE_S), "what came due meanwhile is not forgotten"
    assert not freed.is_due(0, 100.0)


def test_free_memory_between_blocks_in_use_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", FRAGMENTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 500 * 100_000
