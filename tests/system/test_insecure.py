"""An engine that serves off loopback although it is not protected says so."""

from __future__ import annotations

import pytest

from tests.engine import Engine

pytestmark = pytest.mark.system


def test_insecure_is_said_loudly() -> None:
    with Engine(host="0.0.0.0", curve="off", insecure="true", enable_stdout="false") as engine:
        line = engine.output().splitlines()[0]
    assert line.startswith("[SUPERVISOR] !!!!!! INSECURE: anybody who reaches 0.0.0.0")
