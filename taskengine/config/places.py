"""Places in settings: paths with a home folder in them, and hosts that are this machine. Pure."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from taskengine.errors import SettingsError


def expanded(name: str, path: str) -> Path:
    """Return the path of a setting, with ~ as the home folder. Raises SettingsError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SettingsError(f"{name}: {path} begins with ~, and there is no such home; expected a whole path") from None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach what is served on a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
