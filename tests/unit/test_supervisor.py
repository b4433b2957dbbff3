from __future__ import annotations

import importlib.util

import pytest

from taskengine.settings import Settings
from taskengine.supervisor import StartError, _check_metrics


def test_metrics_without_what_serves_them_start_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _check_metrics(Settings(metrics_port=9100))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    _check_metrics(Settings())
    with pytest.raises(StartError, match=r"taskengine\[metrics\]"):
        _check_metrics(Settings(metrics_port=9100))
