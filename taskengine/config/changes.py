"""What a reload takes from settings that were read anew: the policy. All else takes a restart. Pure."""

from __future__ import annotations

from taskengine.config.settings import Settings
from taskengine.errors import SettingsError


def renew_policy(settings: Settings, read: Settings) -> None:
    """Have `settings`, which every process is started with, hold the policy that was `read`.

    Raises SettingsError where there was none before, or is none now: whether there is one decides more than rights.
    """
    if settings.policy is None and read.policy is None:
        return
    if settings.policy is None or read.policy is None:
        change = "a first policy" if settings.policy is None else "to have no policy any more"
        raise SettingsError(f"policy: {change} takes a restart of the engine, which may encrypt from then on, or not")
    table = dict(read.policy)
    settings.policy.clear()
    settings.policy.update(table)
