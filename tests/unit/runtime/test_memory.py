from __future__ import annotations

import subprocess
import sys

from taskengine.runtime.memory import FREED_BYTES, LONGEST_S, REST_S, TRIM_PAUSE_S, FreedMemory, FullCollections

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

COLLECTED = """
import gc
from taskengine.runtime.memory import hold_back_collections
def full():
    before = gc.get_stats()[2]["collections"]
    kept = [[n] for n in range(300_000)]
    return gc.get_stats()[2]["collections"] - before
many = full()
hold_back_collections()
print(many, full())
"""

CYCLES = f"""
import gc, weakref
from taskengine.runtime.memory import MemoryUpkeep, hold_back_collections
class Cycle:
    pass
hold_back_collections()
upkeep = MemoryUpkeep(0.0)
made = Cycle()
made.own, gone = made, weakref.ref(made)
del made
print(gone() is None)
upkeep.tidy(0, {REST_S}, is_idle=True)
print(gone() is None)
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


def test_all_garbage_is_collected_at_rest_and_otherwise_hardly_ever() -> None:
    """With some hundred thousand chunks in flight the router stood still for 100 to 400 ms, about once a second."""
    collections = FullCollections(10.0)
    assert not collections.is_due(10.0 + REST_S - 0.1, is_idle=True)
    assert not collections.is_due(10.0 + REST_S, is_idle=False)
    assert collections.is_due(10.0 + REST_S, is_idle=True)
    assert not collections.is_due(10.1 + REST_S, is_idle=True)
    assert not collections.is_due(9.9 + REST_S + LONGEST_S, is_idle=False)
    assert collections.is_due(10.0 + REST_S + LONGEST_S, is_idle=False)


def test_python_makes_no_full_collection_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", COLLECTED], capture_output=True, text=True, check=True)
    many, none = map(int, done.stdout.split())
    assert many > 0 or sys.version_info >= (3, 14), "the collector of 3.14 goes in small steps"
    assert none == 0


def test_garbage_is_collected_in_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", CYCLES], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_free_memory_between_blocks_in_use_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", FRAGMENTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 500 * 100_000
