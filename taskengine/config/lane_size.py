"""The size of a lane in the setting LANES: a number of workers, or a table that also has their concurrency."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from taskengine.errors import SettingsError
from taskengine.protocol.limits import MAX_LANE

Count = Annotated[int, Meta(ge=1, le=MAX_LANE)]


class LaneSize(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many workers a lane has, and how many tasks each of them runs at once."""

    workers: Count = 1
    concurrency: Count = 1


def parse(text: str) -> dict[str, object]:
    """Parse the form of the environment and of flags, such as "arm=1,io=1x100".

    Raises ValueError where it is none, or names a lane twice.
    """
    sizes: dict[str, object] = {}
    for entry in text.split(",") if text else ():
        found = re.fullmatch(r"\s*([^=\s]+)\s*=\s*([0-9]{1,9})(?:x([0-9]{1,9}))?\s*", entry)
        if found is None or found[1] in sizes:
            raise ValueError(entry)
        workers = int(found[2])
        sizes[found[1]] = {"workers": workers, "concurrency": int(found[3])} if found[3] else workers
    return sizes


def check(place: str, lanes: Mapping[str, object]) -> None:
    """Raise SettingsError that names the lane, and the key in its table, whose value is wrong, if one is."""
    for lane, size in lanes.items():
        is_table = isinstance(size, dict)
        for key, number in size.items() if isinstance(size, dict) else [("", size)]:
            if is_table and key not in LaneSize.__struct_fields__:
                raise SettingsError(f"lanes.{lane} in {place}: expected workers and concurrency, not {key!r}")
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_LANE:
                where, what = f"lanes.{lane}", "a number of workers, or a table of workers and concurrency,"
                if is_table:
                    where, what = f"{where}.{key}", "a whole number,"
                raise SettingsError(f"{where} in {place}: expected {what} from 1 to {MAX_LANE}, not {number!r}")
