"""Publishes what a worker's tasks were called with, by whom, when, and what they gave; see the setting RECORD_COMMANDS.

Calls are noted while a batch runs, and published when it is answered, so that no answer waits for that. Without the
setting no worker has such a log, and its tasks are called as they are.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from taskengine.errors import TaskEngineError, shortened, text_of
from taskengine.protocol.arrays import listed
from taskengine.protocol.layouts import COMMANDS_TOPIC
from taskengine.protocol.messages import Origin
from taskengine.registry.registry import Task
from taskengine.worker.context import origin

MAX_CALL_BYTES = 4096
"""The most bytes, in JSON, of a call's arguments and result; larger ones are left out."""
MAX_TEXT = 1024
"""The most characters of an error's message."""
TURN_BYTES = 32 * 1024
"""About how many bytes of calls one publication has at most."""
_encode = msgspec.json.Encoder(enc_hook=listed).encode


class CommandLog:
    """The calls in one worker, of `lane`, since they were published last; `publish` takes a topic and a value."""

    def __init__(self, lane: str, publish: Callable[[str, Any], None]) -> None:
        self._lane = lane
        self._publish = publish
        self._worker = f"TASK-{os.getpid()}"
        self._calls: list[dict[str, Any]] = []
        self._size = 0
        self._missed = 0

    def told(self, task: Task) -> Task:
        """Return the task as one whose calls are noted; a generator's call ends before its first value."""
        function, name = task.callable, task.name

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            call = origin(), name, args, kwargs, time.monotonic_ns()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                self._note(*call, error=error)
                raise
            self._note(*call, result=None if task.is_generator else result)
            return result

        @functools.wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            call = origin(), name, args, kwargs, time.monotonic_ns()
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                self._note(*call, error=error)
                raise
            self._note(*call, result=result)
            return result

        is_awaited = task.is_async and not task.is_generator
        return msgspec.structs.replace(task, call=run_async if is_awaited else run)

    def _note(
        self,
        caller: Origin,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        began: int,
        *,
        result: Any = None,
        error: BaseException | None = None,
    ) -> None:
        """Note a call that has ended; times are in ns of the monotonic clock."""
        call: dict[str, Any] = {
            "task": name,
            "lane": self._lane,
            "worker": self._worker,
            "client": caller.client,
            "holder": caller.holder.hex(),
            "is_local": caller.is_local,
            "sent": caller.sent,
            "received": caller.received,
            "began": began,
            "ended": time.monotonic_ns(),
            **_values(args, kwargs, result),
        }
        if error is not None:
            call["error"] = {"type": type(error).__name__, "message": shortened(text_of(error), MAX_TEXT)}
        self._calls.append(call)

    def flush(self) -> None:
        """Publish what was noted; what the data worker does not take is counted, and told with the next calls."""
        if not self._calls:
            return
        calls, self._calls = self._calls, []
        shift = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        turn: list[dict[str, Any]] = []
        size = 0
        for call in calls:
            for moment in ("sent", "received", "began", "ended"):
                call[moment] = call[moment] + shift if call[moment] else None
            turn.append(call)
            size += call.pop("size")
            if size > TURN_BYTES or call is calls[-1]:
                self._send(turn)
                turn, size = [], 0

    def _send(self, calls: list[dict[str, Any]]) -> None:
        try:
            self._publish(COMMANDS_TOPIC, {"commands": calls, "missed": self._missed})
            self._missed = 0
        except TaskEngineError:  # the data worker has not taken what was published before
            self._missed += len(calls)


def _values(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> dict[str, Any]:
    """Return arguments and result as far as they can be published, and about how many bytes the call has."""
    found: dict[str, Any] = {"args": list(args), "kwargs": kwargs, "result": result}
    left_out = []
    size = 512
    for name in found:
        try:
            length = len(_encode(found[name]))
        except (TypeError, ValueError, OverflowError, RecursionError):
            length = MAX_CALL_BYTES + 1
        if length > MAX_CALL_BYTES:
            found[name] = None
            left_out.append(name)
        else:
            size += length
    return found | {"left_out": left_out, "size": size}
