"""The futures of calls: what they become when a reply, an error or a cancellation comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

from taskengine.client.replies import Outcome
from taskengine.errors import BadArguments, Cancelled, TaskEngineError, text_of
from taskengine.protocol.conversion import Convert, converter
from taskengine.protocol.messages import NO_SERIAL


class TaskFuture(Future[Any]):
    """The future result of a call; `ask` asks the engine to cancel it."""

    def __init__(self, ask: Callable[[int, int | None], None]) -> None:
        super().__init__()
        self._ask = ask
        self.is_unwanted = False
        """Whether it was cancelled after it was sent."""
        self.serial = NO_SERIAL
        """The serial of its package, once that is sent."""
        self.position: int | None = None
        """The position of its task in the package, None for all tasks."""

    def cancel(self) -> bool:
        """Cancel the call; return True if it was not sent yet.

        Otherwise the engine is asked to cancel. The future ends in `Cancelled` if nothing has begun, and in its normal
        result if it was too late.
        """
        if super().cancel():
            return True
        self.is_unwanted = True  # before its serial is read: another thread may just be packing it, and reads this flag
        if not self.done() and self.serial != NO_SERIAL:
            self._ask(self.serial, self.position)
        return False


class CancelledCall(Cancelled, CancelledError):
    """The outcome of a future that was cancelled: the engine's error, and the one that futures have of themselves."""


class SubmittedFuture(TaskFuture):
    """The future of a submitted call, whose result is converted by `convert`."""

    def __init__(self, ask: Callable[[int, int | None], None], convert: Convert | None = None) -> None:
        super().__init__(ask)
        self._convert = convert

    def cancel(self) -> bool:
        """Cancel the call; see `TaskFuture.cancel`. Return True also if it was cancelled before."""
        return super().cancel() or self.cancelled()

    def cancelled(self) -> bool:
        """Return whether the call was cancelled, here or at the engine, before it began."""
        return super().cancelled() or (self.done() and isinstance(self.exception(0), Cancelled))

    def set_result(self, result: Any) -> None:
        """Take the result, or the error of its conversion."""
        if self._convert is not None:
            try:
                result = self._convert(result)
            except BadArguments as error:
                self.set_exception(error)
                return
        super().set_result(result)

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


def settle(outcomes: deque[Outcome]) -> None:
    """Resolve futures in order; pass over those that were cancelled, or whose caller gave up.

    If it raises, because a callback raised something that is no Exception, the rest stays in `outcomes`.
    """
    while outcomes:
        outcome = outcomes[0]
        future, value = outcome
        try:
            if isinstance(value, TaskEngineError):
                future.set_exception(value)
            else:
                future.set_result(value)
        except InvalidStateError:
            # or the code that resolved it was interrupted before it had woken the waiting threads
            with future._condition:
                future._condition.notify_all()
        # a callback may have called this function itself
        if outcomes and outcomes[0] is outcome:
            del outcomes[0]
