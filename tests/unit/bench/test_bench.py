from __future__ import annotations

import functools
import io
import math
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from bench import report
from bench.compiled import ECHO, NotCompiled, check_compiled
from bench.demo import beginning
from bench.early import LONG_S, NAPS, Early, timed_beside, timed_naps
from bench.figures import beyond_p99, largest_within, percentile, ratio, summary, together, two_digits
from bench.headline import Headline
from bench.machine import this_machine
from bench.offer import Offer, offered_packages
from bench.pools import EXECUTOR, LOOP
from bench.quiet import Quiet
from bench.report import OURS, STDOUT, Results
from bench.rest import Rest
from bench.scenarios import QUICK, in_turns, package_p99
from bench.span import RESULT, Block, Job, WrongResult, in_a_row, timed_call, timed_package
from bench.streaming import GENERATOR, PIPE, VALUES, compare
from bench.submits import Spans, Submitted
from bench.submits import w4 as submitted
from bench.system import PACKAGE, Done

ROOT = Path(__file__).resolve().parents[3]


class Instant:
    """A system that answers at once; every `wrong_every`th task with a wrong result."""

    def __init__(self, name: str = "instant", wrong_every: int = 0) -> None:
        self.name = name
        self.packages = 0
        self._wrong_every = wrong_every
        self._tasks = 0

    def package(self, tasks: int) -> Job:
        return Job(lambda: self.run(tasks))

    def run(self, tasks: int) -> list[Any]:
        self.packages += 1
        return [self.one() for _ in range(tasks)]

    def one(self) -> Any:
        self._tasks += 1
        return "wrong" if self._wrong_every and self._tasks % self._wrong_every == 0 else RESULT

    def offer(self, done: Done) -> None:
        done(self.one())

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("samples", "percent", "expected"),
    [
        ([7.0], 50, 7.0),
        ([7.0], 0, 7.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([4.0, 3.0, 2.0, 1.0], 50, 2.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 101)], 100, 100.0),
        ([float(n) for n in range(1, 10)], 99, 9.0),
    ],
)
def test_a_percentile_is_the_sample_of_that_rank(samples: list[float], percent: float, expected: float) -> None:
    assert percentile(samples, percent) == expected


def test_no_samples_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


@pytest.mark.parametrize("count", [1, 10, 99, 100, 101, 250, 1000])
def test_as_many_samples_may_be_slow_as_the_p99_allows(count: int) -> None:
    slow = beyond_p99(count)
    assert percentile([0.0] * (count - slow) + [1.0] * slow, 99) == 0.0
    assert percentile([0.0] * (count - slow - 1) + [1.0] * (slow + 1), 99) == 1.0


def test_a_summary_runs_from_the_least_to_the_largest() -> None:
    made = summary([float(n) for n in range(1000, 0, -1)])
    assert (made.samples, made.p50, made.p99, made.max) == (1000, 500.0, 990.0, 1000.0)
    assert made.quantiles[0] == 1.0
    assert made.quantiles[-1] == 1000.0
    assert made.quantiles == sorted(made.quantiles)


@pytest.mark.parametrize(("number", "expected"), [(0, 1), (9.9, 9), (10, 10), (99, 99), (109, 100), (98765, 98000)])
def test_two_digits(number: float, expected: int) -> None:
    assert two_digits(number) == expected


def straight(capacity: int, asked: list[int]) -> Callable[[int], float]:
    """A probe that passes a limit of 1 up to `capacity`, and notes what it was asked."""

    def probe(size: int) -> float:
        asked.append(size)
        return size / capacity

    return probe


@pytest.mark.parametrize("capacity", [1, 2, 3, 37, 3999, 4000, 4001, 7999, 8000, 96_500, 999_999])
def test_the_search_ends_close_below_the_most(capacity: int) -> None:
    asked: list[int] = []
    found = largest_within(straight(capacity, asked), 1.0, 4000, 1_000_000)
    assert found <= capacity < found * 1.2 + 1
    assert found in asked
    assert len(asked) == len(set(asked)) < 30


def test_the_search_tries_nothing_beyond_a_failure() -> None:
    asked: list[int] = []
    largest_within(straight(20_000, asked), 1.0, 4000, 1_000_000)
    failed = math.inf
    for size in asked:
        assert size < failed
        if size > 20_000:
            failed = size


def test_the_search_stops_at_the_most() -> None:
    asked: list[int] = []
    assert largest_within(straight(10**9, asked), 1.0, 4000, 50_000) == 50_000
    assert max(asked) == 50_000


def test_where_not_even_one_passes_the_search_gives_none() -> None:
    assert largest_within(lambda size: math.inf, 1.0, 4000, 1_000_000) == 0


