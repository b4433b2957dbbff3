from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec
import pytest

from bench import budget, counters, pi_budget
from bench.budget import (
    BUDGET,
    CLIENT,
    HELD,
    LOOP,
    MARKS,
    PACKAGE,
    PUBLIC,
    ROLES,
    ROUTER,
    SEQUENCE,
    SOCKETS,
    TOLERANCE,
    TOTAL,
    WORKERS,
    BadCounts,
    Row,
)
from bench.counters import NoCounter, NotCounted
from bench.roles import play_all
from bench.trips import Roles, SteppedRouter, Trip, WrongTrip, check, in_pi_time, unhurried
from taskengine import _fastpath
from taskengine.protocol.layouts import BATCH

BUILD = "pdp11 3.11"
FOUND = {LOOP: 4e6, CLIENT: 2e6, ROUTER: 1e6, WORKERS: 5e6, SEQUENCE: 8e6, PUBLIC: 2.5e6}
STORED = {CLIENT: 0.5, ROUTER: 0.25, WORKERS: 1.25, SEQUENCE: 2.0}


def rows(**changes: float) -> list[Row]:
    """Figures as `FOUND`, with one role's package changed by its upper-case name."""
    names = {"CLIENT": CLIENT, "ROUTER": ROUTER, "WORKERS": WORKERS, "SEQUENCE": SEQUENCE, "PUBLIC": PUBLIC}
    return budget.rows(FOUND | {names[name]: count for name, count in changes.items()})


def test_the_first_part_is_taken_from_the_second() -> None:
    before, first, second = 10**9, 70 + 4 * 500, 70 + 8 * 500
    assert budget.per_package([before, first, second] * len(ROLES), 4) == dict.fromkeys(ROLES, 500.0)


@pytest.mark.parametrize("counts", [[], [1] * (MARKS * len(ROLES) - 1), [1, 5, 9] * (len(ROLES) + 1)])
def test_other_marks_than_the_roles_made_are_no_counts(counts: list[int]) -> None:
    with pytest.raises(BadCounts, match="marks"):
        budget.per_package(counts, 4)


def test_a_part_that_does_not_grow_with_its_packages_is_no_count() -> None:
    with pytest.raises(BadCounts, match=f"no more instructions: {CLIENT}$"):
        budget.per_package([1, 5, 9, 1, 9, 9, *[1, 5, 9] * (len(ROLES) - 2)], 4)


def test_a_row_holds_a_package_against_a_task_the_loop_and_the_budget() -> None:
    found = {row.role: row for row in rows()}
    assert list(found) == [LOOP, CLIENT, ROUTER, WORKERS, SEQUENCE, SOCKETS, TOTAL]
    assert found[LOOP].times_loop == 1.0
    assert found[SOCKETS].package == 0.5e6
    assert found[TOTAL] == Row(
        role=TOTAL, package=8.5e6, task=8.5e6 / PACKAGE, times_loop=8.5 / 4, share=8.5e6 / BUDGET
    )


def test_what_is_stored_passes() -> None:
    assert budget.ratios(rows()) == STORED
    assert budget.judge(rows(), STORED, BUILD) == ([], [])


@pytest.mark.parametrize("role", HELD)
def test_a_role_that_costs_more_than_the_tolerance_allows_fails(role: str) -> None:
    # the stored ratio falls instead of the count growing, so that the roles still add up
    below = STORED | {role: STORED[role] / (1 + TOLERANCE + 0.001)}
    problems, _ = budget.judge(rows(), below, BUILD)
    assert [problem.partition(":")[0] for problem in problems] == [role]
    within = STORED | {role: STORED[role] / (1 + TOLERANCE - 0.001)}
    assert budget.judge(rows(), within, BUILD) == ([], [])


def test_a_role_that_costs_less_is_told() -> None:
    problems, notes = budget.judge(rows(), STORED | {ROUTER: 0.3}, BUILD)
    assert problems == []
    assert notes[0].startswith(f"{ROUTER}: 0.2500 times the bare loop, -16.7% from the stored 0.3000")


