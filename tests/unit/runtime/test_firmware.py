from __future__ import annotations

from pathlib import Path

import pytest

import taskengine
from taskengine.runtime import firmware


def nothing(*_: str) -> None:
    """There is no such file, and no such program."""


@pytest.mark.parametrize(
    ("text", "said", "bits"),
    [
        ("50005\n", None, 0x50005),
        ("0x1\n", None, 1),
        ("0\n", "throttled=0x5\n", 0),
        (None, "throttled=0x50000\n", 0x50000),
        ("", "throttled=0x2", 2),
        (None, "VCHI initialization failed\n", None),
        ("strange\n", None, None),
        (None, None, None),
    ],
)
def test_the_firmwares_bits(text: str | None, said: str | None, bits: int | None) -> None:
    asked: list[tuple[str, ...]] = []

    def run(*command: str) -> str | None:
        asked.append(command)
        return said

    assert firmware.throttled(lambda path: text if path == firmware.THROTTLED else None, run) == bits
    assert asked == ([] if text else [("vcgencmd", "get_throttled")])


@pytest.mark.parametrize(("text", "is_weak"), [("50005", True), ("50000", False), ("2", False)])
def test_whether_the_supply_is_weak_now(
    text: str, is_weak: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bits").write_text(text)
    monkeypatch.setattr(firmware, "THROTTLED", str(tmp_path / "bits"))
    assert taskengine.undervoltage() is is_weak


def test_what_is_no_pi_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firmware, "THROTTLED", str(tmp_path / "nowhere"))
    monkeypatch.setattr(firmware, "output_of", nothing)
    assert taskengine.undervoltage() is None
