"""The values of a topic in recordings, for a notebook: rows that numpy and pandas take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from taskengine.recording.channels import IMAGE, PUBLICATION, value_of
from taskengine.recording.reading import messages
from taskengine.recording.timeline import moment


def values(recording: str | os.PathLike[str], topic: str) -> list[tuple[float, Any]]:
    """Return the values of a topic in a file, or in all files of a folder, each with its time in s since 1970.

    Bytes, pictures and arrays are what they were. Raises RecordingError for what is no recording, OSError.
    """
    return [
        (moment(each.message) / 1e9, value_of(each.schema, each.message.data))
        for each in messages([Path(recording)])
        if each.topic == topic and each.schema in (PUBLICATION, IMAGE)
    ]
