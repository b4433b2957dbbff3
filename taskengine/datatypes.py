"""The frames of the legacy JSON protocol: programs of the original design need only another import line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec


class Frame:
    """A frame of JSON; `pack` ties it to its package. `keys` are what the frame holds, with their defaults."""

    keys: ClassVar[dict[str, Any]] = {}

    def __init__(self, pack: str | float) -> None:
        self.pack = pack
        self.message: dict[str, Any] = {}

    def pack_frame(self, kwargs: Mapping[str, Any]) -> None:
        """Set the frame's values. Raises TypeError for a key that the frame does not have."""
        unknown = kwargs.keys() - self.keys.keys() - {"pack"}
        if unknown:
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}; it has {', '.join(self.keys)}")
        for key, value in kwargs.items():
            setattr(self, key, value)

    def gen_message(self) -> None:
        """Gather the values in `message`."""
        self.message = {key: getattr(self, key, default) for key, default in self.keys.items()}
        self.message["pack"] = self.pack

    def serialize(self) -> bytes:
        """`message` as JSON."""
        return msgspec.json.encode(self.message)


class MetaFrame(Frame):
    """The META frame: the sender and the kind of a message. The engine fills in what is empty here."""

    keys: ClassVar[dict[str, Any]] = {
        "id": "",
        "role": "requestor",
        "version": 0.1,
        "type": "REQ",
        "length": None,
        "serial": "",
        "part": None,
        "size": None,
    }


class TaskFrame(Frame):
    """A call of a task."""

    keys: ClassVar[dict[str, Any]] = {"task": "", "args": [], "kwargs": {}}


class DataFrame(Frame):
    """Data of any kind that JSON can hold."""

    keys: ClassVar[dict[str, Any]] = {"data": None}


def prepare(frame: Frame, kwargs: Mapping[str, Any]) -> bytes:
    """Fill a frame and give its bytes. Raises TypeError for a key that the frame does not have."""
    frame.pack_frame(kwargs)
    frame.gen_message()
    return frame.serialize()
