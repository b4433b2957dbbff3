"""Applies what a reload may change in the settings: the policy. Everything else takes a restart. Pure."""

from __future__ import annotations

from taskengine.config.settings import Settings
from taskengine.errors import SettingsError


def renew_policy(settings: Settings, read: Settings) -> None:
    """Replace the policy in `settings`, with which every process is started, by the one in `read`.

    Raises SettingsError if there was no policy before, or is none now: that would change more than rights.
    """
    if settings.policy is None and read.policy is None:
        return
    if settings.policy is None or read.policy is None:
        change = "a first policy" if settings.policy is None else "to have no policy any more"
        raise SettingsError(f"policy: {change} takes a restart of the engine, which may encrypt from then on, or not")
    table = dict(read.policy)
    settings.policy.clear()
    settings.policy.update(table)
