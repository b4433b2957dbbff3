"""The benchmark and the demonstration, as `make bench` and `make demo` start them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench import __main__, page
from bench import run as headlines
from bench.full import MEASURES, Matrix
from bench.headline import MS
from bench.picture import Panel
from bench.pools import LOOP
from bench.report import ECHO, FLUSH_5, OURS, Results, Row
from bench.scenarios import QUICK, Plan
from bench.submits import EXECUTOR
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


HEADLINE = r"IO = \d+ @ 30ms response-time & 50 chunk-size, on .+ \(.+ held at that response time\)"


def check_rows(found: list[Row]) -> None:
    rows = {row.system: row for row in found}
    assert rows[LOOP].w1 is not None
    assert rows[OURS].loop is not None
    assert rows[OURS].raw is not None
    assert rows[OURS].raw_p99 is not None
    assert rows[ECHO].loop is not None
    assert rows[FLUSH_5].pool is not None
    assert rows[EXECUTOR].caller is not None


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a quick look at everything, with its page, benchmarks.md, of which a part was written by hand."""
    folder = tmp_path_factory.mktemp("looked")
    file = folder / "benchmarks.md"
    file.write_text(page.compose({"decisions": "Measured, and decided."}, ""))
    done = run("bench", "--quick", "--full", "--no-micro", "--out", str(folder), "--page", str(file))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.long
def test_a_quick_look_measures_every_scenario(looked: Path) -> None:
    check_rows(msgspec.json.decode((looked / "full.json").read_bytes(), type=Matrix).headline.rows)


@pytest.mark.long
def test_a_quick_look_at_the_matrix_writes_the_page_and_keeps_what_is_written_by_hand(looked: Path) -> None:
    text = (looked / "benchmarks.md").read_text()
    assert page.part(text, "decisions") == "Measured, and decided."
    assert text.count("\n### ") >= 2 + len(MEASURES)
    for picture in re.findall(r"\]\((benchmarks/[^)]+)\)", text):
        assert (looked / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_a_run_reports_every_scenario_and_the_headline(
    looked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The look measured what a run measures too; it is not measured again here."""
    results = msgspec.json.decode((looked / "full.json").read_bytes(), type=Matrix).headline
    panels = [Panel(title, MS, {OURS: [[0.001, 0.002]], LOOP: [[0.001, 0.002]]}) for title in ("W1", "W2", "W3")]
    plans: list[Plan] = []

    def measured(plan: Plan) -> tuple[Results, list[Panel]]:
        plans.append(plan)
        return results, panels

    monkeypatch.setattr(headlines, "measure", measured)
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--no-micro", "--out", str(tmp_path)])
    assert __main__.main() == 0
    assert plans == [QUICK]
    assert re.fullmatch(HEADLINE, capsys.readouterr().out.splitlines()[-1])
    check_rows(msgspec.json.decode((tmp_path / "bench.json").read_bytes(), type=Results).rows)
    assert (tmp_path / headlines.PICTURE_FILE).read_bytes().startswith(b"\x89PNG")


def test_without_any_peer_the_run_says_which_are_missing(tmp_path: Path) -> None:
    done = run("bench", "--quick", "--peers", str(tmp_path / "python"), "--out", str(tmp_path))
    assert done.returncode == 1
    assert "celery was not measured: there is no " in done.stderr
    assert "`make bench-peers` installs them" in done.stderr
