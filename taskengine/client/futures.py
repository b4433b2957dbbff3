"""Futures that their caller holds, and results of the types that it names."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any

from taskengine.client.task_future import TaskFuture
from taskengine.errors import BadArguments, Cancelled, TaskEngineError, text_of
from taskengine.protocol.conversion import Convert, converter


class CancelledCall(Cancelled, CancelledError):
    """The outcome of a future that was cancelled: the engine's error, and the one that futures have of themselves."""


class SubmittedFuture(TaskFuture):
    """The future of a submitted call: `cancelled()` once it is known that the task will not begin."""

    def cancel(self) -> bool:
        """Cancel the call; see `TaskFuture.cancel`. Return True also if it was cancelled before."""
        return super().cancel() or self.cancelled()

    def cancelled(self) -> bool:
        """Return whether the call was cancelled, here or at the engine, before it began."""
        return super().cancelled() or (self.done() and isinstance(self.exception(0), Cancelled))

    def set_exception(self, exception: BaseException | None) -> None:
        """Take the error; a cancellation is also a `concurrent.futures.CancelledError`."""
        is_cancelled = isinstance(exception, Cancelled)
        super().set_exception(CancelledCall(str(exception)) if is_cancelled else exception)


def returning(kind: Any, task: str) -> Convert:
    """Return what converts a result of the task to a type; it raises BadArguments where the result is none.

    Raises BadArguments for what is no type that values can be converted to.
    """
    convert = converter(kind)
    if convert is None:
        raise BadArguments(f"returns: results cannot be converted to {kind!r}", name=task)

    def converted(value: Any) -> Any:
        try:
            return convert(value)
        except Exception as error:  # a dataclass may check itself
            name = getattr(kind, "__name__", repr(kind))
            raise BadArguments(f"the result of {task} is no {name}: {text_of(error)}", name=task) from error

    return converted


def convert_each(results: Any, convert: Convert | None) -> Any:
    """Return the results of `map`, converted one by one; errors among them stay."""
    if convert is None:
        return results
    values = results if isinstance(results, list) else results.tolist()  # an array
    return [value if isinstance(value, TaskEngineError) else convert(value) for value in values]
