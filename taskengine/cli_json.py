"""A value as JSON, for people and for scripts: whatever a task can give has a text, and none becomes another value."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from taskengine.errors import BadArguments


def json_text(value: Any) -> str:
    """The value as one line of JSON.

    Arrays become lists, bytes Base64, keys that are no text their own JSON; numbers that JSON has no name for are NaN,
    Infinity and -Infinity, as in JavaScript. Raises BadArguments where two keys become the same text.
    """
    return _dumps(_with_text_keys(value))


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """Return what stands in JSON for a value that it has no type for."""
    if hasattr(value, "tolist"):  # an array of numpy, or one of its scalars
        return value.tolist()
    try:
        return msgspec.to_builtins(value)
    except (TypeError, msgspec.ValidationError):
        return str(value)


def _key_text(key: Any) -> str:
    text = _dumps(key)
    return str(json.loads(text)) if text.startswith('"') else text


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        made: dict[str, Any] = {}
        for key, entry in value.items():
            text = key if isinstance(key, str) else _key_text(key)
            if text in made:
                raise BadArguments(f"two keys of the result are {text!r} in JSON")
            made[text] = _with_text_keys(entry)
        return made
    return [_with_text_keys(entry) for entry in value] if isinstance(value, (list, tuple)) else value
