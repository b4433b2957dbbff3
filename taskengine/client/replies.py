"""Resolves futures from a reply of wire 0.2. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from taskengine import _fastpath
from taskengine.client.task_future import Outcome
from taskengine.errors import ProtocolError, TaskEngineError, from_wire
from taskengine.protocol import arrays
from taskengine.protocol.messages import PartialReply, Reply, ReplyMode


def outcomes(
    reply: Reply,
    body: bytes,
    futures: Sequence[Future[Any]],
    *,
    each: bool,
    raises: bool,
    array: bool,
    values: bool = False,
) -> Iterable[Outcome]:
    """Return the outcome of each future.

    With `each`, a future gets its own entry; otherwise the only one gets the list, or its first error with `raises`.
    With `array` the list is an array if possible. With `values` the engine gives Python's other values as extensions.
    """
    try:
        results = _results(reply, body, array=array, values=values)
        if each and len(results) != len(futures):
            raise ProtocolError(f"a reply of {len(results)} entries to {len(futures)} tasks")
    except TaskEngineError as error:
        return [(future, error) for future in futures]
    if each:
        return zip(futures, results, strict=True)
    if raises and reply.failed:
        # without a reply there is no error to find
        first: Any = next((result for result in results if isinstance(result, TaskEngineError)), results)
        return [(futures[0], first)]
    return [(futures[0], results)]


def partial_outcomes(
    reply: PartialReply, body: bytes, futures: Sequence[Future[Any]], before: int, *, values: bool = False
) -> list[Outcome]:
    """Return the outcomes of a partial reply to tasks with these futures, of which `before` had an entry before.

    No future is left after the last partial reply. `values` is as in `outcomes`. Raises ProtocolError for a reply of
    tasks that were not sent.
    """
    if reply.reply is not ReplyMode.EACH:
        raise ProtocolError("values of a stream, and none was asked for")
    answered = futures[reply.first : reply.first + reply.count]
    if len(answered) != reply.count:
        raise ProtocolError(f"{reply.count} entries from position {reply.first} on, and {len(futures)} tasks were sent")
    found = list(outcomes(reply, body, answered, each=True, raises=False, array=False, values=values))
    if reply.last and before + reply.count < len(futures):
        missing = ProtocolError("the last of the partial replies has come, and none of them had this task")
        # behind what has come: a future keeps its first outcome
        found += [(future, missing) for future in futures if not future.done()]
    return found


def _results(reply: Reply, body: bytes, *, array: bool, values: bool) -> Any:
    if reply.error is not None:
        raise from_wire(*reply.error)
    if reply.reply in (ReplyMode.ALL, ReplyMode.EACH):
        as_array = arrays.results(body, reply.count) if array and not reply.failed else None
        if as_array is not None:
            return as_array
        return _fastpath.unpack(body, reply.count, _entry_error, values)
    results: list[Any] = [None] * reply.count
    if reply.reply == ReplyMode.ERRORS:
        entries = _fastpath.unpack(body, 2 * reply.failed, _entry_error)
        for position, error in zip(entries[::2], entries[1::2], strict=True):
            if not (isinstance(position, int) and 0 <= position < reply.count and isinstance(error, TaskEngineError)):
                raise ProtocolError("a reply of errors is positions and error entries in turn")
            results[position] = error
    return results


def _entry_error(data: bytes) -> TaskEngineError:
    try:
        code, message, fields = msgspec.msgpack.decode(data, type=tuple[int, str, dict[str, Any]])
    except (msgspec.MsgspecError, ValueError) as error:
        return ProtocolError(f"malformed error entry: {error}")
    return from_wire(code, message, fields)
