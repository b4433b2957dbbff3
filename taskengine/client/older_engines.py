"""Has an engine that lacks `values` get what version 0.1.0 sent: lists, maps and text, and no ids of stops. Pure."""

from __future__ import annotations

from taskengine import _fastpath
from taskengine.client.calls import Frames, without_id
from taskengine.errors import BadArguments
from taskengine.protocol.layouts import COUNT
from taskengine.protocol.release import lacks


def plain_tasks(
    names: list[str], index: bytes, body: bytes, engine_release: str = ""
) -> tuple[Frames, dict[int, BadArguments]]:
    """Return the tasks of a package in their plain form; left out are those that have none, with errors by position."""
    tasks = _fastpath.unpack(body, len(index) // COUNT.size, bytes, True)
    calls = [without_id((names[i], args, kwargs[0] if kwargs else {})) for i, args, *kwargs in tasks]
    places = {name: i for i, name in enumerate(names)}
    try:
        return _fastpath.pack_calls(calls, places), {}
    except BadArguments:
        errors, advice = {}, lacks(engine_release, "takes no such values")
        for position, call in enumerate(calls):
            try:
                _fastpath.pack_calls([call], places)
            except BadArguments as error:
                why = error.message.partition(": ")[2]
                errors[position] = BadArguments(f"call {position}: {why}; {advice}", name=error.name)
        wanted = [call for position, call in enumerate(calls) if position not in errors]
        return _fastpath.pack_calls(wanted, places), errors