def test_a_wrong_or_missing_result_is_no_figure() -> None:
    for measure in (
        lambda system: timed_package(system.name, system.package(10), [RESULT] * 10),
        lambda system: timed_call(system.name, system.one),
        lambda system: Offer(system, 1e6, 1e-5).run(),
        lambda system: offered_packages(system, 10, 1e4, 1e-3),
    ):
        measure(Instant())
        with pytest.raises(WrongResult, match="liar"):
            measure(Instant("liar", wrong_every=1))


def test_a_lost_result_is_no_figure() -> None:
    with pytest.raises(WrongResult, match="9 of 10 results are right"):
        timed_package("loser", Instant().package(9), [RESULT] * 10)


def test_a_block_warms_up_and_counts_the_rest() -> None:
    numbers = iter(range(100))
    assert in_a_row(lambda: float(next(numbers)), Block(3, 4)) == [3.0, 4.0, 5.0, 6.0]


def test_a_slow_block_ends_early_with_one_sample_at_least() -> None:
    numbers = iter(range(100))
    assert in_a_row(lambda: float(next(numbers)), Block(3, 4, 0.0)) == [0.0]


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.quiet.busy_elsewhere", lambda seconds: 1.0)
    quiet = Quiet(0.01)
    quiet.wait()
    waited = quiet.waited
    quiet.wait()
    assert quiet.waited == waited >= 0.01


def test_where_it_is_quiet_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.quiet.busy_elsewhere", lambda seconds: 0.0)
    quiet = Quiet(1e9)
    quiet.wait()
    assert quiet.waited == 0.0


def test_ratios_are_of_the_rounds() -> None:
    # the machine was ten times slower in the second round, for both
    found = ratio([[2.0, 3.0, 4.0], [30.0], [9.0]], [[1.0, 1.5, 2.0], [10.0], [1.0]])
    assert (found.low, found.paired, found.high) == (2.0, 3.0, 9.0)
    assert found.of_all == 4.0 / 1.5
    assert ratio([[1.0, 8.0]], [[1.0, 2.0]], 99).paired == 4.0


def test_ratios_need_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([[1.0], [1.0]], [[1.0]])


def test_every_offered_package_is_counted_once() -> None:
    latencies = offered_packages(Instant(), 10, 1000, 0.02)
    assert len(latencies) == 20
    assert min(latencies) >= 0


def test_every_offered_task_is_counted_once() -> None:
    offer = Offer(Instant(), rate=1e5, seconds=0.01)
    assert offer.run()
    assert len(offer.latencies) == 1000
    assert min(offer.latencies) >= 0


def test_systems_take_turns_and_each_has_a_block_a_round() -> None:
    order: list[str] = []

    def measure(name: str) -> list[float]:
        order.append(name)
        return [float(len(order))] * 3

    samples = in_turns({name: partial(measure, name) for name in "abc"}, 4, Quiet(0.0))
    assert {name: len(together(blocks)) for name, blocks in samples.items()} == {"a": 12, "b": 12, "c": 12}
    assert all(sorted(order[start : start + 3]) == ["a", "b", "c"] for start in range(0, 12, 3))
    assert sorted(block[0] for blocks in samples.values() for block in blocks) == list(range(1, 13))


def test_a_package_that_is_sure_to_be_too_slow_is_given_up() -> None:
    system = Instant()
    assert package_p99(system, 10, limit=0.0, repetitions=100) == math.inf
    assert system.packages == 1 + beyond_p99(100) + 1
    assert package_p99(Instant(), 10, limit=math.inf, repetitions=20) < math.inf


def values_of(number: int = VALUES) -> Callable[[], list[int]]:
    """A system that streams so many values at once."""
    return lambda: list(range(number))


@functools.cache
def results() -> Results:
    w4 = Spans({OURS: [[0.02]], EXECUTOR: [[0.4]]}, {OURS: [[3e-6]]})
    w1 = {LOOP: [[0.001, 0.002, 0.003]], OURS: [[0.01, 0.02, 0.03]], STDOUT: [[0.02]]}
    return Results(
        machine=msgspec.structs.replace(this_machine(), name="a Pi"),
        settings={"response_time": 0.03},
        when="today",
        busy_before=0.02,
        busy_after=0.5,
        waited=3.0,
        rows=report.rows(w1, {OURS: [[0.001]]}, {"other": [[0.5]]}, w4),
        early=[Early(load="naps", system=OURS, first=summary([0.005]), whole=summary([0.9]), ideal=0.8)],
        streams=compare({GENERATOR: values_of(), PIPE: values_of()}, QUICK, Quiet(0.0)),
        rest=Rest(processes=[("te-router", 2**20)], core=0.001),
        headline=Headline(package=4000, rate=5000, response_time=0.03, chunking_size=50),
        seconds=1.0,
    )


