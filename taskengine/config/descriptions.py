"""The settings as rows for readers: docs/settings.md and the flags' help are made from them."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from taskengine.config.settings import NAMES, Settings, meta


class Row(NamedTuple):
    """One setting for a reader: its name in upper case, the default as TOML, the type and the description as text."""

    name: str
    default: str
    type: str
    explanation: str


def _toml_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml_text(entry)}' for key, entry in value.items())}}}"
    return repr(value)


def rows() -> list[Row]:
    """Return every setting but the tables, in the order of the struct."""
    defaults = msgspec.structs.asdict(Settings())
    return [Row(name.upper(), _toml_text(defaults[name]), *meta(name)) for name in NAMES]
