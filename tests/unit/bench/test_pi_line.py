"""The line of a Pi's run has all that tells one run from another, and stays one line."""

from __future__ import annotations

import pytest

from bench.figures import Ratio, Summary
from bench.headline import Headline
from bench.machine import Machine
from bench.pi_line import is_pi, pi_line
from bench.report import OURS, Results, Row
from bench.rest import Rest


def took(p50: float, p99: float) -> Summary:
    return Summary(samples=9, p50=p50, p99=p99, max=p99, quantiles=[p50, p99])


def machine(name: str) -> Machine:
    return Machine(
        name=name,
        cpu="BCM2835",
        cores=4,
        memory_mb=906,
        system="Linux 6.12.47+rpt-rpi-v8",
        versions={"CPython": "3.13.5", "libzmq": "4.3.5", "taskengine-robot": "0.2.0", "Cython": "3.3.1"},
    )


def results() -> Results:
    ours = Row(
        system=OURS,
        w1=took(0.0123, 0.0201),
        w2=took(0.00087, 0.0021),
        loop=Ratio(paired=2.5, low=2.0, high=3.0, of_all=2.6),
    )
    return Results(
        machine=machine("Raspberry Pi 3 Model B Plus Rev 1.3"),
        settings={},
        when="2026-11-30 12:00 UTC",
        busy_before=0.01,
        busy_after=0.04,
        waited=0.0,
        rows=[Row(system="in-process loop", w1=took(1.0, 1.0)), ours],
        early=[],
        streams=[],
        rest=Rest(processes=[("python", 9 * 2**20), ("te-router", 8 * 2**20)], core=0.0123),
        headline=Headline(package=9000, rate=3000, response_time=0.03, chunking_size=50),
        seconds=170.0,
    )


def test_the_line_has_the_machine_the_versions_and_our_own_figures() -> None:
    assert pi_line(results(), "aarch64") == (
        "pi-line 1; Raspberry Pi 3 Model B Plus Rev 1.3; aarch64 4 cores 906 MB; Linux 6.12.47+rpt-rpi-v8; "
        "CPython 3.13.5 libzmq 4.3.5 taskengine-robot 0.2.0; W1 ms 12.3/20.1; W2 us 870/2100; W1 x loop 2.5; "
        "IO 9000 3000/s; rest 17 MB 1.23 %; others 4 %; 2026-11-30 12:00 UTC"
    )


@pytest.mark.parametrize(
    ("name", "is_one"), [("Raspberry Pi 5 Model B Rev 1.0", True), ("AMD EPYC, 2 cores, x86_64", False)]
)
def test_only_a_pi_is_asked_for_its_line(name: str, is_one: bool) -> None:
    assert is_pi(machine(name)) is is_one
