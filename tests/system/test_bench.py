"""The benchmark and the demonstration, as `make bench` and `make demo` start them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.report import BARE, OURS, Results
from tests.engine import deadline

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=deadline(100.0)
    )


def test_the_demonstration_plays_the_seeds_sample() -> None:
    done = run("bench.demo")
    assert done.returncode == 0, done.stderr
    assert "[CLIENT] recv: [" in done.stdout
    assert "Chunking: 63/10: " in done.stdout
    assert done.stdout.count("] Received task: ") == 8
    assert "8 chunks, 63 correct answers in order" in done.stdout
    assert "4000 correct answers in order" in done.stdout
    assert "Sucessfully terminated process" in done.stdout


def test_a_quick_run_reports_every_scenario_and_the_headline(tmp_path: Path) -> None:
    done = run("bench", "--quick", "--no-micro", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    headline = r"IO = \d+ @ 30ms response-time & 50 chunk-size, on .+ \(.+ held at that response time\)"
    assert re.fullmatch(headline, done.stdout.splitlines()[-1])
    results = msgspec.json.decode((tmp_path / "bench.json").read_bytes(), type=Results)
    rows = {row.system: row for row in results.rows}
    assert rows[BARE].times_loop == 1.0
    assert rows[OURS].w1 is not None
    assert rows[OURS].w2 is not None
    assert rows[OURS].w3 is not None