def test_more_than_the_pi_has_fails_without_stored_ratios() -> None:
    heavy = budget.rows({role: 3 * count for role, count in FOUND.items()})
    problems, notes = budget.judge(heavy, None, BUILD)
    assert problems == ["25.5 million instructions are more than the Pi's 21.0 million instructions"]
    assert BUILD in notes[0]


def test_roles_that_do_not_add_up_fail() -> None:
    problems, _ = budget.judge(rows(WORKERS=5.3e6), None, BUILD)
    assert len(problems) == 1
    assert "+3.8%" in problems[0]


def test_a_role_without_a_stored_ratio_fails() -> None:
    problems, _ = budget.judge(rows(), {CLIENT: 0.5, WORKERS: 1.25, SEQUENCE: 2.0}, BUILD)
    assert problems == [f"{ROUTER}: no ratio is stored for {BUILD}; --store keeps this one"]


def test_the_stored_ratios_are_of_the_roles_that_are_held() -> None:
    stored = pi_budget.read_stored()
    assert "x86_64 3.11" in stored
    assert all(ratios.keys() == set(HELD) for ratios in stored.values())


CALLGRIND = """\
# callgrind format
version: 1
part: 2

desc: Trigger: --dump-before=getppid

events: Ir
summary: 21273371

fn=(3636) totals: 7
0 1
calls=1 1368

totals: 21273371
"""


def test_the_total_of_a_part_is_read() -> None:
    assert counters.total(CALLGRIND) == 21273371


@pytest.mark.parametrize("text", ["", CALLGRIND.replace("\ntotals: 21273371", ""), CALLGRIND.replace("71\n", "71 5\n")])
def test_a_file_without_one_total_is_refused(text: str) -> None:
    with pytest.raises(NotCounted):
        counters.total(text)


