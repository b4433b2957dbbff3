"""The messages of a recording: publications, commands and events, and the schemas of its channels. Pure.

Messages are JSON with JSON Schemas, which Foxglove reads as they are. A picture (JPEG, PNG, WebP) is a
foxglove.CompressedImage, so that Foxglove shows it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from taskengine.client.samples import Sample
from taskengine.protocol.arrays import listed
from taskengine.protocol.layouts import COMMANDS_TOPIC

NS: Final = 10**9
EVENTS_TOPIC: Final = "taskengine.events"
PUBLICATION: Final = "taskengine.Publication"
COMMAND: Final = "taskengine.Command"
EVENT: Final = "taskengine.Event"
IMAGE: Final = "foxglove.CompressedImage"
_PICTURES: Final = ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"RIFF", "webp"))
_TEXT, _NUMBER, _WHOLE = {"type": "string"}, {"type": "number"}, {"type": "integer"}
_MAYBE: Final = {"type": ["integer", "null"]}
_ABOUT: Final = {"number": _WHOLE, "publisher": _TEXT, "dropped": _WHOLE, "clock": _WHOLE}
_STAMP: Final = {"type": "object", "properties": {"sec": _WHOLE, "nsec": _WHOLE}}


def _schema(title: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "properties": properties,
    }


SCHEMAS: Final[Mapping[str, Mapping[str, Any]]] = {
    PUBLICATION: _schema(PUBLICATION, {"value": {}, "encoding": _TEXT, "dtype": _TEXT, **_ABOUT}),
    IMAGE: _schema(
        IMAGE,
        {
            "timestamp": _STAMP,
            "frame_id": _TEXT,
            "data": {"type": "string", "contentEncoding": "base64"},
            "format": _TEXT,
            **_ABOUT,
        },
    ),
    COMMAND: _schema(
        COMMAND,
        {
            **dict.fromkeys(("task", "lane", "worker", "client", "holder"), _TEXT),
            "is_local": {"type": "boolean"},
            **dict.fromkeys(("sent", "received", "began", "ended"), _MAYBE),
            "args": {"type": ["array", "null"], "items": {}},
            "kwargs": {"type": ["object", "null"]},
            "result": {},
            "error": {"type": "object", "properties": {"type": _TEXT, "message": _TEXT}},
            "left_out": {"type": "array", "items": _TEXT},
        },
    ),
    EVENT: _schema(EVENT, {"event": _TEXT, "text": _TEXT, "details": {"type": "object"}}),
}
"""The schemas, by name. docs/data.md describes their fields."""
_encode = msgspec.json.Encoder(enc_hook=listed).encode


class RecordingEntry(NamedTuple):
    """A message of a recording; `published` is in ns of the wall clock."""

    topic: str
    schema: str
    data: bytes
    published: int
    number: int = 0


def entries(sample: Sample) -> Iterator[RecordingEntry]:
    """Yield what a recording has of a sample: one message, or one for each command in it."""
    if sample.topic == COMMANDS_TOPIC and isinstance(sample.value, dict):
        yield from _commands(sample)
        return
    made = int(sample.time * NS)
    about = {
        "number": sample.number,
        "publisher": sample.publisher,
        "dropped": sample.dropped,
        "clock": sample.clock,
    }
    picture = _format(sample.value)
    if picture:
        told: dict[str, Any] = {
            "timestamp": {"sec": made // NS, "nsec": made % NS},
            "frame_id": sample.topic,
            "data": sample.value,
            "format": picture,
        }
        yield RecordingEntry(sample.topic, IMAGE, _encode(told | about), made, sample.number)
        return
    value: dict[str, Any] = {"value": sample.value}
    if isinstance(sample.value, bytes):
        value["encoding"] = "base64"
    elif hasattr(sample.value, "dtype"):
        value["dtype"] = sample.value.dtype.str
    yield RecordingEntry(sample.topic, PUBLICATION, _encode(value | about), made, sample.number)


def _format(value: Any) -> str:
    """Return the format of a picture, "" for any other value."""
    if not isinstance(value, bytes):
        return ""
    return next((name for start, name in _PICTURES if value.startswith(start)), "")


def _commands(sample: Sample) -> Iterator[RecordingEntry]:
    made = int(sample.time * NS)
    if sample.value.get("missed"):
        yield event("commands missed", made, missed=sample.value["missed"])
    for command in sample.value.get("commands", ()):
        ended = command.get("ended") or sample.clock
        yield RecordingEntry(COMMANDS_TOPIC, COMMAND, _encode(command), made - (sample.clock - ended), sample.number)


def event(name: str, now: int, text: str = "", **details: Any) -> RecordingEntry:
    """Return the message of an event at `now`, in ns of the wall clock."""
    return RecordingEntry(EVENTS_TOPIC, EVENT, _encode({"event": name, "text": text, "details": details}), now)


def value_of(schema: str, data: bytes) -> Any:
    """Return the value that was published, as it was. Raises msgspec.DecodeError, ValueError, KeyError."""
    told = msgspec.json.decode(data)
    if schema == IMAGE:
        return base64.b64decode(told["data"])
    if told.get("encoding") == "base64":
        return base64.b64decode(told["value"])
    if "dtype" in told:
        return _array(told["value"], told["dtype"])
    return told["value"]


def _array(value: Any, dtype: str) -> Any:
    """Return an array of numpy; where numpy is missing the lists of its elements."""
    try:
        import numpy
    except ImportError:
        return value
    return numpy.array(value, dtype)


def schema_data(name: str) -> bytes:
    """Return a schema as it stands in a file."""
    return _encode(SCHEMAS[name])
