"""A reload takes over the policy from settings that were read anew, and nothing else."""

from __future__ import annotations

import pytest

from taskengine.config.changes import renew_policy
from taskengine.config.policy import Entry
from taskengine.config.settings import Settings
from taskengine.errors import SettingsError

A, B = {"a": Entry(tasks=("*",))}, {"b": Entry(devices=("*",))}


def test_the_policy_is_what_was_read_for_all_that_hold_the_settings() -> None:
    settings = Settings(policy=dict(A))
    theirs = settings.policy
    renew_policy(settings, Settings(policy=B, chunking_size=99))
    assert theirs == B
    assert settings.chunking_size == 10
    renew_policy(settings, settings)
    assert theirs == B


def test_where_there_is_none_there_is_none() -> None:
    settings = Settings()
    renew_policy(settings, Settings())
    assert settings.policy is None


@pytest.mark.parametrize(("before", "after"), [(None, A), (A, None)])
def test_whether_there_is_a_policy_is_decided_at_start(
    before: dict[str, Entry] | None, after: dict[str, Entry] | None
) -> None:
    settings = Settings(policy=before)
    with pytest.raises(SettingsError, match="takes a restart"):
        renew_policy(settings, Settings(policy=after))
    assert settings.policy == before
