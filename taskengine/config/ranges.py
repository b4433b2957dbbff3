"""The range of a setting: its type as text, its description, and its range, as msgspec checks it. Pure."""

from __future__ import annotations

from msgspec import Meta


def described(kind: str, text: str, within: tuple[float, float] | None = None) -> Meta:
    """Return a setting's type as text, its description, and the least and the most that it takes."""
    least, most = within or (None, None)
    return Meta(ge=least, le=most, description=text, extra={"type": kind})


def port(description: str, least: int = 1) -> Meta:
    """Return what a setting takes that is a port, from `least` on."""
    return described(f"a port, {least} to 65535", description, (least, 65535))
