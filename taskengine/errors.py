"""All errors, in one tree, ordered by the party at fault.

    TaskEngineError
    ├── the task's      TaskFailed, TaskTimeout (also TimeoutError)
    ├── the caller's    UnknownTask (also LookupError), BadArguments (also TypeError), Cancelled, NotAllowed
    ├── the engine's    WorkerLost, Overloaded, EngineUnreachable (also ConnectionError)
    ├── the peer's      ProtocolError (also ValueError): any garbage in gives this and nothing else
    └── the owner's     SettingsError (also ValueError), TaskModuleError (also ImportError), KeysError (also ValueError)

An error that crosses the wire is its code, its message and its fields (`to_wire`, `from_wire`); the owner's stay on the
machine that raised them and have no code. The TaskFailed that a caller gets is also the builtin exception that the
task raised, so that `except ValueError` catches it.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Final


def text_of(value: object) -> str:
    """`str(value)` of anything, as text that can be sent: lone surrogates are escaped, and no `__str__` raises."""
    try:
        text = str(value)
    except Exception as error:
        text = f"<a {type(value).__name__} without text: {type(error).__name__}>"
    return text.encode(errors="backslashreplace").decode()


CONTROLS: Mapping[int, str] = {
    **{code: f"\\x{code:02x}" for code in range(0x20) if chr(code) not in "\t\n"},
    **{code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F))},
    **{code: f"\\u{code:04x}" for code in (*range(0x2066, 0x206A), 0xFEFF)},
}
"""Characters that act on a terminal, or change the direction of text: C0, C1, bidi, line separators."""
_CONTROL = re.compile(f"[{''.join(map(chr, CONTROLS))}]")


def printable(text: str) -> str:
    """The text with what would act on a terminal, other than tabs and newlines, escaped. JSON stays equal JSON."""
    return text.translate(CONTROLS) if _CONTROL.search(text) else text


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    return [_readable(entry) for entry in value] if type(value) is list else value


def shortened(text: str, most: int) -> str:
    """The text, or its two ends where it has more than `most` characters."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} … {text[-half:]}"


class TaskEngineError(Exception):
    """Base of every error of the engine; `fields` hold what the text says, for programs.

    Both may quote what somebody else has sent, and are printed: they hold nothing that acts on a terminal.
    """

    code: ClassVar[int] = 0
    field_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str = "", **fields: Any) -> None:
        unknown = fields.keys() - set(self.field_names)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        self.message = printable(text_of(message))
        super().__init__(self.message)
        self.fields: dict[str, Any] = {name: _readable(fields.get(name)) for name in self.field_names}

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__.get("fields", {})
        if name in fields:
            return fields[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.fields)

    def __str__(self) -> str:
        return self.message


def _rebuild(kind: type[TaskEngineError], message: str, fields: dict[str, Any]) -> TaskEngineError:
    return kind(message, **fields)


class TaskFailed(TaskEngineError):
    """The task raised. `type` is the exception's name, `traceback` the worker's text of it."""

    code = 1
    field_names = ("type", "traceback")


_NEVER: Final = frozenset({StopIteration, StopAsyncIteration, BaseExceptionGroup})
"""Exceptions that mean something to who calls, or that are made of other exceptions,"""
_NOT_TEXT: Final = (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError)
"""and that cannot be made of a text."""
_BUILTINS: Final[Mapping[str, type[Exception]]] = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type)
    if issubclass(kind, Exception) and kind.__name__ == name and not name.startswith("_")
    if not issubclass(kind, (*_NEVER, *_NOT_TEXT)) and kind is not Exception
}


@cache
def _failed_as(name: str) -> type[TaskFailed]:
    """The TaskFailed that is also the builtin exception of that name."""
    body = {"__module__": __name__, "__doc__": TaskFailed.__doc__, "__reduce__": _reduce_failed}
    return type(TaskFailed.__name__, (TaskFailed, _BUILTINS[name]), body)


def _reduce_failed(error: TaskFailed) -> tuple[Any, ...]:
    return _failed, (error.message, error.fields)


def _failed(message: str, fields: Mapping[str, Any]) -> TaskFailed:
    """What the caller gets of an exception that a task raised; nothing is looked up but builtin exceptions."""
    name = fields.get("type")
    kind = _failed_as(name) if isinstance(name, str) and name in _BUILTINS else TaskFailed
    return kind(message, **fields)


class UnknownTask(TaskEngineError, LookupError):
    """No task has that name. `name` is what was asked for, `nearest` what it may have meant."""

    code = 2
    field_names = ("name", "nearest")


class BadArguments(TaskEngineError, TypeError):
    """The arguments do not fit the task's signature, or cannot be sent."""

    code = 3
    field_names = ("name",)


class TaskTimeout(TaskEngineError, TimeoutError):
    """The task, or the wait for it, took longer than `seconds`."""

    code = 4
    field_names = ("seconds",)


class WorkerLost(TaskEngineError):
    """The worker that held the task died; the task may have run. `worker` is its name."""

    code = 5
    field_names = ("worker",)


class Overloaded(TaskEngineError):
    """The engine took no task of the package. Try again in `retry_after` seconds; None: do not try again.

    If too much is in flight, `in_flight` is this client's part of it, and `limit` the part that it may have now.
    """

    code = 6
    field_names = ("retry_after", "in_flight", "limit")


class Cancelled(TaskEngineError):
    """The task was cancelled before it began, or its client was closed before the reply came."""

    code = 7


class NotAllowed(TaskEngineError, PermissionError):
    """The client may not do that."""

    code = 8


class ProtocolError(TaskEngineError, ValueError):
    """Bytes that are no message of the protocol."""

    code = 9


class EngineUnreachable(TaskEngineError, ConnectionError):
    """No engine answered at `address`."""

    code = 10
    field_names = ("address",)


class SettingsError(TaskEngineError, ValueError):
    """A setting is unknown, ill-typed or out of range; the text names the key, the place and what was expected.

    `path` is the way to the key, where it lies in a table of the file.
    """

    field_names = ("path",)


class TaskModuleError(TaskEngineError, ImportError):
    """A task module cannot be loaded, or registers what cannot be a task."""

    field_names = ("module",)


class KeysError(TaskEngineError, ValueError):
    """A key file cannot be read, written or trusted, or a name or a key is none."""


BY_CODE: Mapping[int, type[TaskEngineError]] = {
    kind.code: kind
    for kind in (
        TaskFailed,
        UnknownTask,
        BadArguments,
        TaskTimeout,
        WorkerLost,
        Overloaded,
        Cancelled,
        NotAllowed,
        ProtocolError,
        EngineUnreachable,
    )
}


def to_wire(error: TaskEngineError) -> tuple[int, str, dict[str, Any]]:
    """The error as (code, message, fields)."""
    return error.code, error.message, error.fields


def from_wire(code: int, message: str, fields: Mapping[str, Any]) -> TaskEngineError:
    """The error that `to_wire` took apart; a code from a newer engine becomes a plain `TaskEngineError`."""
    kind = BY_CODE.get(code, TaskEngineError)
    known = {name: fields[name] for name in kind.field_names if name in fields}
    return _failed(message, known) if kind is TaskFailed else kind(message, **known)
