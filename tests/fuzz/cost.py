"""A count of work that is the same each time, and a bound on it that is linear in the bytes that caused it.

A step is a line of Python that runs, a call, and, of a method that looks through its object (`bytes.find`,
`list.index`, `set.union`), each element of that. What `in` looks through in a list or tuple is not seen. In the build
with sanitizers the basic blocks of the compiled modules count too; gcc's trace-pc says when one begins.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Sized
from types import FrameType, TracebackType
from typing import Any, NamedTuple, cast

STEPS_A_MESSAGE, STEPS_A_BYTE = 1500, 12
"""The cost that a message may have whatever it holds, and for each of its bytes."""
BLOCKS_A_MESSAGE, BLOCKS_A_BYTE = 3000, 40
SCANS = {
    *("copy", "count", "difference", "extend", "find", "index", "insert", "intersection", "isdisjoint", "issubset"),
    *("issuperset", "items", "join", "keys", "remove", "replace", "reverse", "rfind", "rindex", "sort", "split"),
    *("symmetric_difference", "translate", "union", "update", "values"),
}
"""Methods of builtin objects that may look at each element."""
_COMPILED = ("_fastpath", "_socket")


class Cost(NamedTuple):
    """The work that was counted: steps of Python, and basic blocks of compiled code, 0 where nobody counts them."""

    steps: int
    blocks: int


class TooExpensive(AssertionError):
    """More was done than is linear in the bytes that were given."""


class Meter:
    """Counts what this thread does while it is entered."""

    def __init__(self) -> None:
        self._steps = 0
        self._blocks = [counter for name in _COMPILED if (counter := _block_counter(name)) is not None]
        self._before = 0

    @property
    def cost(self) -> Cost:
        """The count of the last time that it was entered."""
        return Cost(self._steps, self._block_count() - self._before if self._blocks else 0)

    def __enter__(self) -> Meter:
        self._steps, self._before = 0, self._block_count()
        self._others = sys.getprofile(), sys.gettrace()
        sys.setprofile(self._profile)
        sys.settrace(self._trace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        profile, tracer = self._others
        sys.settrace(tracer)
        sys.setprofile(profile)

    def _block_count(self) -> int:
        return sum(counter() for counter in self._blocks)

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            self._steps += 1
            if argument.__name__ in SCANS and isinstance(looked_at := argument.__self__, Sized):
                self._steps += len(looked_at)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        self._steps += event != "return"
        return self._trace


def _block_counter(name: str) -> Callable[[], int] | None:
    """Return what counts the blocks of a compiled module, which only the build with sanitizers has."""
    library = ctypes.CDLL(str(importlib.import_module(f"taskengine.{name}").__file__))
    try:
        counter = library.blocks_run
    except AttributeError:
        return None
    counter.restype = ctypes.c_uint64
    return cast(Callable[[], int], counter)


def check_linear(cost: Cost, messages: int, size: int) -> None:
    """Compare the cost of so many messages with so many bytes in all to the bound. Raises TooExpensive."""
    for what, done, a_message, a_byte in (
        ("steps", cost.steps, STEPS_A_MESSAGE, STEPS_A_BYTE),
        ("blocks", cost.blocks, BLOCKS_A_MESSAGE, BLOCKS_A_BYTE),
    ):
        most = messages * a_message + size * a_byte
        if done > most:
            raise TooExpensive(f"{messages} messages of {size} bytes took {done} {what}, more than {most}")
