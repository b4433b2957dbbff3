"""Helpers that compare the compiled fast path with its model in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from taskengine import _fastpath
from taskengine.errors import BadArguments, ProtocolError
from taskengine.protocol import layouts, limits
from tests import model

Outcome = tuple[str, object]


def shown(value: object) -> str:
    """The value as text that tells its types, and nan from nothing else."""
    text = repr(value)
    return _shown_slowly(value) if " at 0x" in text else text


def _shown_slowly(value: object) -> str:
    """The same of what holds a value whose repr is its address."""
    if type(value) is dict:
        return f"{{{', '.join(f'{_shown_slowly(key)}: {_shown_slowly(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({', '.join(map(_shown_slowly, value))})"
    return f"Ext({value.code}, {value.data!r})" if isinstance(value, msgspec.msgpack.Ext) else repr(value)


def outcome(function: Callable[..., Any], *args: Any) -> Outcome:
    """The result, or the kind of error."""
    try:
        return "gave", shown(function(*args))
    except BadArguments as error:
        return "raised", ("BadArguments", error.name, error.message.partition(":")[0] if "call" in str(error) else "")
    except ProtocolError:
        return "raised", "ProtocolError"


def same(name: str, *args: Any) -> Outcome:
    """Both do the same; gives what."""
    expected = outcome(getattr(model, name), *args)
    assert outcome(getattr(_fastpath, name), *args) == expected
    return expected


def nested(depth: int, wrap: int) -> Any:
    """A value with `depth` levels of lists or maps."""
    value: Any = 1
    for level in range(depth):
        value = [value] if (level + wrap) % 3 else {"k": value}
    return value


# ---- a worker's turn


def _stop(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def _leave(*args: object, **kwargs: object) -> None:
    raise SystemExit(3)


FUNCTIONS: list[Callable[..., Any] | None] = [
    lambda *args, **kwargs: (args, kwargs),
    lambda a, b=1: (a + b) / 2,
    None,
    _stop,
    _leave,
    lambda *args, **kwargs: ["x" * 3000, object()],
    lambda *args, **kwargs: nested(limits.MAX_DEPTH + len(args), len(kwargs)),
    dict,
]


class Worker:
    """The callbacks of a turn, which note what they were asked."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def resolve(self, head: bytes) -> list[Callable[..., Any] | None]:
        self.seen.append(head)
        return FUNCTIONS

    def failed(self, head: bytes, i: int, position: int, error: BaseException | None) -> bytes:
        self.seen.append((head, i, position, type(error)))
        return msgspec.msgpack.encode(msgspec.msgpack.Ext(layouts.ERROR_EXT, type(error).__name__.encode()))

    def foreign(
        self, format: int, head: bytes, first: int, ends: list[int], body: bytes, room: int
    ) -> tuple[bytes, int]:
        self.seen.append((format, head, first, ends, body))
        return head + body, len(ends)


class Turn(NamedTuple):
    """The result of a batch at a worker; None in place of the answer where there was none."""

    seen: list[object]
    answer: list[tuple[Any, ...]] | None


def turn(module: Any, batch: bytes) -> Turn:
    """Run a batch with the fast path, or with its model."""
    worker = Worker()
    try:
        answer = module.run_batch(batch, worker.resolve, worker.failed, worker.foreign)
    except ProtocolError:
        return Turn(worker.seen, None)
    return Turn(worker.seen, [(*entry[:4], entry[5]) for entry in model.read_answer(answer)])
