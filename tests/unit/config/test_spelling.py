from __future__ import annotations

from taskengine.config.spelling import closest


def test_the_likeliest_comes_first_without_regard_to_case() -> None:
    known = ["TASK_WORKERS", "DATA_WORKERS", "PORT"]
    assert closest("task_worker", known) == ["TASK_WORKERS"]
    assert closest("task_workers", known, 2) == ["TASK_WORKERS", "DATA_WORKERS"]
    assert closest("elephant", known) == []


def test_spellings_that_differ_by_case_are_both_known() -> None:
    assert closest("pan", ["Pan", "PAN"], 2) == ["Pan", "PAN"]
    assert closest("pan", ["Pan", "PAN"]) == ["Pan"]