def test_a_row_is_compared_with_what_was_measured_beside_it() -> None:
    loop, ours, stdout, other, pool = results().rows
    assert [row.system for row in (loop, ours, stdout, other, pool)] == [LOOP, OURS, STDOUT, "other", EXECUTOR]
    assert ours.loop is not None
    assert (ours.loop.paired, ours.raw) == (10.0, None)
    assert stdout.ours is not None
    assert stdout.ours.paired == 1.0
    assert other.loop is None
    assert other.w3 is not None
    assert ours.pool is not None
    assert ours.pool.paired == pytest.approx(0.05)
    assert ours.caller is not None
    assert ours.caller.p50 == 3e-6


def test_each_submit_has_its_future_and_its_share_of_the_callers_time() -> None:
    held: list[Future[float]] = []

    def submit() -> Future[float]:
        held.append(Future())
        held[-1].set_result(RESULT)
        return held[-1]

    system = Submitted("ours", submit)
    spans = submitted([system], QUICK, Quiet(0.0))
    assert len(held) == PACKAGE
    assert (len(spans.results["ours"]), len(spans.caller["ours"])) == (1, 1)
    assert 0 < spans.caller["ours"][0][0] * PACKAGE < spans.results["ours"][0][0]


def test_the_first_result_counts_and_the_last() -> None:
    due: list[tuple[float, Future[None]]] = []

    def submit(seconds: float) -> Future[None]:
        due.append((seconds, Future()))
        threading.Timer(seconds / 10, due[-1][1].set_result, (None,)).start()
        return due[-1][1]

    first, whole = timed_naps(submit)
    assert [seconds for seconds, _ in due] == NAPS
    assert 0 <= first < whole
    assert whole > NAPS[-1] / 10


def test_a_call_beside_a_long_one_is_timed_by_itself() -> None:
    ended: list[float] = []

    def submit(seconds: float) -> Future[None]:
        future: Future[None] = Future()
        future.set_result(None)
        ended.append(seconds)
        return future

    assert timed_beside(submit) >= 0
    assert ended == [LONG_S, 0.0]


def test_a_value_of_a_stream_that_is_missing_is_no_figure() -> None:
    with pytest.raises(WrongResult):
        compare({GENERATOR: values_of(VALUES - 1)}, QUICK, Quiet(0.0))


def test_streams_are_compared_value_by_value() -> None:
    generator, pipe = results().streams
    assert (generator.system, pipe.system) == (GENERATOR, PIPE)
    assert pipe.pipe.paired == 1.0
    assert pipe.generator.paired == pytest.approx(pipe.value.p50 / generator.value.p50)


def test_the_report_ends_with_the_headline() -> None:
    text = io.StringIO()
    report.print_report(results(), Console(file=text, width=report.WIDTH))
    expected = "IO = 4000 @ 30ms response-time & 50 chunk-size, on a Pi (5000 tasks/s held at that response time)"
    assert text.getvalue().splitlines()[-1] == expected


def test_the_json_holds_what_was_reported(tmp_path: Path) -> None:
    report.write_json(results(), tmp_path / "bench.json")
    assert msgspec.json.decode((tmp_path / "bench.json").read_bytes(), type=Results) == results()


def test_what_is_compiled_is_accepted() -> None:
    assert check_compiled().__name__ == "taskengine._fastpath"
    assert check_compiled(ECHO).__name__ == ECHO


def test_a_fast_path_in_python_is_refused() -> None:
    with pytest.raises(NotCompiled, match="no compiled extension"):
        check_compiled("bench.figures")


@pytest.mark.parametrize("name", ["taskengine._unbuilt", "unbuilt_package._fastpath"])
def test_a_missing_fast_path_is_refused(name: str) -> None:
    with pytest.raises(NotCompiled, match="is missing"):
        check_compiled(name)


def test_nothing_is_reported_without_the_compiled_fast_path(tmp_path: Path) -> None:
    package = tmp_path / "taskengine"
    package.mkdir()
    package.joinpath("__init__.py").write_text("from taskengine import _fastpath\n")
    package.joinpath("_fastpath.py").write_text("")
    (tmp_path / "bench").symlink_to(ROOT / "bench")
    run = subprocess.run(
        [sys.executable, "-m", "bench", "--out", str(tmp_path / "out")], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "no compiled extension" in run.stderr
    assert run.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("first", ["[ROUTER] Chunking: 1/10: 1", "[WORKER] Received task: x"])
def test_the_demonstration_leaves_out_its_question_whoever_tells_of_it_first(first: str) -> None:
    assert list(beginning(f"Starting\nListener online\n{first}\nmore\n")) == ["Starting", "Listener online"]
