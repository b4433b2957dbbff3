"""docs/rules.md says what is true: its settings load, and its tables name what the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from taskengine.config.loading import load
from taskengine_hardware import read
from taskengine_hardware.conditions import CAUSES
from taskengine_hardware.rule_config import OF_INPUTS
from taskengine_hardware.rules import LATCH_S, RuleAction
from tests.hardware.test_docs import anchors, first_column
from tests.system.test_docs import ROOT, blocks

PAGE = "docs/rules.md"
TEXT = (ROOT / PAGE).read_text()


@pytest.mark.parametrize("number", range(len(blocks(PAGE, "toml"))))
def test_the_settings_load(number: int, tmp_path: Path) -> None:
    file = tmp_path / "taskengine.toml"
    file.write_text(blocks(PAGE, "toml")[number])
    assert len(read(load(file, {}, {}).hardware).rules) > 1


def test_every_key_is_told() -> None:
    bounds = {"range", "max_age", "max_rate", "stuck_after", "required"}
    assert set(first_column("## Inputs that are wrong", TEXT)) == bounds
    assert bounds | {"stops", "normally", "blocks"} == {*OF_INPUTS, "max_age"}
    assert first_column("## Rules of your own", TEXT) == ["when", "then", "devices", "text"]
    assert f"has lasted {LATCH_S:g} s" in TEXT


def test_every_action_and_every_cause_is_told() -> None:
    actions = re.findall(r'^\| `(?:"|\{ )(\w+)', TEXT, re.MULTILINE)
    assert actions == [action.value for action in RuleAction]
    for cause in CAUSES:
        assert f'`"{cause}"`' in TEXT


def test_links_lead_somewhere() -> None:
    for target, anchor in re.findall(r"\]\(([^):#]*)#?([^):]*)\)", TEXT):
        there = (ROOT / PAGE).parent / target if target else ROOT / PAGE
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), anchor