def fake(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH but for the shell's own programs."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_parts_are_read_in_the_order_of_their_numbers(programs: Path, tmp_path: Path) -> None:
    write = 'out=${3#--callgrind-out-file=}\nfor i in 1 2 9 10 11; do echo "totals: $((i * 7))" >"$out.$i"; done\n'
    fake(programs, "valgrind", write + 'echo "totals: 1" >"$out"\n')
    assert counters.callgrind(["-c", ""], tmp_path) == [7, 14, 63, 70, 77]


def test_what_failed_is_told(programs: Path, tmp_path: Path) -> None:
    fake(programs, "valgrind", "echo it broke >&2; exit 3\n")
    with pytest.raises(NotCounted, match="valgrind ended with 3:\nit broke"):
        counters.callgrind(["-c", ""], tmp_path)


def test_what_would_change_a_count_is_kept_out(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONMALLOC", "debug")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("TASKENGINE_CHUNKING_SIZE", "1")
    fake(programs, "valgrind", 'echo "$PYTHONHASHSEED $PYTHONMALLOC $TASKENGINE_CHUNKING_SIZE." >&2; exit 1\n')
    with pytest.raises(NotCounted, match=r":\n0  \.\n"):
        counters.callgrind(["-c", ""], tmp_path)


@pytest.mark.usefixtures("programs")
def test_what_is_missing_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(NoCounter, match="valgrind missing: apt install valgrind"):
        counters.callgrind(["-c", ""], tmp_path)
    with pytest.raises(NoCounter, match=r"apt install qemu-user gcc$"):
        counters.qemu(["-c", ""], tmp_path, tmp_path)


def test_a_root_without_python_is_none(tmp_path: Path) -> None:
    with pytest.raises(NoCounter, match=r"tests\.arm"):
        counters.arm64_python(tmp_path)


def test_every_role_makes_its_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    marks: list[None] = []
    monkeypatch.setattr(os, "getppid", lambda: marks.append(None))
    play_all(1)
    assert len(marks) == MARKS * len(ROLES)


def test_a_trip_has_batches_of_the_size_that_the_pi_would_get() -> None:
    with Roles() as roles:
        first, second = roles.record(), roles.record()
    assert len(first.batches) > len(second.batches)  # at first a task's cost is unknown
    assert {name for name, _ in second.batches} == {b"TASK-0", b"TASK-1"}
    tasks = [sum(stop - start for _, start, stop, *_ in _fastpath.read_answer(answer)) for answer in second.answers]
    assert sum(tasks) == PACKAGE
    assert max(tasks) == 700  # in 1 ms, at 1.5 µs, rounded up to chunks of 50


def test_a_role_that_makes_something_else_is_found() -> None:
    with Roles() as recorder, Roles() as roles:
        trips = [recorder.record(), recorder.record()]
        for part in (roles.client, roles.router, roles.workers):
            check(part(trips[0]), trips[0])
        with pytest.raises(WrongTrip, match="the batches of a package"):
            check(roles.router(trips[1]), trips[0])
    with pytest.raises(WrongTrip, match="results"):
        check(Trip(results=[2.5]), trips[0])


def test_a_router_that_does_not_answer_is_found() -> None:
    with Roles() as roles:
        trip = roles.record()
    router = SteppedRouter([])
    router.take_request(trip.request)
    with pytest.raises(WrongTrip, match="0 replies"):
        router.reply()
    router.close()


def test_what_a_clock_decides_is_fixed() -> None:
    with Roles() as roles:
        trip = roles.record()
    hurried = BATCH.pack(5, 1, 2_000_000) + trip.batches[0][1][BATCH.size :]
    assert unhurried(hurried) == trip.batches[0][1]
    assert BATCH.unpack_from(unhurried(hurried)) == (1, 1, 0)
    (entry,) = _fastpath.read_answer(in_pi_time(trip.answers[0]))
    assert entry[4] == 1500 * (entry[2] - entry[1])


def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: dict[str, float], *arguments: str) -> int:
    """The exit code of a run whose callgrind finds `found`, with `STORED` for this machine."""
    counts = [count for role in ROLES for count in (0, int(4 * found[role]), int(8 * found[role]))]
    build = f"{platform.machine()} {'.'.join(platform.python_version_tuple()[:2])}"
    (tmp_path / "stored.json").write_bytes(msgspec.json.encode({build: STORED, BUILD: STORED}))
    monkeypatch.setattr(pi_budget, "STORED", tmp_path / "stored.json")
    monkeypatch.setattr(counters, "callgrind", lambda program, folder: counts)
    monkeypatch.delenv("PI_ROOTS", raising=False)
    monkeypatch.setattr("sys.argv", ["pi_budget", "--out", str(tmp_path), *arguments])
    return pi_budget.main()


def test_a_run_within_the_budget_reports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert counted(monkeypatch, tmp_path, FOUND) == 0
    out = capsys.readouterr().out
    assert "8.5 million instructions for 4000 tasks, 40% of the Pi's 21 million in 30 ms" in out
    report = msgspec.json.decode((tmp_path / "pi-budget.json").read_bytes())
    assert [row["role"] for row in report["counted"][0]["rows"]][-1] == TOTAL
    assert report["machine"]["cores"] > 0


def test_a_run_beyond_a_stored_ratio_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert counted(monkeypatch, tmp_path, FOUND | {ROUTER: 1.05e6}) == 1
    assert f"{ROUTER}: 0.2625 times the bare loop, +5.0% from the stored 0.2500; 4% more" in capsys.readouterr().err


def test_storing_keeps_other_builds_and_then_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert counted(monkeypatch, tmp_path, FOUND | {ROUTER: 1.05e6}, "--store") == 0
    stored = pi_budget.read_stored()
    assert stored.pop(BUILD) == STORED
    assert [ratios[ROUTER] for ratios in stored.values()] == [0.2625]
