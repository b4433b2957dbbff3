"""A line is cut and mended, and nothing moves without a live word: see `trial.py` for what is played."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import msgspec
import pytest

from tests.engine import deadline
from tests.network import judge
from tests.network.driver import WIRES
from tests.network.judge import Round
from tests.network.lines import MAKES, transit
from tests.network.trial import FATES, LIVES, OUTAGES

TRIAL_S = 110.0
"""How long all trials together may take: pytest tells of what takes two minutes."""
WHENS = ("kept", "restarted")
Trials = dict[tuple[str, str], list[Round]]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """All trials, played beside each other: they mostly wait."""
    folder = tmp_path_factory.mktemp("trials")
    running: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
    end = time.monotonic() + deadline(TRIAL_S)
    with ExitStack() as stack:
        for make, when in product(MAKES, WHENS):
            file = folder / f"{make}-{when}"
            command = [sys.executable, "-m", "tests.network.trial", make, when, str(file)]
            with file.with_suffix(".output").open("wb") as output:
                running[make, when] = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            stack.enter_context(running[make, when])
            stack.callback(running[make, when].terminate)
        for trial in running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):  # which its missing rounds tell
                trial.wait(max(0.0, end - time.monotonic()))
    return {which: _rounds(folder, *which) for which in running}


def _rounds(folder: Path, make: str, when: str) -> list[Round]:
    """Return the observations of a trial; nothing where it failed, which its output tells."""
    file = folder / f"{make}-{when}"
    if not file.is_file():
        print((folder / f"{make}-{when}.output").read_text())
        return []
    return msgspec.json.decode(file.read_bytes(), type=list[Round])


def _round(trials: Trials, make: str, when: str, outage: float) -> Round:
    found = [one for one in trials[make, when] if one.outage == outage]
    assert found, "the trial failed, see what was printed"
    return found[0]


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("make", MAKES)
def test_nothing_moves_without_a_live_word(
    trials: Trials, make: str, when: str, wire: str, fate: str, outage: float
) -> None:
    round = _round(trials, make, when, outage)
    wheel = round.of(wire, fate)
    slack = deadline(judge.GRACE_S) + transit(make)
    late = [
        f"{start - round.mended:+.3f} to {end - round.mended:+.3f} s"
        for start, end in judge.unheard(round, wheel, slack=slack)
    ]
    last = max((call for call in wheel.calls), default=0.0) - round.mended
    assert not late, f"moved from {', '.join(late)} after the line was mended; last called at {last:+.3f} s"


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire != "seed"])
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("make", MAKES)
def test_a_driver_that_lives_drives_before_and_after(
    trials: Trials, make: str, when: str, wire: str, outage: float
) -> None:
    """Otherwise the other test would show nothing."""
    round = _round(trials, make, when, outage)
    assert all(judge.drives_before(round, round.of(wire, fate)) for fate in FATES)
    assert judge.drives_after(round, round.of(wire, LIVES))


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("make", MAKES)
def test_wire_0_1_from_another_machine_moves_nothing_and_is_told_why(
    trials: Trials, make: str, when: str, fate: str, outage: float
) -> None:
    """Its commands do not say when they were sent."""
    wheel = _round(trials, make, when, outage).of("seed", fate)
    assert not wheel.turns
    assert "takes commands from other machines only if they say how old they are" in wheel.said
